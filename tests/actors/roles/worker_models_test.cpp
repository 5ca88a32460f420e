#include "actors/roles/worker_models.h"

#include <ATen/ATen.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "actors/toy/toy_language.h"
#include "actors/train/publisher.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

/// A run whose toy language is made, and the policy that its PPO stage would train.
struct Run {
  /// @param engine  section of the PPO stage
  explicit Run(const std::string& engine = "{}") {
    const std::string job_text = R"(
name: run
stages:
  - {kind: toy_language, name: language, toy_language: {sft_rows: 10, pair_rows: 10, prompt_rows: 40, eval_rows: 8}}
  - kind: ppo
    model: {create: {hidden_size: 16, num_layers: 1, num_heads: 2, max_positions: 64}}
    tokenizer: {stage: language}
    data: {train: "stage:language/prompts_train.jsonl"}
    steps: 3
    sampling: {max_new_tokens: 4}
    rewards: {parts: [{kind: length, unit: words, min: 1}]}
    ppo: {critic: {init: policy}}
    engine: )";
    write_file_atomic(dir / "job.yaml", job_text + engine + "\n");
    job = std::make_unique<JobConfig>(JobConfig::load(dir / "job.yaml"));
    write_toy_language(dir / "stages" / "language", 1, job->stages[0].toy);
    ModelConfig config = *job->stages[1].model.create;
    config.vocab_size = Tokenizer::load(dir / "stages" / "language")->vocab_size();
    policy = std::make_unique<Transformer>(config, RandomStream({.job_seed = 3}));
  }

  Lease lease(const Publication& weights) const {
    Lease out{.id = 1, .stage = 1, .weights = weights, .params = {.max_new_tokens = 4}};
    out.generate.push_back({{0, 0}, {1, 2, 3}});
    return out;
  }
  ServeOptions serve() const { return {.run_id = "r", .secret = std::string(64, 'a')}; }
  WorkerModels models() const {
    RpcClientOptions fetch;
    fetch.run_id = "r";
    fetch.secret = std::string(64, 'a');
    fetch.patience = std::chrono::seconds(2);
    return WorkerModels(
        *job, {.run_dir = dir.path(), .scratch = dir / "scratch", .fetch = std::move(fetch)});
  }

  testing::TempDir dir;
  std::unique_ptr<JobConfig> job;
  std::unique_ptr<Transformer> policy;
};

std::vector<int64_t> sample(Engine& engine, VoiceKind voice = VoiceKind::kPolicy) {
  std::vector<int64_t> tokens;
  const GenerationRequest request{.prompt = {1, 2, 3},
                                  .params = {.max_new_tokens = 4},
                                  .key = {.job_seed = 7},
                                  .voice = {voice}};
  engine.generate(std::span(&request, 1), [&](Generation&& made) {
    tokens = made.tokens;
    return true;
  });
  return tokens;
}

}  // namespace

TEST_CASE("a worker generates with the published weights, mapped or streamed", "[actors][cpu]") {
  const Run run;
  const auto tokenizer = Tokenizer::load(run.dir / "stages" / "language");
  Engine reference(*run.policy, *tokenizer, {});
  const std::vector<int64_t> wanted = sample(reference);
  for (const char* via : {"file", "stream"}) {
    CAPTURE(via);
    Publisher publisher({.via = via}, run.dir.path(), run.serve());
    const Publication weights = publisher.publish(1, 0, 5, *run.policy, {}).publication;
    CHECK(weights.file.empty() == (std::string(via) == "stream"));
    auto models = run.models();
    CHECK(models.weight_step() == -1);
    CHECK(sample(models.engine(run.lease(weights))) == wanted);
    CHECK(models.weight_step() == 5);
    // The same version again costs nothing: not even its file is asked for.
    Publication gone = weights;
    gone.file = "/nowhere";
    gone.address.clear();
    CHECK(sample(models.engine(run.lease(gone))) == wanted);
    // The next one replaces it in place.
    const Publication next = publisher.publish(1, 0, 6, *run.policy, {}).publication;
    CHECK(sample(models.engine(run.lease(next))) == wanted);
    CHECK(models.weight_step() == 6);
  }
}

