#include "actors/roles/relay_process.h"

#include <unistd.h>

#include <atomic>
#include <thread>

#include "actors/job/job_config.h"
#include "actors/launch/die_with_parent.h"
#include "actors/roles/member.h"
#include "actors/roles/relay.h"
#include "actors/roles/serve_options.h"
#include "actors/rpc/broadcast_client.h"
#include "actors/rpc/endpoint.h"
#include "actors/rpc/server.h"
#include "actors/train/interrupt.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/log_context.h"

namespace praetor {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{100};
/// Workers hear of the end through us, with their next heartbeats.
constexpr int kTicksAfterEnd = 50;

}  // namespace

int run_relay(const RelayOptions& options) {
  if (started_by_launcher()) die_with_parent();
  log::set_role(options.name);
  const InterruptGuard guard("");
  const JobConfig job = JobConfig::load(options.run_dir / "resolved.yaml");
  const RunAddress address = RunAddress::of(options.run_dir);
  std::atomic<bool> over{false};
  const RpcClientOptions calls =
      address.options(milliseconds_of(job.supervision.patience), [&over] { return over.load(); });
  Member member(calls,
                {.name = options.name,
                 .role = Role::kRelay,
                 .host = host_name(),
                 .pid = ::getpid(),
                 .incarnation = incarnation_of_process()});
  WorkerClient controller(calls);
  Relay relay(controller, member.admission().heartbeat / 10);
  BroadcastClient broadcasts(calls);
  RpcServer server(
      {.worker = &relay, .broadcasts = &broadcasts},
      serve_options(
          job.network, options.run_dir, address.run_id, address.secret, options.advertise));
  write_endpoint(options.run_dir,
                 {.run_id = address.run_id,
                  .address = server.address(),
                  .pid = ::getpid(),
                  .incarnation = member.info().incarnation},
                 options.name);
  log::info(str("passing on to the controller from ", server.address()));

  int left = kTicksAfterEnd;
  while (!InterruptGuard::requested() && left > 0) {
    std::this_thread::sleep_for(kTick);
    if (member.dismissed()) left = relay.idle() ? 0 : left - 1;
  }
  // First nobody is answered any more, so that workers take what is broken off for a relay that is
  // out of reach; then the calls to the controller that were made for them end.
  std::thread stop([&server] { server.stop(milliseconds(0)); });
  std::this_thread::sleep_for(kTick);
  over = true;
  stop.join();
  std::error_code ignored;
  if (member.dismissed())
    std::filesystem::remove(endpoint_file(options.run_dir, options.name), ignored);
  log::info(member.dismissed() ? "the run is over" : "leaving");
  return InterruptGuard::requested() ? 128 + InterruptGuard::requested() : kExitDone;
}

}  // namespace praetor
