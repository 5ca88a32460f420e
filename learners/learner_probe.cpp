// The closed form by which a probe's head is found, in place of steps of an optimizer.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <span>

#include "core/base/error.h"
#include "learners/algorithms/ridge.h"
#include "learners/learner_impl.h"
#include "learners/optim/tensor_digest.h"
#include "learners/sharding/agreement.h"

namespace praetor {

at::Tensor Learner::Impl::last_hidden(const Step& step) const {
  const Transformer& backbone = models.scalar->backbone;
  std::vector<at::Tensor> parts{at::empty({0, backbone.config().hidden_size}, backbone.dtype())};
  run_agreed(*data, [&] {
    for (const auto& sequences : step.micro_batches[static_cast<size_t>(data->rank())]) {
      in_step([&] {
        const PackedSlice slice = pack(step.batch, sequences);
        parts.push_back(backbone.hidden(slice.packed, slice.last).cpu());
      });
    }
  });
  return at::cat(parts);
}

RidgeSums Learner::Impl::summed(RidgeSums own) const {
  const auto all = [&](const at::Tensor& t) {
    data->all_reduce(std::span(t.mutable_data_ptr<double>(), static_cast<size_t>(t.numel())));
  };
  own.gram = own.gram.contiguous();
  all(own.gram);
  all(own.moment);
  std::array<double, 2> numbers{own.squares, own.count};
  data->all_reduce(std::span<double>(numbers));
  own.squares = numbers[0];
  own.count = numbers[1];
  return own;
}

RidgeFit Learner::Impl::fit_attribute(const std::string& name,
                                      const RidgeSums& taught,
                                      const RidgeSums& held_out) const {
  // Weights, alpha and error of the first rank, so that all hold the same bits whatever each would
  // have made of the same sums.
  at::Tensor found = at::empty({taught.moment.numel() + 2}, at::kDouble);
  run_agreed(*ranks, [&] {
    if (ranks->rank() != 0) return;
    try {
      const RidgeFit fit = fit_ridge(taught, held_out, plan.probe->alphas);
      found.copy_(at::cat({fit.weights, at::tensor({fit.alpha, fit.held_out_error}, at::kDouble)}));
    } catch (const DataError& failure) {
      throw DataError(algorithm->name(), ": attribute \"", name, "\": ", failure.what());
    }
  });
  ranks->broadcast(std::span(found.mutable_data_ptr<double>(), static_cast<size_t>(found.numel())));
  return {.weights = found.slice(0, 0, -2),
          .alpha = found[-2].item<double>(),
          .held_out_error = found[-1].item<double>()};
}

Learner::Impl::Share Learner::Impl::probe_share(const std::vector<std::vector<int64_t>>& parts,
                                                const at::Tensor& features,
                                                const at::Tensor& labels,
                                                const Denominators& totals) const {
  Share share;
  int64_t begin = 0;
  for (const auto& sequences : parts) {
    MicroBatch batch;
    batch.sequences = static_cast<int64_t>(sequences.size());
    batch.score =
        models.scalar->head(features.narrow(0, begin, batch.sequences).to(config.device)).cpu();
    batch.constants = labels.narrow(0, begin, batch.sequences);
    batch.denominators = totals;
    begin += batch.sequences;
    const LossResult result = algorithm->loss(batch);
    share.losses.push_back(result.loss.item<double>());
    share.statistics.insert(
        share.statistics.end(), result.statistics.begin(), result.statistics.end());
  }
  return share;
}

void Learner::Impl::fit_probe(const Step& step, Statistics& statistics, Digests& digests) {
  const at::NoGradGuard no_grad;
  const at::Tensor features = last_hidden(step);
  const auto& parts = step.micro_batches[static_cast<size_t>(data->rank())];
  std::vector<int64_t> rows;
  for (const auto& sequences : parts) rows.insert(rows.end(), sequences.begin(), sequences.end());
  const at::Tensor own = at::tensor(rows, at::kLong);
  const at::Tensor labels = step.constants.index_select(0, own);
  const bool chooses = plan.probe->alphas.size() > 1;
  const double share = chooses ? plan.probe->held_out : 0.0;
  const at::Tensor held = held_out_rows(step.batch.sequences(), share).index_select(0, own);
  std::vector<Statistic> choices;
  std::vector<at::Tensor> weights;
  for (const std::string& name : algorithm->sample_plan().labels) {
    const at::Tensor column = labels.select(1, static_cast<int64_t>(weights.size()));
    const auto sums_of = [&](const at::Tensor& which) {
      const at::Tensor chosen = which.nonzero().view(-1);
      return summed(ridge_sums(features.index_select(0, chosen), column.index_select(0, chosen)));
    };
    const RidgeSums taught = sums_of(held.logical_not());
    const RidgeFit fit = fit_attribute(name, taught, sums_of(held));
    weights.push_back(fit.weights);
    choices.push_back({"attributes/" + name + "/alpha", fit.alpha});
    if (chooses) choices.push_back({"attributes/" + name + "/held_out_mse", fit.held_out_error});
  }
  const at::Tensor& head = models.scalar->head.weight;
  head.copy_(at::stack(weights));
  const Denominators totals = denominators(step);
  collect([&] { return probe_share(parts, features, labels, totals); }, statistics, digests);
  statistics.add(choices);
  add_to_digest(digests.gradient, head);
}

}  // namespace praetor
