#include "actors/job/engine_devices.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

using Catch::Contains;

JobConfig job_of(const testing::TempDir& dir, const std::string& shape, const std::string& engine) {
  const std::string head = R"(
name: run
stages:
  - {kind: toy_language, name: language}
  - kind: ppo
    tokenizer: {stage: language}
    data: {train: "stage:language/prompts_train.jsonl"}
    steps: 3
    rewards: {parts: [{kind: length, unit: words, min: 1}]}
    ppo: {critic: {init: policy}}
)";
  write_file_atomic(dir / "job.yaml",
                    head + "    model: {create: {" + shape + "}}\n    engine: {" + engine + "}\n");
  return JobConfig::read(dir / "job.yaml");
}

constexpr const char* kWhole = "hidden_size: 16, num_layers: 1, num_heads: 2, max_positions: 64";

/// What is wrong with a job whose section `publish` is this one.
std::string publishing(const std::string& placement,
                       const std::string& engine,
                       const std::string& publish) {
  const testing::TempDir dir;
  job_of(dir, kWhole, engine);
  const std::string text = read_file(dir / "job.yaml");
  write_file_atomic(dir / "job.yaml",
                    text + "placement: " + placement + "\npublish: {" + publish + "}\n");
  return join(JobConfig::read(dir / "job.yaml").document->errors(), "\n");
}

}  // namespace

TEST_CASE("weights are broadcast to engines on GPUs of other processes alone",
          "[actors][cpu][cuda]") {
  CHECK(publishing("separate", "device: cuda", "via: nccl, bucket_bytes: 4096, timeout: 0.5")
            .empty());
  CHECK_THAT(publishing("separate", "device: cpu", "via: nccl"),
             Contains("publish.via: nccl broadcasts weights to engines on GPUs, and no stage has "
                      "engine: {device: cuda}; auto, file or stream is wanted"));
  CHECK_THAT(publishing("colocated", "device: cuda", "via: nccl"),
             Contains("publish.via: nccl broadcasts weights from the learner's process to the "
                      "workers', and with placement: colocated they are one"));
  CHECK_THAT(publishing("separate", "device: cuda", "via: nccl, bucket_bytes: 100, timeout: 0"),
             Contains("publish.bucket_bytes: 100 is outside [4096, ") &&
                 Contains("publish.timeout: 0 is outside [0.1, "));
}

TEST_CASE("a job whose model no GPU computes is refused when it is read", "[actors][cpu][cuda]") {
  const testing::TempDir dir;
  const JobConfig job = job_of(
      dir, "hidden_size: 12, num_layers: 1, num_heads: 2, max_positions: 64", "device: cuda");
  CHECK_THAT(join(job.document->errors(), "\n"),
             Contains("engine.device: cuda does not compute head_dim: 6 is not a multiple of 8; "
                      "cpu does"));
  CHECK(job_of(dir, kWhole, "device: cuda").document->errors().empty());
}

TEST_CASE("a job on a GPU weighs its samples, as one of narrow weights does",
          "[actors][cpu][cuda]") {
  const testing::TempDir dir;
  const JobConfig job = job_of(dir, kWhole, "device: cuda");
  CHECK(job.stages[1].engine.weights == WeightKind::kBfloat16);
  CHECK_THAT(job.resolved(), Contains("correction: token_tis"));
}

TEST_CASE("a job that wants a GPU says where there is none which stage does",
          "[actors][cpu][cuda]") {
  const testing::TempDir dir;
  CHECK_NOTHROW(require_engine_devices(job_of(dir, kWhole, "device: cpu")));
  try {
    require_engine_devices(job_of(dir, kWhole, "device: cuda"));
  } catch (const MissingInput& missing) {
    CHECK_THAT(missing.what(), Catch::StartsWith("stage ppo: engine.device: cuda: "));
  }
}

}  // namespace praetor
