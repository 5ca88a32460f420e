#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "learners/learner_impl.h"
#include "learners/sharding/agreement.h"

namespace praetor {
namespace {

/// Mean |ratio - 1| that noise may cause where the policy is the proximal policy: of float32, and
/// of bfloat16 on another device than the CPU, where a row has other bits among other neighbours.
constexpr double kRatioTolerance = 1e-3;
constexpr double kCoarseRatioTolerance = 5e-2;

/// Response tokens of the units' sequences, [R] bool.
at::Tensor tokens_of(const Units& units, const Experience& experience) {
  at::Tensor used = at::zeros({experience.sequences()}, at::kBool);
  for (const auto& unit : units) {
    for (const int64_t sequence : unit) used.mutable_data_ptr<bool>()[sequence] = true;
  }
  return used.index_select(0, experience.sequence_of);
}

std::string to_bytes(const std::vector<double>& losses, const std::vector<Statistic>& statistics) {
  nlohmann::json numbers = nlohmann::json::array();
  for (const Statistic& s : statistics)
    numbers.push_back({s.name, s.total, s.weight, static_cast<int>(s.kind)});
  std::string out;
  nlohmann::json::to_cbor(nlohmann::json::array({losses, numbers}), out);
  return out;
}

at::Tensor select(const at::Tensor& whole, const at::Tensor& index, at::ScalarType dtype) {
  return whole.defined() ? whole.index_select(0, index).to(dtype) : at::Tensor();
}

}  // namespace

std::vector<Statistic> Learner::Impl::mismatch(const Experience& experience,
                                               const MicroBatch& batch,
                                               const PackedSlice& slice,
                                               const std::vector<int64_t>& sequences) const {
  const bool mixed = experience.token_version.defined();
  at::Tensor own = at::ones({slice.sequences()}, at::kBool);
  for (size_t k = 0; k < sequences.size(); ++k) {
    const auto i = static_cast<size_t>(sequences[k]);
    const bool others = !experience.voice.empty() && experience.voice[i] != 0;
    const bool stale = !mixed && experience.weight_version[i] < updates;
    own.mutable_data_ptr<bool>()[k] = !others && !stale;
  }
  at::Tensor counted = own.index_select(0, slice.sequence_of).logical_and(batch.mask);
  if (mixed)
    counted =
        counted.logical_and(experience.token_version.index_select(0, slice.index).ge(updates));
  const at::Tensor gap = (batch.logprob.detach() - batch.behavior_logprob)
                             .masked_select(counted)
                             .abs()
                             .to(at::kDouble);
  const auto tokens = static_cast<double>(gap.numel());
  if (tokens == 0) return {};
  return {{"mismatch/logprob_mean", gap.sum().item<double>(), tokens},
          {"mismatch/logprob_max", gap.max().item<double>(), 1, Statistic::Kind::kMax}};
}

Denominators Learner::Impl::denominators(const Step& step) const {
  Denominators out;
  const bool* counts = step.mask.const_data_ptr<bool>();
  const auto take = [&](int64_t sequence) {
    const auto i = static_cast<size_t>(sequence);
    int64_t tokens = 0;
    for (int64_t k = step.batch.target_offsets[i]; k < step.batch.target_offsets[i + 1]; ++k)
      tokens += counts[k] ? 1 : 0;
    out.tokens += static_cast<double>(tokens);
    out.sequences += tokens > 0 ? 1 : 0;
  };
  for (const auto& unit : step.units) {
    for (const int64_t i : unit) take(i);
    out.pairs += unit.size() == 2 ? 1 : 0;
  }
  if (step.examples && step.constants.defined())
    out.labels = static_cast<double>(step.constants.isfinite().sum().item<int64_t>());
  return out;
}

bool Learner::Impl::empty(const Denominators& totals) const {
  if (!plan.reward_model) return totals.tokens == 0;
  return unit() == 2 ? totals.pairs == 0 : totals.labels == 0;
}

MicroBatch Learner::Impl::micro_batch(const Step& step,
                                      const std::vector<int64_t>& sequences,
                                      const PackedSlice& slice,
                                      const Outputs& outputs,
                                      const Denominators& totals) const {
  const at::ScalarType dtype = (plan.policy ? outputs.logprob : outputs.score).scalar_type();
  MicroBatch out;
  out.sequences = slice.sequences();
  out.sequence_of = slice.sequence_of;
  out.mask = step.mask.index_select(0, slice.index);
  out.logprob = outputs.logprob;
  out.entropy = outputs.entropy;
  out.rival_logprob = outputs.rival;
  out.value = outputs.value;
  out.score = outputs.score;
  out.gate = outputs.gate;
  if (const Experience* e = step.experience) {
    out.behavior_logprob = select(e->behavior_logprob, slice.index, dtype);
    out.proximal_logprob = select(e->proximal_logprob, slice.index, dtype);
    out.reference_logprob = select(e->reference_logprob, slice.index, dtype);
    out.old_value = select(e->value, slice.index, dtype);
    out.anchor_logprob = select(e->anchor_logprob, slice.index, dtype);
    out.advantage = select(e->advantage, slice.index, dtype);
    out.returns = select(e->returns, slice.index, dtype);
  }
  if (step.constants.defined()) {
    out.constants =
        step.constants.index_select(0, at::tensor(sequences, at::kLong)).to(at::kDouble);
  }
  if (step.examples) out.reference_logprob = select(step.reference_logprob, slice.index, dtype);
  out.denominators = totals;
  return out;
}

Learner::Impl::Share Learner::Impl::run_micro_batches(const Step& step,
                                                      const Denominators& totals) {
  Share share;
  const AdaptersOn adapters(*this);  // also in what a backward runs again
  const auto train = [&](const std::vector<int64_t>& sequences) {
    const PackedSlice slice = pack(step.batch, sequences);
    const bool counts =
        plan.reward_model || step.mask.index_select(0, slice.index).any().item<bool>();
    if (!counts) return;  // no gradient would come of it
    const UpdatePlan passes = algorithm->update_plan();
    Outputs outputs = forward(
        slice, {.critic = !networks_apart(), .entropy = passes.entropy, .rival = passes.rival});
    if (networks_apart()) {
      {
        MicroBatch batch = micro_batch(step, sequences, slice, outputs, totals);
        batch.value = batch.old_value;
        algorithm->loss(batch).loss.backward();
      }
      for (at::Tensor* of : {&outputs.logprob, &outputs.entropy, &outputs.rival}) {
        if (of->defined()) *of = of->detach();
      }
      outputs.value = forward(slice, {.policy = false}).value;
    }
    MicroBatch batch = micro_batch(step, sequences, slice, outputs, totals);
    if (plan.reward_model && step.examples && unit() == 2) {
      batch.margin = at::zeros({batch.sequences / 2}, outputs.score.options().requires_grad(false));
      for (size_t k = 0; k < sequences.size(); k += 2) {
        batch.margin[static_cast<int64_t>(k / 2)] =
            (*step.examples)[static_cast<size_t>(sequences[k])].margin;
      }
    }
    const LossResult result = algorithm->loss(batch);
    if (step.first && step.experience) {
      for (Statistic& one : mismatch(*step.experience, batch, slice, sequences))
        share.statistics.push_back(std::move(one));
    }
    const double loss = result.loss.item<double>();
    if (!std::isfinite(loss)) {
      throw DataError(algorithm->name(),
                      ": the loss is ",
                      loss,
                      " at update ",
                      updates,
                      " (sequences ",
                      sequences.front(),
                      " to ",
                      sequences.back(),
                      " of its batch); look at the scores and at optimizer.learning_rate");
    }
    result.loss.backward();
    share.losses.push_back(loss);
    share.statistics.insert(
        share.statistics.end(), result.statistics.begin(), result.statistics.end());
  };
  const auto networks = [&](size_t) { return uses(true, true); };
  each_micro_batch(step.micro_batches, networks, train);
  return share;
}

void Learner::Impl::collect(const std::function<Share()>& work,
                            Statistics& statistics,
                            Digests& digests) const {
  const auto take = [&](const std::vector<double>& losses, const std::vector<Statistic>& numbers) {
    digests.loss.update(std::as_bytes(std::span(losses)));
    statistics.add(numbers);
  };
  if (data->world_size() == 1) {
    const Share share = work();
    take(share.losses, share.statistics);
    return;
  }
  for (const std::string& bytes : gather_agreed(*data, [&] {
         const Share share = work();
         return to_bytes(share.losses, share.statistics);
       })) {
    const auto share = nlohmann::json::from_cbor(bytes);
    std::vector<Statistic> numbers;
    for (const auto& s : share[1]) {
      numbers.push_back({s[0], s[1], s[2], static_cast<Statistic::Kind>(s[3].get<int>())});
    }
    take(share[0].get<std::vector<double>>(), numbers);
  }
}

bool Learner::Impl::accumulate(const Step& step, Statistics& statistics, Digests& digests) {
  const Denominators totals = denominators(step);
  if (empty(totals)) return false;
  begin_dropout(step.number);
  try {
    collect([&] { return run_micro_batches(step, totals); }, statistics, digests);
  } catch (...) {
    drop_gradients();
    throw;
  }
  return true;
}

void Learner::Impl::apply(Statistics& statistics, Digests& digests) {
  for (const auto& one : optimizers) {
    one->reduce_gradients();
    one->digest_gradients(digests.gradient);
    const double norm = one->clip_gradients();
    if (!std::isfinite(norm)) {
      drop_gradients();
      throw DataError(algorithm->name(),
                      ": the gradient norm of the ",
                      one->name(),
                      " is ",
                      norm,
                      " at update ",
                      updates,
                      "; look at the scores and at optimizer.learning_rate");
    }
    const char* group = one->name() == "critic" ? "value" : (plan.reward_model ? "rm" : "policy");
    statistics.add({std::string(group) + "/grad_norm", norm, 1});
  }
  std::vector<double> rates;  // a schedule may throw: before anything has moved
  for (const auto& one : optimizers) rates.push_back(one->config().rate(updates, one->steps() + 1));
  for (size_t i = 0; i < optimizers.size(); ++i) optimizers[i]->step(rates[i]);
  ++adapter_version;
  refresh_trained_copies();
  drop_gradients();
}

void Learner::Impl::move_anchor() {
  if (!plan.anchor || (updates + 1) % plan.anchor->every != 0) return;
  const at::NoGradGuard no_grad;
  const auto from = adapter ? adapter->parameters() : held(*models.policy);
  const auto to = adapter ? anchor_adapter->parameters() : held(*models.anchor);
  PRAETOR_CHECK(from.size() == to.size(), "the anchor is cut otherwise than the policy");
  for (size_t i = 0; i < to.size(); ++i) {
    if (plan.anchor->decay > 0) {
      to[i].tensor.lerp_(from[i].tensor, 1 - plan.anchor->decay);
    } else {
      to[i].tensor.copy_(from[i].tensor);
    }
  }
  ++adapter_version;
  if (models.anchor) refresh_copy(*models.anchor);
}

void Learner::Impl::drop_gradients() {
  for (const auto& one : optimizers) one->zero_grad();
}

StepReport Learner::Impl::report(const Statistics& statistics,
                                 Digests& digests,
                                 Metrics metrics) const {
  StepReport out;
  out.metrics = statistics.metrics();
  out.metrics.insert(out.metrics.end(), metrics.begin(), metrics.end());
  for (const auto& one : optimizers) {
    out.metrics.emplace_back(one->name() == "critic" ? "value/lr" : "lr",
                             one->config().rate(updates, one->steps()));
  }
  out.loss_digest = digests.loss.hex();
  out.gradient_digest = digests.gradient.hex();
  if (ranks->world_size() > 1) {
    Sha256 weights;
    if (groups.row) {
      for (const auto& one : optimizers) one->digest_weights(weights);
    }
    out.gradient_digest = of_ranks(out.gradient_digest, weights.hex());
  }
  return out;
}

std::string Learner::Impl::of_ranks(const std::string& gradient, const std::string& weights) const {
  const auto group = static_cast<size_t>(sharding_ranks().shards->world_size()) *
                     static_cast<size_t>(config.sharding.tensor);
  const std::vector<std::string> all = ranks->all_gather_bytes(gradient + weights);
  Sha256 out;
  for (size_t r = 0; r < all.size(); ++r) {
    if (r < group) out.update(all[r].substr(0, gradient.size()));
    if (all[r] == all[r % group]) continue;
    const bool gradients = !all[r].starts_with(all[r % group].substr(0, gradient.size()));
    throw InternalError(algorithm->name(),
                        ": rank ",
                        r,
                        " keeps what rank ",
                        r % group,
                        " keeps, but their ",
                        gradients ? "gradients" : "weights",
                        " differ after update ",
                        updates,
                        ": a fault of a machine, or threads that differ");
  }
  return out.hex();
}

StepReport Learner::update(Experience& experience) {
  Impl& my = *impl_;
  my.ranks->set_step(my.updates);
  if (!my.algorithm->online()) {
    throw InvalidArgument(my.algorithm->name(), " learns from rows of a file, not from rollouts");
  }
  const SequenceBatch batch = SequenceBatch::from(experience);
  const BatchContext context = my.prepare(experience, batch);
  const Batch built = my.algorithm->build_batch(experience, context);
  const UpdatePlan passes = my.algorithm->update_plan();
  const Units units = built.units ? *built.units : units_of(my.trained(experience));
  const at::Tensor mask = built.mask.defined() ? built.mask : tokens_of(units, experience);
  Statistics statistics;
  Impl::Digests digests;
  nlohmann::json manifest = nlohmann::json::array();
  int64_t optimizer_steps = 0;
  int64_t attempts = 0;
  bool stopped = false;
  // Inputs that are left out make another network of the policy, step by step.
  const bool same_forward = !my.config.lora || my.config.lora->dropout == 0;
  const double tolerance = my.on_device() && my.config.precision == at::kBFloat16
                               ? kCoarseRatioTolerance
                               : kRatioTolerance;
  for (int64_t epoch = 0; epoch < passes.epochs && !stopped; ++epoch) {
    RandomStream stream({.job_seed = my.config.seed,
                         .stage = my.config.stage,
                         .prompt_ordinal = static_cast<uint64_t>(my.updates),
                         .sample_index = static_cast<uint32_t>(epoch),
                         .purpose = Purpose::kMinibatch});
    manifest.push_back(nlohmann::json::array());
    for (const auto& order : plan_minibatches(
             stream.permutation(static_cast<int64_t>(units.size())), passes.minibatches)) {
      Units taken;
      for (const int64_t unit : order) taken.push_back(units[static_cast<size_t>(unit)]);
      const Impl::Step step{.batch = batch,
                            .experience = &experience,
                            .mask = mask,
                            .constants = built.constants,
                            .units = taken,
                            .micro_batches = my.cut(batch, taken),
                            .first = optimizer_steps == 0,
                            .number = attempts++};
      Statistics now;
      if (!my.accumulate(step, now, digests)) continue;
      if (same_forward && optimizer_steps == 0 &&
          now.value("policy/ratio_error").value_or(0) > tolerance) {
        my.drop_gradients();
        throw InternalError("mean |ratio - 1| is ",
                            *now.value("policy/ratio_error"),
                            " before the first optimizer step of update ",
                            my.updates,
                            ", but must be below ",
                            tolerance,
                            ": the forward of the update is not the forward before it");
      }
      if (passes.target_kl > 0 && now.value("policy/approx_kl").value_or(0) > passes.target_kl) {
        my.drop_gradients();
        stopped = true;
        break;
      }
      my.apply(now, digests);
      statistics.merge(now);
      manifest.back().push_back(step.micro_batches);
      ++optimizer_steps;
    }
  }
  my.algorithm->after_step();
  my.move_anchor();
  StepReport out = my.report(statistics, digests, built.metrics);
  out.optimizer_steps = optimizer_steps;
  out.manifest =
      nlohmann::json{{"update", my.updates}, {"epochs", manifest}, {"stopped_early", stopped}}
          .dump();
  ++my.updates;
  return out;
}

at::Tensor Learner::Impl::labels_of(const std::vector<Example>& examples) const {
  const size_t wanted = algorithm->sample_plan().labels.size();
  if (wanted == 0) return {};
  std::vector<double> all;
  for (const Example& example : examples) {
    if (example.labels.size() != wanted) {
      throw InvalidArgument(
          "row ", example.row, " has ", example.labels.size(), " labels, not ", wanted);
    }
    all.insert(all.end(), example.labels.begin(), example.labels.end());
  }
  return at::tensor(all, at::kDouble).view({-1, static_cast<int64_t>(wanted)});
}

StepReport Learner::update(const std::vector<Example>& examples) {
  Impl& my = *impl_;
  my.ranks->set_step(my.updates);
  if (my.algorithm->online()) {
    throw InvalidArgument(my.algorithm->name(), " learns from rollouts, not from rows of a file");
  }
  const SequenceBatch batch = SequenceBatch::from(examples, my.unit());
  const std::vector<int64_t> all = Impl::in_order(batch);
  const Units units = units_of(all, my.unit());
  const Impl::Step step{.batch = batch,
                        .examples = &examples,
                        .mask = at::ones({static_cast<int64_t>(batch.positions.size())}, at::kBool),
                        .constants = my.labels_of(examples),
                        .units = units,
                        .micro_batches = my.cut(batch, units),
                        .reference_logprob = my.reference_of(examples, batch)};
  Statistics statistics;
  Impl::Digests digests;
  int64_t optimizer_steps = 0;
  if (my.plan.probe) {
    my.fit_probe(step, statistics, digests);
  } else if (my.accumulate(step, statistics, digests)) {
    my.apply(statistics, digests);
    ++optimizer_steps;
  }
  my.algorithm->after_step();
  my.move_anchor();
  StepReport out = my.report(statistics, digests, {});
  out.optimizer_steps = optimizer_steps;
  out.manifest = nlohmann::json{
      {"update", my.updates},
      {"epochs", nlohmann::json::array({nlohmann::json::array({step.micro_batches})})},
      {"stopped_early",
       false}}.dump();
  ++my.updates;
  return out;
}

}  // namespace praetor
