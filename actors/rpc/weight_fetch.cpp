#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "actors/rpc/channel.h"
#include "actors/rpc/weight_stream.h"
#include "core/base/crc32c.h"
#include "core/base/fs.h"
#include "core/base/random_hex.h"
#include "praetor/v1/weights.grpc.pb.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr int kMostBadChunks = 3;

/// The file while it grows, under another name; removed unless it was put in place.
class PartFile {
 public:
  explicit PartFile(const fs::path& target)
      : target_(target), part_(target.string() + ".part." + random_hex(4)) {
    fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd_ < 0) throw IoError("cannot make ", part_.string(), ": ", std::strerror(errno));
  }
  ~PartFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!placed_) ::unlink(part_.c_str());
  }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t put = ::write(fd_, bytes.data(), bytes.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) throw IoError("cannot write ", part_.string(), ": ", std::strerror(errno));
      bytes.remove_prefix(static_cast<size_t>(put));
    }
  }

  void put_in_place() {
    if (::fsync(fd_) != 0)
      throw IoError("cannot sync ", part_.string(), ": ", std::strerror(errno));
    if (::rename(part_.c_str(), target_.c_str()) != 0)
      throw IoError("cannot rename ", part_.string(), ": ", std::strerror(errno));
    placed_ = true;
    fsync_directory(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
  }

 private:
  fs::path target_;
  fs::path part_;
  int fd_ = -1;
  bool placed_ = false;
};

}  // namespace

FetchReport fetch_weights(const Publication& publication,
                          const fs::path& to_file,
                          const RpcClientOptions& given) {
  if (publication.address.empty())
    throw InvalidArgument(
        "step ", publication.version.step, " of weights has no address to fetch from");
  const auto start = std::chrono::steady_clock::now();
  RpcClientOptions options = given;
  options.resolve = [address = publication.address] { return address; };
  RpcChannel channel(options);
  PartFile file(to_file);
  FetchReport report;
  bool ended = false;
  int tries = 0;
  int bad_in_a_row = 0;
  const std::string what = str("Weights.Fetch of step ", publication.version.step);

  const auto take = [&](const v1::WeightChunk& chunk) {
    if (chunk.total_bytes() != publication.bytes) {
      throw DataError(what,
                      ": the file has ",
                      chunk.total_bytes(),
                      " bytes, ",
                      publication.bytes,
                      " were published");
    }
    const auto size = static_cast<int64_t>(chunk.bytes().size());
    const bool fits = chunk.offset() == report.bytes && size <= publication.bytes - report.bytes &&
                      (size > 0 || report.bytes == publication.bytes);
    if (!fits || crc32c(chunk.bytes()) != chunk.crc32c()) {
      ++report.bad_chunks;
      if (++bad_in_a_row < kMostBadChunks) return false;
      throw DataError(what,
                      " from ",
                      publication.address,
                      ": the chunk at byte ",
                      report.bytes,
                      " came damaged ",
                      kMostBadChunks,
                      fits ? " times (its CRC-32C differs)" : " times (it does not fit the file)");
    }
    bad_in_a_row = 0;
    file.append(chunk.bytes());
    report.bytes += size;
    ended = report.bytes == publication.bytes;
    return true;
  };
  channel.stream(
      what,
      &v1::Weights::Stub::PrepareAsyncFetch,
      std::chrono::milliseconds(0),
      [&] {
        if (tries++ > 0 && report.bytes > 0) ++report.resumed;
        v1::FetchRequest request;
        request.set_digest(publication.version.digest);
        request.set_offset(report.bytes);
        return request;
      },
      take,
      [&] { return report.bytes; });
  if (!ended) {
    throw DataError(what, ": the stream ended at byte ", report.bytes, " of ", publication.bytes);
  }
  file.put_in_place();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace praetor
