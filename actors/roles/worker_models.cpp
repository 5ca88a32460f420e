#include "actors/roles/worker_models.h"

#include <system_error>

#include "actors/rpc/scorer_client.h"
#include "actors/rpc/weight_stream.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/model/lora.h"
#include "core/publication/adapter_file.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

bool is_below(const fs::path& file, const fs::path& folder) {
  std::error_code ignored;
  const fs::path inside =
      fs::weakly_canonical(file, ignored).lexically_relative(fs::weakly_canonical(folder, ignored));
  return !inside.empty() && *inside.begin() != ".." && *inside.begin() != ".";
}

}  // namespace

WorkerModels::WorkerModels(const JobConfig& job, Options options)
    : job_(job), options_(std::move(options)) {}

WorkerModels::~WorkerModels() {
  std::error_code ignored;
  fs::remove_all(options_.scratch, ignored);
}

const StageConfig& WorkerModels::stage_of(const Lease& lease) const {
  if (lease.stage >= job_.stages.size())
    throw DataError("a lease of stage ", lease.stage, ", but the job has ", job_.stages.size());
  return job_.stages[lease.stage];
}

template <typename File>
File WorkerModels::file_of(const Publication& publication, const char* what) {
  if (options_.received) {
    if (auto received = options_.received(publication)) {
      if (File* const file = std::get_if<File>(&*received)) return std::move(*file);
    }
  }
  const auto open = [&](const fs::path& path) {
    return File::open(path, publication.version.digest);
  };
  fs::path file = publication.file;
  // The path came over the network: it may name what this job's learner publishes, nothing else.
  const fs::path published = fs::absolute(job_.publish.folder_of(options_.run_dir));
  if (!file.empty() && !is_below(file, published)) {
    throw RefusedError(what,
                       " of step ",
                       publication.version.step,
                       ": ",
                       printable(file.string()),
                       " does not lie in ",
                       published.string());
  }
  std::error_code failure;
  if (!file.empty() && fs::exists(file, failure)) return open(file);
  if (publication.address.empty()) {
    throw MissingInput(
        file.empty() ? str(what, " of step ", publication.version.step) : file.string(),
        ": no such file on this host, and nobody streams it (publish.via)");
  }
  fs::create_directories(options_.scratch, failure);
  const fs::path fetched = options_.scratch / "weights.safetensors";
  struct Removed {  // what is mapped stays readable
    const fs::path& file;
    ~Removed() {
      std::error_code ignored;
      fs::remove(file, ignored);
    }
  } const removed{fetched};
  fetch_weights(publication, fetched, options_.fetch);
  return open(fetched);
}

WeightFile WorkerModels::whole(const Publication& publication) {
  const std::string& digest = publication.version.digest;
  for (const Held* held : {&policy_, &companion_})
    if (held->base && held->base->digest() == digest) return *held->base;
  return file_of<WeightFile>(publication, "weights");
}

void WorkerModels::put_whole(const WeightFile& file, Held& into) {
  const auto narrow = only_kind();
  if (into.model) {
    narrow ? file.renew(*into.model) : file.apply(*into.model);
  } else {
    into.model =
        std::make_unique<Transformer>(narrow ? file.make_narrow_model(*narrow) : file.make_model());
    engine_.reset();
  }
  into.base.reset();
}

void WorkerModels::load_adapter(const Publication& publication, Held& into) {
  const WeightFile base = whole(publication.base.front());
  const AdapterFile file = file_of<AdapterFile>(publication, "the adapter");
  const LoraAdapter adapter = file.adapter(base);  // both are whole before anything is changed
  base.verify();
  std::vector<std::string> layers;
  for (const LoraAdapter::Module& module : adapter.modules()) layers.push_back(module.name);
  const bool others_hold =
      into.model && into.base && into.base->digest() == base.digest() && into.layers == layers;
  if (!others_hold) put_whole(base, into);
  only_kind() ? base.renew(adapter, *into.model) : base.apply(adapter, *into.model);
  into.base = base;
  into.layers = std::move(layers);
}

void WorkerModels::load_weights(const Publication& publication, Held& into) {
  if (into.version && into.version->same_weights(publication.version)) return;
  if (publication.base.empty()) {
    put_whole(whole(publication), into);
  } else {
    load_adapter(publication, into);
  }
  into.version = publication.version;
  log::info(str(&into == &policy_ ? "weights of step " : "companion of step ",
                publication.version.step,
                " applied"));
}

// The kind in which the engine alone needs the weights; nothing: as they are published.
std::optional<WeightKind> WorkerModels::only_kind() const {
  const EngineConfig& engine = job_.stages[*engine_stage_].engine;
  if (engine.device != EngineDevice::kCpu || engine.weights == WeightKind::kFloat32)
    return std::nullopt;
  return engine.weights;
}

Engine& WorkerModels::engine(const Lease& lease) {
  const StageConfig& stage = stage_of(lease);
  if (engine_stage_ != lease.stage) {
    engine_.reset();
    policy_ = {};
    companion_ = {};
    tokenizer_ = Tokenizer::load(stage.tokenizer.in(options_.run_dir / "stages"));
    engine_stage_ = lease.stage;
  }
  load_weights(lease.weights, policy_);
  for (const Publication& other : lease.weights.companions) load_weights(other, companion_);
  if (!engine_) {
    engine_ = std::make_unique<Engine>(
        *policy_.model, *tokenizer_, stage.engine, companion_.model.get(), options_.device);
    engine_->set_on_step(options_.on_step);
  }
  return *engine_;
}

bool WorkerModels::refresh(const Publication& newer) {
  PRAETOR_CHECK(engine_ && engine_stage_ == newer.version.stage,
                "no engine of the stage is at work");
  try {
    for (const Publication& other : newer.companions) load_weights(other, companion_);
    load_weights(newer, policy_);
  } catch (const MissingInput& missed) {
    log::info(str("not refreshed: ", missed.what()));
    return false;
  }
  return true;
}

bool WorkerModels::goes_on(const Lease& lease) const {
  return lease.purpose == Purpose::kPolicy && stage_of(lease).partial_rollouts;
}

Scorer& WorkerModels::scorer(const Lease& lease) {
  if (scorer_stage_ != lease.stage) {
    scorer_ =
        Scorer::make(stage_of(lease).rewards,
                     [this](const std::string& name) { return options_.run_dir / "stages" / name; },
                     {.connect = ScorerClient::connector(options_.scorer_tls)});
    scorer_stage_ = lease.stage;
  }
  return *scorer_;
}

}  // namespace praetor
