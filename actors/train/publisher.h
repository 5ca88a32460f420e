#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "actors/controller/services.h"
#include "actors/job/roles_config.h"
#include "actors/rpc/server.h"
#include "core/model/named_tensor.h"

namespace praetor {

class Transformer;
class WeightCaster;
class WeightServer;

/// Offers the policy's weights to the workers: as a file that they map where they share its path,
/// as a stream where they do not. Before that they are broadcast to those on GPUs, if so wanted.
/// The two newest versions of a stage stay, until its end.
class Publisher {
 public:
  /// @param caster  borrowed; null: nothing is broadcast
  /// @throws TemporaryError when no port can be bound
  Publisher(const PublishConfig& config,
            const std::filesystem::path& run_dir,
            const ServeOptions& serve,
            WeightCaster* caster = nullptr);
  ~Publisher();

  struct Published {
    Publication publication;
    double seconds = 0;
    std::optional<int64_t> receivers;  ///< of the broadcast; nothing: none is wanted
  };
  /// A network beside the policy that voices draw from.
  struct Companion {
    const Transformer* model = nullptr;  ///< null: there is none
    int64_t step = 0;                    ///< of its weights; 0: it never changes
  };
  /// Hands a model's parameters, some at a time, to whoever writes them.
  using Take = std::function<void(std::span<const NamedTensor>)>;
  using Visit = std::function<void(const Transformer& model, const Take& take)>;
  /// The weights must not change meanwhile.
  /// @param visit  of `policy` or the companion's model, so that neither need be in memory as a
  /// whole
  /// @throws IoError
  Published publish(uint32_t stage,
                    int64_t lineage,
                    int64_t step,
                    const Transformer& policy,
                    const Companion& companion,
                    const Visit& visit = visit_whole);
  /// All parameters at once.
  static void visit_whole(const Transformer& model, const Take& take);

 private:
  Publication write(const std::filesystem::path& folder,
                    const WeightVersion& version,
                    const Transformer& model,
                    const Visit& visit);

  void broadcast(Published& made, bool with_companion);

  std::filesystem::path folder_;
  WeightCaster* const caster_;
  bool offers_file_ = true;
  std::unique_ptr<WeightServer> server_;
  std::optional<Publication> companion_;  ///< newest
};

}  // namespace praetor
