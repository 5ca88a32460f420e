#include "tests/learners/sharding/train_group.h"

#include <ATen/ATen.h>

#include <chrono>

#include "core/collective/nccl_collective.h"
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
    for (int step = from; step < to; ++step) out.last[r] = update_case(name, learner, step);
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
  Learner out = make_case(name, nullptr, options);
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
