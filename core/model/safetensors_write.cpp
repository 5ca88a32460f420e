#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/file_layer.h"
#include "core/base/sha256.h"
#include "core/base/text.h"
#include "core/model/safetensors.h"
#include "core/model/safetensors_layout.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr size_t kPiece = size_t{256} << 10;

/// Place of a dtype in the file: wide before narrow, so that every tensor is aligned.
int rank_of(at::ScalarType dtype) {
  static constexpr at::ScalarType kOrder[] = {at::kLong,
                                              at::kDouble,
                                              at::kFloat,
                                              at::kInt,
                                              at::kBFloat16,
                                              at::kHalf,
                                              at::kShort,
                                              at::kChar,
                                              at::kByte,
                                              at::kBool};
  return static_cast<int>(std::find(std::begin(kOrder), std::end(kOrder), dtype) -
                          std::begin(kOrder));
}

}  // namespace

SafetensorsLayout lay_out_safetensors(const fs::path& file,
                                      std::span<const NamedTensor> tensors,
                                      const std::map<std::string, std::string>& metadata) {
  SafetensorsLayout out;
  std::vector<const NamedTensor*>& order = out.order;
  std::set<std::string_view> seen;
  for (const NamedTensor& named : tensors) {
    if (named.name == "__metadata__" || !is_utf8(named.name)) {
      throw InvalidArgument(
          file.string(), ": \"", printable(named.name), "\" cannot name a tensor");
    }
    if (!named.tensor.defined())
      throw InvalidArgument(file.string(), ": tensor \"", named.name, "\" is undefined");
    safetensors_dtype(named.tensor.scalar_type());  // throws for one that cannot be written
    if (!seen.insert(named.name).second) {
      throw InvalidArgument(file.string(), ": tensor \"", named.name, "\" is given twice");
    }
    order.push_back(&named);
  }
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const int left = rank_of(a->tensor.scalar_type());
    const int right = rank_of(b->tensor.scalar_type());
    return left != right ? left < right : a->name < b->name;
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  std::string text = header.dump();
  text.pop_back();  // the closing brace; entries follow one by one, as ordered_json looks up keys
                    // linearly
  for (const NamedTensor* named : order) {
    nlohmann::ordered_json entry;
    entry["dtype"] = safetensors_dtype(named->tensor.scalar_type());
    entry["shape"] = named->tensor.sizes().vec();
    const uint64_t end = at + named->tensor.nbytes();
    entry["data_offsets"] = {at, end};
    out.offsets.push_back(at);
    at = end;
    if (text.size() > 1) text += ',';
    text += nlohmann::json(named->name).dump() + ':' + entry.dump();
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');

  const uint64_t length = text.size();
  out.head.assign(reinterpret_cast<const char*>(&length), sizeof(length));
  out.head += text;
  for (uint64_t& offset : out.offsets) offset += out.head.size();
  out.bytes = out.head.size() + at;
  return out;
}

void write_safetensors(const fs::path& file,
                       std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata,
                       Sha256* digest) {
  const SafetensorsLayout layout = lay_out_safetensors(file, tensors, metadata);
  PendingFile out(file);
  const auto append = [&](std::span<const std::byte> bytes) {
    // Hashed while a piece is in the cache.
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(kPiece, bytes.size()))) {
      const auto piece = bytes.first(std::min(kPiece, bytes.size()));
      if (digest) digest->update(piece);
      out.append(piece.data(), piece.size());
    }
  };
  append(std::as_bytes(std::span(layout.head)));
  for (const NamedTensor* named : layout.order) {
    const at::Tensor values = named->tensor.detach().cpu().contiguous();
    append({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  }
  out.commit();
}

SafetensorsWriter::SafetensorsWriter(const fs::path& file,
                                     std::span<const NamedTensor> forms,
                                     const std::map<std::string, std::string>& metadata)
    : path_(file) {
  const SafetensorsLayout layout = lay_out_safetensors(file, forms, metadata);
  for (size_t i = 0; i < layout.order.size(); ++i) {
    const at::Tensor& form = layout.order[i]->tensor;
    places_[layout.order[i]->name] = {form.scalar_type(), form.sizes().vec(), layout.offsets[i]};
  }
  file_ = std::make_unique<PendingFile>(file);
  file_->put(layout.head.data(), layout.head.size(), 0);
}

SafetensorsWriter::~SafetensorsWriter() = default;
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;

void SafetensorsWriter::put(const NamedTensor& named) {
  const auto place = places_.find(named.name);
  PRAETOR_CHECK(place != places_.end(), path_.string(), ": ", named.name, " twice, or not wanted");
  PRAETOR_CHECK(place->second.dtype == named.tensor.scalar_type() &&
                    named.tensor.sizes() == place->second.shape,
                path_.string(),
                ": ",
                named.name,
                " has another form than announced");
  const at::Tensor values = named.tensor.detach().cpu().contiguous();
  file_->put(values.const_data_ptr(), values.nbytes(), place->second.at);
  places_.erase(place);
}

void SafetensorsWriter::commit() {
  PRAETOR_CHECK(places_.empty(), path_.string(), ": ", places_.begin()->first, " was not given");
  file_->commit();
}

}  // namespace praetor
