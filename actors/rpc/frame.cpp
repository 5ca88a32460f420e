#include "actors/rpc/frame.h"

#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <optional>

#include "actors/rpc/credentials.h"
#include "actors/rpc/library_logs.h"
#include "actors/rpc/secret.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"

namespace praetor::rpc {

namespace {

using std::chrono::milliseconds;

constexpr int kHandshakeMs = 10'000;       ///< until a connection speaks TLS and HTTP/2
constexpr int kIdleThreads = 64;           ///< that wait for calls
constexpr int kMetadataBytes = 16 * 1024;  ///< of all headers of a call

/// "ipv4:10.0.0.7:40312" without the port, which differs from connection to connection.
std::string host_of(const std::string& peer) {
  return printable(peer.substr(0, peer.rfind(':')));
}

std::string host_and_port(const std::string& host, int port) {
  const bool bare_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  return bare_ipv6 ? str("[", host, "]:", port) : str(host, ":", port);
}

/// The value of a metadata key that occurs once; nothing otherwise.
std::optional<std::string_view> metadata(const grpc::ServerContext& context, const char* key) {
  const auto [first, last] = context.client_metadata().equal_range(key);
  if (first == last || std::next(first) != last) return std::nullopt;
  return std::string_view(first->second.data(), first->second.size());
}

}  // namespace

WaitSlot::WaitSlot(std::atomic<int>& taken, int most) : taken_(taken) {
  granted_ = taken_.fetch_add(1) < most;
  if (!granted_) taken_.fetch_sub(1);
}

WaitSlot::~WaitSlot() {
  if (granted_) taken_.fetch_sub(1);
}

Frame::Frame(const ServeOptions& options)
    : options_(options), rate_(options.calls_per_second, options.burst_calls) {
  if (options.run_id.empty()) throw InvalidArgument("a server needs the run's id");
  if (options.secret.empty()) throw InvalidArgument("a server needs the run's secret");
  if (options.bind.empty()) throw InvalidArgument("a server needs a host to bind");
  if (options.port < 0 || options.port > 65535)
    throw InvalidArgument("port ", options.port, " is outside [0, 65535]");
  if (options.max_threads < 8)
    throw InvalidArgument("max_threads ", options.max_threads, " is below 8");
  if (options.max_message_bytes < 1 || options.max_message_bytes > (int64_t{1} << 30))
    throw InvalidArgument("max_message_bytes ", options.max_message_bytes, " is outside [1, 2^30]");
  if (options.max_wait.count() < 0) throw InvalidArgument("max_wait is below 0");
}

bool Frame::listen(int port, const std::vector<grpc::Service*>& services) {
  std::unique_ptr<ConnectionGate> gate;
  try {
    gate = std::make_unique<ConnectionGate>(
        options_.bind, port, options_.gate, [this](const auto& host, const auto& why) {
          note_stranger(host, why);
        });
  } catch (const TemporaryError&) {
    return false;
  }
  grpc::ServerBuilder builder;
  // The gate listens: gRPC's own listener knows no bounds, and is deaf for ever once the process
  // has run out of files.
  const std::shared_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor =
      builder.experimental().AddExternalConnectionAcceptor(
          grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
          server_credentials(options_.tls.get()));
  // A peer whose machine is gone says nothing; pings find out.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytes);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options_.max_message_bytes));
  builder.SetMaxSendMessageSize(-1);
  grpc::ResourceQuota quota("praetor");
  quota.SetMaxThreads(options_.max_threads);
  builder.SetResourceQuota(quota);
  // A thread that has served a call waits for the next one: most would end otherwise, and each new
  // one has its stack's pages zeroed.
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, kIdleThreads);
  for (grpc::Service* service : services) builder.RegisterService(service);
  server_ = builder.BuildAndStart();
  if (!server_) return false;
  port_ = gate->port();
  gate_ = std::move(gate);
  gate_->open([acceptor](int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.fd = fd;
    acceptor->HandleNewConnection(&connection);
  });
  return true;
}

