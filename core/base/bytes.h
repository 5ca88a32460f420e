#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace praetor {

static_assert(std::endian::native == std::endian::little, "files are little-endian, as is the CPU");

/// Appends the bytes of a number to a file image.
template <typename T>
void put(std::string& out, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  out.append(raw, sizeof(T));
}

/// Takes numbers and runs of bytes from the front of a file image; a read past the end gives
/// nothing and leaves the rest empty.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  std::optional<std::string_view> take(uint64_t size) {
    if (size > rest_.size()) {
      rest_ = {};
      failed_ = true;
      return std::nullopt;
    }
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }
  template <typename T>
  T number() {
    T value{};
    if (const auto raw = take(sizeof(T))) std::memcpy(&value, raw->data(), sizeof(T));
    return value;
  }
  template <typename T>
  std::vector<T> array(uint64_t count) {
    std::vector<T> out;
    if (count > rest_.size() / sizeof(T)) {
      take(rest_.size() + 1);
      return out;
    }
    out.resize(count);
    if (count > 0) std::memcpy(out.data(), take(count * sizeof(T))->data(), count * sizeof(T));
    return out;
  }
  bool failed() const { return failed_; }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
  bool failed_ = false;
};

}  // namespace praetor
