#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "actors/rpc/fields.h"
#include "actors/rpc/frame.h"
#include "actors/rpc/weight_stream.h"
#include "core/base/crc32c.h"
#include "praetor/v1/weights.grpc.pb.h"

namespace praetor {

namespace {

constexpr int64_t kChunk = int64_t{1} << 20;
constexpr size_t kFilesOffered = 4;

/// A file kept open, readable also after it was removed.
class OpenFile {
 public:
  explicit OpenFile(const std::filesystem::path& path) : path_(path.string()) {
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0 && errno == ENOENT) throw MissingInput(path_, ": no such file");
    struct stat info {};
    if (fd_ < 0 || ::fstat(fd_, &info) != 0) {
      const std::string why = std::strerror(errno);
      if (fd_ >= 0) ::close(fd_);
      throw IoError("cannot open ", path_, ": ", why);
    }
    size_ = info.st_size;
  }
  ~OpenFile() { ::close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int64_t size() const { return size_; }

  /// @throws IoError also when the file has become shorter
  std::string read(int64_t offset, int64_t count) const {
    std::string bytes(static_cast<size_t>(count), '\0');
    for (size_t have = 0; have < bytes.size();) {
      const ssize_t got = ::pread(
          fd_, bytes.data() + have, bytes.size() - have, offset + static_cast<int64_t>(have));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw IoError("cannot read ", path_, ": ", std::strerror(errno));
      if (got == 0) throw IoError(path_, ": has become shorter than ", size_, " bytes");
      have += static_cast<size_t>(got);
    }
    return bytes;
  }

 private:
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

struct Offer {
  std::string digest;
  std::shared_ptr<const OpenFile> file;
};

Offer offer_of(const WeightVersion& version, const std::filesystem::path& file) {
  if (version.digest.empty()) throw InvalidArgument(file.string(), ": weights without a digest");
  return {version.digest, std::make_shared<const OpenFile>(file)};
}

}  // namespace

struct WeightServer::Impl final : v1::Weights::Service {
  rpc::Frame frame;
  std::mutex mutex;  ///< guards what follows
  std::deque<Offer> offers;
  std::optional<Offer> base;
  std::function<void(int64_t, std::string&)> fault;

  explicit Impl(const ServeOptions& options) : frame(options) {}

  grpc::Status Fetch(grpc::ServerContext* context,
                     const v1::FetchRequest* request,
                     grpc::ServerWriter<v1::WeightChunk>* writer) override {
    bool broken = false;
    grpc::Status status =
        frame.serve(*context, "Weights.Fetch", [&] { broken = !send(*request, *writer); });
    if (broken && status.ok()) return {grpc::StatusCode::ABORTED, "the stream was broken off"};
    return status;
  }

  /// @return false when the stream broke off before its end
  bool send(const v1::FetchRequest& request, grpc::ServerWriter<v1::WeightChunk>& writer) {
    std::shared_ptr<const OpenFile> file;
    std::function<void(int64_t, std::string&)> disturb;
    {
      const std::lock_guard lock(mutex);
      for (const Offer& offer : offers)
        if (offer.digest == request.digest()) file = offer.file;
      if (!file && base && base->digest == request.digest()) file = base->file;
      disturb = fault;
    }
    if (!file) {
      throw MissingInput("weights ", printable(request.digest()), " are not offered (any more)");
    }
    int64_t offset = rpc::within("offset", request.offset(), 0, file->size());
    v1::WeightChunk chunk;
    do {
      const int64_t count = std::min(kChunk, file->size() - offset);
      std::string bytes = file->read(offset, count);
      chunk.set_offset(offset);
      chunk.set_crc32c(crc32c(bytes));
      chunk.set_total_bytes(file->size());
      try {
        if (disturb) disturb(offset, bytes);
      } catch (...) {
        return false;
      }
      chunk.set_bytes(std::move(bytes));
      if (!writer.Write(chunk)) return false;
      offset += count;
    } while (offset < file->size());
    return true;
  }
};

WeightServer::WeightServer(const ServeOptions& options) : impl_(std::make_unique<Impl>(options)) {
  impl_->frame.start({impl_.get()});
}

WeightServer::~WeightServer() {
  stop(std::chrono::milliseconds(0));
}

void WeightServer::set_file(const WeightVersion& version, const std::filesystem::path& file) {
  Offer offer = offer_of(version, file);
  const std::lock_guard lock(impl_->mutex);
  std::erase_if(impl_->offers, [&](const Offer& old) { return old.digest == offer.digest; });
  impl_->offers.push_back(std::move(offer));
  if (impl_->offers.size() > kFilesOffered) impl_->offers.pop_front();
}

void WeightServer::set_base(const WeightVersion& version, const std::filesystem::path& file) {
  Offer offer = offer_of(version, file);
  const std::lock_guard lock(impl_->mutex);
  impl_->base = std::move(offer);
}

void WeightServer::drop_base() {
  const std::lock_guard lock(impl_->mutex);
  impl_->base.reset();
}

void WeightServer::keep(const std::string& digest) {
  const std::lock_guard lock(impl_->mutex);
  std::ranges::stable_partition(impl_->offers,
                                [&](const Offer& one) { return one.digest != digest; });
}

int WeightServer::port() const {
  return impl_->frame.port();
}

std::string WeightServer::address() const {
  return impl_->frame.address();
}

void WeightServer::stop(std::chrono::milliseconds grace) {
  impl_->frame.stop(grace);
}

void WeightServer::set_fault(std::function<void(int64_t offset, std::string& bytes)> fault) {
  const std::lock_guard lock(impl_->mutex);
  impl_->fault = std::move(fault);
}

}  // namespace praetor
