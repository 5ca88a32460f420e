#include "actors/rpc/server.h"

#include "actors/rpc/frame.h"
#include "actors/rpc/handlers.h"
#include "praetor/v1/broadcast.grpc.pb.h"
#include "praetor/v1/learner.grpc.pb.h"
#include "praetor/v1/supervisor.grpc.pb.h"
#include "praetor/v1/worker.grpc.pb.h"

namespace praetor {

namespace rpc {
namespace {

using grpc::ServerContext;

/// When a call that may not wait should be made again.
constexpr int64_t kRetryAfterMs = 1000;

#define PRAETOR_UNARY(Service, Method, Request, Response)                                       \
  grpc::Status Method(ServerContext* context, const v1::Request* request, v1::Response* answer) \
      override {                                                                                \
    return frame_.serve(                                                                        \
        *context, #Service "." #Method, [&] { handle(service_, *request, answer); });           \
  }

/// A long poll; `nothing` says whether what it waited for did not come.
template <typename Service, typename Request, typename Response, typename Nothing>
grpc::Status wait(Frame& frame,
                  Service& service,
                  ServerContext& context,
                  const char* method,
                  const Request& request,
                  Response* answer,
                  const Nothing& nothing) {
  return frame.serve(context, method, [&] {
    const WaitSlot slot = frame.wait_slot();
    const auto most = slot.granted() ? frame.most_wait(context) : std::chrono::milliseconds(0);
    handle(service, request, most, answer);
    if (nothing() && !slot.granted()) answer->set_retry_after_ms(kRetryAfterMs);
  });
}

/// A long poll whose answer is a stream of parts.
template <typename Request, typename Part>
grpc::Status stream_parts(Frame& frame,
                          LearnerService& service,
                          const char* method,
                          ServerContext& context,
                          const Request& request,
                          grpc::ServerWriter<Part>& writer) {
  return frame.serve(context, method, [&] {
    const WaitSlot slot = frame.wait_slot();
    const auto parts = handle(
        service, request, slot.granted() ? frame.most_wait(context) : std::chrono::milliseconds(0));
    for (const Part& part : parts)
      if (!writer.Write(part)) return;  // the client is gone
    if (parts.empty() && !slot.granted()) {
      Part full;
      full.set_retry_after_ms(kRetryAfterMs);
      writer.Write(full);
    }
  });
}

class WorkerHandlers final : public v1::Worker::Service {
 public:
  WorkerHandlers(Frame& frame, WorkerService& service) : frame_(frame), service_(service) {}

  PRAETOR_UNARY(Worker, Join, JoinRequest, JoinResponse)
  PRAETOR_UNARY(Worker, Heartbeat, HeartbeatRequest, HeartbeatResponse)
  PRAETOR_UNARY(Worker, Leave, LeaveRequest, LeaveResponse)
  PRAETOR_UNARY(Worker, Complete, CompleteRequest, CompleteResponse)
  PRAETOR_UNARY(Worker, HeartbeatAll, HeartbeatAllRequest, HeartbeatAllResponse)
  PRAETOR_UNARY(Worker, CompleteAll, CompleteAllRequest, CompleteResponse)

  grpc::Status Lease(ServerContext* context,
                     const v1::LeaseRequest* request,
                     v1::LeaseResponse* answer) override {
    return wait(frame_, service_, *context, "Worker.Lease", *request, answer, [&] {
      return !answer->has_lease();
    });
  }

  grpc::Status LeaseSome(ServerContext* context,
                         const v1::LeaseSomeRequest* request,
                         v1::LeaseSomeResponse* answer) override {
    return wait(frame_, service_, *context, "Worker.LeaseSome", *request, answer, [&] {
      return answer->leases().empty();
    });
  }

  grpc::Status NewerWeights(ServerContext* context,
                            const v1::NewerWeightsRequest* request,
                            v1::NewerWeightsResponse* answer) override {
    return wait(frame_, service_, *context, "Worker.NewerWeights", *request, answer, [&] {
      return !answer->has_weights();
    });
  }

 private:
  Frame& frame_;
  WorkerService& service_;
};

class LearnerHandlers final : public v1::Learner::Service {
 public:
  LearnerHandlers(Frame& frame, LearnerService& service) : frame_(frame), service_(service) {}

  PRAETOR_UNARY(Learner, StageProgress, StageProgressRequest, StageProgressResponse)
  PRAETOR_UNARY(Learner, Checkpoints, CheckpointsRequest, CheckpointsResponse)
  PRAETOR_UNARY(Learner, BeginStage, BeginStageRequest, StageProgressResponse)
  PRAETOR_UNARY(Learner, FinishStage, FinishStageRequest, FinishStageResponse)
  PRAETOR_UNARY(Learner, SetFact, SetFactRequest, SetFactResponse)
  PRAETOR_UNARY(Learner, RecordCheckpoint, RecordCheckpointRequest, RecordCheckpointResponse)
  PRAETOR_UNARY(Learner, ForgetCheckpoint, ForgetCheckpointRequest, ForgetCheckpointResponse)
  PRAETOR_UNARY(Learner, CommitRows, CommitRowsRequest, CommitResponse)
  PRAETOR_UNARY(Learner, HasBatch, HasBatchRequest, HasBatchResponse)
  PRAETOR_UNARY(Learner, OpenStep, OpenStepRequest, OpenStepResponse)
  PRAETOR_UNARY(Learner, CommitStep, CommitStepRequest, CommitResponse)
  PRAETOR_UNARY(Learner, OpenEvaluation, OpenEvaluationRequest, OpenEvaluationResponse)

  grpc::Status WaitBatch(ServerContext* context,
                         const v1::WaitBatchRequest* request,
                         grpc::ServerWriter<v1::BatchPart>* writer) override {
    return stream_parts(frame_, service_, "Learner.WaitBatch", *context, *request, *writer);
  }
  grpc::Status WaitEvaluation(ServerContext* context,
                              const v1::WaitEvaluationRequest* request,
                              grpc::ServerWriter<v1::EvaluationPart>* writer) override {
    return stream_parts(frame_, service_, "Learner.WaitEvaluation", *context, *request, *writer);
  }

 private:
  Frame& frame_;
  LearnerService& service_;
};

class SupervisorHandlers final : public v1::Supervisor::Service {
 public:
  SupervisorHandlers(Frame& frame, SupervisorService& service) : frame_(frame), service_(service) {}

  PRAETOR_UNARY(Supervisor, Status, StatusRequest, StatusResponse)
  PRAETOR_UNARY(Supervisor, ReportDeath, ReportDeathRequest, ReportDeathResponse)
  PRAETOR_UNARY(Supervisor, EndRun, EndRunRequest, EndRunResponse)

 private:
  Frame& frame_;
  SupervisorService& service_;
};

class BroadcastHandlers final : public v1::Broadcasts::Service {
 public:
  BroadcastHandlers(Frame& frame, BroadcastService& service) : frame_(frame), service_(service) {}

  PRAETOR_UNARY(Broadcasts, Open, OpenBroadcastRequest, OpenBroadcastResponse)
  PRAETOR_UNARY(Broadcasts, Start, StartBroadcastRequest, StartBroadcastResponse)
  PRAETOR_UNARY(Broadcasts, Close, CloseBroadcastRequest, CloseBroadcastResponse)

  grpc::Status Watch(ServerContext* context,
                     const v1::WatchBroadcastRequest* request,
                     v1::WatchBroadcastResponse* answer) override {
    return wait(frame_, service_, *context, "Broadcasts.Watch", *request, answer, [&] {
      return answer->lost().empty();
    });
  }

  grpc::Status Await(ServerContext* context,
                     const v1::AwaitBroadcastRequest* request,
                     v1::AwaitBroadcastResponse* answer) override {
    return wait(frame_, service_, *context, "Broadcasts.Await", *request, answer, [&] {
      return !answer->has_call();
    });
  }

 private:
  Frame& frame_;
  BroadcastService& service_;
};

}  // namespace
}  // namespace rpc

struct RpcServer::Impl {
  rpc::Frame frame;
  std::unique_ptr<rpc::WorkerHandlers> worker;
  std::unique_ptr<rpc::LearnerHandlers> learner;
  std::unique_ptr<rpc::SupervisorHandlers> supervisor;
  std::unique_ptr<rpc::BroadcastHandlers> broadcasts;

