#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PRAETOR_HD __host__ __device__
#else
#define PRAETOR_HD
#endif

/// How a kernel is written here. It is a plain struct of pointers and sizes with
///
///   static constexpr int kThreads;      threads of a block, a multiple of 32
///   Grid grid() const;                  blocks
///   int64_t memory() const;             bytes of memory that the threads of a block share
///   template <typename Block> PRAETOR_HD void operator()(Block& block, Grid at) const;
///
/// whose operator() is the work of block `at`, in phases between which the threads meet. `Block`
/// stands for the threads:
///
///   int thread(), threads()             this one's number, and how many they are
///   void sync()                         returns when all have called it
///   char* memory()                      the shared bytes, at a multiple of 16
///   T sum(T), float max(float)          over all threads' values, the same for all; all call it
///   void add(uint64_t* bins, int bin, uint64_t value)    bins[bin] += value, whoever else does so
///
/// On a GPU it is a block of CUDA threads (device.cu), in the tests threads of the processor, one
/// or several, so that what a kernel computes, and that its phases do not race, is shown without a
/// GPU. A kernel works for any number of threads.
namespace praetor::cuda {

struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

PRAETOR_HD constexpr int64_t blocks_of(int64_t count, int64_t each) {
  return (count + each - 1) / each;
}
template <typename T>
PRAETOR_HD constexpr T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
PRAETOR_HD constexpr T larger(T a, T b) {
  return a > b ? a : b;
}

}  // namespace praetor::cuda
