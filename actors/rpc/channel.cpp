#include "actors/rpc/channel.h"

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <optional>
#include <random>
#include <thread>

#include "actors/rpc/credentials.h"
#include "actors/rpc/frame.h"
#include "actors/rpc/library_logs.h"
#include "actors/rpc/status.h"
#include "core/base/log.h"

namespace praetor {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

namespace {

/// How often the wish to end is asked about.
constexpr milliseconds kLook{100};
/// Longer polls are cut by the server.
constexpr milliseconds kLongestWait{30'000};
/// For asking a server what it has against our certificate.
constexpr milliseconds kProbe{1'000};

/// 3/4 to 5/4 of `time`, so that many clients do not come back at one moment.
milliseconds jittered(milliseconds time) {
  thread_local std::minstd_rand random(std::random_device{}());
  return time * std::uniform_int_distribution<int>(75, 125)(random) / 100;
}

double seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

std::string one_decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

}  // namespace

RpcTry::RpcTry(std::shared_ptr<grpc::Channel> channel, const RpcClientOptions& options)
    : channel_(std::move(channel)), options_(options) {
  context_.AddMetadata(rpc::kSecretKey, options.secret);
  context_.AddMetadata(rpc::kRunKey, options.run_id);
}

RpcTry::~RpcTry() {
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

void RpcTry::set_deadline(milliseconds time) {
  context_.set_deadline(std::chrono::system_clock::now() + time);
}

bool RpcTry::next(milliseconds most) {
  const bool bounded = most != milliseconds::max();
  const auto end = bounded ? Clock::now() + most : Clock::time_point::max();
  for (;;) {
    // The call itself has a deadline, so an event comes in any case.
    const bool look = options_.cancelled && !cancelled_;
    auto until = std::chrono::system_clock::time_point::max();
    if (look || (bounded && !too_slow_)) {
      const milliseconds left =
          bounded ? std::chrono::ceil<milliseconds>(end - Clock::now()) : kLook;
      until = std::chrono::system_clock::now() +
              std::max(milliseconds(1), look ? std::min(left, kLook) : left);
    }
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, until) == grpc::CompletionQueue::GOT_EVENT) return ok;
    if (look && options_.cancelled()) {
      cancelled_ = true;
      context_.TryCancel();
    } else if (bounded && !too_slow_ && Clock::now() >= end) {
      too_slow_ = true;
      context_.TryCancel();
    }
  }
}

RpcChannel::RpcChannel(const RpcClientOptions& options) : options_(options) {
  if (!options.resolve) throw InvalidArgument("a client needs an address to call");
  if (options.call_time.count() < 1) throw InvalidArgument("call_time is below 1 ms");
  if (options.patience.count() < 0) throw InvalidArgument("patience is below 0");
  if (options.part_bytes < 1) throw InvalidArgument("part_bytes is below 1");
  rpc::adopt_library_logs();
}

std::shared_ptr<grpc::Channel> RpcChannel::connection(const std::string& address) {
  const std::lock_guard lock(mutex_);
  if (channel_ && address == address_) return channel_;
  grpc::ChannelArguments arguments;
  // Clients of one process would share one connection otherwise, and its fate.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);  // also the time to connect in
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(options_.max_message_bytes));
  arguments.SetMaxSendMessageSize(-1);
  channel_ =
      grpc::CreateCustomChannel(address, rpc::channel_credentials(options_.tls.get()), arguments);
  address_ = address;
  return channel_;
}

void RpcChannel::check_size(const char* call, size_t bytes) const {
  if (bytes > static_cast<size_t>(options_.max_message_bytes)) {
    throw InvalidArgument(
        call, ": a message of ", bytes, " bytes, ", options_.max_message_bytes, " are the most");
  }
}

void RpcChannel::pause(const std::string& call, milliseconds time) const {
  const auto end = Clock::now() + time;
  for (;;) {
    if (options_.cancelled && options_.cancelled())
      throw CancelledError(call, ": given up, the process is to end");
    const auto left = end - Clock::now();
    if (left <= Clock::duration::zero()) return;
    std::this_thread::sleep_for(std::min<Clock::duration>(left, kLook));
  }
}

milliseconds RpcChannel::cut(milliseconds wait) {
  return std::clamp(wait, milliseconds(0), kLongestWait);
}

void RpcChannel::pause_as_told(const std::string& call,
                               int64_t retry_after_ms,
                               milliseconds wait) const {
  if (retry_after_ms > 0) pause(call, std::min(wait, milliseconds(retry_after_ms)));
}

std::optional<std::string> RpcChannel::handshake_refusal(const grpc::Status& status,
                                                         const RpcTry& one,
                                                         const std::string& address) {
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE || rpc::is_answer(status) ||
      one.too_slow())
    return std::nullopt;
  // gRPC calls every connection that comes to nothing unavailable. One asked twice does not mistake
  // a server that was just about to end.
  std::optional<std::string> why;
  for (int asked = 0; asked < 2; ++asked) {
    why = why_no_handshake(address, options_.tls.get(), kProbe);
    if (!why) return std::nullopt;
  }
  return why;
}

void RpcChannel::run(const std::string& call,
                     const std::function<grpc::Status(RpcTry&)>& attempt,
                     const std::function<int64_t()>& moved) {
  std::optional<Clock::time_point> first_failure;
  int64_t failed_at = moved ? moved() : 0;
  milliseconds backoff = options_.first_backoff;
  std::string refused_by;
  std::string address = "an unknown address";
  for (int tries = 1;; ++tries) {
    std::string why;
    bool reachable = false;
    try {
      address = options_.resolve();
      reachable = true;
    } catch (const MissingInput& error) {
      why = error.what();
    }
    if (reachable) {
      RpcTry one(connection(address), options_);
      grpc::Status status = attempt(one);
      if (status.ok()) {
        if (first_failure)
          log::info(str(call, " at ", address, " goes on after ", tries, " tries"));
        return;
      }
      if (one.cancelled()) throw CancelledError(call, ": given up, the process is to end");
      if (const auto refusal = handshake_refusal(status, one, address))
        status = {grpc::StatusCode::UNAUTHENTICATED, *refusal};
      if (rpc::is_refusal(status)) {
        // A stranger may have taken the port of a server that moved: once more, where it is now.
        std::string now = address;
        try {
          now = options_.resolve();
        } catch (const MissingInput&) {
        }
        if (now == address || address == refused_by)
          rpc::throw_status(status, str(call, " at ", address));
        refused_by = address;
      } else if (!rpc::is_transient(status)) {
        rpc::throw_status(status, str(call, " at ", address));
      }
      why = one.too_slow() ? "nothing came in time" : rpc::describe(status);
    }
    const auto now = Clock::now();
    if (moved && moved() != failed_at) {
      failed_at = moved();
      first_failure.reset();
      backoff = options_.first_backoff;
      tries = 1;
    }
    if (!first_failure) {
      first_failure = now;
      log::info(str(call, " at ", address, " failed (", why, "); trying again"));
    }
    const milliseconds rest = jittered(backoff);
    if (now - *first_failure + rest > options_.patience) {
      throw RpcError(call,
                     " at ",
                     address,
                     ": out of reach, ",
                     tries,
                     tries == 1 ? " try" : " tries",
                     ", ",
                     one_decimal(seconds(now - *first_failure)),
                     " s after the first failed; the last: ",
                     why);
    }
    pause(call, rest);
    backoff = std::min(backoff * 2, options_.max_backoff);
  }
}

}  // namespace praetor
