#pragma once

namespace praetor {

/// Sets what must be set before the first tensor product: one class of bits for every product (MKL_CBWR), no spinning
/// of idle threads. Called first thing by `main`, the tests' main included.
void configure_numerics();

/// Threads of tensor work in this process (LibTorch's OpenMP pool and our kernels share it); 0 means all cores.
void set_threads(int count);
int threads();

}  // namespace praetor
