#include "rollout/scheduler.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "core/base/random.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

// Tokens of a prompt: `family` says which prompts begin alike, all of one length are then the same.
std::unique_ptr<Sequence> prompt_of(int64_t request,
                                    int64_t length,
                                    int32_t forks = 0,
                                    int64_t family = -1) {
  auto s = std::make_unique<Sequence>();
  s->request = request;
  s->forks = forks;
  s->tokens.assign(static_cast<size_t>(length), family < 0 ? 1000 + request : family);
  s->keep = length;
  return s;
}

Scheduler::Source list_of(std::vector<std::pair<int64_t, int32_t>>& prompts, int64_t families = 0) {
  return [&prompts, families, next = size_t{0}]() mutable -> std::unique_ptr<Sequence> {
    if (next == prompts.size()) return nullptr;
    const auto& [length, samples] = prompts[next];
    const auto request = static_cast<int64_t>(next++);
    return prompt_of(request, length, samples - 1, families > 0 ? request % families : -1);
  };
}

// Runs a whole work list without a model, checking each plan. What a slot of the cache holds is
// modelled as the tokens up to its position, which its keys and values are a function of.
struct Simulation {
  Scheduler::Limits limits;
  std::vector<std::pair<int64_t, int32_t>> prompts;  // length, samples
  std::vector<int64_t> responses;                    // tokens, by request
  int64_t switch_length = 0;  // a sequence that grows past it is computed anew; 0: none is
  int64_t families = 0;       // prompts of one family begin alike; 0: none do
  std::map<std::pair<int32_t, int64_t>, std::vector<int64_t>> slots;
  std::set<std::pair<int64_t, int32_t>> ended;
  int64_t steps = 0;
  int64_t rows = 0;
  int64_t largest_batch = 0;
  int64_t preemptions = 0;
  int64_t adopted = 0;
  int64_t peak = 0;

  static std::vector<int64_t> prefix(const Sequence& s, int64_t position) {
    return {s.tokens.begin(), s.tokens.begin() + position + 1};
  }

  // Slots hold the sequence's own prefixes, of the rotation that its length asks for.
  void check_slots(const Sequence& s) const {
    bool right = true;
    for (int64_t p = 0; p < s.computed; ++p) {
      const int32_t block = s.table[static_cast<size_t>(p / limits.block_size)];
      const auto found = slots.find({block, p % limits.block_size});
      right = right && found != slots.end() && found->second == prefix(s, p);
    }
    REQUIRE(right);
  }

  void run() {
    Scheduler scheduler(limits, list_of(prompts, families));
    while (true) {
      const Scheduler::Step& step = scheduler.plan();
      if (step.slices.empty()) break;
      ++steps;
      for (const auto& copy : step.copies) {
        for (int64_t row = 0; row < copy.rows; ++row) {
          slots[{copy.to, row}] = slots.at({copy.from, row});
        }
      }
      int64_t step_rows = 0;
      std::vector<Sequence*> ready;
      for (const auto& [s, count] : step.slices) {
        REQUIRE(count >= 1);
        REQUIRE(count <= s->pending());
        step_rows += count;
        REQUIRE(static_cast<int64_t>(s->table.size()) >=
                blocks_for(s->computed + count, limits.block_size));
        for (int64_t p = s->computed; p < s->computed + count; ++p) {
          const int32_t block = s->table[static_cast<size_t>(p / limits.block_size)];
          // Others may use it already who take it over in this step.
          REQUIRE((scheduler.blocks().users(block) == 1 || s->nodes * limits.block_size > p));
          slots[{block, p % limits.block_size}] = prefix(*s, p);
        }
        s->computed += count;
        check_slots(*s);
        if (s->pending() == 0) ready.push_back(s);
      }
      rows += step_rows;
      REQUIRE(step_rows <= limits.max_step_tokens);
      REQUIRE(static_cast<int64_t>(step.slices.size()) <= limits.max_sequences);
      largest_batch = std::max(largest_batch, static_cast<int64_t>(step.slices.size()));
      for (Sequence* s : ready) {
        for (int32_t k = 1; k <= s->forks; ++k) {
          auto child = prompt_of(s->request, s->length());
          child->tokens = s->tokens;
          child->tokens.push_back(2000 + k);
          child->sample = k;
          child->computed = s->computed;
          if (responses[static_cast<size_t>(s->request)] == 1) {
            ended.insert({child->request, child->sample});
          } else if (child->length() == switch_length + 1) {
            child->computed = 0;
            child->root = PrefixTree::root(1);
            scheduler.add(std::move(child));
          } else {
            scheduler.fork(*s, std::move(child));
          }
        }
        s->forks = 0;
        s->tokens.push_back(2000 + s->sample);
        if (s->length() == prompts[static_cast<size_t>(s->request)].first +
                               responses[static_cast<size_t>(s->request)]) {
          REQUIRE(ended.insert({s->request, s->sample}).second);
          scheduler.finish(s);
        } else if (s->length() == switch_length + 1) {
          auto again = scheduler.finish(s);
          REQUIRE(again->computed == 0);
          again->root = PrefixTree::root(1);
          scheduler.add(std::move(again));
        }
      }
      REQUIRE(steps < 100000);
    }
    preemptions = scheduler.preemptions();
    adopted = scheduler.adopted_rows();
    peak = scheduler.blocks().peak();
    CHECK(scheduler.running() == 0);
    CHECK(scheduler.blocks().used() == 0);
    size_t wanted = 0;
    for (const auto& [length, samples] : prompts) wanted += static_cast<size_t>(samples);
    CHECK(ended.size() == wanted);
  }
};

}  // namespace

