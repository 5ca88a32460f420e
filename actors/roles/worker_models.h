#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/controller/services.h"
#include "actors/job/job_config.h"
#include "actors/rpc/client.h"
#include "core/model/transformer.h"
#include "core/publication/adapter_file.h"
#include "core/tokenizer/tokenizer.h"
#include "reward/scorer.h"
#include "rollout/engine.h"

namespace praetor {

/// The networks of a worker: those that the stage of a lease needs, with the weights it names.
/// One thread at a time.
class WorkerModels {
 public:
  struct Options {
    std::filesystem::path run_dir;                  ///< as this host names it
    std::filesystem::path scratch;                  ///< made when weights are streamed to it
    RpcClientOptions fetch;                         ///< for streamed weights
    std::shared_ptr<const TlsIdentity> scorer_tls;  ///< for the user's scorers on other hosts
    std::function<void()> on_step;                  ///< called at each forward pass of the engine
    cuda::Device* device = nullptr;                 ///< of engines on a GPU; null: one of their own
    /// Weights that came by broadcast, verified; nothing: they did not. Empty: none do.
    std::function<std::optional<AnyPublished>(const Publication&)> received;
  };
  WorkerModels(const JobConfig& job, Options options);
  ~WorkerModels();

  /// The engine with the lease's weights. New ones are checked against their digest first, and
  /// replace the old ones whole.
  /// @throws MissingInput when nobody offers them any more; DataError naming the tensor that came
  /// damaged
  Engine& engine(const Lease& lease);
  /// Brings newer weights of the stage into the engine that generates, whose lease may go on under
  /// them: between two of its steps. False, and nothing is changed, when nobody offers them any
  /// more, as still newer ones are there. @throws DataError
  bool refresh(const Publication& newer);
  /// True when responses of the stage go on under newer weights.
  bool goes_on(const Lease& lease) const;
  /// The scorer of the lease's stage.
  Scorer& scorer(const Lease& lease);
  int64_t weight_step() const { return policy_.version ? policy_.version->step : -1; }

 private:
  /// One network with the weights it holds.
  struct Held {
    std::optional<WeightVersion> version;
    std::unique_ptr<Transformer> model;
    /// Of weights under an adapter: what that was merged into, mapped, and the layers it changes.
    std::optional<WeightFile> base;
    std::vector<std::string> layers;
  };
  void load_weights(const Publication& publication, Held& into);
  void load_adapter(const Publication& publication, Held& into);
  /// Puts all weights of `file` into the network, which is made when there is none.
  void put_whole(const WeightFile& file, Held& into);
  /// The file of a publication of whole weights, which need not be asked for when it is a base that
  /// is held.
  WeightFile whole(const Publication& publication);
  /// As it came by broadcast, or else the published file, mapped; it is fetched when this host does
  /// not share its path, and has no name any more afterwards. @param what  of the weights, for
  /// errors
  template <typename File>
  File file_of(const Publication& publication, const char* what);
  std::optional<WeightKind> only_kind() const;
  const StageConfig& stage_of(const Lease& lease) const;

  const JobConfig& job_;
  const Options options_;
  std::optional<uint32_t> engine_stage_, scorer_stage_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Held policy_, companion_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Scorer> scorer_;
};

}  // namespace praetor
