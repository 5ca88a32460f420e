#include "core/base/error.h"
#include "core/collective/exchange_collective.h"

#ifdef PRAETOR_WITH_MPI

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;
using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

/// Told to all ranks of the whole, whatever group they wait in.
constexpr int kAbortTag = 0;
/// Any MPI has tags up to one above this; a group has two of its own.
constexpr int64_t kLastTag = 32766;
/// Of what ranks tell each other beside their exchanges.
constexpr int kWordTag = 32767;
constexpr milliseconds kCloseDeadline{30'000};
/// Peers that were told why the group failed get this long to report it before the job ends.
constexpr milliseconds kGrace{1'000};

constexpr size_t kReasonBytes = 512;
/// Any MPI takes so much over before it is asked for, so that no sender that stops is waited for.
constexpr size_t kWordBytes = 2048;

void require_success(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw CollectiveError(what, " failed: ", text);
}

/// What the groups of this process have in common.
class MpiProcess final : public SideChannel {
 public:
  /// @param threads  MPI may be called from others than this one
  explicit MpiProcess(bool threads) : threads_(threads) {}

  std::mutex mutex;  ///< of every call of MPI: exchanges of two groups may be under way

  bool threads() const { return threads_; }

  void send_abort(const std::string& reason) noexcept override {
    const std::lock_guard lock(mutex);
    if (silent()) return;
    std::strncpy(farewell_, reason.c_str(), kReasonBytes - 1);
    int mine = 0, whole = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &mine);
    MPI_Comm_size(MPI_COMM_WORLD, &whole);
    for (int peer = 0; peer < whole; ++peer) {
      if (peer == mine) continue;
      MPI_Request request = MPI_REQUEST_NULL;
      const int status = MPI_Isend(farewell_,
                                   static_cast<int>(kReasonBytes),
                                   MPI_BYTE,
                                   peer,
                                   kAbortTag,
                                   MPI_COMM_WORLD,
                                   &request);
      if (status == MPI_SUCCESS) MPI_Request_free(&request);
    }
  }

  std::optional<Word> aborted() override {
    char reason[kReasonBytes] = {};
    MPI_Status status;
    const std::lock_guard lock(mutex);
    if (silent()) return std::nullopt;
    int there = 0;
    require_success(MPI_Iprobe(MPI_ANY_SOURCE, kAbortTag, MPI_COMM_WORLD, &there, &status),
                    "MPI_Iprobe");
    if (there == 0) return std::nullopt;
    require_success(MPI_Recv(reason,
                             static_cast<int>(kReasonBytes),
                             MPI_BYTE,
                             status.MPI_SOURCE,
                             kAbortTag,
                             MPI_COMM_WORLD,
                             MPI_STATUS_IGNORE),
                    "MPI_Recv");
    return Word{status.MPI_SOURCE, reason};
  }

  void tell(int32_t to, const std::string& text) noexcept override {
    const std::lock_guard lock(mutex);
    if (silent()) return;
    std::erase_if(told_, [](Told& one) {
      int done = 0;
      return MPI_Test(&one.request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done != 0;
    });
    Told& one = told_.emplace_back(text.substr(0, kWordBytes));
    const auto bytes = static_cast<int>(one.text.size());
    if (MPI_Isend(one.text.data(), bytes, MPI_BYTE, to, kWordTag, MPI_COMM_WORLD, &one.request) !=
        MPI_SUCCESS)
      told_.pop_back();
  }

  std::vector<Word> heard() override {
    const std::lock_guard lock(mutex);
    return silent() ? std::vector<Word>() : take_words();
  }

  /// Before MPI is: what nobody asked for any more is taken, as MPI wants it.
  void end() {
    const std::lock_guard lock(mutex);
    take_words();
    ended_ = true;
  }

 private:
  struct Told {
    explicit Told(std::string word) : text(std::move(word)) {}
    std::string text;  ///< MPI's until the request is done
    MPI_Request request = MPI_REQUEST_NULL;
  };

  static std::vector<Word> take_words() {
    std::vector<Word> out;
    for (;;) {
      MPI_Status status;
      int there = 0, bytes = 0;
      require_success(MPI_Iprobe(MPI_ANY_SOURCE, kWordTag, MPI_COMM_WORLD, &there, &status),
                      "MPI_Iprobe");
      if (there == 0) return out;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      Word& word =
          out.emplace_back(Word{status.MPI_SOURCE, std::string(static_cast<size_t>(bytes), ' ')});
      require_success(MPI_Recv(word.text.data(),
                               bytes,
                               MPI_BYTE,
                               word.from,
                               kWordTag,
                               MPI_COMM_WORLD,
                               MPI_STATUS_IGNORE),
                      "MPI_Recv");
    }
  }

  /// A wait over NCCL may be in a thread that must not call MPI: it does without.
  bool silent() const { return ended_ || (!threads_ && std::this_thread::get_id() != maker_); }

  const bool threads_;
  const std::thread::id maker_ = std::this_thread::get_id();
  bool ended_ = false;
  char farewell_[kReasonBytes] = {};  ///< ends with 0; read by MPI after send_abort has returned
  std::list<Told> told_;
};

/// Waits a little more each time nothing has come: at first it only lets others run, then it
/// sleeps, so that a waiting rank leaves its core to others.
class Backoff {
 public:
  /// @param busy  all peers are in the call, so the end is near
  void pause(bool busy) {
    const auto idle = Clock::now() - since_;
    if (idle < (busy ? microseconds(100'000) : microseconds(50))) {
      std::this_thread::yield();
      return;
    }
    std::this_thread::sleep_for(nap_);
    nap_ = std::min(2 * nap_, microseconds(1000));
  }
  void reset() {
    since_ = Clock::now();
    nap_ = microseconds(20);
  }

 private:
  Clock::time_point since_ = Clock::now();
  microseconds nap_{20};
};

/// The messages of one exchange. Requests that are left when it fails are cancelled, and no group
/// exchanges any more. MPI may still write to the caller's memory what a sender has begun to send,
/// should that go on while the process ends.
class Messages {
 public:
  struct Done {
    int32_t peer;  ///< rank in the group
    bool envelope;
  };

  /// Both are borrowed.
  Messages(MpiProcess& process, const Membership& group)
      : process_(process), group_(group), call_tag_(static_cast<int>(1 + 2 * group.id)) {}
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  ~Messages() {
    const std::lock_guard lock(process_.mutex);
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] == MPI_REQUEST_NULL) continue;
      if (receives_[i]) MPI_Cancel(&requests_[i]);
      MPI_Request_free(&requests_[i]);
    }
  }

  void send_call(int32_t peer, const CollectiveCall& call) {
    send(peer, call_tag_, &call, sizeof(call));
  }
  void receive_call(int32_t peer, CollectiveCall& call) {
    receive(peer, call_tag_, &call, sizeof(call));
  }
  void send_elements(int32_t peer, const void* data, int64_t bytes) {
    send(peer, call_tag_ + 1, data, bytes);
  }
  void receive_elements(int32_t peer, void* data, int64_t bytes) {
    receive(peer, call_tag_ + 1, data, bytes);
  }

  /// What has completed since the last call.
  std::vector<Done> poll() {
    std::vector<Done> out;
    if (open_ == 0) return out;
    indices_.resize(requests_.size());
    int count = 0;
    const std::lock_guard lock(process_.mutex);
    require_success(MPI_Testsome(static_cast<int>(requests_.size()),
                                 requests_.data(),
                                 &count,
                                 indices_.data(),
                                 MPI_STATUSES_IGNORE),
                    "MPI_Testsome");
    for (int i = 0; i < count; ++i) out.push_back(done_[static_cast<size_t>(indices_[i])]);
    open_ -= count;
    return out;
  }
  int64_t open() const { return open_; }
  /// Peers with messages that are under way.
  std::vector<int32_t> open_peers() const {
    std::vector<int32_t> out;
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] != MPI_REQUEST_NULL &&
          std::find(out.begin(), out.end(), done_[i].peer) == out.end())
        out.push_back(done_[i].peer);
    }
    return out;
  }

 private:
  void send(int32_t peer, int tag, const void* data, int64_t bytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int to = group_.global(peer), count = static_cast<int>(bytes);
    const std::lock_guard lock(process_.mutex);
    require_success(MPI_Isend(data, count, MPI_BYTE, to, tag, MPI_COMM_WORLD, &request),
                    "MPI_Isend");
    add(request, peer, false, false);
  }
  void receive(int32_t peer, int tag, void* data, int64_t bytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int from = group_.global(peer), count = static_cast<int>(bytes);
    const std::lock_guard lock(process_.mutex);
    require_success(MPI_Irecv(data, count, MPI_BYTE, from, tag, MPI_COMM_WORLD, &request),
                    "MPI_Irecv");
    add(request, peer, true, tag == call_tag_);
  }
  void add(MPI_Request request, int32_t peer, bool receives, bool envelope) {
    requests_.push_back(request);
    done_.push_back({peer, envelope});
    receives_.push_back(receives);
    ++open_;
  }

  MpiProcess& process_;
  const Membership& group_;
  int call_tag_;
  std::vector<MPI_Request> requests_;
  std::vector<Done> done_;
  std::vector<bool> receives_;
  std::vector<int> indices_;
  int64_t open_ = 0;
};