  explicit Impl(const ServeOptions& options) : frame(options) {}
};

RpcServer::RpcServer(const RpcServices& services, const ServeOptions& options)
    : impl_(std::make_unique<Impl>(options)) {
  std::vector<grpc::Service*> offered;
  if (services.worker) {
    impl_->worker = std::make_unique<rpc::WorkerHandlers>(impl_->frame, *services.worker);
    offered.push_back(impl_->worker.get());
  }
  if (services.learner) {
    impl_->learner = std::make_unique<rpc::LearnerHandlers>(impl_->frame, *services.learner);
    offered.push_back(impl_->learner.get());
  }
  if (services.supervisor) {
    impl_->supervisor =
        std::make_unique<rpc::SupervisorHandlers>(impl_->frame, *services.supervisor);
    offered.push_back(impl_->supervisor.get());
  }
  if (services.broadcasts) {
    impl_->broadcasts =
        std::make_unique<rpc::BroadcastHandlers>(impl_->frame, *services.broadcasts);
    offered.push_back(impl_->broadcasts.get());
  }
  if (offered.empty()) throw InvalidArgument("a server needs an interface to offer");
  impl_->frame.start(offered);
}

RpcServer::~RpcServer() {
  stop(std::chrono::milliseconds(0));
}

int RpcServer::port() const {
  return impl_->frame.port();
}

std::string RpcServer::address() const {
  return impl_->frame.address();
}

void RpcServer::stop(std::chrono::milliseconds grace) {
  impl_->frame.stop(grace);
}

std::map<std::string, RpcLatency> RpcServer::latencies() const {
  return impl_->frame.latencies();
}

int64_t RpcServer::refused() const {
  return impl_->frame.refused();
}

int64_t RpcServer::ended() const {
  return impl_->frame.ended();
}

}  // namespace praetor
