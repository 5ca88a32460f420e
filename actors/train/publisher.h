#pragma once

#include <chrono>
#include <filesystem>
#include <memory>

#include "actors/controller/services.h"
#include "actors/job/roles_config.h"
#include "actors/rpc/server.h"

namespace praetor {

class Transformer;
class WeightServer;

/// Offers the policy's weights to the workers: as a file that they map where they share its path,
/// as a stream where they do not. The two newest versions of a stage stay, until its end.
class Publisher {
 public:
  /// @throws TemporaryError when no port can be bound
  Publisher(const PublishConfig& config,
            const std::filesystem::path& run_dir,
            const ServeOptions& serve);
  ~Publisher();

  struct Published {
    Publication publication;
    double seconds = 0;
  };
  /// The weights must not change meanwhile. @throws IoError
  Published publish(uint32_t stage, int64_t lineage, int64_t step, const Transformer& policy);

 private:
  std::filesystem::path folder_;
  bool offers_file_ = true;
  std::unique_ptr<WeightServer> server_;
};

}  // namespace praetor
