#include "learners/sharding/flat_layout.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/base/str.h"

namespace praetor {
namespace {

constexpr int64_t kAlignment = 16;

bool parse(std::string_view digits, int64_t& out) {
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return error == std::errc() && end == digits.data() + digits.size() && out >= 0;
}

}  // namespace

FlatLayout::FlatLayout(const std::vector<NamedTensor>& parameters, int32_t world_size) {
  for (const NamedTensor& parameter : parameters)
    offsets_.push_back(offsets_.back() + parameter.tensor.numel());
  const int64_t even = (total() + world_size - 1) / world_size;
  part_ = (even + kAlignment - 1) / kAlignment * kAlignment;
}

std::vector<FlatPiece> FlatLayout::pieces(int64_t begin, int64_t end) const {
  std::vector<FlatPiece> out;
  end = std::min(end, total());
  auto next = std::upper_bound(offsets_.begin(), offsets_.end(), begin);
  for (; begin < end; ++next) {
    const auto parameter = static_cast<size_t>(next - offsets_.begin()) - 1;
    const int64_t stop = std::min(end, *next);
    if (stop == begin) continue;  // a parameter without elements
    out.push_back({.parameter = parameter,
                   .begin = begin - offsets_[parameter],
                   .end = stop - offsets_[parameter]});
    begin = stop;
  }
  int64_t at = 0;
  for (FlatPiece& piece : out) {
    piece.at = at;
    at += piece.end - piece.begin;
  }
  return out;
}

void gather_flat(const FlatLayout& layout,
                 const std::vector<at::Tensor>& tensors,
                 int64_t begin,
                 int64_t end,
                 void* buffer,
                 int64_t element_bytes) {
  auto* to = static_cast<std::byte*>(buffer);
  int64_t filled = 0;
  for (const FlatPiece& piece : layout.pieces(begin, end)) {
    const at::Tensor& tensor = tensors[piece.parameter];
    const auto bytes = static_cast<size_t>((piece.end - piece.begin) * element_bytes);
    std::byte* place = to + piece.at * element_bytes;
    if (tensor.defined()) {
      const auto* from = static_cast<const std::byte*>(tensor.const_data_ptr());
      std::memcpy(place, from + piece.begin * element_bytes, bytes);
    } else {
      std::memset(place, 0, bytes);
    }
    filled = piece.at + piece.end - piece.begin;
  }
  std::memset(
      to + filled * element_bytes, 0, static_cast<size_t>((end - begin - filled) * element_bytes));
}

void scatter_flat(const FlatLayout& layout,
                  const std::vector<at::Tensor>& tensors,
                  int64_t begin,
                  int64_t end,
                  const void* buffer,
                  int64_t element_bytes) {
  const auto* from = static_cast<const std::byte*>(buffer);
  for (const FlatPiece& piece : layout.pieces(begin, end)) {
    auto* to = static_cast<std::byte*>(tensors[piece.parameter].mutable_data_ptr());
    std::memcpy(to + piece.begin * element_bytes,
                from + piece.at * element_bytes,
                static_cast<size_t>((piece.end - piece.begin) * element_bytes));
  }
}

std::string piece_name(const std::string& name, int64_t begin, int64_t end, int64_t numel) {
  return begin == 0 && end == numel ? name : str(name, "@", begin, "-", end);
}

PieceName split_piece_name(const std::string& name) {
  const size_t at = name.rfind('@');
  const size_t dash = at == std::string::npos ? at : name.find('-', at);
  if (dash == std::string::npos) return {name, std::nullopt};
  const std::string_view text = name;
  int64_t begin = 0, end = 0;
  if (!parse(text.substr(at + 1, dash - at - 1), begin) || !parse(text.substr(dash + 1), end) ||
      begin >= end)
    return {name, std::nullopt};
  return {name.substr(0, at), std::pair(begin, end)};
}

}  // namespace praetor
