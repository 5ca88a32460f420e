#include "actors/job/cluster.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/str.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

/// One trained network of the shape of Llama 3 8B, in bfloat16 at stage 3, and its reference.
StagePlan stage(int64_t sequences) {
  ModelConfig shape;
  shape.vocab_size = 128256;
  shape.hidden_size = 4096;
  shape.intermediate_size = 14336;
  shape.num_layers = 32;
  shape.num_heads = 32;
  shape.num_kv_heads = 8;
  shape.head_dim = 128;
  shape.max_positions = 8192;
  shape.tie_embeddings = false;
  StagePlan out{.name = "grpo", .kind = "grpo"};
  out.sequences_per_step = sequences;
  out.prompt_tokens = 512;
  out.response_tokens = 512;
  StagePlan::Update update;
  update.tokens = sequences * 1024;
  update.networks = {{.shape = shape, .weight_bytes = 6},
                     {.shape = shape, .trained = false, .weight_bytes = 2}};
  update.forwards = {update.networks[1]};
  update.options = {.sharding = {.stage = 3},
                    .micro_batch_tokens = 16384,
                    .sequence_tokens = 1024,
                    .checkpointing = ActivationCheckpointing::kBlock,
                    .compute_bytes = 2};
  out.update = update;
  return out;
}

}  // namespace

TEST_CASE("a cluster's plan is what the shapes say", "[actors][cpu]") {
  ClusterConfig cluster;
  cluster.gpus = {8, 64};
  const auto points = plan_cluster(stage(1024), cluster);
  REQUIRE(points.size() == 2);
  const ClusterPoint &small = points[0], &large = points[1];
  // 8.03e9 parameters; a token 2 FLOPs each forward, 4 back, 2 again, and 2 in the reference, and
  // attention: a little above 10; 1024 x 1024 tokens on 8 GPUs of 494.5 TFLOP/s.
  const double tokens = 1024.0 * 1024, parameters = 8.03e9;
  CHECK(small.computing == Approx(10 * parameters * tokens / (8 * 494.5e12)).epsilon(0.1));
  CHECK(large.computing == Approx(small.computing / 8).epsilon(1e-9));
  // Of the parameters the embedding, 0.53e9, takes part in no product.
  CHECK(small.utilisation < 0.5 * 6 / 10 * 8.03 / 7.5);
  CHECK(small.utilisation > 0.2);
  CHECK(large.utilisation < small.utilisation);
  // 16 bytes a parameter in training and 2 in the reference, in parts; 2 in the engine, whole.
  CHECK(static_cast<double>(small.memory) > (6 + 4 + 8 + 2) * parameters / 8 + 2 * parameters);
  CHECK(static_cast<double>(small.engine) == Approx(2 * parameters).epsilon(0.001));
  CHECK(large.memory < small.memory);
  // 128 sequences a GPU: at least the weights once a token, at most as though alone.
  const double weights = 2 * parameters / 3350e9;
  CHECK(small.generating > 512 * weights);
  CHECK(large.generating > 512 * weights);
  CHECK(large.generating < small.generating);
  CHECK(small.publishing ==
        Approx(weights + 2 * parameters * 7 / 8 / 450e9 + 7 * 34 * 5e-6).epsilon(0.01));
  CHECK(small.step() ==
        Approx(small.computing + small.waiting + small.generating + small.publishing));
}

TEST_CASE("more passes and optimizer steps take as much more", "[actors][cpu]") {
  ClusterConfig cluster;
  cluster.gpus = {8};
  StagePlan once = stage(1024), twice = once;
  twice.update->epochs = 2;
  for (StagePlan* one : {&once, &twice}) {
    one->update->networks.pop_back();
    one->update->forwards.clear();
  }
  const ClusterPoint a = plan_cluster(once, cluster)[0], b = plan_cluster(twice, cluster)[0];
  CHECK(b.computing == Approx(2 * a.computing));
  CHECK(b.waiting == Approx(2 * a.waiting));
  CHECK(b.generating == a.generating);
  CHECK(b.utilisation == Approx(a.utilisation));
  StagePlan offline = once;
  offline.prompt_tokens = offline.response_tokens = 0;
  CHECK(plan_cluster(offline, cluster)[0].generating == 0);
  offline.update.reset();
  CHECK(plan_cluster(offline, cluster).empty());
}

