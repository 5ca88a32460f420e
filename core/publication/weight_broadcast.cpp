#include "core/publication/weight_broadcast.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/sha256.h"
#include "core/base/text.h"
#include "core/publication/weight_format.h"

namespace praetor {

namespace {

using Clock = std::chrono::steady_clock;
using State = cuda::Communicator::State;
using std::chrono::microseconds;

constexpr microseconds kFirstPause{20};
constexpr microseconds kLongestPause{1000};
constexpr std::chrono::milliseconds kAskAfter{50};
constexpr uint64_t kLengthBytes = 8;

/// A file in memory that has no name but this process's, filled from its beginning on; its header
/// is read and its tensors are hashed as they come.
class ArrivingFile {
 public:
  ArrivingFile(int64_t bytes, std::string digest)
      : bytes_(static_cast<size_t>(bytes)), digest_(std::move(digest)) {
    fd_ = ::memfd_create("praetor-weights", MFD_CLOEXEC);
    if (fd_ < 0 || ::ftruncate(fd_, bytes) != 0) fail("make a file in memory of ");
    void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (at == MAP_FAILED) fail("map a file in memory of ");
    data_ = static_cast<std::byte*>(at);
  }
  ~ArrivingFile() {
    if (data_) ::munmap(data_, bytes_);
    if (fd_ >= 0) ::close(fd_);
  }
  ArrivingFile(const ArrivingFile&) = delete;
  ArrivingFile& operator=(const ArrivingFile&) = delete;

  std::byte* at(uint64_t place) const { return data_ + place; }

  /// All before `end` is there. @throws DataError
  void arrived(uint64_t end) {
    if (!file_ && !read_header(end)) return;
    struct Piece {
      size_t tensor;
      uint64_t begin, end;
    };
    std::vector<Piece> pieces;
    for (size_t i = first_; i < extents_.size() && extents_[i].begin < end; ++i) {
      pieces.push_back({i, std::max(extents_[i].begin, hashed_), std::min(extents_[i].end, end)});
    }
    std::vector<uint64_t> sizes;
    for (const Piece& piece : pieces) sizes.push_back(piece.end - piece.begin);
    const std::vector<size_t> order = weight_format::largest_first(sizes);
    weight_format::run_parallel(0, order.size(), [&](size_t i) {
      const Piece& piece = pieces[order[i]];
      hashes_[piece.tensor].update(std::span<const std::byte>(
          data_ + piece.begin, static_cast<size_t>(piece.end - piece.begin)));
    });
    hashed_ = end;
    while (first_ < extents_.size() && extents_[first_].end <= end) {
      found_[extents_[first_].name] = hashes_[first_].hex();
      ++first_;
    }
  }

  /// The whole of it. @throws DataError
  AnyPublished verified() {
    PRAETOR_CHECK(file_ && hashed_ == bytes_, "a file that has not come whole");
    std::visit([&](const auto& file) { file.verify_with(found_); }, *file_);
    return *file_;
  }

 private:
  [[noreturn]] void fail(const char* what) {
    const std::string why = std::strerror(errno);
    if (fd_ >= 0) ::close(fd_);
    throw IoError("cannot ", what, bytes_, " bytes for weights: ", why);
  }

  bool read_header(uint64_t end) {
    if (end < kLengthBytes && end < bytes_) return false;
    uint64_t length = 0;
    if (end >= kLengthBytes) std::memcpy(&length, data_, sizeof(length));
    // A length that cannot be is the reader's to refuse.
    if (length < bytes_ && end < kLengthBytes + length && end < bytes_) return false;
    file_ = open_published(str("/proc/self/fd/", fd_), digest_);
    extents_ = std::visit([](const auto& file) { return file.extents(); }, *file_);
    hashes_ = std::vector<Sha256>(extents_.size());
    hashed_ = kLengthBytes + length;
    return true;
  }