class MpiCollective final : public ExchangeCollective {
 public:
  MpiCollective(int32_t rank,
                int32_t world_size,
                CollectiveOptions options,
                std::shared_ptr<MpiProcess> process)
      : ExchangeCollective(rank, world_size, options, process),
        deadline_(options.deadline),
        process_(std::move(process)) {}
  MpiCollective(const MpiCollective& whole, Membership group)
      : ExchangeCollective(whole, std::move(group)),
        deadline_(whole.deadline_),
        process_(whole.process_) {}

  ~MpiCollective() override {
    settle();
    if (group().id != 0) return;
    if (!failed()) {
      deadline_ = std::min(deadline_, kCloseDeadline);
      try {
        const auto world = static_cast<size_t>(world_size());
        run(next(Operation::kClose, ElementType::kByte, 0),
            std::vector<Bytes>(world),
            std::vector<MutableBytes>(world));
        process_->end();
        MPI_Finalize();
        return;
      } catch (const std::exception&) {
        // The destructor has nobody to tell; the job ends with a status that says it.
      }
    }
    // MPI_Finalize would wait for ranks that do not come.
    if (world_size() > 1) std::this_thread::sleep_for(kGrace);
    MPI_Abort(MPI_COMM_WORLD, kExitTemporary);
    std::_Exit(kExitTemporary);
  }

