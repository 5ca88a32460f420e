#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "core/base/finding.h"

namespace praetor {

/// Append-only payload files, NNNNNN.seg, all integers little-endian:
///
///   header  16 bytes  "PRSEG" 0x00 0x01 '\n', number u32, CRC-32C u32 of the 12 bytes before
///   record            length u32, CRC-32C u32 of the length field and the payload, payload
///
/// Where a record begins is kept elsewhere (the ledger's rows).
struct SegmentPosition {
  int64_t segment = 0;  ///< number of the file, from 1
  int64_t offset = 0;   ///< of the record's length field
  int64_t bytes = 0;    ///< whole record, its 8 bytes of framing included
};

constexpr int64_t kSegmentHeaderBytes = 16;
constexpr int64_t kSegmentFramingBytes = 8;
constexpr int64_t kMaxSegmentPayload = int64_t{1} << 30;

std::filesystem::path segment_path(const std::filesystem::path& folder, int64_t segment);

/// Writes one segment file; not thread-safe. A failed append leaves no part of its record behind.
class SegmentWriter {
 public:
  /// Makes the file, or goes on at its end. The folder entry is synced. @throws IoError; DataError
  /// for a broken header
  SegmentWriter(const std::filesystem::path& folder, int64_t segment);
  ~SegmentWriter();
  SegmentWriter(const SegmentWriter&) = delete;
  SegmentWriter& operator=(const SegmentWriter&) = delete;

  SegmentPosition append(std::string_view payload);
  void sync();  ///< fdatasync
  int64_t segment() const { return segment_; }
  int64_t size() const { return size_; }
  void cut(int64_t size);  ///< takes back what was appended after `size`

 private:
  std::filesystem::path path_;
  int64_t segment_;
  int64_t size_ = 0;
  int fd_ = -1;
};

/// Payload of the record at `position`, checked. @throws MissingInput, DataError naming file,
/// offset and what is wrong
std::string read_segment_record(const std::filesystem::path& folder,
                                const SegmentPosition& position);

/// Walks the records of a file from its start. Stops at the first that is torn or fails its
/// checksum.
struct SegmentScan {
  int64_t good_bytes = 0;  ///< header and whole records
  int64_t file_bytes = 0;
  int64_t records = 0;
  std::string problem;  ///< empty when the file ends with its last record
};
SegmentScan scan_segment(
    const std::filesystem::path& folder,
    int64_t segment,
    const std::function<void(SegmentPosition, std::string_view payload)>& visit = {});

}  // namespace praetor