void Frame::start(const std::vector<grpc::Service*>& services) {
  adopt_library_logs();
  if (listen(options_.port, services)) return;
  if (options_.port != 0 && options_.any_port && listen(0, services)) return;
  throw TemporaryError("cannot listen on ",
                       host_and_port(options_.bind, options_.port),
                       ": the port is taken, or the host is not this machine's");
}

void Frame::stop(milliseconds grace) {
  const std::lock_guard lock(stop_mutex_);
  if (!server_) return;
  gate_->close();
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  server_->Wait();
  server_.reset();
}

std::string Frame::address() const {
  return host_and_port(options_.advertise.empty() ? options_.bind : options_.advertise, port_);
}

milliseconds Frame::most_wait(const grpc::ServerContext& context) const {
  const auto left = std::chrono::duration_cast<milliseconds>(context.deadline() -
                                                             std::chrono::system_clock::now());
  const milliseconds margin = std::clamp(left / 10, milliseconds(20), milliseconds(1000));
  return std::clamp(left - margin, milliseconds(0), options_.max_wait);
}

grpc::Status Frame::check_member(const grpc::ServerContext& context, const char* method) {
  std::string reason;
  auto code = grpc::StatusCode::UNAUTHENTICATED;
  const auto secret = metadata(context, kSecretKey);
  const auto run = metadata(context, kRunKey);
  if (!secret) {
    reason = "the call carries no secret of the run";
  } else if (!same_secret(*secret, options_.secret)) {
    reason = "the call's secret is not the run's";
  } else if (!run || *run != options_.run_id) {
    code = grpc::StatusCode::PERMISSION_DENIED;
    reason = str("the call is of run \"",
                 run ? printable(*run) : std::string(),
                 "\", this server is of run \"",
                 options_.run_id,
                 "\"");
  } else {
    gate_->member(context.peer());
    if (rate_.take(context.peer(), CallRate::Clock::now())) return grpc::Status::OK;
    const std::string line = str(host_of(context.peer()),
                                 ": more than ",
                                 options_.calls_per_second,
                                 " calls a second over one connection");
    if (first_time(line)) log::warn(str(line, "; they are put off (", method, "; said once)"));
    return {grpc::StatusCode::UNAVAILABLE, line};
  }
  refused_.fetch_add(1);
  gate_->refused_call(context.peer());
  const std::string line = str("refused ", host_of(context.peer()), ": ", reason);
  if (first_time(line)) log::warn(str(line, " (", method, "; said once)"));
  return {code, reason};
}

void Frame::note_stranger(const std::string& host, const std::string& why) {
  const std::string line = str("refused ", printable(host), ": ", why);
  if (!first_time(line)) return;
  const std::string handshake = options_.tls ? last_handshake_failure() : std::string();
  log::warn(str(line, handshake.empty() ? "" : "; TLS: ", handshake, " (said once)"));
}

void Frame::note_failure(const grpc::ServerContext& context,
                         const char* method,
                         const grpc::Status& status) {
  const std::string line =
      str(method, " of ", host_of(context.peer()), " failed: ", describe(status));
  if (first_time(line)) log::warn(line);
}

bool Frame::first_time(const std::string& line) {
  constexpr size_t kMostLines = 1000;  // a stranger can make up reasons without end
  const std::lock_guard lock(mutex_);
  if (said_.size() >= kMostLines) return false;
  return said_.insert(line).second;
}

LatencyHistogram& Frame::histogram(const char* method) {
  const std::lock_guard lock(mutex_);
  auto found = histograms_.find(std::string_view(method));
  if (found == histograms_.end()) {
    found = histograms_.emplace(method, std::make_unique<LatencyHistogram>()).first;
  }
  return *found->second;
}

std::map<std::string, RpcLatency> Frame::latencies() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, RpcLatency> out;
  for (const auto& [method, histogram] : histograms_) out[method] = histogram->summary();
  return out;
}

}  // namespace praetor::rpc
