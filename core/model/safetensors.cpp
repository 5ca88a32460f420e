#include "core/model/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/model/json_file.h"

namespace praetor {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference reader's limit
constexpr size_t kMaxRank = 32;

struct DtypeRow {
  const char* name;
  at::ScalarType dtype;
};
// In the order in which the reference writer lays tensors out.
constexpr DtypeRow kDtypes[] = {{"I64", at::kLong},
                                {"F64", at::kDouble},
                                {"F32", at::kFloat},
                                {"I32", at::kInt},
                                {"BF16", at::kBFloat16},
                                {"F16", at::kHalf},
                                {"I16", at::kShort},
                                {"I8", at::kChar},
                                {"U8", at::kByte},
                                {"BOOL", at::kBool}};

/// Reads the header as a stream of events: three levels deep at most, nothing kept but the entries.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(const fs::path& file) : file_(file) {}

  std::map<std::string, SafetensorsFile::Entry, std::less<>> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_float(double, const std::string&) override {
    unexpected("a number that is not a whole one below 2^64");
  }
  bool binary(json::binary_t&) override { unexpected("binary data"); }
  bool number_integer(int64_t) override { unexpected("a negative number"); }
  bool number_unsigned(uint64_t value) override {
    if (depth_ != 3) unexpected("a number");
    if (field_ == "shape") {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        fail("shape has the dimension ", value);
      if (entry_.shape.size() == kMaxRank) fail("shape has more than ", kMaxRank, " dimensions");
      entry_.shape.push_back(static_cast<int64_t>(value));
    } else {
      if (offsets_ == 2) fail("data_offsets has more than two numbers");
      (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    }
    return true;
  }
  bool string(std::string& value) override {
    if (depth_ != 2 || (!in_metadata_ && field_ != "dtype")) unexpected("a string");
    if (in_metadata_) {
      metadata[field_] = value;
      return true;
    }
    for (const DtypeRow& row : kDtypes) {
      if (value == row.name) {
        entry_.dtype = row.dtype;
        return true;
      }
    }
    fail("dtype \"", printable(value), "\" is not one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL");
  }
  bool start_object(size_t) override {
    if (depth_ == 2 || depth_ == 3) unexpected("an object");
    ++depth_;
    fields_.clear();
    entry_ = {};
    offsets_ = 0;
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1 && !in_metadata_) {
      for (const char* wanted : {"dtype", "shape", "data_offsets"}) {
        if (!fields_.count(wanted)) fail("has no \"", wanted, "\"");
      }
      if (offsets_ != 2) fail("data_offsets must be [begin, end]");
      entries.emplace(name_, std::move(entry_));
    }
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype") unexpected("an array");
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(std::string& value) override {
    if (depth_ == 1) {
      name_ = value;
      in_metadata_ = value == "__metadata__";
      if (in_metadata_ ? std::exchange(seen_metadata_, true) : entries.count(value) != 0)
        fail("appears twice");
      return true;
    }
    field_ = value;
    if (!fields_.insert(value).second) fail("key \"", printable(value), "\" appears twice");
    if (!in_metadata_ && value != "dtype" && value != "shape" && value != "data_offsets") {
      fail("unknown key \"", printable(value), "\"; known are dtype, shape, data_offsets");
    }
    return true;
  }
  bool parse_error(size_t position,
                   const std::string&,
                   const nlohmann::detail::exception& failure) override {
    throw DataError(file_.string(),
                    ": header is not valid JSON at its byte ",
                    position,
                    ": ",
                    printable(failure.what(), 200));
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail(const Args&... args) const {
    throw DataError(file_.string(), ": header: \"", printable(name_), "\": ", args...);
  }
  [[noreturn]] void unexpected(const char* what) const {
    if (depth_ == 0)
      throw DataError(file_.string(), ": header must be a JSON object, found ", what);
    if (depth_ == 1) fail("must be an object, found ", what);
    fail("key \"", printable(field_), "\" has the wrong type: found ", what);
  }

  const fs::path& file_;
  int depth_ = 0;
  bool in_metadata_ = false;
  bool seen_metadata_ = false;
  std::string name_;   // tensor
  std::string field_;  // key within it
  std::set<std::string> fields_;
  SafetensorsFile::Entry entry_;
  int offsets_ = 0;
};

/// Bytes that shape and dtype ask for; nothing on overflow.
std::optional<uint64_t> byte_count(const SafetensorsFile::Entry& entry) {
  uint64_t count = c10::elementSize(entry.dtype);
  // A zero anywhere makes the tensor empty, but the other dimensions must still be ones a tensor
  // can have.
  bool empty = false;
  for (const int64_t size : entry.shape) {
    if (size == 0) {
      empty = true;
      continue;
    }
    if (__builtin_mul_overflow(count, static_cast<uint64_t>(size), &count) ||
        count > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return std::nullopt;
    }
  }
  return empty ? 0 : count;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t size : shape) out += (out.empty() ? "[" : ", ") + std::to_string(size);
  return out.empty() ? "[]" : out + ']';
}

}  // namespace