  const size_t bytes_;
  const std::string digest_;
  int fd_ = -1;
  std::byte* data_ = nullptr;
  std::optional<AnyPublished> file_;  ///< once its header is there
  std::vector<PublishedFile::Extent> extents_;
  std::vector<Sha256> hashes_;  ///< by extent
  std::map<std::string, std::string> found_;
  size_t first_ = 0;     ///< the first extent that is not whole
  uint64_t hashed_ = 0;  ///< all tensors' bytes before it are
};

}  // namespace

WeightBroadcast::WeightBroadcast(std::unique_ptr<cuda::Communicator> group,
                                 cuda::Device& device,
                                 WeightBroadcastOptions options)
    : group_(std::move(group)), device_(device), options_(std::move(options)) {
  const auto world = static_cast<int32_t>(options_.members.size());
  if (options_.rank < 0 || options_.rank >= world)
    throw InvalidArgument("rank ", options_.rank, " of ", world, " in a broadcast of weights");
  if (options_.bucket_bytes < 1 || options_.timeout.count() < 1)
    throw InvalidArgument("a broadcast of weights in buckets of ",
                          options_.bucket_bytes,
                          " bytes, ",
                          options_.timeout.count(),
                          " ms for each");
  guarded("joining the group", [&] { await("joining the group"); });
}

WeightBroadcast::~WeightBroadcast() = default;

void WeightBroadcast::give_up() noexcept {
  if (failure_.empty()) failure_ = "it was given up";
  group_->abort();
}

std::string WeightBroadcast::who() const {
  std::string others;
  for (size_t i = 0; i < options_.members.size(); ++i) {
    if (static_cast<int32_t>(i) != options_.rank)
      others += (others.empty() ? "" : ", ") + options_.members[i];
  }
  return str("broadcast of weights, epoch ",
             options_.epoch,
             ", rank ",
             options_.rank,
             " of ",
             options_.members.size(),
             " (with ",
             others,
             ")");
}

int64_t WeightBroadcast::buckets(int64_t bytes) const {
  return (bytes + options_.bucket_bytes - 1) / options_.bucket_bytes;
}

int64_t WeightBroadcast::size_of(int64_t bucket, int64_t bytes) const {
  return std::min(options_.bucket_bytes, bytes - bucket * options_.bucket_bytes);
}

void WeightBroadcast::reserve(int64_t bytes) {
  const int64_t wanted = std::min(options_.bucket_bytes, bytes);
  for (auto& each : buffers_) {
    if (each.size() < wanted) each = cuda::DeviceArray<std::byte>(device_, wanted);
  }
}

cuda::Communicator::Work WeightBroadcast::start(int64_t bucket, int64_t bytes) {
  const int64_t count = size_of(bucket, bytes);
  const cuda::Communicator::Work work{.operation = cuda::Communicator::Operation::kBroadcast,
                                      .type = cuda::Communicator::Element::kByte,
                                      .send = buffer(bucket),
                                      .send_count = count,
                                      .receive = buffer(bucket),
                                      .receive_count = count,
                                      .root = 0,
                                      .on_device = true};
  group_->start(work);
  return work;
}

void WeightBroadcast::await(const std::string& what) {
  const auto begin = Clock::now();
  auto asked = begin;
  microseconds pause = kFirstPause;
  for (;;) {
    const State state = group_->poll();
    if (state == State::kDone) return;
    if (state == State::kFailed)
      throw CollectiveError(who(), ": ", what, ": NCCL: ", group_->failure());
    const auto now = Clock::now();
    if (now - begin >= options_.timeout) {
      throw CollectiveError(who(),
                            ": ",
                            what,
                            ": timed out after ",
                            std::chrono::duration<double>(options_.timeout).count(),
                            " s: one of them has not come, or stands still");
    }
    if (options_.given_up && now - asked >= kAskAfter) {
      asked = now;
      if (const std::string why = options_.given_up(); !why.empty())
        throw CollectiveError(who(), ": ", what, ": given up: ", why);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, kLongestPause);
  }
}

template <typename Work>
void WeightBroadcast::guarded(const std::string& what, const Work& work) {
  if (!failure_.empty())
    throw CollectiveError(who(), ": ", what, ": the group has failed before: ", failure_);
  try {
    work();
  } catch (const std::exception& error) {
    // What the GPU still does for a group that lacks a rank would never end.
    failure_ = error.what();
    give_up();
    throw;
  }
}

void WeightBroadcast::send(const std::string& what, const std::filesystem::path& file) {
  PRAETOR_CHECK(options_.rank == 0, "weights are sent by the first rank");
  guarded(what, [&] {
    const MappedFile mapped(file);
    const auto bytes = static_cast<int64_t>(mapped.bytes().size());
    const int64_t count = buckets(bytes);
    reserve(bytes);
    const auto stage = [&](int64_t bucket) {
      device_.upload(buffer(bucket),
                     mapped.bytes().data() + bucket * options_.bucket_bytes,
                     size_of(bucket, bytes));
    };
    if (count > 0) stage(0);
    for (int64_t i = 0; i < count; ++i) {
      const auto work = start(i, bytes);
      if (i + 1 < count) stage(i + 1);
      await(str(what, ": bucket ", i + 1, " of ", count));
      group_->finish(work);
    }
  });
}

AnyPublished WeightBroadcast::receive(const std::string& what,
                                      int64_t bytes,
                                      const std::string& digest) {
  PRAETOR_CHECK(options_.rank > 0, "weights are received by the other ranks");
  std::optional<ArrivingFile> file;
  std::string damage;
  guarded(what, [&] {
    if (bytes < 1) throw DataError(who(), ": ", what, ": a file of ", bytes, " bytes");
    file.emplace(bytes, digest);
    const int64_t count = buckets(bytes);
    reserve(bytes);
    const auto take = [&](int64_t bucket) {
      const int64_t begin = bucket * options_.bucket_bytes;
      const int64_t size = size_of(bucket, bytes);
      device_.download(file->at(static_cast<uint64_t>(begin)), buffer(bucket), size);
      if (!damage.empty()) return;
      // The others wait for this rank, too: what is damaged is taken to its end.
      try {
        file->arrived(static_cast<uint64_t>(begin + size));
      } catch (const DataError& error) {
        damage = error.what();
      }
    };
    for (int64_t i = 0; i < count; ++i) {
      const auto work = start(i, bytes);
      if (i > 0) take(i - 1);
      await(str(what, ": bucket ", i + 1, " of ", count));
      group_->finish(work);
    }
    take(count - 1);
  });
  try {
    if (damage.empty()) return file->verified();
  } catch (const DataError& error) {
    damage = error.what();
  }
  throw DataError(who(), ": ", what, ": ", damage);
}

}  // namespace praetor