TEST_CASE("ranks without a sequence make nothing faster", "[actors][cpu]") {
  ClusterConfig cluster;
  cluster.gpus = {8, 16, 64};
  const auto points = plan_cluster(stage(12), cluster);
  CHECK(points[0].computing == Approx(2 * points[1].computing));  // two sequences, one
  CHECK(points[2].computing == Approx(points[1].computing));
}

TEST_CASE("a slower network is waited for, and a GPU that is too small is marked",
          "[actors][cpu]") {
  ClusterConfig fast, slow;
  fast.gpus = slow.gpus = {8, 64};
  slow.network_gb_s = 1;
  const StagePlan one = stage(1024);
  const auto a = plan_cluster(one, fast), b = plan_cluster(one, slow);
  CHECK(b[0].waiting == a[0].waiting);  // one node
  CHECK(b[1].waiting > 5 * a[1].waiting);
  // Copies of a node each send their sums alone, once for all micro-batches.
  StagePlan many = one;
  many.update->options.micro_batch_tokens = 2048;
  StagePlan copies = many;
  copies.update->options.sharding.group = 8;
  CHECK(plan_cluster(copies, slow)[1].waiting < plan_cluster(many, slow)[1].waiting / 2);
  CHECK(plan_cluster(copies, slow)[1].memory > plan_cluster(many, slow)[1].memory);
  CHECK_THAT(cluster_text({one}, fast), !Catch::Contains("!"));
  fast.memory_gib = 24;
  const std::string text = cluster_text({one}, fast);
  CHECK_THAT(text, Catch::Contains("stage grpo: seconds of a step of 1048576 tokens at most"));
  CHECK_THAT(text, Catch::Contains("!: 8 GPUs: an update takes "));
}

TEST_CASE("where a GPU has no room for learner and engine the plan says so", "[actors][cpu]") {
  // Of the shape of Llama 3 70B under an adapter: 141 GB in the engine of every GPU.
  StagePlan large = stage(1024);
  ModelConfig shape = large.update->networks.front().shape;
  shape.hidden_size = 8192;
  shape.intermediate_size = 28672;
  shape.num_layers = 80;
  shape.num_heads = 64;
  large.update->networks = {{.shape = shape, .adapter_parameters = 200'000'000, .weight_bytes = 2}};
  large.update->forwards.clear();
  ClusterConfig cluster;
  cluster.gpus = {32};
  const ClusterPoint none = plan_cluster(large, cluster)[0];
  CHECK(none.engine == 2 * shape.parameter_count());
  CHECK(none.memory > none.engine);
  CHECK(std::isinf(none.generating));
  CHECK_THAT(none.too_large,
             Catch::Contains("an update takes ") &&
                 Catch::Contains(" GiB beside 131 GiB of the engine's weights: more than nine "
                                 "tenths of 80 GiB"));
  const std::string text = cluster_text({large}, cluster);
  CHECK_THAT(
      text,
      Catch::Contains("every GPU has an engine with the whole policy, 131 GiB in bfloat16") &&
          Catch::Contains("  !: 32 GPUs: an update takes "));
  const size_t row = text.find("\n     32");
  REQUIRE(row != std::string::npos);
  CHECK_THAT(text.substr(row + 1, text.find('\n', row + 1) - row - 1),
             Catch::Contains("!  ") && Catch::Contains(" - ") && !Catch::Contains("inf"));
  // Nothing is generated: the update alone counts.
  StagePlan offline = large;
  offline.prompt_tokens = offline.response_tokens = 0;
  const ClusterPoint update = plan_cluster(offline, cluster)[0];
  CHECK(update.engine == 0);
  CHECK(update.memory + none.engine == none.memory);
  CHECK(update.too_large.empty());
  // The update fits, but not one sequence's keys and values of 320 KiB a token.
  cluster.memory_gib = 240;
  CHECK(plan_cluster(large, cluster)[0].too_large.empty());
  CHECK(std::isfinite(plan_cluster(large, cluster)[0].generating));
  StagePlan patient = large;
  patient.prompt_tokens = 100'000;
  patient.response_tokens = 200'000;
  const ClusterPoint one = plan_cluster(patient, cluster)[0];
  CHECK_THAT(one.too_large,
             Catch::Contains("the keys and values of one sequence take 91.6 GiB beside 131 GiB of "
                             "the engine's weights"));
  CHECK(one.memory > none.engine + 300'000 * int64_t{327'680});
  CHECK(std::isinf(one.generating));
}

