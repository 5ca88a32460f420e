#pragma once

#include <c10/util/BFloat16.h>

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace praetor {

enum class ElementType : int32_t { kFloat32, kFloat64, kInt64, kByte, kBFloat16, kInt32 };

template <typename T>
concept SummableElement = std::same_as<T, float> || std::same_as<T, double> ||
    std::same_as<T, c10::BFloat16> || std::same_as<T, int64_t> || std::same_as<T, int32_t>;
template <typename T>
concept CollectiveElement = SummableElement<T> || std::same_as<T, std::byte>;

template <CollectiveElement T>
constexpr ElementType element_type() {
  if constexpr (std::same_as<T, float>) return ElementType::kFloat32;
  if constexpr (std::same_as<T, double>) return ElementType::kFloat64;
  if constexpr (std::same_as<T, int64_t>) return ElementType::kInt64;
  if constexpr (std::same_as<T, c10::BFloat16>) return ElementType::kBFloat16;
  if constexpr (std::same_as<T, int32_t>) return ElementType::kInt32;
  return ElementType::kByte;
}

struct CollectiveOptions {
  std::chrono::milliseconds deadline{600'000};  ///< of each exchange of an operation; > 0
  int64_t chunk_bytes = int64_t{4} << 20;       ///< longer messages are cut, [1, 2^31)
  /// Errors tell the rank's last calls as well; so they do where the environment has
  /// PRAETOR_DEBUG_COLLECTIVES=1.
  bool debug = false;
};

/// An operation that has been started and may go on beside what the rank does next. Its spans are
/// the operation's until `wait` returns or the handle is gone.
class PendingCollective {
 public:
  /// Waits where nobody has; what fails then is thrown by the group's next call.
  virtual ~PendingCollective() = default;
  /// Returns when this rank's part is done. Once. @throws as the operation
  virtual void wait() = 0;
};

/// A group of ranks that exchange tensors' elements: every rank makes the same calls in the same
/// order. An operation returns when this rank's part is done; its spans are free again then.
///
/// Sums are in rank order, ((x_0 + x_1) + x_2) + ..., in the element's own type (bfloat16: in
/// float32, rounded once at the end; integers wrap), whatever the backend, the size and the cut:
/// `threads` and `mpi` agree bit for bit. An all-to-all hands each rank its part of every other's
/// vector, the owner adds, and all_reduce gathers the parts.
///
/// `start_` operations are done in the order of the calls, blocking ones among them: a blocking
/// one waits for those that were started before it.
///
/// Every operation @throws InvalidArgument for spans that do not fit each other, and
/// CollectiveError, naming rank, operation, its sequence number and its element count, and the step
/// of the job where set_step has told it:
///  - after `deadline`, with the ranks that have not come and the seconds waited;
///  - when another rank made another call, with both;
///  - when another rank gave up (`abort`, or its Collective was destroyed), with its reason.
/// A group that failed once stays failed: every later call throws.
///
/// `split` makes smaller groups of one: each has its own ranks 0 .. world_size - 1, its own order
/// of calls and sequence numbers, and its own background. A rank may be in any number of them;
/// calls of two groups need no order between them, as long as all ranks' orders fit together.
/// Messages name the group, and ranks by their number in the whole. When a group fails, or a rank
/// gives up, all groups of its members end the same way, whoever they wait for: nobody waits on for
/// a rank that has failed elsewhere.
///
/// Spans are of the processor's memory. Where ranks have GPUs and NCCL between them, `device` is a
/// second group of the same ranks for spans of theirs; so it is of what is split from one that has
/// it. Calls of the two need no order between them.
///
/// Held by whoever runs the rank, borrowed by those who compute. One thread at a time (mpi: the
/// one that made it).
class Collective {
 public:
  virtual ~Collective() = default;
  Collective() = default;
  Collective(const Collective&) = delete;
  Collective& operator=(const Collective&) = delete;

  virtual int32_t rank() const = 0;
  virtual int32_t world_size() const = 0;
  /// By rank here: the ranks in the whole, which was not made by a split.
  virtual const std::vector<int32_t>& members() const = 0;
  int32_t global_rank() const { return members()[static_cast<size_t>(rank())]; }
  /// "local", "threads", "mpi", "nccl".
  virtual std::string backend() const = 0;

  /// receive[i] = sum over ranks r of send_r[rank * n + i].
  /// @param send     [world_size * n]
  /// @param receive  [n], not overlapping `send`
  template <SummableElement T>
  void reduce_scatter(std::span<const T> send, std::span<T> receive) {
    do_reduce_scatter(element_type<T>(),
                      send.data(),
                      static_cast<int64_t>(send.size()),
                      receive.data(),
                      static_cast<int64_t>(receive.size()));
  }

  /// receive[r * n + i] = send_r[i].
  /// @param send     [n]; may be this rank's own place in `receive`
  /// @param receive  [world_size * n]
  template <CollectiveElement T>
  void all_gather(std::span<const T> send, std::span<T> receive) {
    do_all_gather(element_type<T>(),
                  send.data(),
                  static_cast<int64_t>(send.size()),
                  receive.data(),
                  static_cast<int64_t>(receive.size()));
  }

  /// values[i] = sum over ranks of values_r[i]; the same bits on every rank.
  template <SummableElement T>
  void all_reduce(std::span<T> values) {
    do_all_reduce(element_type<T>(), values.data(), static_cast<int64_t>(values.size()));
  }

  /// The same two, in the background where the backend can.
  template <SummableElement T>
  [[nodiscard]] std::unique_ptr<PendingCollective> start_reduce_scatter(std::span<const T> send,
                                                                        std::span<T> receive) {
    return do_start_reduce_scatter(element_type<T>(),
                                   send.data(),
                                   static_cast<int64_t>(send.size()),
                                   receive.data(),
                                   static_cast<int64_t>(receive.size()));
  }
  template <CollectiveElement T>
  [[nodiscard]] std::unique_ptr<PendingCollective> start_all_gather(std::span<const T> send,
                                                                    std::span<T> receive) {
    return do_start_all_gather(element_type<T>(),
                               send.data(),
                               static_cast<int64_t>(send.size()),
                               receive.data(),
                               static_cast<int64_t>(receive.size()));
  }

  /// receive[r * n + i] = send_r[rank * n + i].
  /// @param send, receive  [world_size * n], not overlapping
  template <CollectiveElement T>
  void all_to_all(std::span<const T> send, std::span<T> receive) {
    do_all_to_all(element_type<T>(),
                  send.data(),
                  static_cast<int64_t>(send.size()),
                  receive.data(),
                  static_cast<int64_t>(receive.size()));
  }

  /// From one rank to another, which calls `receive` for as many elements; the other ranks take no
  /// part. Between two ranks the order of all calls is the same on both. `send` may return before
  /// its elements have arrived, or wait until they are asked for.
  template <CollectiveElement T>
  void send(std::span<const T> values, int32_t to) {
    do_send(element_type<T>(), values.data(), static_cast<int64_t>(values.size()), to);
  }
  template <CollectiveElement T>
  void receive(std::span<T> values, int32_t from) {
    do_receive(element_type<T>(), values.data(), static_cast<int64_t>(values.size()), from);
  }

  /// Every rank's bytes, by rank; each rank gives its own length, also 0.
  virtual std::vector<std::string> all_gather_bytes(std::span<const std::byte> send) = 0;
  std::vector<std::string> all_gather_bytes(const std::string& send) {
    return all_gather_bytes(std::as_bytes(std::span(send)));
  }

  /// values = those of rank `root`.
  template <CollectiveElement T>
  void broadcast(std::span<T> values, int32_t root = 0) {
    do_broadcast(element_type<T>(), values.data(), static_cast<int64_t>(values.size()), root);
  }

  /// Returns when every rank has called it.
  virtual void barrier() = 0;

  /// A group of the ranks that give the same colour, in the order of their keys, of equal keys in
  /// that of their ranks. Every rank calls it. This Collective must outlive the group.
  /// @param name  of the group, for messages ("shards")
  /// @throws InvalidArgument when the backend has no groups; CollectiveError
  [[nodiscard]] std::unique_ptr<Collective> split(const std::string& name,
                                                  int64_t colour,
                                                  int64_t key = 0);

  /// The same ranks for spans of a GPU's memory; null: what is there goes through the processor's.
  Collective* device() const { return device_.get(); }
  /// Every rank has one, or none has. @throws InvalidArgument for other ranks than these
  void set_device(std::unique_ptr<Collective> device);

  /// The step of the job that calls belong to from now on, for messages; below 0: none. Of all
  /// groups of the rank.
  void set_step(int64_t step) { *step_ = step; }

  /// This rank gives up: the others' calls throw CollectiveError with `reason` as soon as they
  /// see it, and so does every later call here; in all groups of the rank.
  void abort(const std::string& reason) noexcept;

 protected:
  virtual std::unique_ptr<Collective> do_split(const std::string& name,
                                               int64_t colour,
                                               int64_t key) = 0;
  virtual void do_abort(const std::string& reason) noexcept = 0;
  virtual void do_reduce_scatter(ElementType type,
                                 const void* send,
                                 int64_t send_count,
                                 void* receive,
                                 int64_t receive_count) = 0;
  virtual void do_all_gather(ElementType type,
                             const void* send,
                             int64_t send_count,
                             void* receive,
                             int64_t receive_count) = 0;
  virtual void do_all_reduce(ElementType type, void* values, int64_t count) = 0;
  virtual void do_broadcast(ElementType type, void* values, int64_t count, int32_t root) = 0;
  /// A backend that does nothing in the background does it at once.
  virtual std::unique_ptr<PendingCollective> do_start_reduce_scatter(
      ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count);
  virtual std::unique_ptr<PendingCollective> do_start_all_gather(
      ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count);
  /// @throws InvalidArgument where the backend has none; so do the two below
  virtual void do_all_to_all(
      ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count);
  virtual void do_send(ElementType type, const void* values, int64_t count, int32_t to);
  virtual void do_receive(ElementType type, void* values, int64_t count, int32_t from);

  int64_t step() const { return *step_; }
  /// A group's step is that of what it was split from.
  void share_step(const Collective& whole) { step_ = whole.step_; }

 private:
  std::shared_ptr<std::atomic<int64_t>> step_ = std::make_shared<std::atomic<int64_t>>(-1);
  std::unique_ptr<Collective> device_;
};

/// A world of one rank; nothing is exchanged.
std::unique_ptr<Collective> make_local_collective();

/// Ranks 0 .. world_size - 1 as threads of this process, one Collective each: for tests, and for
/// trying a layout without a launcher. @throws InvalidArgument for world_size < 1
std::vector<std::unique_ptr<Collective>> make_thread_group(int32_t world_size,
                                                           CollectiveOptions options = {});

/// This process's rank of the MPI job that started it (a world of 1 without a launcher).
/// Initialises MPI, which a process can do once; every call, and the destructor, on this thread.
///
/// The destructor waits for the others (30 s at most) and finalises. After an error, or when they
/// do not come, it ends the job instead: MPI_Abort with status 75, which does not return. So keep
/// the Collective until the error has been reported. Its groups just end: a rank that still calls
/// one is told when the job ends.
/// @throws InvalidArgument when this build has no MPI, or MPI was used before; CollectiveError
std::unique_ptr<Collective> make_mpi_collective(CollectiveOptions options = {});

}  // namespace praetor
