#pragma once

namespace praetor {

/// Sets what must be set before the first tensor product: one class of bits for every product
/// (MKL_CBWR). Called first thing by `main`, the tests' main included. (OMP_WAIT_POLICY=passive,
/// for processes that share cores, must come from the environment: the OpenMP library reads it when
/// it is loaded.)
void configure_numerics();

/// Threads of tensor work in this process (LibTorch's OpenMP pool and our kernels share it); 0
/// means all cores.
void set_threads(int count);
int threads();

}  // namespace praetor