TEST_CASE("a number of GPUs that the layout is not for has a reason in place of figures",
          "[actors][cpu]") {
  StagePlan one = stage(1024);
  one.update->options.sharding.tensor = 4;
  ClusterConfig cluster;
  cluster.gpus = {6, 12};
  const auto points = plan_cluster(one, cluster);
  REQUIRE(points.size() == 2);
  CHECK(points[0].impossible == "learner.sharding.tensor: 4 does not divide 6 GPUs");
  CHECK(points[1].impossible.empty());
  CHECK(points[1].computing > 0);
  const std::string text = cluster_text({one}, cluster);
  CHECK_THAT(text, Catch::Contains("\n  -: learner.sharding.tensor: 4 does not divide 6 GPUs\n"));
  const size_t row = text.find("\n      6 ");
  REQUIRE(row != std::string::npos);
  const std::string cells = text.substr(row + 8, text.find('\n', row + 1) - row - 8);
  CHECK(cells.find_first_not_of(" -") == std::string::npos);
  CHECK(std::ranges::count(cells, '-') == 8);
  one.update->options.sharding.group = 2;  // 12 / 4 ranks
  CHECK(plan_cluster(one, cluster)[1].impossible ==
        "learner.sharding.group: 2 does not divide 12 GPUs / 4 (tensor)");
  one.update->options.sharding = {.stage = 3, .group = 8};
  CHECK(plan_cluster(one, cluster)[0].impossible ==
        "learner.sharding.group: 8 does not divide 6 GPUs");
}

TEST_CASE("units that are asked for ahead are those of one network at most", "[actors][cpu]") {
  ClusterConfig cluster;
  cluster.gpus = {8};
  StagePlan some = stage(1024), all = some;
  some.update->options.sharding.prefetch = 33;
  all.update->options.sharding.prefetch = 99'999;
  const ClusterPoint a = plan_cluster(some, cluster)[0], b = plan_cluster(all, cluster)[0];
  CHECK(a.memory == b.memory);
  CHECK(a.waiting == b.waiting);
}

TEST_CASE("a cluster's file is read strictly", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto load = [&](const std::string& text) {
    write_file_atomic(dir / "cluster.yaml", text);
    return ClusterConfig::load(dir / "cluster.yaml");
  };
  CHECK(load("gpus: [4]\ntflops: 300\n").gpus == std::vector<int64_t>{4});
  CHECK_THROWS_WITH(load("tflop: 300\n"),
                    Catch::Contains("cluster.yaml:1:1: unknown key \"tflop\""));
  CHECK_THROWS_WITH(load("efficiency: 55\n"), Catch::Contains("cluster.yaml:1:13: efficiency: "));
  CHECK_THROWS_WITH(load("gpus: [0]\n"), Catch::Contains("cluster.yaml:1:7: gpus: numbers of"));
  CHECK_THROWS_AS(ClusterConfig::load(dir / "none.yaml"), MissingInput);
}

}  // namespace praetor
