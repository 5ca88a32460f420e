#include "actors/rpc/scorer_client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <utility>
#include <vector>

#include "actors/controller/services.h"
#include "actors/rpc/credentials.h"
#include "actors/rpc/library_logs.h"
#include "actors/rpc/status.h"
#include "core/base/deadline.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "praetor/v1/scorer.grpc.pb.h"

namespace praetor {

using std::chrono::milliseconds;

namespace {

constexpr int kMostBytes = 64 << 20;  // of an answer

std::shared_ptr<grpc::Channel> open_channel(const std::string& address,
                                            const TlsIdentity* identity) {
  rpc::adopt_library_logs();
  grpc::ChannelArguments arguments;
  // Scorers of one process would share one connection otherwise, and its fate.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kMostBytes);
  return grpc::CreateCustomChannel(address, rpc::channel_credentials(identity), arguments);
}

ScorerAnswer answer_of(v1::ScorerVerdict& verdict) {
  ScorerAnswer answer;
  if (verdict.has_score()) answer.score = verdict.score();
  if (verdict.has_satisfied()) answer.satisfied = verdict.satisfied();
  answer.reason = std::move(*verdict.mutable_reason());
  answer.error = std::move(*verdict.mutable_error());
  return answer;
}

}  // namespace

struct ScorerClient::Impl {
  std::shared_ptr<const TlsIdentity> tls;
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Scorer::Stub> stub;

  /// Makes one call within `timeout`. @throws as the class says
  template <typename Call>
  void run(milliseconds timeout, const Call& call) const {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    context.set_wait_for_ready(true);
    const grpc::Status status = call(context);
    if (!status.ok()) fail(status, timeout);
  }

  [[noreturn]] void fail(const grpc::Status& status, milliseconds timeout) const {
    switch (status.error_code()) {
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        if (channel->GetState(false) == GRPC_CHANNEL_READY)
          throw TimeoutError(str("timeout after ", timeout.count(), " ms at ", address));
        if (const auto why = why_no_handshake(address, tls.get(), milliseconds(1000)))
          throw RefusedError("the scorer at ", address, ": ", *why);
        throw TemporaryError("nobody answers at ",
                             address,
                             ": no connection within ",
                             timeout.count(),
                             " ms; start the scorer there, or mend the part's address");
      case grpc::StatusCode::UNIMPLEMENTED:
        throw RefusedError("the server at ",
                           address,
                           " does not offer praetor.v1.Scorer; it may be another service: mend "
                           "the part's address");
      case grpc::StatusCode::UNAVAILABLE:
        throw TemporaryError("the scorer at ", address, " went away: ", rpc::describe(status));
      default:
        throw RpcError("the scorer at ", address, " failed: ", rpc::describe(status));
    }
  }

  void check_version(const std::string& version) const {
    if (version.empty()) {
      throw DataError("the scorer at ",
                      address,
                      " names no version; one that changes whenever its verdicts may is wanted");
    }
  }
};

ScorerClient::ScorerClient(const std::string& address, std::shared_ptr<const TlsIdentity> tls)
    : impl_(std::make_unique<Impl>()) {
  const std::string host = address.substr(0, address.rfind(':'));
  if (!is_loopback(host)) impl_->tls = std::move(tls);
  impl_->address = address;
  impl_->channel = open_channel(address, impl_->tls.get());
  impl_->stub = v1::Scorer::NewStub(impl_->channel);
}

ScorerClient::~ScorerClient() = default;

std::unique_ptr<ScorerService> ScorerClient::connect(const std::string& address) {
  return std::make_unique<ScorerClient>(address);
}

ConnectScorer ScorerClient::connector(std::shared_ptr<const TlsIdentity> tls) {
  return [tls](const std::string& address) { return std::make_unique<ScorerClient>(address, tls); };
}

ScorerIdentity ScorerClient::describe(milliseconds timeout) {
  v1::DescribeScorerResponse answer;
  impl_->run(timeout, [&](grpc::ClientContext& context) {
    return impl_->stub->Describe(&context, v1::DescribeScorerRequest(), &answer);
  });
  impl_->check_version(answer.version());
  return {.name = answer.name(), .version = answer.version()};
}

ScorerReply ScorerClient::score(std::span<const Sample* const> samples, milliseconds timeout) {
  v1::ScoreSamplesRequest request;
  for (size_t i = 0; i < samples.size(); ++i) {
    v1::ScorerSample* const to = request.add_samples();
    to->set_id(static_cast<int64_t>(i) + 1);
    to->set_prompt(samples[i]->prompt);
    to->set_response(samples[i]->response);
    to->set_metadata(samples[i]->metadata);
  }
  v1::ScoreSamplesResponse response;
  impl_->run(timeout, [&](grpc::ClientContext& context) {
    return impl_->stub->Score(&context, request, &response);
  });
  impl_->check_version(response.version());
  ScorerReply reply{.version = response.version(),
                    .answers = std::vector<std::optional<ScorerAnswer>>(samples.size())};
  for (v1::ScorerVerdict& verdict : *response.mutable_verdicts()) {
    // Ids count from 1, and what is below is beyond every size.
    const auto at = static_cast<size_t>(verdict.id()) - 1;
    if (at >= samples.size() || reply.answers[at]) {
      throw DataError("the scorer at ",
                      impl_->address,
                      " answered ",
                      at < samples.size() ? "twice for id " : "for an id that it was not asked, ",
                      verdict.id(),
                      "; one verdict a sample, with the sample's id, is wanted");
    }
    reply.answers[at] = answer_of(verdict);
  }
  return reply;
}

}  // namespace praetor
