#include "actors/roles/controller_process.h"

#include <malloc.h>
#include <unistd.h>

#include <thread>

#include "actors/controller/run_controller.h"
#include "actors/roles/serve_options.h"
#include "actors/rpc/endpoint.h"
#include "actors/rpc/secret.h"
#include "actors/rpc/server.h"
#include "actors/train/interrupt.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/log_context.h"

namespace praetor {

namespace {

constexpr std::chrono::milliseconds kTick{100};
/// Members hear of the end with their next heartbeat; then nobody is left to ask.
constexpr int kTicksAfterEnd = 50;

/// The owner before us may be dying still.
std::unique_ptr<Ledger> open_ledger(const std::filesystem::path& run_dir) {
  for (int tries = 50;; --tries) {
    try {
      return Ledger::open(run_dir);
    } catch (const TemporaryError&) {
      if (tries == 0 || InterruptGuard::requested()) throw;
      std::this_thread::sleep_for(kTick);
    }
  }
}

int port_of(const std::string& address) {
  const size_t colon = address.rfind(':');
  return colon == std::string::npos ? 0 : std::atoi(address.c_str() + colon + 1);
}

}  // namespace

int run_controller(const std::filesystem::path& run_dir, const std::string& advertise) {
  // Each of the many threads that serve calls would keep memory of its own.
  ::mallopt(M_ARENA_MAX, 4);
  log::set_role("controller");
  const InterruptGuard guard("");
  const JobConfig job = JobConfig::load(run_dir / "resolved.yaml");
  const auto ledger = open_ledger(run_dir);
  const auto before = read_endpoint(run_dir);
  const std::string run_id = ledger->fact("run_id").value_or(make_run_id());
  ledger->set_fact("run_id", run_id);
  RunController controller(
      job,
      run_dir,
      *ledger,
      {.run_id = run_id,
       .patience = {.heartbeat = milliseconds_of(job.supervision.heartbeat),
                    .lost_after = milliseconds_of(job.supervision.lost_after),
                    .hung_after = milliseconds_of(job.supervision.hung_after)}});
  const std::string secret = make_secret(run_dir);
  std::optional<TlsFiles> members;
  if (job.network.encrypted() && !job.network.own_certificates())
    members = make_run_certificates(run_dir);
  else if (job.network.encrypted())
    members = job.network.own_files();
  else if (!job.network.local_only())
    log::warn(
        "network.tls is off: whoever is on the network between the hosts can read the run's "
        "secret, and with it all that passes");
  ServeOptions serve = serve_options(job.network, run_dir, run_id, secret, advertise);
  serve.port = before ? port_of(before->address) : 0;  // members that know only it find us again
  RpcServer server({&controller, &controller, &controller, &controller.broadcasts()}, serve);
  write_endpoint(run_dir,
                 {.run_id = run_id,
                  .address = server.address(),
                  .pid = ::getpid(),
                  .incarnation = before ? before->incarnation + 1 : 1,
                  .tls = members});
  log::info(str("serving run ", run_id, " on ", server.address()));

  int left = kTicksAfterEnd;
  while (!InterruptGuard::requested() && left > 0) {
    std::this_thread::sleep_for(kTick);
    controller.tick();
    const RunController::Glance now = controller.glance();
    log::set_step(now.step);
    if (now.over) left = now.members == 0 ? 0 : left - 1;
  }
  const bool over = controller.glance().over;
  controller.end_run();
  server.stop(std::chrono::milliseconds(500));
  for (const auto& [method, latency] : server.latencies()) {
    log::info(str(method,
                  ": ",
                  latency.count,
                  " calls, ",
                  latency.failed,
                  " failed, p50 ",
                  latency.p50_ms,
                  " ms, p99 ",
                  latency.p99_ms,
                  " ms"));
  }
  // Nobody shall look for a controller of a run that is over.
  std::error_code ignored;
  if (over) std::filesystem::remove(endpoint_file(run_dir), ignored);
  log::info("end");
  return InterruptGuard::requested() ? 128 + InterruptGuard::requested() : kExitDone;
}

}  // namespace praetor