TEST_CASE("a sequence that ends makes room in the next step", "[rollout][cpu]") {
  // Two slots; responses of 1 + 3 and 3 tokens. Sequence 2 starts when 0 ends.
  Simulation run{
      .limits = {.max_sequences = 2, .max_step_tokens = 16, .block_size = 4, .blocks = 8},
      .prompts = {{2, 1}, {2, 1}, {2, 1}},
      .responses = {2, 4, 2}};
  run.run();
  // 0 runs in steps 1-2, 2 in 3-4, 1 in 1-4.
  CHECK(run.steps == 4);
  CHECK(run.largest_batch == 2);
}

TEST_CASE("a long prompt is computed in chunks beside a running response", "[rollout][cpu]") {
  Simulation run{
      .limits = {.max_sequences = 2, .max_step_tokens = 8, .block_size = 4, .blocks = 32},
      .prompts = {{3, 1}, {40, 1}},
      .responses = {10, 1}};
  run.run();
  // Step 1 has 3 + 5 rows; then 1 + 7 rows a step: 5 + 7 * 5 = 40 at step 6; 0 ends at step 10.
  CHECK(run.steps == 10);
  CHECK(run.rows == 3 + 9 + 40);
}

TEST_CASE("a prompt is computed once for its samples and its blocks are shared", "[rollout][cpu]") {
  Simulation run{
      .limits = {.max_sequences = 8, .max_step_tokens = 64, .block_size = 4, .blocks = 64},
      .prompts = {{10, 8}},
      .responses = {3}};
  run.run();
  CHECK(run.rows == 10 + 8 * 2);
  // Two full blocks shared; of the third each sample has its own, the last in place; no more needed
  // for positions 10 and 11.
  CHECK(run.peak == 2 + 8);
  CHECK(run.preemptions == 0);
}

TEST_CASE("prompts that begin alike are computed once, also in one step", "[rollout][cpu]") {
  Simulation run{
      .limits = {.max_sequences = 3, .max_step_tokens = 64, .block_size = 4, .blocks = 64},
      .prompts = {{10, 1}, {10, 1}, {8, 1}},
      .responses = {2, 2, 1},
      .families = 1};
  run.run();
  // The second takes over two blocks, the third one: its last token it computes by itself.
  CHECK(run.adopted == 8 + 4);
  CHECK(run.rows == 10 + 1 + 2 + 1 + 4);
  // Two slots of one: the second starts when nobody uses the first one's blocks any more.
  Simulation later{
      .limits = {.max_sequences = 1, .max_step_tokens = 64, .block_size = 4, .blocks = 64},
      .prompts = {{9, 1}, {9, 1}},
      .responses = {2, 2},
      .families = 1};
  later.run();
  CHECK(later.adopted == 8);
  // When room is needed, what nobody uses goes.
  Simulation tight{
      .limits = {.max_sequences = 1, .max_step_tokens = 64, .block_size = 4, .blocks = 3},
      .prompts = {{9, 1}, {9, 1}, {9, 1}, {9, 1}},
      .responses = {2, 2, 2, 2},
      .families = 2};
  tight.run();
  CHECK(tight.adopted == 0);
  CHECK(tight.peak == 3);
}

TEST_CASE("a removed request's blocks are free at once", "[rollout][cpu]") {
  std::vector<std::pair<int64_t, int32_t>> prompts = {{6, 1}, {5, 1}};
  Scheduler scheduler({.max_sequences = 2, .max_step_tokens = 16, .block_size = 4, .blocks = 8},
                      list_of(prompts));
  REQUIRE(scheduler.plan().slices.size() == 2);
  CHECK(scheduler.blocks().used() == 4);
  const auto removed = scheduler.remove(0);
  REQUIRE(removed.size() == 1);
  CHECK(removed[0]->request == 0);
  CHECK(removed[0]->table.empty());
  CHECK(scheduler.blocks().used() == 2);
  CHECK(scheduler.running() == 1);
  CHECK(scheduler.remove(7).empty());
}

