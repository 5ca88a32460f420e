#include "learners/preference/reference_rows.h"

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "learners/algorithms/dpo.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"

namespace praetor {

using testing::flat_state;
using testing::make_example;
using testing::TempDir;
namespace fs = std::filesystem;

namespace {

Learner dpo(bool precomputed, Collective* ranks = nullptr, uint64_t seed = 1, int64_t budget = 12) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = 1e-2;
  settings.micro_batch_tokens = budget;
  LearnerModels models;
  models.policy = testing::tiny_policy(seed);
  return Learner(settings, make_dpo({.precomputed = precomputed}), std::move(models), ranks);
}

/// Six pairs of mixed lengths: chosen, rejected, chosen, ...
std::vector<Example> pairs() {
  std::vector<Example> out;
  for (int64_t i = 0; i < 6; ++i) {
    const std::vector<int64_t> chosen(static_cast<size_t>(1 + i % 4), i + 2);
    out.push_back(make_example({1, i}, chosen));
    out.push_back(make_example({1, i}, {9 - i, 3, 4}));
  }
  return out;
}

/// The rows of a step, in an order other than the file's.
std::vector<Example> step_of(const std::vector<Example>& rows, int64_t step) {
  std::vector<Example> out;
  for (const int64_t pair : {(step * 5 + 3) % 6, (step * 5 + 1) % 6, (step * 5 + 4) % 6}) {
    out.push_back(rows[static_cast<size_t>(2 * pair)]);
    out.push_back(rows[static_cast<size_t>(2 * pair + 1)]);
  }
  return out;
}

void add(const Learner& learner,
         Collective& ranks,
         const fs::path& file,
         std::vector<Example>& rows) {
  std::vector<Example*> all;
  for (Example& example : rows) all.push_back(&example);
  add_reference_logprobs(learner, ranks, file, all);
}

void add(const Learner& learner, const fs::path& file, std::vector<Example>& rows) {
  const auto alone = make_local_collective();
  add(learner, *alone, file, rows);
}

/// Digests of the losses and gradients of the steps `from` to 3.
std::vector<std::string> train(Learner& learner, const std::vector<Example>& rows, int64_t from) {
  std::vector<std::string> digests;
  for (int64_t step = from; step < 4; ++step) {
    const StepReport report = learner.update(step_of(rows, step));
    digests.push_back(report.loss_digest + report.gradient_digest);
  }
  return digests;
}

}  // namespace

TEST_CASE("a precomputed reference trains as a computed one, bit for bit", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const TempDir dir;
  for (const int64_t budget : {int64_t{1}, int64_t{12}, int64_t{8192}}) {
    CAPTURE(budget);
    Learner held = dpo(false, nullptr, 1, budget), freed = dpo(true, nullptr, 1, budget);
    std::vector<Example> rows = pairs();
    add(freed, dir / str(budget) / "dpo.safetensors", rows);
    CHECK(held.companion() != nullptr);
    CHECK(freed.companion() == nullptr);
    CHECK(train(freed, rows, 0) == train(held, pairs(), 0));
    CHECK(at::equal(flat_state(freed), flat_state(held)));
    CHECK(freed.evaluate(rows) == held.evaluate(pairs()));
  }
}

TEST_CASE("a run that goes on takes the reference from the file", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const TempDir dir;
  const fs::path file = dir / "reference" / "dpo.safetensors";
  Learner whole = dpo(true);
  std::vector<Example> rows = pairs();
  add(whole, file, rows);
  for (int64_t step = 0; step < 2; ++step) whole.update(step_of(rows, step));

  Learner resumed = dpo(true);
  std::vector<Example> again = pairs();
  const auto written = fs::last_write_time(file);
  add(resumed, file, again);
  CHECK(fs::last_write_time(file) == written);
  for (size_t i = 0; i < rows.size(); ++i)
    CHECK(again[i].reference_logprob == rows[i].reference_logprob);
  resumed.load_state(whole.state(), whole.state_json());
  CHECK(train(resumed, again, 2) == train(whole, rows, 2));
  CHECK(at::equal(flat_state(resumed), flat_state(whole)));
  // What a policy in training says is not what the reference said.
  CHECK_THROWS_AS(add(whole, file, again), InternalError);
}

TEST_CASE("a file of other rows or of another policy is refused", "[learners][cpu]") {
  const TempDir dir;
  const fs::path file = dir / "dpo.safetensors";
  std::vector<Example> rows = pairs();
  add(dpo(true), file, rows);
  const std::string message =
      file.string() +
      ": the reference's log-probabilities of other rows, another tokenizer or another policy than "
      "this stage has now; when that change is meant, remove the file, and they are computed anew";
  CHECK_THROWS_WITH(add(dpo(true, nullptr, 2), file, rows), message);
  std::vector<Example> other = pairs();
  other[3].tokens.back() = 8;
  CHECK_THROWS_WITH(add(dpo(true), file, other), message);
  other = pairs();
  other[3].target.back() = 0;
  CHECK_THROWS_WITH(add(dpo(true), file, other), message);
  other = pairs();
  other.resize(10);
  CHECK_THROWS_WITH(add(dpo(true), file, other), message);
  CHECK_NOTHROW(add(dpo(true), file, rows));
  write_file_atomic(file, "junk");
  CHECK_THROWS_AS(add(dpo(true), file, rows), DataError);
  fs::remove(file);
  CHECK_NOTHROW(add(dpo(true), file, rows));
}

TEST_CASE("ranks share the work, and the file is that of one", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const TempDir dir;
  std::vector<Example> alone = pairs();
  add(dpo(true), dir / "one", alone);
  for (const char* name : {"three", "one"}) {  // computed, then taken from the file
    std::vector<std::vector<Example>> each(3, pairs());
    const auto errors = testing::run_ranks(3, [&](Collective& ranks) {
      const Learner learner = dpo(true, &ranks);
      add(learner, ranks, dir / name, each[static_cast<size_t>(ranks.rank())]);
    });
    CHECK(errors == std::vector<std::string>(3));
    for (const std::vector<Example>& rows : each) {
      for (size_t i = 0; i < rows.size(); ++i)
        CHECK(rows[i].reference_logprob == alone[i].reference_logprob);
    }
  }
  CHECK(read_file(dir / "three") == read_file(dir / "one"));
  // What rank 0 alone sees, all throw.
  write_file_atomic(dir / "one", "junk");
  for (const std::string& error : testing::run_ranks(3, [&](Collective& ranks) {
         std::vector<Example> rows = pairs();
         add(dpo(true, &ranks), ranks, dir / "one", rows);
       }))
    CHECK_THAT(error, Catch::Contains((dir / "one").string()));
}

}  // namespace praetor
