#include "actors/job/cluster.h"

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
  // 16 bytes a parameter in training and 2 in the reference, in parts.
  CHECK(static_cast<double>(small.memory) > (6 + 4 + 8 + 2) * parameters / 8);
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
  once.update->networks.pop_back();
  twice.update->networks.pop_back();
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
  CHECK_THAT(text, Catch::Contains("!: more than nine tenths"));
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
