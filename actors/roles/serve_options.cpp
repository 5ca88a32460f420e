#include "actors/roles/serve_options.h"

#include "actors/roles/server_place.h"

namespace praetor {

ServeOptions serve_options(const NetworkConfig& network,
                           const std::filesystem::path& run_dir,
                           const std::string& run_id,
                           const std::string& secret,
                           const std::string& advertise) {
  ServeOptions out;
  out.run_id = run_id;
  out.secret = secret;
  const ServerPlace place = server_place(network);
  out.bind = place.bind;
  out.advertise = advertise.empty() ? place.advertise : advertise;
  if (!network.encrypted()) return out;
  out.tls = network.own_certificates() ? read_identity(network.own_files())
                                       : issue_server_identity(run_dir, {out.advertise, out.bind});
  return out;
}

}  // namespace praetor
