#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/controller/services.h"
#include "actors/rpc/tls.h"

namespace praetor {

/// A call was given up because the process is to end (RpcClientOptions::cancelled).
class CancelledError : public Error {
 public:
  template <typename... Args>
  explicit CancelledError(const Args&... args)
      : Error(ErrorCode::kCancelled, kExitTemporary, str(args...)) {}
};

struct RpcClientOptions {
  std::string run_id;
  std::string secret;
  /// What this process shows, and whom it believes. Null: plain text.
  std::shared_ptr<const TlsIdentity> tls;
  /// HOST:PORT of the server; asked before the first try and before each retry, so that a server
  /// started again elsewhere is found. What it throws as MissingInput counts as out of reach.
  std::function<std::string()> resolve;
  std::chrono::milliseconds call_time{10'000};  ///< a try's deadline, beside the call's own wait
  /// How long a server that is out of reach is tried again, from the first failed try of a call.
  std::chrono::milliseconds patience{120'000};
  std::chrono::milliseconds first_backoff{100};  ///< doubled from retry to retry, +-25%
  std::chrono::milliseconds max_backoff{3'000};
  /// Asked about every 100 ms while a call waits, by the calling thread; true: throw
  /// CancelledError. Null: never.
  std::function<bool()> cancelled;
  int64_t max_message_bytes = int64_t{64} << 20;  ///< of one message, either way
  int64_t part_bytes = int64_t{4} << 20;          ///< a larger completion goes in several calls
};

class RpcChannel;

/// The interfaces, answered by an RpcServer. Each object holds one connection, made at its first
/// call; any thread.
///
/// A try that fails because the server is out of reach, ends, or does not answer in time is made
/// again; hence every call may reach the server more than once. Beside what the interface throws:
/// RpcError when patience is over, naming the call, the address, the tries and the time;
/// CancelledError; RefusedError, never tried again at the same address; InvalidArgument for a
/// message that is too large or an answer that makes no sense.
class WorkerClient final : public WorkerService {
 public:
  explicit WorkerClient(const RpcClientOptions& options);
  ~WorkerClient() override;
  Admission join(const MemberInfo& member) override;
  Orders heartbeat(const Heartbeat& beat) override;
  void leave(const std::string& name) override;
  std::optional<Lease> lease(const LeaseRequest& request) override;
  void complete(Completion completion) override;
  std::optional<Publication> newer_weights(const NewerWeights& request) override;
  std::vector<Orders> heartbeat_all(const std::vector<Heartbeat>& beats) override;
  std::vector<std::optional<Lease>> lease_some(const std::vector<LeaseRequest>& requests,
                                               std::chrono::milliseconds wait) override;
  void complete_all(std::vector<Completion> completions) override;

 private:
  std::unique_ptr<RpcChannel> channel_;
};

class LearnerClient final : public LearnerService {
 public:
  explicit LearnerClient(const RpcClientOptions& options);
  ~LearnerClient() override;
  StageProgress stage_progress(uint32_t stage) override;
  std::vector<CheckpointRecord> checkpoints() override;
  StageProgress begin_stage(uint32_t stage, int64_t step) override;
  void finish_stage(uint32_t stage, const std::string& result) override;
  void set_fact(const std::string& key, const std::string& value) override;
  void record_checkpoint(const CheckpointRecord& checkpoint) override;
  void forget_checkpoint(const std::string& path) override;
  StepOutcome commit_rows(uint32_t stage, const RowStep& step) override;
  bool has_batch(uint32_t stage, int64_t step) override;
  void open_step(uint32_t stage, int64_t step, const Publication& weights) override;
  std::optional<StepBatch> wait_batch(uint32_t stage,
                                      int64_t step,
                                      Slice slice,
                                      std::chrono::milliseconds wait) override;
  StepOutcome commit_step(uint32_t stage,
                          const std::string& learner_manifest,
                          const StepRecord& record) override;
  void open_evaluation(uint32_t stage,
                       int64_t step,
                       int64_t count,
                       const Publication& weights) override;
  std::optional<EvaluationBatch> wait_evaluation(uint32_t stage,
                                                 int64_t step,
                                                 std::chrono::milliseconds wait) override;

 private:
  std::unique_ptr<RpcChannel> channel_;
};

class SupervisorClient final : public SupervisorService {
 public:
  explicit SupervisorClient(const RpcClientOptions& options);
  ~SupervisorClient() override;
  RunStatus status() override;
  void report_death(const std::string& name, int64_t incarnation, const std::string& why) override;
  void end_run() override;

 private:
  std::unique_ptr<RpcChannel> channel_;
};

}  // namespace praetor