TEST_CASE("new weights: nothing found any more, and all computed again when asked",
          "[rollout][cpu]") {
  std::vector<std::pair<int64_t, int32_t>> prompts = {{9, 1}, {9, 1}};
  const bool recompute = GENERATE(false, true);
  Scheduler scheduler({.max_sequences = 1, .max_step_tokens = 16, .block_size = 4, .blocks = 8},
                      list_of(prompts, 1));
  Sequence* first = scheduler.plan().slices.at(0).sequence;
  first->computed = 9;
  first->tokens.push_back(5);
  scheduler.forget_prefixes(recompute);
  const Scheduler::Step& next = scheduler.plan();
  REQUIRE(next.slices.size() == 1);
  CHECK(next.slices[0].count == (recompute ? 10 : 1));
  scheduler.finish(next.slices[0].sequence);
  CHECK(scheduler.plan().slices.at(0).count == 9);
  CHECK(scheduler.adopted_rows() == 0);
}

TEST_CASE("more samples than slots wait with the prompt's blocks", "[rollout][cpu]") {
  Simulation run{
      .limits = {.max_sequences = 2, .max_step_tokens = 64, .block_size = 4, .blocks = 64},
      .prompts = {{9, 7}, {5, 3}},
      .responses = {6, 1}};
  run.run();
  CHECK(run.rows == 9 + 7 * 5 + 5);
  CHECK(run.largest_batch == 2);
}

TEST_CASE("when blocks run short the youngest is computed again", "[rollout][cpu]") {
  // Each needs 5 blocks at its end; 8 are there.
  Simulation run{
      .limits = {.max_sequences = 4, .max_step_tokens = 32, .block_size = 4, .blocks = 8},
      .prompts = {{4, 1}, {4, 1}, {4, 1}},
      .responses = {16, 16, 16}};
  run.run();
  CHECK(run.preemptions > 0);
  CHECK(run.rows > 3 * 19);
}

TEST_CASE("a sequence that is added again is computed from its first token", "[rollout][cpu]") {
  Simulation run{
      .limits = {.max_sequences = 4, .max_step_tokens = 32, .block_size = 4, .blocks = 64},
      .prompts = {{10, 1}},
      .responses = {6},
      .switch_length = 12};
  run.run();
  // Rows 0 .. 11 before the switch, 0 .. 14 behind it.
  CHECK(run.rows == 12 + 15);
  Scheduler scheduler({.max_sequences = 1, .max_step_tokens = 8, .block_size = 4, .blocks = 7},
                      list_of(run.prompts));
  auto half_done = prompt_of(0, 5);
  half_done->computed = 2;
  CHECK_THROWS_AS(scheduler.add(std::move(half_done)), InternalError);
}

TEST_CASE("any work list comes to its end within its limits", "[rollout][cpu]") {
  int64_t preemptions = 0;
  int64_t adopted = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    RandomStream random({.job_seed = seed});
    Simulation run;
    run.limits.block_size = 1 + static_cast<int64_t>(random.below(6));
    run.limits.max_sequences = 1 + static_cast<int64_t>(random.below(6));
    run.limits.max_step_tokens = run.limits.max_sequences + static_cast<int64_t>(random.below(12));
    int64_t longest = 1;
    for (uint64_t i = 0, n = 1 + random.below(8); i < n; ++i) {
      run.prompts.push_back(
          {1 + static_cast<int64_t>(random.below(20)), 1 + static_cast<int32_t>(random.below(4))});
      run.responses.push_back(1 + static_cast<int64_t>(random.below(20)));
      longest = std::max(longest, run.prompts.back().first + run.responses.back());
    }
    // From barely enough for one sequence to plenty.
    run.limits.blocks =
        blocks_for(longest, run.limits.block_size) + static_cast<int64_t>(random.below(12));
    if (seed % 2 == 1) run.switch_length = 1 + static_cast<int64_t>(random.below(30));
    run.families = static_cast<int64_t>(random.below(3));
    INFO("seed " << seed);
    run.run();
    preemptions += run.preemptions;
    adopted += run.adopted;
  }
  CHECK(preemptions > 100);
  CHECK(adopted > 1000);
}

TEST_CASE("a sequence that can never fit is our mistake", "[rollout][cpu]") {
  std::vector<std::pair<int64_t, int32_t>> prompts = {{30, 1}};
  Scheduler scheduler({.max_sequences = 1, .max_step_tokens = 8, .block_size = 4, .blocks = 7},
                      list_of(prompts));
  CHECK_THROWS_AS(scheduler.plan(), InternalError);
}

}  // namespace praetor
