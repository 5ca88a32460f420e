#pragma once

#include <string>

namespace praetor::ops {

struct KernelReport {
  bool passed = false;
  std::string isa;  ///< "avx512", "avx2" or "scalar": what this process uses
  double milliseconds = 0;
  std::string failure;  ///< the first check that failed; empty when all passed
  /// "cpu kernels: avx512, row-invariance self-check passed in 12 ms".
  std::string text() const;
};

/// Proves the promise of ops.h on this machine: rows alone, among neighbours, with 1 and 2 threads,
/// on every instruction set at hand, and decoding against prefill, are compared bit for bit. Sets
/// LibTorch's thread count and the instruction set while it runs and puts both back: call it while
/// no other thread computes.
KernelReport kernels_self_check();

}  // namespace praetor::ops
