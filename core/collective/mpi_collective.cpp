#include "core/base/error.h"
#include "core/collective/exchange_collective.h"

#ifdef PRAETOR_WITH_MPI

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;
using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int kCallTag = 1, kElementsTag = 2;
constexpr milliseconds kCloseDeadline{30'000};
/// Peers that were told why the group failed get this long to report it before the job ends.
constexpr milliseconds kGrace{1'000};

/// What goes ahead of the elements.
struct Envelope {
  CollectiveCall call;
  char reason[480] = {};  ///< of kAbort, ends with 0; other calls do not send it
};

void require_success(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw CollectiveError(what, " failed: ", text);
}

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

/// The messages of one exchange. Requests that are left when it fails are cancelled, and the group
/// makes no progress any more: nothing is written to the caller's memory later.
class Messages {
 public:
  struct Done {
    int32_t peer;
    bool envelope;
  };

  Messages() = default;
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  ~Messages() {
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] == MPI_REQUEST_NULL) continue;
      if (receives_[i]) MPI_Cancel(&requests_[i]);
      MPI_Request_free(&requests_[i]);
    }
  }

  void send(int32_t peer, int tag, const void* data, int64_t bytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    require_success(
        MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD, &request),
        "MPI_Isend");
    add(request, peer, false, false);
  }
  void receive(int32_t peer, int tag, void* data, int64_t bytes) {
    MPI_Request request = MPI_REQUEST_NULL;
    require_success(
        MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD, &request),
        "MPI_Irecv");
    add(request, peer, true, tag == kCallTag);
  }

  /// What has completed since the last call.
  std::vector<Done> poll() {
    std::vector<Done> out;
    if (open_ == 0) return out;
    indices_.resize(requests_.size());
    int count = 0;
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
  void add(MPI_Request request, int32_t peer, bool receives, bool envelope) {
    requests_.push_back(request);
    done_.push_back({peer, envelope});
    receives_.push_back(receives);
    ++open_;
  }

  std::vector<MPI_Request> requests_;
  std::vector<Done> done_;
  std::vector<bool> receives_;
  std::vector<int> indices_;
  int64_t open_ = 0;
};

class MpiCollective final : public ExchangeCollective {
 public:
  /// @param threads  calls may come from two threads, though never at once
  MpiCollective(int32_t rank, int32_t world_size, CollectiveOptions options, bool threads)
      : ExchangeCollective(rank, world_size, options),
        deadline_(options.deadline),
        threads_(threads) {}

  ~MpiCollective() override {
    settle();
    if (!failed()) {
      deadline_ = std::min(deadline_, kCloseDeadline);
      try {
        const auto world = static_cast<size_t>(world_size());
        run(next(Operation::kClose, ElementType::kByte, 0),
            std::vector<Bytes>(world),
            std::vector<MutableBytes>(world));
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
  bool runs_beside() const override { return threads_; }

  void exchange(const CollectiveCall& call,
                const Routes& routes,
                const std::vector<Bytes>& send,
                const std::vector<MutableBytes>& receive) override {
    const auto start = Clock::now();
    const auto world = static_cast<size_t>(world_size());
    std::vector<Envelope> theirs(world);
    std::vector<bool> came(world);
    size_t present = 0;
    Messages messages;
    for (const int32_t peer : routes.from)
      messages.receive(peer, kCallTag, &theirs[static_cast<size_t>(peer)], sizeof(Envelope));
    for (const int32_t peer : routes.to) messages.send(peer, kCallTag, &call, sizeof(call));
    for (const int32_t peer : routes.to) {
      const Bytes all = send[static_cast<size_t>(peer)];
      in_chunks(all.size(), [&](size_t at, int64_t bytes) {
        messages.send(peer, kElementsTag, all.data() + at, bytes);
      });
    }
    Backoff backoff;
    while (messages.open() > 0) {
      stop_if_given_up(call);
      const auto done = messages.poll();
      for (const Messages::Done& one : done) {
        if (!one.envelope) continue;
        const auto peer = static_cast<size_t>(one.peer);
        if (theirs[peer].call.operation == Operation::kAbort)
          throw_aborted(call, one.peer, theirs[peer].reason);
        require_same(call, one.peer, theirs[peer].call);
        came[peer] = true;
        ++present;
        // Only now it is sure that what comes next is for this place.
        in_chunks(receive[peer].size(), [&](size_t at, int64_t bytes) {
          messages.receive(one.peer, kElementsTag, receive[peer].data() + at, bytes);
        });
      }
      if (!done.empty()) {
        backoff.reset();
        continue;
      }
      // Who is sent to alone says nothing but that it gave up.
      if (routes.from.empty()) {
        for (const int32_t peer : routes.to) throw_if_aborted(call, peer);
      }
      if (Clock::now() - start >= deadline_) {
        std::vector<int32_t> missing, silent;
        for (const int32_t peer : messages.open_peers())
          (came[static_cast<size_t>(peer)] ? silent : missing).push_back(peer);
        throw_late(call, missing, silent, Clock::now() - start);
      }
      backoff.pause(present == routes.from.size());
    }
  }

  void send_abort(const std::string& reason) noexcept override {
    farewell_.call.operation = Operation::kAbort;
    std::strncpy(farewell_.reason, reason.c_str(), sizeof(farewell_.reason) - 1);
    for (int32_t peer = 0; peer < world_size(); ++peer) {
      if (peer == rank()) continue;
      MPI_Request request = MPI_REQUEST_NULL;
      const int status = MPI_Isend(&farewell_,
                                   static_cast<int>(sizeof(farewell_)),
                                   MPI_BYTE,
                                   peer,
                                   kCallTag,
                                   MPI_COMM_WORLD,
                                   &request);
      if (status == MPI_SUCCESS) MPI_Request_free(&request);
    }
  }

 private:
  /// A call of `peer` stays where it is, unless it is the end of the group.
  void throw_if_aborted(const CollectiveCall& call, int32_t peer) const {
    int there = 0, bytes = 0;
    MPI_Status status;
    require_success(MPI_Iprobe(peer, kCallTag, MPI_COMM_WORLD, &there, &status), "MPI_Iprobe");
    if (there == 0) return;
    require_success(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
    if (bytes != static_cast<int>(sizeof(Envelope))) return;
    Envelope last;
    require_success(
        MPI_Recv(&last, bytes, MPI_BYTE, peer, kCallTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
        "MPI_Recv");
    throw_aborted(call, peer, last.reason);
  }

  /// MPI counts with 32 bits; and with smaller chunks the wait sees that something comes.
  template <typename Message>
  void in_chunks(size_t bytes, Message message) const {
    const auto most = static_cast<size_t>(options().chunk_bytes);
    for (size_t at = 0; at < bytes; at += most)
      message(at, static_cast<int64_t>(std::min(most, bytes - at)));
  }

  milliseconds deadline_;
  bool threads_;
  Envelope farewell_;  ///< read by MPI after send_abort has returned
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
  return std::make_unique<MpiCollective>(rank, world, options, provided >= MPI_THREAD_SERIALIZED);
}

}  // namespace praetor

#else

namespace praetor {

std::unique_ptr<Collective> make_mpi_collective(CollectiveOptions /*options*/) {
  throw InvalidArgument("this build has no MPI (it was configured with PRAETOR_MPI=OFF)");
}

}  // namespace praetor

#endif
