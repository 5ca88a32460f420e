#include "actors/job/roles_config.h"

#include <algorithm>
#include <utility>

#include "actors/rpc/tls.h"
#include "core/base/str.h"

namespace praetor {

RolesConfig RolesConfig::from_yaml(YamlReader in) {
  RolesConfig c;
  YamlReader rollout = in.child("rollout");
  c.rollout_workers = rollout.get("workers", c.rollout_workers, closed(0, 10000));
  c.rollout_threads = rollout.get("threads", c.rollout_threads, closed(0, 4096));
  rollout.reject_unknown_keys();
  YamlReader reward = in.child("reward");
  c.reward_workers = reward.get("workers", c.reward_workers, closed(0, 10000));
  c.reward_threads = reward.get("threads", c.reward_threads, closed(0, 4096));
  reward.reject_unknown_keys();
  YamlReader relay = in.child("relay");
  c.relay_workers = relay.get("workers", c.relay_workers, closed(0, 2000));
  relay.reject_unknown_keys();
  YamlReader learner = in.child("learner");
  c.learner_ranks = learner.get("ranks", c.learner_ranks, closed(1, 10000));
  c.learner_threads = learner.get("threads", c.learner_threads, closed(0, 4096));
  c.learner_collective = learner.get("collective", c.learner_collective, {"auto", "mpi", "nccl"});
  c.learner_timeout = learner.get("timeout", c.learner_timeout, closed(0.1, 86400));
  learner.reject_unknown_keys();
  in.reject_unknown_keys();
  return c;
}

NetworkConfig NetworkConfig::from_yaml(YamlReader in, const LauncherConfig& launcher) {
  NetworkConfig c;
  const bool spans_hosts = launcher.spans_hosts();
  c.interface = in.get("interface", c.interface);
  c.bind = in.get("bind", spans_hosts && c.interface.empty() ? "0.0.0.0" : c.bind);
  if (c.bind.empty()) in.error_at("bind", "is empty; a host name or an address is wanted");
  c.advertise = in.get("advertise", c.advertise);
  const bool everywhere = c.bind == "0.0.0.0" || c.bind == "::" || c.bind == "[::]";
  if (everywhere && c.advertise.empty() && c.interface.empty() && launcher.kind == "local") {
    in.error_at("bind",
                str("\"",
                    c.bind,
                    "\" listens on every interface: say with advertise under which host name or "
                    "address the others reach this one"));
  }
  if (spans_hosts && c.local_only()) {
    in.error_at(c.interface.empty() ? "bind" : "interface",
                str("\"",
                    c.interface.empty() ? c.bind : c.interface,
                    "\" is the loopback, which the launcher's other hosts cannot reach: leave bind "
                    "out, or give interface the name of one that the hosts share"));
  }
  c.tls = in.get("tls", c.tls, {"auto", "on", "off"});
  c.certificate = in.get_path("certificate");
  c.key = in.get_path("key");
  c.ca = in.get_path("ca");
  c.check_certificates(in);
  in.reject_unknown_keys();
  return c;
}

bool NetworkConfig::local_only() const {
  return interface.empty() ? is_loopback(bind) : interface == "lo";
}

bool NetworkConfig::encrypted() const {
  return tls == "on" || (tls == "auto" && (own_certificates() || !local_only()));
}

void NetworkConfig::check_certificates(YamlReader& in) const {
  const std::pair<const char*, const std::filesystem::path&> all[] = {
      {"certificate", certificate}, {"key", key}, {"ca", ca}};
  const auto given = std::ranges::count_if(all, [](auto& one) { return !one.second.empty(); });
  if (given == 0) return;
  for (const auto& [name, file] : all) {
    if (file.empty())
      in.error_at(name, "is missing: certificate, key and ca go together, or none of them");
  }
  if (tls == "off") in.error_at("tls", "is off, and a certificate is given; on or auto is wanted");
}

SupervisionConfig SupervisionConfig::from_yaml(YamlReader in) {
  SupervisionConfig c;
  c.heartbeat = in.get("heartbeat", c.heartbeat, closed(0.05, 3600));
  c.lost_after = in.get("lost_after", c.lost_after, closed(0.1, 86400));
  if (c.lost_after < 2 * c.heartbeat) {
    in.error_at("lost_after",
                str(c.lost_after,
                    " s leaves no room for two heartbeats of ",
                    c.heartbeat,
                    " s; at least ",
                    2 * c.heartbeat,
                    " is wanted"));
  }
  c.hung_after = in.get("hung_after", c.hung_after, closed(1, 604800));
  c.lease_time = in.get("lease_time", c.lease_time, closed(1, 604800));
  c.restarts = in.get("restarts", c.restarts, closed(0, 1000));
  c.patience = in.get("patience", c.patience, closed(1, 86400));
  in.reject_unknown_keys();
  return c;
}

PublishConfig PublishConfig::from_yaml(YamlReader in) {
  PublishConfig c;
  c.via = in.get("via", c.via, {"auto", "file", "stream", "nccl"});
  c.folder = in.get_path("folder");
  c.bucket_bytes = in.get("bucket_bytes", c.bucket_bytes, closed(4096, int64_t{1} << 32));
  c.timeout = in.get("timeout", c.timeout, closed(0.1, 86400));
  in.reject_unknown_keys();
  return c;
}

}  // namespace praetor