SafetensorsFile::SafetensorsFile(const fs::path& file)
    : path_(file), file_(std::make_shared<const MappedFile>(file)) {
  const auto bytes = file_->bytes();
  if (bytes.size() < 8) {
    throw DataError(file.string(),
                    ": ",
                    bytes.size(),
                    " bytes, shorter than the 8 of a safetensors header length");
  }
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header > kMaxHeader) {
    throw DataError(
        file.string(), ": header length ", header, " is above the limit of ", kMaxHeader, " bytes");
  }
  if (header > bytes.size() - 8) {
    throw DataError(file.string(),
                    ": header length ",
                    header,
                    " runs past the end of the file of ",
                    bytes.size(),
                    " bytes");
  }
  const std::string_view text = file_->text().substr(8, header);
  if (text.empty() || text.front() != '{')
    throw DataError(file.string(), ": header must begin with '{'");

  HeaderReader reader(path_);
  json::sax_parse(text.begin(), text.end(), &reader);
  entries_ = std::move(reader.entries);
  metadata_ = std::move(reader.metadata);
  data_ = bytes.data() + 8 + header;
  const uint64_t size = bytes.size() - 8 - header;

  std::vector<std::pair<std::string_view, const Entry*>> order;
  order.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) {
    const auto fail = [&, &name = name](const auto&... args) {
      throw DataError(file.string(), ": tensor \"", printable(name), "\": ", args...);
    };
    if (entry.begin > entry.end || entry.end > size) {
      fail("data_offsets [",
           entry.begin,
           ", ",
           entry.end,
           "] do not lie in the file's ",
           size,
           " bytes of data");
    }
    const auto wanted = byte_count(entry);
    const std::string shape = shape_text(entry.shape);
    if (!wanted) fail("shape ", shape, " is too large for any file");
    if (*wanted != entry.end - entry.begin) {
      const char* dtype = safetensors_dtype(entry.dtype);
      fail("shape ",
           shape,
           " of ",
           dtype,
           " takes ",
           *wanted,
           " bytes, data_offsets span ",
           entry.end - entry.begin);
    }
    order.emplace_back(name, &entry);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second->begin, a.second->end, a.first) <
           std::tie(b.second->begin, b.second->end, b.first);
  });
  uint64_t at = 0;
  for (const auto& [name, entry] : order) {
    if (entry->begin != at) {
      throw DataError(file.string(),
                      ": tensor \"",
                      printable(name),
                      "\" begins at byte ",
                      entry->begin,
                      entry->begin < at ? ", inside the tensor before it, which ends at "
                                        : ", leaving a hole after byte ",
                      at);
    }
    at = entry->end;
    names_.emplace_back(name);
  }
  if (at != size) {
    throw DataError(file.string(),
                    ": tensors end at byte ",
                    at,
                    " of ",
                    size,
                    " bytes of data: the rest is unaccounted for");
  }
}

bool SafetensorsFile::contains(std::string_view name) const {
  return entries_.find(name) != entries_.end();
}

const SafetensorsFile::Entry& SafetensorsFile::entry(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw DataError(path_.string(), ": has no tensor \"", printable(name), "\"");
  return found->second;
}

