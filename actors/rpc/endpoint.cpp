#include "actors/rpc/endpoint.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "actors/controller/services.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/random_hex.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;

fs::path endpoint_file(const fs::path& run_dir, const std::string& server) {
  return run_dir / (server + ".json");
}

void write_endpoint(const fs::path& run_dir, const Endpoint& endpoint, const std::string& server) {
  nlohmann::ordered_json json = {{"run_id", endpoint.run_id},
                                 {"address", endpoint.address},
                                 {"pid", endpoint.pid},
                                 {"incarnation", endpoint.incarnation}};
  if (endpoint.tls) {
    json["tls"] = {{"certificate", endpoint.tls->certificate.string()},
                   {"key", endpoint.tls->key.string()},
                   {"ca", endpoint.tls->ca.string()}};
  }
  write_file_atomic(endpoint_file(run_dir, server), json.dump() + "\n");
}

std::optional<Endpoint> read_endpoint(const fs::path& run_dir, const std::string& server) {
  const fs::path file = endpoint_file(run_dir, server);
  std::string text;
  try {
    text = read_file(file, 1 << 16);
  } catch (const MissingInput&) {
    return std::nullopt;
  }
  try {
    const auto json = nlohmann::json::parse(text);
    Endpoint endpoint{json.at("run_id").get<std::string>(),
                      json.at("address").get<std::string>(),
                      json.at("pid").get<int64_t>(),
                      json.at("incarnation").get<int64_t>(),
                      std::nullopt};
    if (json.contains("tls")) {
      const auto& tls = json["tls"];
      endpoint.tls = TlsFiles{tls.at("certificate").get<std::string>(),
                              tls.at("key").get<std::string>(),
                              tls.at("ca").get<std::string>()};
    }
    if (endpoint.run_id.empty() || endpoint.address.find(':') == std::string::npos) {
      throw DataError(file.string(), ": run_id or address is empty");
    }
    return endpoint;
  } catch (const nlohmann::json::exception& error) {
    throw DataError(file.string(), ": ", printable(error.what(), 200));
  }
}

std::function<std::string()> endpoint_resolver(const fs::path& run_dir,
                                               const std::string& run_id,
                                               const std::string& server) {
  return [run_dir, run_id, server] {
    const auto endpoint = read_endpoint(run_dir, server);
    if (!endpoint) {
      throw MissingInput(
          endpoint_file(run_dir, server).string(), ": no such file: no ", server, " has started");
    }
    if (endpoint->run_id != run_id) {
      throw RefusedError(endpoint_file(run_dir, server).string(),
                         ": is of run ",
                         printable(endpoint->run_id),
                         ", this process belongs to run ",
                         run_id);
    }
    return endpoint->address;
  };
}

std::string make_run_id() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &parts);
  return str(text, "-", random_hex(4));
}

}  // namespace praetor
