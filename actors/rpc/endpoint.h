#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "actors/rpc/tls.h"

namespace praetor {

/// Where a server of a run answers: RUN_DIR/controller.json, or that of a relay. One that was
/// started again has written it anew, so clients read it before each retry.
struct Endpoint {
  std::string run_id;
  std::string address;          ///< HOST:PORT
  int64_t pid = 0;              ///< on the server's host
  int64_t incarnation = 0;      ///< grows with each that has the name; controllers count 1, 2, ...
  std::optional<TlsFiles> tls;  ///< of its members; nothing: the wire is plain text
};

inline constexpr const char* kControllerServer = "controller";

/// RUN_DIR/SERVER.json
std::filesystem::path endpoint_file(const std::filesystem::path& run_dir,
                                    const std::string& server = kControllerServer);

/// Replaces the file as a whole. @throws IoError
void write_endpoint(const std::filesystem::path& run_dir,
                    const Endpoint& endpoint,
                    const std::string& server = kControllerServer);

/// Nothing when there is no file yet. @throws DataError for a file that is not sound; IoError
std::optional<Endpoint> read_endpoint(const std::filesystem::path& run_dir,
                                      const std::string& server = kControllerServer);

/// For RpcClientOptions: reads the address at each call. What it returns throws MissingInput while
/// there is no file, RefusedError when the file is another run's.
std::function<std::string()> endpoint_resolver(const std::filesystem::path& run_dir,
                                               const std::string& run_id,
                                               const std::string& server = kControllerServer);

/// "20260102-150405-1f9c3a7e": the second it was made (UTC) and 32 random bits.
std::string make_run_id();

}  // namespace praetor