TEST_CASE("a worker of narrow weights holds these alone, and renews them", "[actors][cpu]") {
  const Run run("{weights: int8}");
  const auto tokenizer = Tokenizer::load(run.dir / "stages" / "language");
  Publisher publisher({.via = "file"}, run.dir.path(), run.serve());
  const Publication first = publisher.publish(1, 0, 5, *run.policy, {}).publication;
  auto models = run.models();
  const Lease lease = run.lease(first);
  Engine& engine = models.engine(lease);
  Engine reference(*run.policy, *tokenizer, {.weights = WeightKind::kInt8});
  CHECK(sample(engine) == sample(reference));
  for (const NamedTensor& p : run.policy->parameters()) at::Tensor(p.tensor).mul_(1.5);
  CHECK(models.refresh(publisher.publish(1, 0, 6, *run.policy, {}).publication));
  CHECK(models.weight_step() == 6);
  CHECK(sample(engine) == sample(reference));
}

TEST_CASE("a worker keeps the base and merges each adapter that is published", "[actors][cpu]") {
  const Run run;
  const auto tokenizer = Tokenizer::load(run.dir / "stages" / "language");
  LoraAdapter adapter = LoraAdapter::make(run.policy->config(), {.rank = 2}, {.job_seed = 1});
  Transformer merged = adapter.merged(*run.policy);
  Engine reference(merged, *tokenizer, {}, run.policy.get());
  const auto train = [&](double size) {
    RandomStream stream({.job_seed = 4});
    for (const LoraAdapter::Module& module : adapter.modules()) {
      for (int64_t i = 0; i < module.b.numel(); ++i)
        module.b.mutable_data_ptr<float>()[i] = static_cast<float>(size * stream.normal());
    }
    adapter.merge_into(merged, *run.policy);
  };
  for (const char* via : {"file", "stream"}) {
    CAPTURE(via);
    Publisher publisher({.via = via}, run.dir.path(), run.serve());
    // The reference is the base, which is published once.
    const auto publish = [&](int64_t step) {
      return publisher.publish(1,
                               0,
                               step,
                               merged,
                               {.model = run.policy.get()},
                               Publisher::visit_whole,
                               {run.policy.get(), &adapter});
    };
    train(0);
    const auto first = publish(0);
    auto models = run.models();
    CHECK(sample(models.engine(run.lease(first.publication))) == sample(reference));
    const Publication& base = first.publication.base.at(0);
    CHECK(first.publication.companions.at(0).version.same_weights(base.version));
    CHECK(first.bytes == base.bytes + first.publication.bytes);
    std::set<std::vector<int64_t>> told;
    Publication newest;
    for (int64_t step = 1; step < 7; ++step) {
      train(0.2 * static_cast<double>(step));
      const auto next = publish(step);
      newest = next.publication;
      CHECK(next.bytes == newest.bytes);
      CHECK(next.bytes < base.bytes / 2);
      CHECK(newest.base.at(0).version.same_weights(base.version));
      // The base is held: nobody is asked for it.
      Publication lean = newest;
      lean.base[0].file.clear();
      lean.base[0].address.clear();
      lean.companions[0] = lean.base[0];
      CHECK(sample(models.engine(run.lease(lean))) == sample(reference));
      CHECK(sample(models.engine(run.lease(lean)), VoiceKind::kCompanion) ==
            sample(reference, VoiceKind::kCompanion));
      told.insert(sample(reference));
      CHECK(models.weight_step() == step);
    }
    CHECK(told.size() > 1);  // or merging would show nothing
    // Whoever joins late fetches the base, then the adapter.
    auto late = run.models();
    CHECK(sample(late.engine(run.lease(newest))) == sample(reference));
    auto lost = run.models();
    Publication gone = newest;
    gone.base[0].file = run.dir / "weights" / "base" / "gone.safetensors";
    gone.base[0].address.clear();
    CHECK_THROWS_WITH(
        lost.engine(run.lease(gone)),
        gone.base[0].file + ": no such file on this host, and nobody streams it (publish.via)");
    // Beside another base an adapter means nothing.
    const std::vector<int64_t> wanted = sample(reference);
    const Publication seventh = publish(7).publication;
    const WrittenWeights other = write_weight_file(run.dir / "weights", {.stage = 1}, merged);
    Publication mixed = seventh;
    mixed.base[0].file = other.file;
    mixed.base[0].version.digest = other.digest;
    CHECK_THROWS_WITH(
        models.engine(run.lease(mixed)),
        Catch::Contains("is an adapter beside the weights with digest " + base.version.digest));
    CHECK(models.weight_step() == 6);
    CHECK(sample(models.engine(run.lease(newest))) == wanted);
    // Weights that are whole again, and an adapter of fewer layers.
    Publisher again({.via = "file"}, run.dir.path(), run.serve());
    Engine plain(*run.policy, *tokenizer, {});
    CHECK(sample(models.engine(run.lease(again.publish(1, 1, 8, *run.policy, {}).publication))) ==
          sample(plain));
    CHECK(sample(models.engine(run.lease(seventh))) == wanted);
    LoraAdapter fewer = LoraAdapter::make(
        run.policy->config(), {.rank = 2, .targets = {"up_proj"}}, {.job_seed = 1});
    for (const LoraAdapter::Module& module : fewer.modules()) module.b.fill_(0.5);
    const Transformer little = fewer.merged(*run.policy);
    Engine little_engine(little, *tokenizer, {});
    Publisher third({.via = "file"}, run.dir.path(), run.serve());
    const auto last =
        third.publish(1, 2, 9, little, {}, Publisher::visit_whole, {run.policy.get(), &fewer});
    CHECK(sample(models.engine(run.lease(last.publication))) == sample(little_engine));
  }
}

