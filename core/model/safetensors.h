#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model/named_tensor.h"

namespace praetor {

class MappedFile;
class PendingFile;
class Sha256;

/// One safetensors file, mapped read-only. Everything the header says is checked when the file is
/// opened, so that a hostile file can neither read outside the mapping nor take memory beyond a
/// small multiple of its header (at most 100 MB of it). Dtypes: F64 F32 F16 BF16 I64 I32 I16 I8 U8
/// BOOL. Any thread; copies share the mapping.
///
/// The file must not be cut while it is mapped; replace it by rename, as write_safetensors does.
class SafetensorsFile {
 public:
  /// @throws MissingInput, IoError; DataError naming the file, the tensor and what is wrong.
  explicit SafetensorsFile(const std::filesystem::path& file);

  const std::filesystem::path& path() const { return path_; }
  /// In the order of the data.
  const std::vector<std::string>& names() const { return names_; }
  /// The header's `__metadata__`.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(std::string_view name) const;
  /// These throw DataError naming the file when the tensor is not there.
  at::ScalarType dtype(std::string_view name) const;
  const std::vector<int64_t>& shape(std::string_view name) const;
  /// A view on the mapping, which it keeps alive: read only, a write to it is a crash; clone or
  /// convert before writing. (A copy where the file's offsets do not suit the dtype, as in files of
  /// early writers.)
  at::Tensor tensor(std::string_view name) const;
  /// Where its bytes lie in the file: [begin, end).
  std::pair<uint64_t, uint64_t> range(std::string_view name) const;
  /// What was read of the tensor no longer counts as this process's memory; a view of it stays
  /// good, and reads the file again.
  void release(std::string_view name) const;

  struct Entry {
    at::ScalarType dtype = at::kFloat;
    std::vector<int64_t> shape;
    uint64_t begin = 0;  ///< bytes from the start of the data
    uint64_t end = 0;
  };

 private:
  const Entry& entry(std::string_view name) const;

  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> file_;
  const std::byte* data_ = nullptr;
  std::vector<std::string> names_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::map<std::string, std::string> metadata_;
};

/// The weights of a model folder: model.safetensors, or the shards named by
/// model.safetensors.index.json.
class SafetensorsFolder {
 public:
  /// @throws MissingInput when the folder has neither; DataError for a shard outside the folder, a
  /// tensor that is not in the shard the index names, or a broken file.
  explicit SafetensorsFolder(const std::filesystem::path& folder);

  /// Sorted.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return file_of_.find(name) != file_of_.end(); }
  /// The file that holds the tensor. @throws DataError
  const SafetensorsFile& file(std::string_view name) const;
  at::Tensor tensor(std::string_view name) const { return file(name).tensor(name); }

 private:
  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> file_of_;
  std::vector<std::string> names_;
};

/// The format's name of a dtype ("F32"). @throws InvalidArgument for one that the format, or we,
/// lack.
const char* safetensors_dtype(at::ScalarType dtype);

/// Writes one file, tensor by tensor, so that a reader or a power cut finds the old or the new file
/// (temporary name, fsync, rename, fsync of the folder). The bytes depend on the arguments' values
/// alone: tensors are ordered by dtype (widest alignment first) and name, as the reference writer
/// does, and its bytes are the same for up to one metadata key.
/// @param digest  takes in the bytes of the file; null: nobody wants it
/// @throws InvalidArgument for a repeated or unusable name or dtype; IoError
void write_safetensors(const std::filesystem::path& file,
                       std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       Sha256* digest = nullptr);

/// The same file made of tensors that come one by one, in any order, so that they need not be in
/// memory together. Not committed: nothing is left.
class SafetensorsWriter {
 public:
  /// @param forms  of all tensors: name, dtype and shape count, the values are not looked at (they
  /// may be on the meta device). @throws as write_safetensors
  SafetensorsWriter(const std::filesystem::path& file,
                    std::span<const NamedTensor> forms,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  SafetensorsWriter(SafetensorsWriter&&) noexcept;

  /// @throws InternalError for one that was not announced, or so; IoError
  void put(const NamedTensor& named);
  /// @throws InternalError when one is missing; IoError
  void commit();

 private:
  struct Place {
    at::ScalarType dtype = at::kFloat;
    std::vector<int64_t> shape;
    uint64_t at = 0;
  };
  std::filesystem::path path_;
  std::map<std::string, Place> places_;  ///< of those that have not come
  std::unique_ptr<PendingFile> file_;
};

}  // namespace praetor
