#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/model/ops.h"
#include "learners/learner_impl.h"
#include "learners/sharding/agreement.h"

// What the networks say before an update: cut over ranks and micro-batches, gathered.
namespace praetor {
namespace {

/// `values` of `chosen` sequences end to end, laid out as of all sequences, with 0 for the others.
/// @param offsets  [N+1] of the sequences
at::Tensor spread(const at::Tensor& values,
                  const std::vector<int64_t>& offsets,
                  const std::vector<int64_t>& chosen) {
  at::Tensor out = at::zeros({offsets.back()}, values.options());
  int64_t at = 0;
  for (const int64_t i : chosen) {
    const int64_t begin = offsets[static_cast<size_t>(i)];
    const int64_t count = offsets[static_cast<size_t>(i) + 1] - begin;
    out.narrow(0, begin, count).copy_(values.narrow(0, at, count));
    at += count;
  }
  return out;
}

/// What log-probabilities and values of a network of this type are in.
at::ScalarType wide_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// Parts end to end; without any, nothing of type `dtype`.
at::Tensor joined(const std::vector<at::Tensor>& parts, at::ScalarType dtype) {
  return parts.empty() ? at::empty({0}, dtype) : at::cat(parts);
}

/// Hidden states of two lists of a slice's rows, the second where it is defined.
struct HiddenOf {
  at::Tensor rows, ends;
  HiddenOf(const Transformer& model,
           const PackedSlice& slice,
           const at::Tensor& want_rows,
           const at::Tensor& want_ends)
      : rows(model.hidden(slice.packed,
                          want_ends.defined() ? at::cat({want_rows, want_ends}) : want_rows)) {
    if (!want_ends.defined()) return;
    ends = rows.narrow(0, want_rows.size(0), want_ends.size(0));
    rows = rows.narrow(0, 0, want_rows.size(0));
  }
};

/// Each target in the place of the other one of its pair.
at::Tensor rival_targets(const PackedSlice& slice) {
  const int64_t sequences = slice.sequences();
  if (slice.targets.numel() != sequences || sequences % 2 != 0) {
    throw ShapeError(sequences,
                     " sequences have ",
                     slice.targets.numel(),
                     " targets, but pairs of one are wanted");
  }
  return slice.targets.view({-1, 2}).flip(1).reshape({-1});
}

}  // namespace

std::vector<int64_t> Learner::Impl::in_order(const SequenceBatch& batch) {
  std::vector<int64_t> out(static_cast<size_t>(batch.sequences()));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

Outputs Learner::Impl::forward(const PackedSlice& slice, Want want) const {
  Outputs out = forward_on_device(slice, want);
  for (at::Tensor* one : {&out.logprob,
                          &out.entropy,
                          &out.rival,
                          &out.value,
                          &out.bootstrap,
                          &out.score,
                          &out.gate}) {
    if (one->defined()) *one = one->cpu();
  }
  return out;
}

Outputs Learner::Impl::forward_on_device(const PackedSlice& slice, Want want) const {
  Outputs out;
  const AdaptersOn adapters(*this);
  if (plan.policy && want.policy) {
    const Transformer& policy = running(*models.policy);
    // Only the rows that predict a response token reach the head.
    const bool ends = want.bootstrap && plan.critic == CriticKind::kShared;
    const HiddenOf hidden(policy, slice, slice.rows, ends ? slice.last : at::Tensor());
    const at::Tensor& rows = hidden.rows;
    auto tokens =
        ops::token_logprobs(rows, policy.head(), slice.targets, temperature(), want.entropy);
    out.logprob = tokens.logprob;
    out.entropy = tokens.entropy;
    if (want.rival) {
      out.rival =
          ops::token_logprobs(rows, policy.head(), rival_targets(slice), temperature()).logprob;
    }
    if (plan.critic == CriticKind::kShared) {
      const auto head = [&](const at::Tensor& of) {
        return values(*models.policy, *models.value_head, of);
      };
      out.value = head(rows);
      if (want.bootstrap) out.bootstrap = head(hidden.ends);
    }
    finish(*models.policy, {&out.logprob, &out.entropy, &out.rival, &out.value, &out.bootstrap});
  }
  const auto scalar_values = [&](const at::Tensor& hidden) {
    return values(models.scalar->backbone, models.scalar->head, hidden);
  };
  if (plan.critic == CriticKind::kSeparate && want.critic) {
    const HiddenOf hidden(running(models.scalar->backbone),
                          slice,
                          slice.rows,
                          want.bootstrap ? slice.last : at::Tensor());
    out.value = scalar_values(hidden.rows);
    if (want.bootstrap) out.bootstrap = scalar_values(hidden.ends);
    finish(models.scalar->backbone, {&out.value, &out.bootstrap});
  }
  if (plan.gate) {
    // The backbone's parameters want no gradient, so that no graph of it is kept.
    const HiddenOf hidden(running(models.scalar->backbone), slice, slice.prompt, slice.last);
    const at::Tensor attributes = scalar_values(hidden.ends);
    finish(models.scalar->backbone, {});
    out.score = models.gate->corrected(attributes.view({-1, models.gate->attributes()}));
    out.gate = (*models.gate)(hidden.rows.to(attributes.scalar_type()));
  } else if (plan.reward_model) {
    out.score = scalar_values(running(models.scalar->backbone).hidden(slice.packed, slice.last));
    finish(models.scalar->backbone, {&out.score});
  }
  return out;
}

void Learner::Impl::finish(const Transformer& model,
                           const std::vector<at::Tensor*>& outputs) const {
  if (ShardedNetwork* network = sharding_of(model)) network->finish(outputs);
}

std::vector<LockStep::Use> Learner::Impl::uses(bool policy, bool backward) const {
  std::vector<LockStep::Use> out;
  const auto add = [&](const Transformer& model, bool trained) {
    if (ShardedNetwork* network = sharding_of(model))
      out.push_back({.network = network,
                     .backward = backward && trained,
                     .apart = backward && networks_apart()});
  };
  if (plan.policy && policy) add(*models.policy, true);
  if (plan.critic == CriticKind::kSeparate || plan.reward_model)
    add(models.scalar->backbone, !plan.gate);
  return out;
}

PackedSlice Learner::Impl::pack(const SequenceBatch& batch,
                                const std::vector<int64_t>& sequences) const {
  const int64_t policy = models.policy ? models.policy->config().switch_length() : 0;
  const int64_t scalar = models.scalar ? models.scalar->backbone.config().switch_length() : 0;
  PackedSlice out = pack_slice(batch, sequences, policy > 0 ? policy : scalar);
  for (at::Tensor* rows : {&out.rows, &out.targets, &out.last, &out.prompt})
    *rows = rows->to(config.device);
  return out;
}

Learner::Impl::RankCut Learner::Impl::cut(const SequenceBatch& batch, const Units& units) const {
  RankCut out;
  // What a family shares passes through once where its members are neighbours.
  for (const Units& part : plan_ranks(batch, by_family(batch, units), data->world_size()))
    out.push_back(plan_micro_batches(batch, part, config.micro_batch_tokens));
  return out;
}

std::vector<int64_t> Learner::Impl::sequences_of(const RankCut& cut) {
  std::vector<int64_t> out;
  for (const auto& rank : cut) {
    for (const auto& part : rank) out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

void Learner::Impl::each_micro_batch(
    const RankCut& cut,
    const std::function<std::vector<LockStep::Use>(size_t pass)>& uses,
    const std::function<void(const std::vector<int64_t>&)>& work) const {
  // Only the ranks of a copy wait for each other in a pass.
  size_t passes = 0;
  for (const int32_t rank : sharding_ranks().shards->members()) {
    const auto place =
        static_cast<size_t>(rank / config.sharding.tensor);  // among those that divide
    passes = std::max(passes, cut[place].size());
  }
  const auto& own = cut[static_cast<size_t>(data->rank())];
  lock_step.run(passes, uses, [&](size_t pass) {
    if (pass < own.size()) in_step([&] { work(own[pass]); });
  });
}

std::vector<int64_t> Learner::Impl::trained(const Experience& experience) const {
  const std::vector<VoicePlan> others = algorithm->sample_plan().others;
  std::vector<int64_t> out;
  for (int64_t i = 0; i < experience.sequences(); ++i) {
    const int32_t voice = experience.voice.empty() ? 0 : experience.voice[static_cast<size_t>(i)];
    if (voice == 0 || others.at(static_cast<size_t>(voice) - 1).trained) out.push_back(i);
  }
  return out;
}

bool Learner::Impl::knows_proximal(const Experience& experience, int64_t sequence) const {
  const auto i = static_cast<size_t>(sequence);
  // The engine turned the tokens before the switch otherwise than the whole sequence is turned.
  const int64_t change = models.policy->config().switch_length();
  if (change > 0 && experience.offsets[i + 1] - experience.offsets[i] > change) return false;
  return config.exact_rollouts && (experience.voice.empty() || experience.voice[i] == 0) &&
         experience.weight_version[i] == updates;
}

at::Tensor Learner::Impl::logprobs(const Net& net,
                                   const SequenceBatch& batch,
                                   double at_temperature,
                                   const std::vector<int64_t>& sequences) const {
  const at::NoGradGuard no_grad;
  const Transformer &model = *net.model, &computing = running(model);
  const AdapterScope scope(computing, net.adapter);
  const RankCut whole = cut(batch, units_of(sequences));
  const auto own = [&]() -> std::vector<at::Tensor> {
    std::vector<at::Tensor> parts;
    const auto one = [&](const std::vector<int64_t>& part) {
      const PackedSlice slice = pack(batch, part);
      if (slice.rows.numel() == 0) return;
      const at::Tensor rows = computing.hidden(slice.packed, slice.rows);
      parts.push_back(
          ops::token_logprobs(rows, computing.head(), slice.targets, at_temperature).logprob.cpu());
      finish(model, {});
    };
    const auto network = [&](size_t) -> std::vector<LockStep::Use> {
      if (ShardedNetwork* held = sharding_of(model)) return {{.network = held}};
      return {};
    };
    each_micro_batch(whole, network, one);
    return {joined(parts, wide_type(model.dtype()))};
  };
  return spread(gather_tensors_agreed(*data, own)[0], batch.target_offsets, sequences_of(whole));
}

at::Tensor Learner::Impl::reference_of(const std::vector<Example>& examples,
                                       const SequenceBatch& batch) const {
  if (plan.reference) return logprobs(reference_net(), batch, 1.0, in_order(batch));
  if (!plan.reference_in_rows) return {};
  std::vector<float> all;
  for (size_t i = 0; i < examples.size(); ++i) {
    const std::vector<float>& known = examples[i].reference_logprob;
    const int64_t targets = batch.targets(static_cast<int64_t>(i));
    if (static_cast<int64_t>(known.size()) != targets) {
      throw DataError("row ",
                      examples[i].row,
                      ": ",
                      known.size(),
                      " log-probabilities of the reference for ",
                      targets,
                      " target tokens; one a token is wanted");
    }
    all.insert(all.end(), known.begin(), known.end());
  }
  return at::tensor(all, at::kFloat);
}

at::Tensor Learner::Impl::scores(const SequenceBatch& batch) const {
  const at::NoGradGuard no_grad;
  const RankCut whole = cut(batch, units_of(in_order(batch)));
  const auto own = [&]() -> std::vector<at::Tensor> {
    std::vector<at::Tensor> parts;
    const auto one = [&](const std::vector<int64_t>& sequences) {
      const Outputs outputs = forward(pack(batch, sequences), {.policy = false});
      parts.push_back(plan.gate ? (outputs.score * outputs.gate).sum(1) : outputs.score);
    };
    const auto networks = [&](size_t) { return uses(false, false); };
    each_micro_batch(whole, networks, one);
    return {joined(parts, models.scalar->head.weight.scalar_type())};
  };
  const at::Tensor found = gather_tensors_agreed(*data, own)[0];
  if (found.numel() == 0) return found;
  const at::Tensor rows = found.view({batch.sequences(), -1});
  const at::Tensor order = at::tensor(sequences_of(whole), at::kLong);
  return at::empty_like(rows).index_copy_(0, order, rows).view(found.sizes());
}

BatchContext Learner::Impl::prepare(Experience& experience, const SequenceBatch& batch) const {
  const at::NoGradGuard no_grad;
  const bool critic = plan.critic != CriticKind::kNone;
  const at::ScalarType dtype = wide_type(models.policy->dtype());
  const auto known = [&](int64_t i) { return knows_proximal(experience, i); };
  std::vector<int64_t> wanted = trained(experience);
  std::ranges::stable_partition(wanted, known);
  // A policy whose value head is wanted runs in any case.
  const auto runs_policy = [&](const std::vector<int64_t>& sequences) {
    return plan.critic == CriticKind::kShared || !std::ranges::all_of(sequences, known);
  };
  const RankCut parts = cut(batch, units_of(wanted));
  const auto networks = [&](size_t pass) {
    return uses(
        std::ranges::any_of(
            parts, [&](const auto& of) { return pass < of.size() && runs_policy(of[pass]); }),
        false);
  };
  const auto own = [&] {
    std::vector<at::Tensor> logprob, value, bootstrap;
    each_micro_batch(parts, networks, [&](const std::vector<int64_t>& sequences) {
      const PackedSlice slice = pack(batch, sequences);
      if (slice.rows.numel() == 0) {
        bootstrap.push_back(at::zeros({slice.sequences()}, dtype));
        return;
      }
      const bool policy = runs_policy(sequences);
      const Outputs outputs = forward(slice, {.policy = policy, .bootstrap = critic});
      logprob.push_back(policy
                            ? outputs.logprob
                            : experience.behavior_logprob.index_select(0, slice.index).to(dtype));
      if (critic) {
        value.push_back(outputs.value);
        bootstrap.push_back(outputs.bootstrap);
      }
    });
    std::vector<at::Tensor> out{joined(logprob, dtype)};
    if (critic) {
      out.push_back(joined(value, dtype));
      out.push_back(joined(bootstrap, dtype));
    }
    return out;
  };
  const std::vector<at::Tensor> all = gather_tensors_agreed(*data, own);
  const std::vector<int64_t> computed = sequences_of(parts);
  BatchContext context{.max_new_tokens = config.max_new_tokens};
  experience.proximal_logprob = spread(all[0], batch.target_offsets, computed);
  experience.value = critic ? spread(all[1], batch.target_offsets, computed) : at::Tensor();
  if (critic) {
    std::vector<int64_t> each(batch.offsets.size());
    std::iota(each.begin(), each.end(), 0);
    context.bootstrap_value = spread(all[2], each, computed);
  }
  const auto under = [&](bool held, const Net& net) {
    return held ? logprobs(net, batch, temperature(), wanted) : at::Tensor();
  };
  experience.reference_logprob = under(plan.reference, reference_net());
  experience.anchor_logprob = under(plan.anchor.has_value(), anchor_net());
  return context;
}

}  // namespace praetor
