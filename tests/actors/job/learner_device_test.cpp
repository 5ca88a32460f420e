#include "actors/job/learner_devices.h"
#include "actors/job/plan.h"
#include "actors/toy/toy_language.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/cuda/library.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

using Catch::Contains;

JobConfig job_of(const testing::TempDir& dir,
                 const std::string& learner,
                 const std::string& critic = "") {
  write_file_atomic(dir / "job.yaml",
                    R"(
name: run
stages:
  - {kind: toy_language, name: language}
  - kind: ppo
    tokenizer: {stage: language}
    model: {create: {hidden_size: 16, num_layers: 1, num_heads: 2, max_positions: 64}}
    data: {train: "stage:language/prompts_train.jsonl"}
    steps: 3
    rewards: {parts: [{kind: length, unit: words, min: 1}]}
    ppo: {critic: {init: policy)" +
                        critic + "}}\n    learner: {" + learner + "}\n");
  return JobConfig::read(dir / "job.yaml");
}

std::string errors_of(const JobConfig& job) {
  return join(job.document->errors(), "\n");
}

}  // namespace

TEST_CASE("learner.device is cpu unless a job says cuda", "[actors][cpu][device]") {
  const testing::TempDir dir;
  const JobConfig plain = job_of(dir, "");
  CHECK(plain.stages[1].learner.device.is_cpu());
  CHECK_THAT(plain.resolved(), Contains("device: cpu"));
  const JobConfig gpu = job_of(dir, "device: cuda, optimizer: {offload: true}");
  CHECK(errors_of(gpu).empty());
  CHECK(gpu.stages[1].learner.device == at::Device(at::kCUDA));
  CHECK(gpu.stages[1].learner.optimizer.offload);
  CHECK_THAT(errors_of(job_of(dir, "device: rocm")),
             Contains("learner.device: ") && Contains("cpu, cuda"));
}

TEST_CASE("what a GPU's learner cannot do is refused when the job is read",
          "[actors][cpu][device]") {
  const testing::TempDir dir;
  CHECK_THAT(errors_of(job_of(dir, "optimizer: {offload: true}")),
             Contains("learner.optimizer.offload: a learner on the CPU has what its optimizer "
                      "keeps there already"));
  CHECK_THAT(errors_of(job_of(dir, "", ", optimizer: {offload: true}")),
             Contains("ppo.critic.optimizer.offload: a learner on the CPU"));
  CHECK_THAT(errors_of(job_of(dir, "device: cuda, optimizer: {kind: adafactor, offload: true}")),
             Contains("learner.optimizer.offload: adafactor keeps little"));
  CHECK_THAT(errors_of(job_of(dir, "device: cuda, optimizer: {kind: sgd, offload: true}")),
             Contains("learner.optimizer.offload: sgd without momentum keeps nothing"));
}

TEST_CASE("a job whose learner wants a GPU says where there is none which stage does",
          "[actors][cpu][device]") {
  const testing::TempDir dir;
  CHECK_NOTHROW(require_learner_devices(job_of(dir, "")));
  try {
    require_learner_devices(job_of(dir, "device: cuda"));
  } catch (const MissingInput& missing) {
    CHECK_THAT(missing.what(), Catch::StartsWith("stage ppo: learner.device: cuda: "));
    CHECK(missing.exit_status() == 66);
  }
  CHECK(device_of_rank(at::kCPU) == at::Device(at::kCPU));
  CHECK(device_of_rank(at::Device(at::kCUDA, 2)) == at::Device(at::kCUDA, 2));
  CHECK(device_of_rank(testing::emulated_device(1)) == testing::emulated_device(1));
}

TEST_CASE("a learner has the GPU library's kernels where that sees a GPU, and does without else",
          "[actors][cpu][device]") {
  CHECK_FALSE(kernels_on(at::kCPU));
  CHECK_FALSE(kernels_on(testing::emulated_device(1)));
  bool seen = false;
  try {
    seen = !cuda::Library::instance().devices().devices.empty();
  } catch (const Error&) {
  }
  CHECK((kernels_on(at::Device(at::kCUDA, 0)) != nullptr) == seen);
  CHECK_FALSE(kernels_on(at::Device(at::kCUDA, 100)));
}

TEST_CASE("the plan of a learner on a GPU counts its memory, and offloaded moments apart",
          "[actors][cpu][device]") {
  const testing::TempDir dir;
  const StagePlan cpu = plan_job(job_of(dir, "")).at(1);
  const StagePlan gpu = plan_job(job_of(dir, "device: cuda")).at(1);
  const StagePlan offloaded =
      plan_job(
          job_of(dir, "device: cuda, optimizer: {offload: true}", ", optimizer: {offload: true}"))
          .at(1);
  REQUIRE((cpu.update && gpu.update && offloaded.update));
  // Beside equal tensors LibTorch's operators take more at once than the CPU's kernels.
  const auto kept = [](const StagePlan& stage) {
    return stage.update->memory.total() - stage.update->memory.workspace;
  };
  CHECK(kept(gpu) == kept(cpu));
  CHECK(gpu.update->memory.workspace > cpu.update->memory.workspace);
  CHECK(gpu.update->packed_bytes == 0);
  CHECK(offloaded.update->memory.offloaded == gpu.update->memory.moments);
  CHECK(offloaded.update->memory.total() ==
        gpu.update->memory.total() - gpu.update->memory.moments);
  CHECK_THAT(plan_text({gpu}),
             Contains("GPU memory of a learner rank in an update: at most") &&
                 !Contains("CPU's products"));
  CHECK_THAT(plan_text({offloaded}), Contains(" of the optimizer in the host's memory"));
}

}  // namespace praetor
