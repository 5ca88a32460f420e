#include "rollout/device_model.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"

namespace praetor {
namespace {

const ModelConfig& computable(const Transformer& model) {
  (void)model.head();  // throws for a backbone alone
  const std::string what = cuda::Decoder::unsupported(model.config());
  if (what.empty()) return model.config();
  throw InvalidArgument("engine: device: cuda does not compute ", what, " (device: cpu does)");
}

cuda::DecoderOptions options_of(const EngineConfig& config) {
  // Behind each guess logits are wanted, too.
  const int64_t logits = config.max_sequences * (1 + config.draft_tokens);
  return {.max_rows = config.max_step_tokens,
          .max_sequences = config.max_sequences,
          .max_logits = std::min(logits, config.max_step_tokens),
          .block_size = config.block_size,
          .blocks = 0};
}

}  // namespace

DeviceModel::DeviceModel(const Transformer& model, const EngineConfig& config, cuda::Device& device)
    : CachedModel(model, cuda::Decoder::block_bytes(model.config(), config.block_size)),
      decoder_(device, computable(model), options_of(config)),
      copied_(model.parameters().size()) {}

void DeviceModel::copy_block(const Scheduler::Copy& copy) {
  decoder_.copy_block(copy.from, copy.to);
}

void DeviceModel::bring_weights() {
  for (size_t i = 0; i < copied_.size(); ++i) {
    const NamedTensor& parameter = model_.parameters()[i];
    const Copied now{
        parameter.tensor.const_data_ptr(),
        parameter.tensor.is_inference() ? 0U : static_cast<uint32_t>(parameter.tensor._version())};
    if (copied_[i].data == now.data && copied_[i].version == now.version) continue;
    decoder_.set(parameter.name, parameter.tensor);
    copied_[i] = now;
  }
}

void DeviceModel::forward() {
  bring_weights();
  const bool wanted = !want_.empty();
  // As for ProcessorModel; and a list of all rows is none, with which a step of decoding is
  // replayed.
  std::vector<int64_t> want = want_;
  if (!wanted) want.push_back(0);
  if (want.size() == rows_.tokens.size()) want.clear();
  decoder_.run(rows_, want);
}

}  // namespace praetor
