#include "tests/learners/support/published.h"

#include <ATen/core/grad_mode.h>

#include <optional>
#include <span>

namespace praetor::testing {

WrittenWeights write_network(const Learner& learner,
                             const Transformer& model,
                             bool leads,
                             const std::filesystem::path& folder) {
  const at::NoGradGuard no_grad;
  std::optional<WeightFileWriter> out;
  if (leads) out.emplace(folder, WeightStamp{}, model);
  learner.visit_weights(
      model, model.parameters(), [&](std::span<const NamedTensor> some) { out->put(some); });
  return out ? out->commit() : WrittenWeights{};
}

std::string digest_at_worker(const WrittenWeights& base,
                             const LoraAdapter& adapter,
                             const std::filesystem::path& folder) {
  const WrittenWeights small =
      write_adapter_file(folder, {}, adapter, {base.digest, base.bytes, "base"});
  const WeightFile from = WeightFile::open(base.file);
  Transformer worker = from.make_model();
  from.apply(AdapterFile::open(small.file).adapter(from), worker);
  return worker.digest();
}

std::string network_digest(const WrittenWeights& written) {
  return WeightFile::open(written.file).make_model().digest();
}

}  // namespace praetor::testing
