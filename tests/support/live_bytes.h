#pragma once

#include <cstdint>
#include <memory>

namespace praetor::testing {

/// Counts the bytes of tensors that this thread, with the backwards it runs, makes and gives back
/// while the object lives; those of before do not count.
class LiveBytes {
 public:
  LiveBytes();
  ~LiveBytes();
  LiveBytes(const LiveBytes&) = delete;
  LiveBytes& operator=(const LiveBytes&) = delete;

  int64_t now() const;
  /// The most since it was made, or since `restart`.
  int64_t peak() const;
  /// peak() begins anew from what is there.
  void restart();

 private:
  struct Counter;
  struct Guard;
  std::shared_ptr<Counter> counter_;
  std::unique_ptr<Guard> guard_;
};

}  // namespace praetor::testing
