#include "actors/roles/serve_options.h"

namespace praetor {

ServeOptions serve_options(const NetworkConfig& network,
                           const std::filesystem::path& run_dir,
                           const std::string& run_id,
                           const std::string& secret,
                           const std::string& advertise) {
  ServeOptions out;
  out.run_id = run_id;
  out.secret = secret;
  out.bind = network.bind;
  out.advertise = advertise.empty() ? network.advertise : advertise;
  if (!network.encrypted()) return out;
  out.tls = network.own_certificates() ? read_identity(network.own_files())
                                       : issue_server_identity(run_dir, {out.advertise, out.bind});
  return out;
}

}  // namespace praetor
