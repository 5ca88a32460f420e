#include "tests/learners/sharding/transcript.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/checkpoint/checkpoint.h"
#include "tests/learners/sharding/cases.h"
#include "tests/support/shared_data.h"

namespace praetor::testing {
namespace {

/// Updates `from` up to `to` (not included), each as a line.
void add_updates(std::ostream& out, const std::string& name, Learner& learner, int from, int to) {
  for (int step = from; step < to; ++step) {
    const StepReport report = update_case(name, learner, step);
    out << name << ' ' << step << ' ' << report.loss_digest << ' ' << report.gradient_digest << ' '
        << report.manifest;
    for (const auto& [key, value] : report.metrics) out << ' ' << key << '=' << value;
    out << ' ' << weights_digest(learner) << '\n';
  }
}

/// Saves what `learner` holds as the checkpoint of the group. Returns its folder.
std::string save(Collective& ranks,
                 const std::string& run_dir,
                 const std::string& name,
                 const Learner& learner) {
  const int32_t shards = learner.state_shards();
  std::optional<CheckpointWriter> writer;
  if (ranks.rank() == 0) writer.emplace(run_dir, name, 2, shards);
  const std::string folder = ranks.all_gather_bytes(writer ? writer->folder().string() : "")[0];
  nlohmann::json mine;
  if (const auto tensors = learner.state(); ranks.rank() < shards) {
    const CheckpointFile file =
        CheckpointWriter::write_shard(folder, ranks.rank(), shards, tensors);
    mine = {{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}};
  }
  const std::vector<std::string> written = ranks.all_gather_bytes(mine.dump());
  if (writer) {
    for (int32_t r = 0; r < shards; ++r) {
      const auto file = nlohmann::json::parse(written[static_cast<size_t>(r)]);
      writer->add_shard({file.at("name").get<std::string>(),
                         file.at("bytes").get<int64_t>(),
                         file.at("sha256").get<std::string>()});
    }
    writer->set_state(nlohmann::json::parse(learner.state_json()));
  }
  return ranks.all_gather_bytes(writer ? writer->commit().string() : "")[0];
}

}  // namespace

std::string learner_transcript(Collective& ranks) {
  std::ostringstream out;
  out.precision(17);
  const int32_t world = ranks.world_size();
  const auto add = [&](const std::vector<std::string>& names,
                       const std::vector<CaseOptions>& layouts) {
    for (const CaseOptions& options : layouts) {
      for (const std::string& name : names) {
        Learner learner = make_case(name, &ranks, options);
        out << options.stage << ' ' << options.group << ' ' << options.tensor << ' ';
        add_updates(out, name, learner, 0, 2);
      }
    }
  };
  add(learner_cases(), {{.stage = 1}, {.stage = 2}, {.stage = 3}});
  if (world == 4)
    add(learner_cases(),
        {{.stage = 2, .group = 2}, {.stage = 3, .group = 2}, {.stage = 1, .group = 1}});
  if (world % 2 == 0) add(learner_cases(), {{.stage = 1, .tensor = 2}, {.stage = 3, .tensor = 2}});
  const std::vector<std::string> some{"sft", "dpo", "ppo", "nash_md"};
  add(some,
      {{.stage = 2, .tied = false, .weights = at::kDouble},
       {.stage = 3, .lora = LoraConfig{.rank = 3, .alpha = 6, .dropout = 0.25}},
       {.stage = 3, .precision = at::kBFloat16}});
  if (world == 3) add(some, {{.stage = 1, .tensor = 3, .heads = 6, .kv_heads = 3}});
  if (world == 4)
    add(some,
        {{.stage = 1, .tied = false, .tensor = 4},
         {.stage = 3, .group = 1, .tensor = 2},
         {.stage = 2, .lora = LoraConfig{.rank = 3, .alpha = 6}, .group = 1, .tensor = 2}});
  return out.str();
}

std::string resume_transcript(Collective& ranks) {
  std::ostringstream out;
  out.precision(17);
  std::vector<CaseOptions> layouts{{.stage = 3}, {.stage = 1}};
  if (ranks.world_size() == 3) layouts.push_back({.stage = 2, .tensor = 3});
  if (ranks.world_size() % 2 == 0) layouts.push_back({.stage = 3, .tensor = 2});
  if (ranks.world_size() == 4) layouts.push_back({.stage = 3, .group = 2});
  std::optional<TempDir> made;
  if (ranks.rank() == 0) made.emplace();
  const std::string run_dir = ranks.all_gather_bytes(made ? made->path().string() : "")[0];
  // Round the layouts, so that each is saved in once and loaded in once.
  for (size_t i = 0; i < layouts.size(); ++i) {
    for (const std::string name : {"sft", "ppo", "nash_md", "adapters"}) {
      CaseOptions from = layouts[i], to = layouts[(i + 1) % layouts.size()];
      const std::string method = name == "adapters" ? "ppo" : name;
      for (CaseOptions* options : {&from, &to}) {
        options->heads = options->kv_heads = 6;  // which two can share, and three
        if (name == "adapters") options->lora = LoraConfig{.rank = 3, .alpha = 6};
      }
      Learner saved = make_case(method, &ranks, from);
      add_updates(out, method, saved, 0, 2);
      const std::string folder = save(ranks, run_dir, name + "-" + std::to_string(i), saved);
      const CheckpointReader reader(folder);
      Learner loaded = make_case(method, &ranks, to);
      loaded.load_state(*reader.tensors(), reader.state().dump());
      if (weights_digest(loaded) != weights_digest(saved))
        throw InternalError(name, ": other weights in another layout");
      add_updates(out, method, loaded, 2, 4);
    }
  }
  ranks.barrier();  // all have read what goes with its folder
  return out.str();
}

}  // namespace praetor::testing
