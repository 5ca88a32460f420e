// The states of several ranks through a checkpoint's shards.
#include <nlohmann/json.hpp>

#include "core/checkpoint/checkpoint.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"

namespace praetor {

TEST_CASE("ranks write their shards, and a checkpoint of them loads on another number of ranks",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  const testing::TempDir run;
  for (const int32_t world : {1, 2, 4}) {
    CheckpointWriter writer(run.path(), "sft", world, world);
    std::vector<CheckpointFile> written(static_cast<size_t>(world));
    std::string json, weights;
    CHECK(testing::run_ranks(world, [&](Collective& ranks) {
            Learner learner = testing::make_case("sft", &ranks);
            testing::update_case("sft", learner, 0);
            written[static_cast<size_t>(ranks.rank())] = CheckpointWriter::write_shard(
                writer.folder(), ranks.rank(), ranks.world_size(), learner.state());
            if (ranks.rank() != 0) return;
            json = learner.state_json();
            weights = testing::weights_digest(learner);
          }) == std::vector<std::string>(static_cast<size_t>(world)));
    for (const CheckpointFile& file : written) writer.add_shard(file);
    writer.set_state(nlohmann::json::parse(json));
    const CheckpointReader reader(writer.commit());
    const auto shards = reader.tensors();
    std::vector<std::string> loaded(3);
    CHECK(testing::run_ranks(3, [&](Collective& ranks) {
            Learner learner = testing::make_case("sft", &ranks, {.seed = 7});
            learner.load_state(*shards, reader.state().dump());
            loaded[static_cast<size_t>(ranks.rank())] = testing::weights_digest(learner);
          }) == std::vector<std::string>(3));
    CHECK(loaded == std::vector<std::string>(3, weights));
  }
}

}  // namespace praetor
