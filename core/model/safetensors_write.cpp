#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/model/safetensors.h"
#include "core/model/safetensors_layout.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// A temporary file beside the wanted one: renamed by commit(), else removed.
class PendingFile {
 public:
  explicit PendingFile(const fs::path& file) : file_(file), temporary_(file) {
    temporary_ += str(".tmp.", ::getpid());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd_ < 0) fail("write");
  }
  ~PendingFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!committed_) ::unlink(temporary_.c_str());
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void append(const void* bytes, size_t size) {
    const char* from = static_cast<const char*>(bytes);
    while (size > 0) {
      const ssize_t put = ::write(fd_, from, std::min(size, size_t{1} << 30));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail("write");
      from += put;
      size -= static_cast<size_t>(put);
    }
  }

  void commit() {
    if (::fsync(fd_) != 0) fail("sync");
    if (::rename(temporary_.c_str(), file_.c_str()) != 0) fail("rename");
    committed_ = true;
    fsync_directory(file_.has_parent_path() ? file_.parent_path() : fs::path("."));
  }

 private:
  [[noreturn]] void fail(const char* verb) const {
    throw IoError("cannot ", verb, " ", temporary_.string(), ": ", std::strerror(errno));
  }

  fs::path file_;
  fs::path temporary_;
  int fd_ = -1;
  bool committed_ = false;
};

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
                       const std::map<std::string, std::string>& metadata) {
  const SafetensorsLayout layout = lay_out_safetensors(file, tensors, metadata);
  PendingFile out(file);
  out.append(layout.head.data(), layout.head.size());
  for (const NamedTensor* named : layout.order) {
    const at::Tensor bytes = named->tensor.detach().cpu().contiguous();
    out.append(bytes.const_data_ptr(), bytes.nbytes());
  }
  out.commit();
}

}  // namespace praetor