TEST_CASE("the base of adapters stays as long as its stage", "[actors][cpu]") {
  const Run run;
  const LoraAdapter adapter = LoraAdapter::make(run.policy->config(), {.rank = 2}, {.job_seed = 1});
  const Adapted adapted{run.policy.get(), &adapter};
  const auto files = [&](const char* folder) {
    int64_t out = 0;
    for (const auto& one : std::filesystem::directory_iterator(run.dir / "weights" / folder))
      out += one.is_regular_file() ? 1 : 0;
    return out;
  };
  int visits = 0;
  const Publisher::Visit visit = [&](const Transformer& model, const Publisher::Take& take) {
    ++visits;
    take(model.parameters());
  };
  std::string name;
  {
    Publisher publisher({.via = "auto"}, run.dir.path(), run.serve());
    for (int64_t step = 0; step < 5; ++step) {
      const auto made = publisher.publish(1, 0, step, *run.policy, {}, visit, adapted).publication;
      name = made.base.at(0).file;
      CHECK(std::filesystem::exists(name));
    }
    CHECK(visits == 1);
    CHECK(files("") == 2);
    CHECK(files("base") == 1);
    // A learner that was killed leaves it: the next one finds it, and removes others.
    std::filesystem::create_hard_link(name, run.dir / "kept");
    std::filesystem::copy_file(name, run.dir / "weights" / "base" / "older");
    Publisher next({.via = "auto"}, run.dir.path(), run.serve());
    CHECK(next.publish(1, 1, 5, *run.policy, {}, visit, adapted).publication.base.at(0).file ==
          name);
    CHECK(std::filesystem::equivalent(name, run.dir / "kept"));
    CHECK(files("base") == 1);
    // A stage without adapters has no base.
    const auto whole = next.publish(2, 0, 0, *run.policy, {}, visit).publication;
    CHECK(whole.base.empty());
    CHECK(files("base") == 0);
  }
  CHECK_FALSE(std::filesystem::exists(run.dir / "weights"));
}

