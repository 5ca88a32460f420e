#include "core/ledger/segment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"
#include "core/base/error.h"
#include "core/base/fs.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMagic("PRSEG\0\1\n", 8);

std::string reason() {
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
    return str(
        std::strerror(errno),
        "; make room, then start again with --resume auto: nothing that was recorded is lost");
  }
  return std::strerror(errno);
}

std::string header_of(int64_t segment) {
  std::string header(kMagic);
  put(header, static_cast<uint32_t>(segment));
  put(header, crc32c(header));
  return header;
}

/// What is wrong with a file's first bytes, or empty.
std::string header_problem(std::string_view bytes, int64_t segment) {
  if (bytes.size() < static_cast<size_t>(kSegmentHeaderBytes)) {
    return str("has ", bytes.size(), " bytes, its header alone has ", kSegmentHeaderBytes);
  }
  if (bytes.substr(0, kMagic.size()) != kMagic) return "is not a segment file of this version";
  if (bytes.substr(0, kSegmentHeaderBytes) != header_of(segment)) {
    return str("has a damaged header, or is not segment ", segment);
  }
  return "";
}

/// Checks the record at `offset` of a file image; its payload, or what is wrong in `problem`.
std::string_view record_at(std::string_view file, int64_t offset, std::string& problem) {
  ByteReader reader(file.substr(static_cast<size_t>(offset)));
  const auto length_bytes = reader.rest().substr(0, 4);
  const auto length = reader.number<uint32_t>();
  const auto expected = reader.number<uint32_t>();
  if (reader.failed()) {
    problem = str("offset ", offset, ": the record is torn: its framing is cut off");
    return {};
  }
  if (length > reader.rest().size()) {
    problem = str("offset ",
                  offset,
                  ": the record is torn: ",
                  length,
                  " bytes of payload announced, ",
                  reader.rest().size(),
                  " there");
    return {};
  }
  const std::string_view payload = *reader.take(length);
  if (crc32c(payload, crc32c(length_bytes)) != expected) {
    problem = str("offset ", offset, ": the record's checksum does not match");
    return {};
  }
  return payload;
}

}  // namespace

fs::path segment_path(const fs::path& folder, int64_t segment) {
  char name[32];
  std::snprintf(name, sizeof(name), "%06lld.seg", static_cast<long long>(segment));
  return folder / name;
}

SegmentWriter::SegmentWriter(const fs::path& folder, int64_t segment)
    : path_(segment_path(folder, segment)), segment_(segment) {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw IoError("cannot open ", path_.string(), ": ", reason());
  try {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) throw IoError("cannot stat ", path_.string(), ": ", reason());
    size_ = info.st_size;
    if (size_ == 0) {
      const std::string header = header_of(segment);
      if (::pwrite(fd_, header.data(), header.size(), 0) != static_cast<ssize_t>(header.size())) {
        const std::string why = reason();
        ::unlink(path_.c_str());
        throw IoError("cannot write ", path_.string(), ": ", why);
      }
      size_ = kSegmentHeaderBytes;
      if (::fsync(fd_) != 0) throw IoError("cannot sync ", path_.string(), ": ", reason());
      fsync_directory(folder);
      return;
    }
    std::string header(static_cast<size_t>(kSegmentHeaderBytes), '\0');
    const ssize_t got = ::pread(fd_, header.data(), header.size(), 0);
    header.resize(got < 0 ? 0 : static_cast<size_t>(got));
    if (const std::string problem = header_problem(header, segment); !problem.empty()) {
      throw DataError(path_.string(), " ", problem);
    }
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

SegmentWriter::~SegmentWriter() {
  ::close(fd_);
}

SegmentPosition SegmentWriter::append(std::string_view payload) {
  if (static_cast<int64_t>(payload.size()) > kMaxSegmentPayload) {
    throw InvalidArgument("a record of ",
                          payload.size(),
                          " bytes is larger than the ",
                          kMaxSegmentPayload,
                          " that a segment takes");
  }
  std::string record;
  record.reserve(payload.size() + static_cast<size_t>(kSegmentFramingBytes));
  put(record, static_cast<uint32_t>(payload.size()));
  put(record, crc32c(payload, crc32c(record)));
  record += payload;
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t wrote = ::pwrite(
        fd_, record.data() + done, record.size() - done, size_ + static_cast<int64_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      const std::string why = reason();
      // The next append writes over a part that cannot be cut; a reader never goes there.
      if (::ftruncate(fd_, size_) != 0) errno = 0;
      throw IoError("cannot write ", path_.string(), ": ", why);
    }
    done += static_cast<size_t>(wrote);
  }
  const SegmentPosition position{segment_, size_, static_cast<int64_t>(record.size())};
  size_ += position.bytes;
  return position;
}

void SegmentWriter::sync() {
  if (::fdatasync(fd_) != 0) throw IoError("cannot sync ", path_.string(), ": ", reason());
}

void SegmentWriter::cut(int64_t size) {
  PRAETOR_CHECK(size >= kSegmentHeaderBytes && size <= size_, path_.string(), ": cut to ", size);
  if (::ftruncate(fd_, size) != 0) throw IoError("cannot cut ", path_.string(), ": ", reason());
  size_ = size;
}

std::string read_segment_record(const fs::path& folder, const SegmentPosition& position) {
  const fs::path path = segment_path(folder, position.segment);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) throw MissingInput(path.string(), ": no such file");
    throw IoError("cannot open ", path.string(), ": ", reason());
  }
  if (position.bytes < kSegmentFramingBytes ||
      position.bytes > kMaxSegmentPayload + kSegmentFramingBytes || position.offset < 0) {
    ::close(fd);
    throw DataError(path.string(),
                    ": no record can stand at offset ",
                    position.offset,
                    " with ",
                    position.bytes,
                    " bytes");
  }
  std::string bytes(static_cast<size_t>(position.bytes), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(
        fd, bytes.data() + done, bytes.size() - done, position.offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const std::string why = reason();
      ::close(fd);
      throw IoError("cannot read ", path.string(), ": ", why);
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  ::close(fd);
  bytes.resize(done);
  std::string problem;
  const std::string_view payload = record_at(bytes, 0, problem);
  if (problem.empty() && done != payload.size() + static_cast<size_t>(kSegmentFramingBytes)) {
    problem = str("the record has ", payload.size(), " bytes of payload, not what its row says");
  }
  if (!problem.empty()) {
    // record_at counts from the record; a reader of the message wants the file's offset.
    const auto colon = problem.starts_with("offset 0: ") ? 10 : 0;
    throw DataError(path.string(), ": offset ", position.offset, ": ", problem.substr(colon));
  }
  return std::string(payload);
}

SegmentScan scan_segment(const fs::path& folder,
                         int64_t segment,
                         const std::function<void(SegmentPosition, std::string_view)>& visit) {
  const MappedFile mapped(segment_path(folder, segment));
  const std::string_view file = mapped.text();
  SegmentScan scan;
  scan.file_bytes = static_cast<int64_t>(file.size());
  scan.problem = header_problem(file, segment);
  if (!scan.problem.empty()) return scan;
  scan.good_bytes = kSegmentHeaderBytes;
  while (scan.good_bytes < scan.file_bytes) {
    const std::string_view payload = record_at(file, scan.good_bytes, scan.problem);
    if (!scan.problem.empty()) return scan;
    const int64_t bytes = static_cast<int64_t>(payload.size()) + kSegmentFramingBytes;
    if (visit) visit({segment, scan.good_bytes, bytes}, payload);
    scan.good_bytes += bytes;
    ++scan.records;
  }
  return scan;
}

}  // namespace praetor
