// Whole stages whose learner is on another device than the CPU (tests/support/emulated_device.h),
// colocated.
#include <ATen/ATen.h>

#include <atomic>

#include "actors/controller/run_controller.h"
#include "actors/train/run_directory.h"
#include "actors/train/stages.h"
#include "core/base/fs.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"
#include "tests/support/processor_device.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

constexpr const char* kJob = R"(
name: run
threads: 1
checkpoint: {every: 2}
stages:
  - {kind: toy_language, name: language, toy_language: {sft_rows: 60, pair_rows: 20, prompt_rows: 20, eval_rows: 8}}
  - kind: sft
    model: {create: {hidden_size: 16, intermediate_size: 32, num_layers: 1, num_heads: 2, max_positions: 64}}
    tokenizer: {stage: language}
    data: {train: "stage:language/sft.jsonl"}
    steps: 4
    learner: {optimizer: {learning_rate: 0.003}}
    sft: {batch_size: 8}
  - kind: ppo
    model: {stage: sft}
    data: {train: "stage:language/prompts_train.jsonl", eval: "stage:language/prompts_eval.jsonl"}
    steps: 2
    eval: {every: 1}
    sampling: {max_new_tokens: 8}
    rewards: {parts: [{kind: length, unit: words, min: 3}]}
    ppo: {prompts_per_step: 4, samples_per_prompt: 2, critic: {init: policy}}
)";

/// A colocated run whose learners are on `device`.
struct Run {
  explicit Run(at::Device device, const std::string& engine = "", cuda::Device* gpu = nullptr) {
    write_file_atomic(dir / "job.yaml", kJob + engine);
    JobConfig job = JobConfig::load(dir / "job.yaml");
    for (StageConfig& stage : job.stages) stage.learner.device = device;
    const RunDirectory run = RunDirectory::create(dir.path(), job.name, {});
    path = run.path();
    const auto ledger = Ledger::open(path);
    MetricsWriter metrics(path);
    RunController controller(job, path, *ledger, {.run_id = "run"});
    const auto ranks = make_local_collective();
    RunContext context{.job = job,
                       .run_dir = path,
                       .run = controller,
                       .workers = &controller,
                       .metrics = &metrics,
                       .ranks = *ranks,
                       .engine_device = gpu};
    run_stages(context, std::nullopt, "");
  }
  at::Tensor weights(const std::string& stage) const {
    std::vector<at::Tensor> parts;
    const Transformer model = Transformer::load(path / "stages" / stage);
    for (const NamedTensor& p : model.parameters()) parts.push_back(p.tensor.flatten());
    return at::cat(parts);
  }
  testing::TempDir dir;
  std::filesystem::path path;
};

double apart(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace

TEST_CASE("a colocated run whose learners are on a device ends as on the CPU",
          "[actors][cpu][device]") {
  const Run cpu(at::kCPU), device(testing::emulated_device());
  CHECK(apart(device.weights("sft"), cpu.weights("sft")) < 1e-4);
  // Where two tokens are nearly as likely another one may be drawn.
  CHECK(apart(device.weights("ppo"), cpu.weights("ppo")) < 1e-3);
}

TEST_CASE("while an update runs an engine on the GPU holds no keys and values",
          "[actors][cpu][device]") {
  testing::ProcessorDevice gpu;
  std::atomic<int64_t> updates{0}, held{0};
  testing::observe_emulated_operators([&](const std::string& name) {
    if (name != "aten::embedding_dense_backward") return;  // of a backward alone
    ++updates;
    held = std::max<int64_t>(held, gpu.used_bytes());
  });
  const Run run(testing::emulated_device(),
                "    engine: {device: cuda, max_sequences: 8, max_step_tokens: 32}\n",
                &gpu);
  testing::observe_emulated_operators({});
  CHECK(updates > 0);
  // Of weights and buffers alone; generation had the cache beside them.
  CHECK(held > 0);
  CHECK(gpu.peak_bytes() > held);
}

}  // namespace praetor
