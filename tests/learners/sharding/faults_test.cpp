// One rank stops, fails or is slow in each phase of a learner's work, at every layout.
#include <ATen/ATen.h>

#include <chrono>
#include <sstream>

#include "core/base/sha256.h"
#include "core/base/str.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/rank_fault.h"
#include "tests/support/shared_data.h"

namespace praetor {

using namespace testing;

namespace {

enum Phase : size_t { kLoad, kResume, kForwards, kUpdate, kEvaluate, kPublish, kNextStep };

constexpr std::chrono::milliseconds kDeadline{2000};

struct Layout {
  int32_t world = 2;
  CaseOptions options;
  std::string text() const {
    return str(world,
               " ranks, stage ",
               options.stage,
               ", group ",
               options.group,
               ", tensor ",
               options.tensor,
               ", prefetch ",
               options.prefetch);
  }
};

/// What every rank of a layout starts from.
struct Given {
  CaseOptions options;
  Trained saved;
  Experience experience;
};

std::string digest_of(const at::Tensor& tensor) {
  const at::Tensor values = tensor.contiguous();
  return sha256_hex(
      std::span(static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()));
}

/// A learner's work from its start to the step after an update. @return all that came of it
std::string work(Collective& ranks,
                 const Given& given,
                 const std::function<void(size_t phase)>& enter) {
  std::ostringstream out;
  out.precision(17);
  enter(kLoad);
  Learner learner = make_case("ppo", &ranks, given.options);
  enter(kResume);
  learner.load_state(given.saved.shards, given.saved.state_json[0]);
  enter(kForwards);
  Experience experience = given.experience;
  out << digest_of(learner.policy_logprobs(experience)) << ' '
      << digest_of(learner.reference_logprobs(experience));
  enter(kUpdate);
  const StepReport report = learner.update(experience);
  out << ' ' << report.loss_digest << ' ' << report.gradient_digest;
  for (const auto& [key, value] : report.metrics) out << ' ' << key << '=' << value;
  enter(kEvaluate);
  for (const auto& [key, value] : learner.evaluate(example_pairs())) out << ' ' << value;
  enter(kPublish);
  learner.visit_weights(
      learner.policy(), learner.policy().parameters(), [&](std::span<const NamedTensor> some) {
        for (const NamedTensor& t : some)
          out << ' ' << t.name << ' ' << digest_of(t.tensor.detach());
      });
  out << ' ' << weights_digest(learner);
  // Where groups of ranks keep copies only the first publishes; the others are told at the latest
  // when all meet.
  enter(kNextStep);
  ranks.barrier();
  return out.str();
}

void check_faults(const std::vector<Layout>& layouts) {
  const OneThread one_thread;
  const TempDir dir;
  save_hf(make_case("sft", nullptr).policy(), dir / "model");
  std::vector<Given> given;
  std::vector<std::vector<std::string>> calm;  // by layout and rank
  std::vector<std::pair<size_t, Strike>> strikes;
  for (size_t l = 0; l < layouts.size(); ++l) {
    INFO(layouts[l].text());
    const int32_t world = layouts[l].world;
    CaseOptions options = layouts[l].options;
    options.minibatches = 1;
    options.folder = dir / "model";
    given.push_back({options,
                     train("ppo", world, 0, 1, options),
                     make_experience(mixed_rolls(), *tiny_policy())});
    REQUIRE(given[l].saved.errors == std::vector<std::string>(static_cast<size_t>(world)));
    std::vector<std::string> results(static_cast<size_t>(world));
    const Struck counted = strike(world, kDeadline, {}, [&](Collective& ranks, const auto& enter) {
      results[static_cast<size_t>(ranks.rank())] = work(ranks, given[l], enter);
    });
    REQUIRE(complaint(counted, {}, kDeadline).empty());
    REQUIRE(counted.exchanges[0][kUpdate] > 5);
    REQUIRE(counted.exchanges[0][kNextStep] == 1);
    calm.push_back(std::move(results));
    for (Strike place : places(counted.exchanges, kUpdate)) {
      for (const Fault fault : {Fault::kStop, Fault::kThrow, Fault::kSlow}) {
        place.fault = fault;
        strikes.emplace_back(l, place);
      }
    }
  }
  std::vector<std::string> complaints(strikes.size());
  side_by_side(strikes.size(), [&](size_t i) {
    const auto& [l, what] = strikes[i];
    std::vector<std::string> results(calm[l].size());
    const Struck got =
        strike(layouts[l].world, kDeadline, what, [&](Collective& ranks, const auto& enter) {
          results[static_cast<size_t>(ranks.rank())] = work(ranks, given[l], enter);
        });
    complaints[i] = complaint(got, what, kDeadline);
    if (what.fault == Fault::kSlow && complaints[i].empty() && results != calm[l])
      complaints[i] = "other results";
    if (what.fault == Fault::kStop && what.phase == kUpdate && complaints[i].empty() &&
        got.call.find("in step ") == std::string::npos)
      complaints[i] = "the step is not told: " + got.call;
  });
  for (size_t i = 0; i < strikes.size(); ++i) {
    INFO(layouts[strikes[i].first].text() << ": " << strikes[i].second.text());
    CHECK(complaints[i] == "");
  }
}

}  // namespace

TEST_CASE("a rank that stops, fails or is slow in any phase of a learner's work",
          "[learners][cpu]") {
  check_faults(
      {{2, {.stage = 1}}, {3, {.stage = 2}}, {3, {.stage = 3}}, {2, {.stage = 3, .prefetch = 0}}});
}

TEST_CASE("the same where groups of ranks keep copies", "[learners][cpu]") {
  check_faults({{4, {.stage = 2, .group = 2}}, {4, {.stage = 3, .group = 2}}});
}

TEST_CASE("the same where ranks split the layers", "[learners][cpu]") {
  // Without a background, which would go on for a rank whose thread stands still, and answer that
  // it waits. A process stands still as a whole (tests/mpi/faults.sh).
  check_faults({{4, {.stage = 1, .tensor = 2}}, {4, {.stage = 3, .prefetch = 0, .tensor = 2}}});
}

}  // namespace praetor
