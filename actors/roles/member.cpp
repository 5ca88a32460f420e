#include "actors/roles/member.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "actors/rpc/endpoint.h"
#include "actors/rpc/secret.h"
#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

RunAddress RunAddress::of(const std::filesystem::path& run_dir, std::chrono::milliseconds wait) {
  const auto end = std::chrono::steady_clock::now() + wait;
  for (;;) {
    if (const auto endpoint = read_endpoint(run_dir)) {
      return {.run_id = endpoint->run_id,
              .secret = read_secret(run_dir),
              .resolve = endpoint_resolver(run_dir, endpoint->run_id),
              .tls = endpoint->tls ? read_identity(*endpoint->tls) : nullptr};
    }
    if (std::chrono::steady_clock::now() >= end) {
      throw MissingInput(endpoint_file(run_dir).string(),
                         ": no controller has written it; is this a run of separate roles, and "
                         "does its controller run?");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

RunAddress RunAddress::over_relay(const std::filesystem::path& run_dir, const std::string& relay) {
  RunAddress out = of(run_dir);
  out.resolve = endpoint_resolver(run_dir, out.run_id, relay);
  return out;
}

RpcClientOptions RunAddress::options(std::chrono::milliseconds patience,
                                     std::function<bool()> cancelled) const {
  RpcClientOptions options;
  options.run_id = run_id;
  options.secret = secret;
  options.resolve = resolve;
  options.tls = tls;
  options.patience = patience;
  options.cancelled = std::move(cancelled);
  return options;
}

int64_t incarnation_of_process() {
  if (const char* given = std::getenv("PRAETOR_INCARNATION")) return std::atoll(given);
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

namespace {

constexpr std::chrono::milliseconds kGoodBye{2000};

}  // namespace

Member::Member(const RpcClientOptions& options, MemberInfo info)
    : options_(options), client_(options), info_(std::move(info)), admission_(client_.join(info_)) {
  thread_ = std::thread([this] { beat(); });
}

Member::~Member() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
  if (dismissed_) return;
  // Also when a signal asked for the end, which cancels all other calls; but not for long.
  RpcClientOptions options = options_;
  options.cancelled = nullptr;
  options.patience = kGoodBye;
  options.call_time = kGoodBye;
  try {
    WorkerClient(options).leave(info_.name);
  } catch (const Error& failure) {
    log::warn(str("could not say good-bye to the controller: ", failure.what()));
  }
}

void Member::rejoin() {
  client_.leave(info_.name);
  client_.join(info_);
}

void Member::beat() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, admission_.heartbeat, [&] { return ending_; })) {
    lock.unlock();
    // A thread body is a border: a controller out of reach is the working thread's to give up on.
    try {
      const Orders orders = client_.heartbeat({.name = info_.name,
                                               .incarnation = info_.incarnation,
                                               .busy = busy_,
                                               .progress = progress_,
                                               .weight_step = weight_step_});
      if (orders == Orders::kRegister) client_.join(info_);
      if (orders == Orders::kLeave) dismissed_ = true;
    } catch (const CancelledError&) {
    } catch (const Error& failure) {
      log::warn(str("no sign of life could be given: ", failure.what()));
    }
    lock.lock();
  }
}

}  // namespace praetor
