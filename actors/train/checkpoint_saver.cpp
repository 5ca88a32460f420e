#include "actors/train/checkpoint_saver.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "learners/sharding/agreement.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// Where the model under the learner's adapter lies goes into the checkpoint's state.
void add_base(const CheckpointContext& context, nlohmann::json& state) {
  if (context.base.empty()) return;
  // A stage's result lies in the run, which may move as a whole.
  const fs::path inside = context.base.lexically_relative(context.run_dir);
  const bool own = !inside.empty() && *inside.begin() != "..";
  state["base"] = (own ? inside : fs::absolute(context.base)).string();
  if (!context.base_adapter.empty()) state["base_adapter"] = context.base_adapter.string();
}

}  // namespace

CheckpointSaver::CheckpointSaver(LearnerService& run, Collective& ranks, Options options)
    : run_(run), ranks_(ranks), options_(std::move(options)) {}

CheckpointSaver::~CheckpointSaver() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointSaver::save(const CheckpointContext& context,
                           const Learner& learner,
                           int64_t step,
                           const std::map<std::string, double>& metrics) {
  finish();
  shards_ = learner.state_shards();
  const std::string folder = gather_agreed(ranks_, [&]() -> std::string {
                               if (ranks_.rank() > 0) return "";
                               writer_ = std::make_unique<CheckpointWriter>(
                                   context.run_dir, context.stage_name, step, shards_);
                               return writer_->folder().string();
                             }).front();
  under_way_ = true;
  const std::vector<NamedTensor> tensors = learner.state();
  const bool here =
      std::ranges::all_of(tensors, [](const NamedTensor& t) { return t.tensor.is_cpu(); });
  if (options_.background) {
    const std::vector<NamedTensor>& copy = staged(tensors);
    thread_ = std::thread([this, folder, &copy] { write(folder, copy); });
  } else {
    write(folder, here ? tensors : staged(tensors));
  }
  run_agreed(ranks_, [&] {
    if (!writer_) return;
    const StageProgress recorded = run_.stage_progress(context.stage);
    nlohmann::json state = {
        {"stage", context.stage_name},
        {"step", step},
        {"learner", nlohmann::json::parse(learner.state_json())},
        {"environment", context.environment},
        {"ledger", {{"next_ordinal", recorded.next_ordinal}, {"last_step", recorded.last_step}}}};
    add_base(context, state);
    writer_->set_state(state);
    writer_->set_metrics(metrics);
    writer_->add_blob("config.json",
                      learner.has_policy()
                          ? learner.policy().config().to_json("causal_lm")
                          : learner.scalar().config().to_json("sequence_classification"));
    writer_->add_blob("resolved.yaml", context.resolved_job);
    for (const char* name : kTokenizerFiles) {
      if (fs::exists(context.tokenizer / name)) writer_->add_file(context.tokenizer / name);
    }
    record_ = {.stage = static_cast<int32_t>(context.stage),
               .step = step,
               .path = writer_->final_folder().lexically_relative(context.run_dir).string(),
               .durable = false};
    run_.record_checkpoint(record_);
  });
  if (!options_.background) conclude();
}

const std::vector<NamedTensor>& CheckpointSaver::staged(const std::vector<NamedTensor>& tensors) {
  const at::NoGradGuard no_grad;
  staging_.resize(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor from = tensors[i].tensor.detach();
    NamedTensor& to = staging_[i];
    to.name = tensors[i].name;
    const bool fits = to.tensor.defined() && to.tensor.sizes() == from.sizes() &&
                      to.tensor.scalar_type() == from.scalar_type();
    if (!fits) to.tensor = at::empty(from.sizes(), from.options().device(at::kCPU));
    to.tensor.copy_(from);
  }
  return staging_;
}

/// The body of the thread, or a part of save(). Never throws.
void CheckpointSaver::write(const std::string& folder, const std::vector<NamedTensor>& tensors) {
  try {
    if (ranks_.rank() < shards_)
      shard_ = CheckpointWriter::write_shard(folder, ranks_.rank(), shards_, tensors);
  } catch (...) {
    failure_ = std::current_exception();
  }
  written_ = true;
}

void CheckpointSaver::poll() {
  if (!under_way_) return;
  auto done = static_cast<int64_t>(written_);
  ranks_.all_reduce(std::span(&done, 1));
  if (done == ranks_.world_size()) conclude();
}

void CheckpointSaver::finish() {
  if (under_way_) conclude();
}

void CheckpointSaver::conclude() {
  if (thread_.joinable()) thread_.join();
  under_way_ = false;
  written_ = false;
  // Gone at the end of this call, and the folder with it, unless it was committed.
  const std::unique_ptr<CheckpointWriter> writer = std::move(writer_);
  const auto entries = gather_agreed(ranks_, [&] {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    return nlohmann::json{{"name", shard_.name}, {"bytes", shard_.bytes}, {"sha256", shard_.sha256}}
        .dump();
  });
  run_agreed(ranks_, [&] {
    if (!writer) return;
    for (int32_t rank = 0; rank < shards_; ++rank) {
      const auto entry = nlohmann::json::parse(entries[static_cast<size_t>(rank)]);
      writer->add_shard(
          {.name = entry.at("name"), .bytes = entry.at("bytes"), .sha256 = entry.at("sha256")});
    }
    writer->commit();
    record_.durable = true;
    run_.record_checkpoint(record_);
    if (options_.on_durable) options_.on_durable(record_.step);
  });
}

}  // namespace praetor
