#include "tests/learners/sharding/train_group.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "core/collective/nccl_collective.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"
#include "tests/support/processor_communicator.h"
#include "tests/support/ranks.h"

namespace praetor::testing {

void join_emulated_nccl(Collective& ranks) {
  const NcclGroup group{
      .make_id = processor_group_id,
      .join =
          [device = ranks.rank()](const std::string& id, int32_t r, int32_t world) {
            return join_processor_group(id, r, world, device, praetor_emulated_address);
          },
      .on_device = true};
  ranks.set_device(make_nccl_collective(ranks, group, {.deadline = std::chrono::seconds(60)}));
}

Trained train(const std::string& name,
              int32_t world,
              int from,
              int to,
              const CaseOptions& options,
              const std::function<void(Learner&)>& prepare) {
  const auto w = static_cast<size_t>(world);
  Trained out;
  std::vector<std::vector<NamedTensor>> shards(w);
  out.state_json.resize(w);
  out.weights.resize(w);
  out.last.resize(w);
  out.meters.resize(w);
  out.errors = run_ranks(world, [&](Collective& ranks) {
    const auto r = static_cast<size_t>(ranks.rank());
    if (options.direct) join_emulated_nccl(ranks);
    Learner learner = make_case(name, &ranks, options);
    if (prepare) prepare(learner);
    for (int step = from; step < to; ++step)
      out.last[r] = update_case(name, learner, step, options.few && step % 2 == 1);
    out.meters[r] = learner.unit_meter();
    for (const NamedTensor& t : learner.state())
      shards[r].push_back({t.name, t.tensor.detach().cpu().clone()});
    out.state_json[r] = learner.state_json();
    out.weights[r] = weights_digest(learner);
  });
  for (const auto& of_rank : shards)
    out.shards.insert(out.shards.end(), of_rank.begin(), of_rank.end());
  return out;
}

CaseOptions of_one(CaseOptions options) {
  options.stage = options.tensor = 1;
  options.group = 0;
  return options;
}

Alone train_alone(const std::string& name,
                  int from,
                  int to,
                  const CaseOptions& options,
                  const std::function<void(Learner&)>& prepare) {
  Alone out{make_case(name, nullptr, of_one(options)), {}};
  if (prepare) prepare(out.learner);
  for (int step = from; step < to; ++step)
    out.last = update_case(name, out.learner, step, options.few && step % 2 == 1);
  return out;
}

int ten_steps_of(const std::string& name) {
  return name.starts_with("ppo") || name == "grpo" ? 5 : 10;  // of two minibatches
}

namespace {

void check_reports(const std::string& name,
                   const StepReport& got,
                   const StepReport& wanted,
                   double bound) {
  const double loss = loss_of(name, got), wanted_loss = loss_of(name, wanted);
  // One near 0 is a difference of terms of about 1, whose rounding stays.
  const double loss_error = std::abs(loss - wanted_loss) / std::max(std::abs(wanted_loss), 0.1);
  CAPTURE(loss, wanted_loss);
  CHECK(loss_error < bound);
  CHECK(got.optimizer_steps == wanted.optimizer_steps);
  size_t norms = 0;
  for (const auto& [key, value] : wanted.metrics) {
    if (!key.ends_with("grad_norm")) continue;
    const double norm_error = std::abs(metric(got, key) - value) / value;
    CAPTURE(key, value);
    CHECK(norm_error < bound);
    ++norms;
  }
  CHECK(norms > 0);
}

}  // namespace

void check_first_step(const std::string& name,
                      const Trained& group,
                      const Alone& alone,
                      const CaseOptions& options,
                      double bound) {
  REQUIRE(group.errors == std::vector<std::string>(group.errors.size()));
  check_reports(name, group.last[0], alone.last, bound);
  // The first moment is then the gradient, scaled.
  const std::string moment = "/exp_avg/";
  std::set<std::string> optimizers;
  for (const NamedTensor& t : alone.learner.state()) {
    const size_t end = t.name.find(moment);
    if (end != std::string::npos) optimizers.insert(t.name.substr(0, end + moment.size()));
  }
  CHECK_FALSE(optimizers.empty());
  const Learner whole = joined(name, group, options);
  for (const std::string& optimizer : optimizers) {
    const double gradient_error =
        relative_distance(part_of_state(whole, optimizer), part_of_state(alone.learner, optimizer));
    CAPTURE(optimizer);
    CHECK(gradient_error < bound);
  }
}

void check_ten_steps(const std::string& name,
                     const Trained& group,
                     const Alone& alone,
                     const CaseOptions& options) {
  REQUIRE(group.errors == std::vector<std::string>(group.errors.size()));
  check_reports(name, group.last[0], alone.last, 1e-5);
  const at::Tensor weights = flat_state(joined(name, group, options), true);
  const double weight_error = relative_distance(weights, flat_state(alone.learner, true));
  CHECK(weight_error < 1e-5);
  const Learner before = make_case(name, nullptr, of_one(options));
  CHECK(relative_distance(weights, flat_state(before, true)) > 1e-3);  // it did train
  check_ranks_agree(group);
}

void check_same(const Trained& got, const Trained& wanted) {
  CHECK(got.errors == wanted.errors);
  CHECK(got.weights == wanted.weights);
  CHECK(got.state_json == wanted.state_json);
  REQUIRE(got.last.size() == wanted.last.size());
  for (size_t r = 0; r < got.last.size(); ++r) {
    CHECK(got.last[r].loss_digest == wanted.last[r].loss_digest);
    CHECK(got.last[r].gradient_digest == wanted.last[r].gradient_digest);
    CHECK(got.last[r].metrics == wanted.last[r].metrics);
  }
}

void check_ranks_agree(const Trained& group) {
  for (size_t r = 1; r < group.last.size(); ++r) {
    CHECK(group.last[r].metrics == group.last[0].metrics);
    CHECK(group.last[r].loss_digest == group.last[0].loss_digest);
    CHECK(group.last[r].gradient_digest == group.last[0].gradient_digest);
    CHECK(group.last[r].manifest == group.last[0].manifest);
    CHECK(group.weights[r] == group.weights[0]);
    CHECK(group.state_json[r] == group.state_json[0]);
  }
}

Learner joined(const std::string& name, const Trained& trained, const CaseOptions& options) {
  Learner out = make_case(name, nullptr, of_one(options));
  out.load_state(trained.shards, trained.state_json.at(0));
  return out;
}

at::Tensor part_of_state(const Learner& learner, const std::string& kind) {
  std::vector<at::Tensor> parts;
  for (const NamedTensor& t : learner.state()) {
    if (t.name.find(kind) != std::string::npos)
      parts.push_back(t.tensor.detach().cpu().flatten().to(at::kDouble));
  }
  return at::cat(parts);
}

double relative_distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace praetor::testing