TEST_CASE("weights with a flipped bit are refused, the tensor named, the old ones kept",
          "[actors][cpu]") {
  const Run run;
  Publisher publisher({.via = "file"}, run.dir.path(), run.serve());
  const Publication first = publisher.publish(1, 0, 5, *run.policy, {}).publication;
  auto models = run.models();
  const std::vector<int64_t> wanted = sample(models.engine(run.lease(first)));
  const Publication second = publisher.publish(1, 0, 6, *run.policy, {}).publication;
  {
    std::fstream file(second.file, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-5, std::ios::end);
    const char byte = static_cast<char>(file.get());
    file.seekp(-5, std::ios::end);
    file.put(static_cast<char>(byte ^ 1));
  }
  Publication damaged = second;
  damaged.version.digest = second.version.digest;
  damaged.version.step = 6;
  CHECK_THROWS_WITH(models.engine(run.lease(damaged)), Catch::Contains("model."));
  CHECK_THROWS_AS(models.engine(run.lease(damaged)), DataError);
  CHECK(models.weight_step() == 5);
  CHECK(sample(models.engine(run.lease(first))) == wanted);
}

TEST_CASE("a path that comes over the network leads nowhere but to the run's weights",
          "[actors][cpu]") {
  const Run run;
  auto models = run.models();
  Publisher publisher({.via = "stream"}, run.dir.path(), run.serve());
  Publication named = publisher.publish(1, 0, 5, *run.policy, {}).publication;
  for (const std::string& path : {std::string("/etc/hostname"),
                                  (run.dir / "job.yaml").string(),
                                  (run.dir / "weights" / ".." / "job.yaml").string(),
                                  (run.dir / "weights").string()}) {
    CAPTURE(path);
    named.file = path;
    CHECK_THROWS_AS(models.engine(run.lease(named)), RefusedError);
  }
  // Nor does a digest name a file.
  named.file.clear();
  named.version.digest = "../../escaped";
  CHECK_THROWS_AS(models.engine(run.lease(named)), MissingInput);
  CHECK_FALSE(std::filesystem::exists(run.dir.path().parent_path() / "escaped.safetensors"));
}

TEST_CASE("weights that nobody offers any more are named", "[actors][cpu]") {
  const Run run;
  auto models = run.models();
  Publication gone;
  gone.version.stage = 1;
  gone.version.step = 2;
  gone.version.digest = "d";
  gone.file = run.dir / "weights" / "w.safetensors";
  CHECK_THROWS_WITH(models.engine(run.lease(gone)),
                    gone.file + ": no such file on this host, and nobody streams it (publish.via)");
  Lease foreign = run.lease(gone);
  foreign.stage = 9;
  CHECK_THROWS_AS(models.engine(foreign), DataError);
}

TEST_CASE("newer weights are put into the engine at work, or it stays as it is", "[actors][cpu]") {
  const Run run;
  Publisher publisher({.via = "file"}, run.dir.path(), run.serve());
  auto models = run.models();
  const Lease lease = run.lease(publisher.publish(1, 0, 5, *run.policy, {}).publication);
  Engine& engine = models.engine(lease);
  CHECK_FALSE(models.goes_on(lease));  // the job samples and trains in turns
  for (const NamedTensor& p : run.policy->parameters()) at::Tensor(p.tensor).mul_(1.5);
  const Publication newer = publisher.publish(1, 0, 6, *run.policy, {}).publication;
  Publication gone = newer;
  gone.file = run.dir / "weights" / "gone.safetensors";
  CHECK_FALSE(models.refresh(gone));
  CHECK(models.weight_step() == 5);
  CHECK(models.refresh(newer));
  CHECK(models.weight_step() == 6);
  const auto tokenizer = Tokenizer::load(run.dir / "stages" / "language");
  Engine reference(*run.policy, *tokenizer, {});
  CHECK(sample(engine) == sample(reference));
}

}  // namespace praetor
