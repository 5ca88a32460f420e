#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "actors/controller/services.h"
#include "actors/rpc/client.h"
#include "actors/rpc/server.h"

namespace praetor {

/// Streams published weight files to workers that do not share a path with the learner. Any thread.
class WeightServer {
 public:
  /// Serves nothing until `set_file`. @throws as RpcServer
  explicit WeightServer(const ServeOptions& options);
  ~WeightServer();
  WeightServer(const WeightServer&) = delete;
  WeightServer& operator=(const WeightServer&) = delete;

  /// Offers `file` as the weights of `version`, whose digest names it. The four newest files (two
  /// versions of a policy and its companion) are offered; they stay readable when their files are
  /// removed. The file must not be written again.
  /// @throws MissingInput, IoError; InvalidArgument when the digest is empty
  void set_file(const WeightVersion& version, const std::filesystem::path& file);

  /// The same of the base of adapters, which is offered beside the four until there is another, or
  /// it is dropped.
  void set_base(const WeightVersion& version, const std::filesystem::path& file);
  void drop_base();

  /// Counts the file of that digest, when it is offered, as the newest.
  void keep(const std::string& digest);

  int port() const;
  std::string address() const;  ///< for Publication::address
  void stop(std::chrono::milliseconds grace);

  /// For tests: called on each chunk after its CRC was taken; it may change the bytes, or throw to
  /// break the stream off.
  void set_fault(std::function<void(int64_t offset, std::string& bytes)> fault);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct FetchReport {
  int64_t bytes = 0;
  int resumed = 0;     ///< times that the stream went on after a break
  int bad_chunks = 0;  ///< that came with another CRC and were asked for again
  double seconds = 0;
};

/// Fetches the file of `publication` from its address (`options.resolve` is not asked) to
/// `to_file`, which appears whole or not at all. A broken stream goes on at its offset; patience
/// counts from the last byte that came. Says nothing of what the file holds: check the digest when
/// it is loaded.
/// @throws MissingInput when the server no longer has the version; DataError when a chunk came
/// damaged three times in a row, or the file has another size than published; RpcError when
/// patience is over; RefusedError, CancelledError, IoError
FetchReport fetch_weights(const Publication& publication,
                          const std::filesystem::path& to_file,
                          const RpcClientOptions& options);

}  // namespace praetor