  std::string backend() const override { return "mpi"; }

 protected:
  bool runs_beside() const override { return process_->threads(); }

  void exchange(const CollectiveCall& call,
                const Routes& routes,
                const std::vector<Bytes>& send,
                const std::vector<MutableBytes>& receive) override {
    const auto start = Clock::now();
    const auto world = static_cast<size_t>(world_size());
    std::vector<CollectiveCall> theirs(world);
    std::vector<bool> came(world);
    size_t present = 0;
    Messages messages(*process_, group());
    for (const int32_t peer : routes.from)
      messages.receive_call(peer, theirs[static_cast<size_t>(peer)]);
    for (const int32_t peer : routes.to) messages.send_call(peer, call);
    for (const int32_t peer : routes.to) {
      const Bytes all = send[static_cast<size_t>(peer)];
      in_chunks(all.size(), [&](size_t at, int64_t bytes) {
        messages.send_elements(peer, all.data() + at, bytes);
      });
    }
    RollCall::Wait wait = roll_call_of(call);
    Backoff backoff;
    while (messages.open() > 0) {
      stop_if_failed(call);
      const auto done = messages.poll();
      for (const Messages::Done& one : done) {
        if (!one.envelope) continue;
        const auto peer = static_cast<size_t>(one.peer);
        require_same(call, one.peer, theirs[peer]);
        came[peer] = true;
        ++present;
        // Only now it is sure that what comes next is for this place.
        in_chunks(receive[peer].size(), [&](size_t at, int64_t bytes) {
          messages.receive_elements(one.peer, receive[peer].data() + at, bytes);
        });
      }
      if (!done.empty()) {
        backoff.reset();
        continue;
      }
      // Any rank of the whole, as this group may wait for one that waits for it. Only where nothing
      // has come: what a rank sent before it gave up is taken first.
      if (const auto other = process_->aborted()) throw_aborted(call, other->from, other->text);
      wait.attend();
      const auto waited = Clock::now() - start;
      if (is_late(deadline_, waited)) {
        std::vector<int32_t> missing, silent;
        for (const int32_t peer : messages.open_peers())
          (came[static_cast<size_t>(peer)] ? silent : missing).push_back(peer);
        throw_late(call, missing, silent, waited);
      }
      backoff.pause(present == routes.from.size());
    }
  }

  std::unique_ptr<ExchangeCollective> make_group(Membership group) override {
    if (2 * group.id + 2 > kLastTag)
      throw InvalidArgument(group.who(), ": no more than ", (kLastTag - 2) / 2, " groups");
    return std::make_unique<MpiCollective>(*this, std::move(group));
  }

 private:
  /// MPI counts with 32 bits; and with smaller chunks the wait sees that something comes.
  template <typename Message>
  void in_chunks(size_t bytes, Message message) const {
    const auto most = static_cast<size_t>(options().chunk_bytes);
    for (size_t at = 0; at < bytes; at += most)
      message(at, static_cast<int64_t>(std::min(most, bytes - at)));
  }

  milliseconds deadline_;
  std::shared_ptr<MpiProcess> process_;
};

}  // namespace

std::unique_ptr<Collective> make_mpi_collective(CollectiveOptions options) {
  int before = 0;
  MPI_Initialized(&before);
  if (before != 0) throw InvalidArgument("MPI is in use: a process makes one MPI collective");
  int provided = MPI_THREAD_SINGLE;
  require_success(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided),
                  "MPI_Init_thread");
  if (provided < MPI_THREAD_FUNNELED)
    throw CollectiveError("this MPI library does not allow threads beside it");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int rank = 0, world = 1;
  require_success(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  require_success(MPI_Comm_size(MPI_COMM_WORLD, &world), "MPI_Comm_size");
  auto process = std::make_shared<MpiProcess>(provided >= MPI_THREAD_SERIALIZED);
  return std::make_unique<MpiCollective>(rank, world, options, std::move(process));
}

}  // namespace praetor

#else

namespace praetor {

std::unique_ptr<Collective> make_mpi_collective(CollectiveOptions /*options*/) {
  throw InvalidArgument("this build has no MPI (it was configured with PRAETOR_MPI=OFF)");
}

}  // namespace praetor

#endif
