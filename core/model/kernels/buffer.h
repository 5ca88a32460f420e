#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace praetor::ops::kernels {

/// Uninitialised floats on a 64-byte border. `reserve` keeps the memory when it is large enough,
/// never the content.
class Buffer {
 public:
  float* reserve(int64_t floats) {
    if (floats > size_) {
      const auto bytes = (static_cast<size_t>(floats) * sizeof(float) + 63) / 64 * 64;
      data_.reset();
      size_ = 0;
      data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
      if (!data_) throw std::bad_alloc();
      size_ = floats;
    }
    return data_.get();
  }
  float* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

}  // namespace praetor::ops::kernels