at::ScalarType SafetensorsFile::dtype(std::string_view name) const {
  return entry(name).dtype;
}
const std::vector<int64_t>& SafetensorsFile::shape(std::string_view name) const {
  return entry(name).shape;
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const Entry& found = entry(name);
  const std::byte* bytes = data_ + found.begin;
  const size_t size = found.end - found.begin;
  if (found.dtype == at::kBool) {
    // A bool that is neither 0 nor 1 is undefined behaviour for whoever reads it.
    const auto bad =
        std::find_if(bytes, bytes + size, [](std::byte b) { return b > std::byte{1}; });
    if (bad != bytes + size) {
      throw DataError(path_.string(),
                      ": tensor \"",
                      printable(name),
                      "\": BOOL byte ",
                      bad - bytes,
                      " is ",
                      static_cast<int>(*bad),
                      ", not 0 or 1");
    }
  }
  if (reinterpret_cast<uintptr_t>(bytes) % c10::elementSize(found.dtype) != 0) {
    at::Tensor copy = at::empty(found.shape, at::dtype(found.dtype));
    if (size != 0) std::memcpy(copy.mutable_data_ptr(), bytes, size);
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(bytes), found.shape, [keep = file_](void*) {}, at::dtype(found.dtype));
}

std::pair<uint64_t, uint64_t> SafetensorsFile::range(std::string_view name) const {
  const Entry& found = entry(name);
  const auto head = static_cast<uint64_t>(data_ - file_->bytes().data());
  return {head + found.begin, head + found.end};
}

void SafetensorsFile::release(std::string_view name) const {
  const Entry& found = entry(name);
  if (found.begin == found.end) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(data_ + found.begin) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(data_ + found.end);
  // Whether it succeeds changes no value.
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

SafetensorsFolder::SafetensorsFolder(const fs::path& folder) : folder_(folder) {
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(single, ignored)) {
    files_.emplace_back(single);
    for (const std::string& name : files_[0].names()) file_of_.emplace(name, 0);
  } else if (fs::exists(index, ignored)) {
    const json parsed = read_json_file(index);
    if (!parsed.is_object() || !parsed.contains("weight_map") ||
        !parsed["weight_map"].is_object()) {
      throw DataError(index.string(), ": has no object \"weight_map\"");
    }
    std::map<std::string, size_t> opened;
    for (const auto& [name, value] : parsed["weight_map"].items()) {
      if (!value.is_string()) {
        throw DataError(index.string(), ": weight_map.", printable(name), " must be a file name");
      }
      const auto& shard = value.get_ref<const std::string&>();
      if (shard.empty() || shard == "." || shard == ".." ||
          shard.find_first_of(std::string("/\\\0", 3)) != shard.npos) {
        throw DataError(index.string(),
                        ": weight_map.",
                        printable(name),
                        ": \"",
                        printable(shard),
                        "\" must be the name of a file in the same folder");
      }
      const auto [at, fresh] = opened.emplace(shard, files_.size());
      if (fresh) {
        if (!fs::exists(folder / shard, ignored)) {
          throw MissingInput(
              index.string(), ": names ", printable(shard), ", which is not in the folder");
        }
        files_.emplace_back(folder / shard);
      }
      if (!files_[at->second].contains(name)) {
        throw DataError((folder / shard).string(),
                        ": has no tensor \"",
                        printable(name),
                        "\", which model.safetensors.index.json places there");
      }
      file_of_.emplace(name, at->second);
    }
  } else {
    throw MissingInput(folder.string(),
                       ": has neither model.safetensors nor model.safetensors.index.json");
  }
  for (const auto& [name, at] : file_of_) names_.push_back(name);
}

const SafetensorsFile& SafetensorsFolder::file(std::string_view name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end())
    throw DataError(folder_.string(), ": has no tensor \"", printable(name), "\"");
  return files_[found->second];
}

const char* safetensors_dtype(at::ScalarType dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return row.name;
  }
  throw InvalidArgument("safetensors: dtype ", c10::toString(dtype), " cannot be written");
}

}  // namespace praetor
