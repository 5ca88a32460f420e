#include "learners/sharding/flat_layout.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/base/str.h"

namespace praetor {
namespace {

constexpr int64_t kPartElements = 16;

int64_t round_up(int64_t count, int64_t to) {
  return (count + to - 1) / to * to;
}

bool parse(std::string_view digits, int64_t& out) {
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return error == std::errc() && end == digits.data() + digits.size() && out >= 0;
}

/// NAME, then `mark`, BEGIN-END.
PieceName split_name(const std::string& name, std::string_view mark) {
  const size_t at = name.rfind('@');
  const size_t dash = at == std::string::npos ? at : name.find('-', at);
  if (dash == std::string::npos) return {name, std::nullopt};
  const std::string_view text = name;
  if (!text.substr(at).starts_with(mark)) return {name, std::nullopt};
  const size_t first = at + mark.size();
  int64_t begin = 0, end = 0;
  if (first > dash || !parse(text.substr(first, dash - first), begin) ||
      !parse(text.substr(dash + 1), end) || begin >= end)
    return {name, std::nullopt};
  return {name.substr(0, at), std::pair(begin, end)};
}

std::byte* element(const at::Tensor& tensor, int64_t at) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr()) + at * tensor.element_size();
}

void fill_zero(const at::Tensor& flat, int64_t begin, int64_t end) {
  if (begin >= end) return;
  if (!flat.is_cpu()) {
    flat.narrow(0, begin, end - begin).zero_();
    return;
  }
  std::memset(element(flat, begin), 0, static_cast<size_t>((end - begin) * flat.element_size()));
}

/// Between contiguous tensors of one dtype, as if they were flat.
void copy_elements(
    const at::Tensor& from, int64_t first, const at::Tensor& to, int64_t at, int64_t count) {
  if (!from.is_cpu() || !to.is_cpu()) {
    const at::NoGradGuard no_grad;
    to.detach().view(-1).narrow(0, at, count).copy_(from.detach().view(-1).narrow(0, first, count));
    return;
  }
  const auto* const source =
      static_cast<const std::byte*>(from.const_data_ptr()) + first * from.element_size();
  std::memcpy(element(to, at), source, static_cast<size_t>(count * to.element_size()));
}

}  // namespace

FlatLayout::FlatLayout(const std::vector<NamedTensor>& parameters,
                       int32_t world_size,
                       int64_t alignment) {
  for (const NamedTensor& parameter : parameters) {
    begins_.push_back(round_up(total(), alignment));
    ends_.push_back(begins_.back() + parameter.tensor.numel());
  }
  part_ = round_up(round_up(total(), world_size) / world_size, kPartElements);
}

std::vector<FlatPiece> FlatLayout::pieces(int64_t begin, int64_t end) const {
  std::vector<FlatPiece> out;
  auto i = static_cast<size_t>(std::ranges::upper_bound(ends_, begin) - ends_.begin());
  for (; i < begins_.size() && begins_[i] < end; ++i) {
    const int64_t from = std::max(begin, begins_[i]), stop = std::min(end, ends_[i]);
    if (from >= stop) continue;  // a parameter without elements
    out.push_back(
        {.parameter = i, .begin = from - begins_[i], .end = stop - begins_[i], .at = from - begin});
  }
  return out;
}

void gather_flat(const FlatLayout& layout,
                 const std::vector<at::Tensor>& tensors,
                 int64_t begin,
                 int64_t end,
                 const at::Tensor& buffer) {
  int64_t filled = 0;
  const auto zero = [&](int64_t from, int64_t until) { fill_zero(buffer, from, until); };
  for (const FlatPiece& piece : layout.pieces(begin, end)) {
    const at::Tensor& tensor = tensors[piece.parameter];
    const int64_t count = piece.end - piece.begin;
    zero(filled, piece.at);
    if (tensor.defined()) {
      copy_elements(tensor, piece.begin, buffer, piece.at, count);
    } else {
      zero(piece.at, piece.at + count);
    }
    filled = piece.at + count;
  }
  zero(filled, end - begin);
}

void scatter_flat(const FlatLayout& layout,
                  const std::vector<at::Tensor>& tensors,
                  int64_t begin,
                  int64_t end,
                  const at::Tensor& buffer) {
  for (const FlatPiece& piece : layout.pieces(begin, end))
    copy_elements(buffer, piece.at, tensors[piece.parameter], piece.begin, piece.end - piece.begin);
}

std::string piece_name(const std::string& name, int64_t begin, int64_t end, int64_t numel) {
  return begin == 0 && end == numel ? name : str(name, "@", begin, "-", end);
}

PieceName split_piece_name(const std::string& name) {
  return split_name(name, "@");
}

PieceName split_columns_name(const std::string& name) {
  return split_name(name, "@c");
}

int64_t StatePlace::numel() const {
  int64_t out = 1;
  for (const int64_t size : sizes) out *= size;
  return out;
}

StateRange StatePlace::range(int64_t begin, int64_t end) const {
  if (part.everywhere()) return {begin, end};
  if (part.dim == 0) {
    const int64_t before = part.range.begin * (numel() / sizes[0]);
    return {before + begin, before + end};
  }
  return {begin, end, std::pair(part.range.begin, part.range.end)};
}

std::string StatePlace::name(const std::string& parameter, int64_t begin, int64_t end) const {
  const StateRange own = range(begin, end);
  if (!own.columns) return piece_name(parameter, own.begin, own.end, numel());
  const std::string columns = str(parameter, "@c", own.columns->first, "-", own.columns->second);
  return piece_name(columns, begin, end, sizes[0] * part.range.size());
}

}  // namespace praetor
