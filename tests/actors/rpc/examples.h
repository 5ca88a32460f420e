#pragma once

#include <utility>

#include "actors/controller/broadcasts.h"
#include "actors/controller/services.h"

namespace praetor::testing {

/// Values of every struct of the wire in which no field has its default.

inline WeightVersion example_version() {
  return {2, 1, 40, "deadbeef"};
}

inline Publication example_publication() {
  Publication out;
  for (const char* file : {"/run/r.safetensors", "/run/w.safetensors"}) {
    Publication next;
    next.version = example_version();
    next.file = file;
    next.address = "10.0.0.7:4000";
    next.bytes = 123456;
    next.epoch = 4;
    next.broadcast = 9;
    Publication whole = next;
    whole.file = "/run/b.safetensors";
    next.base.push_back(std::move(whole));
    if (!out.file.empty()) next.companions.push_back(std::move(out));
    out = std::move(next);
  }
  return out;
}

inline SamplingParams example_params() {
  SamplingParams params;
  params.max_new_tokens = 64;
  params.temperature = 0.7;
  params.top_k = 50;
  params.top_p = 0.9;
  params.min_p = 0.05;
  params.repetition_penalty = 1.1;
  params.stop_tokens = {2, 2147483647};
  params.stop_strings = {"\n\n", "\xff stop"};
  params.ignore_eos = true;
  params.processors = {{"regex", R"({"pattern":"a\\xff"})"},
                       {"logit_bias", R"({"bias":{"3":-1}})"}};
  params.top_logprobs = 2;
  return params;
}

/// Three tokens unless said otherwise.
inline Generation example_generation(int64_t tokens = 3) {
  Generation out;
  out.request = 4;
  out.sample = 1;
  for (int64_t i = 0; i < tokens; ++i) {
    out.tokens.push_back(5 + i);
    out.behavior_logprobs.push_back(-0.5f - static_cast<float>(i));
    out.model_logprobs.push_back(-0.25f);
    out.sampled_logprobs.push_back(-0.125f);
    out.kept_masses.push_back(0.75f);
    out.versions.push_back(39 + i);
    out.top_logprobs.push_back({5 + i, -0.25f});
    out.top_logprobs.push_back({9, -2.5f - static_cast<float>(i)});
  }
  out.text = "a \xff text";
  out.finish = FinishReason::kStop;
  return out;
}

inline Score example_score() {
  Score score;
  score.score = -1.5;
  score.parts.push_back({"length", 0.5, 2.0, true, "short \xfe enough", "", 3.5, true, true, 0});
  score.parts.push_back(
      {"judge", 2.0, std::nullopt, std::nullopt, "", "timeout after 2 s", 2000, false, false, 1});
  score.parts.back().attributes = {{"helpfulness", 1.5, 0.25}, {"verbosity", -2, -0.5}};
  score.satisfied = false;
  score.task = "chat";
  score.preferences = {{2, 0.75}};
  return score;
}

inline Lease example_lease(LeaseKind kind) {
  Lease lease;
  lease.id = 7;
  lease.kind = kind;
  lease.purpose = Purpose::kEvaluation;
  lease.stage = 2;
  lease.weights = example_publication();
  lease.job_seed = 0xfedcba9876543210u;
  lease.time = std::chrono::milliseconds(90'000);
  lease.params = example_params();
  if (kind == LeaseKind::kGenerate) {
    lease.generate = {{{3, 1}, {1, 2, 3}, {VoiceKind::kMixture, 0.25}, false},
                      {{4, 2}, {4}, {VoiceKind::kCompanion, 0}, true}};
  } else {
    lease.score = {{{3, 1}, {"Say \xff", "hi", R"({"a": 1})", 3, true}, {{4, "ho \xff"}}}};
  }
  return lease;
}

inline Completion example_completion() {
  Completion out;
  out.worker = "rollout-0";
  out.lease = 7;
  out.purpose = Purpose::kEvaluation;
  out.weights = example_version();
  out.rollouts = {{{3, 1}, example_generation()}, {{4, 2}, example_generation(1)}};
  out.scores = {{{3, 1}, example_score()}};
  return out;
}

inline MemberInfo example_member() {
  return {"rollout-0",
          Role::kReward,
          {LeaseKind::kGenerate, LeaseKind::kScore},
          "node-1",
          4242,
          3,
          2,
          99};
}

inline ScoredSample example_scored(int64_t ordinal = 3, int64_t response = 3) {
  ScoredSample out;
  out.rollout.id = {ordinal, 1};
  out.rollout.tokens = {1, 2};
  for (int64_t i = 0; i < response; ++i) {
    out.rollout.tokens.push_back(10 + i);
    out.rollout.behavior_logprobs.push_back(-0.5f);
    out.rollout.model_logprobs.push_back(-0.25f);
    out.rollout.sampled_logprobs.push_back(-0.125f);
    out.rollout.versions.push_back(39 + i);
  }
  out.rollout.prompt_length = 2;
  out.rollout.text = "\xff";
  out.rollout.finish = FinishReason::kLength;
  out.rollout.weight_version = 39;
  out.rollout.worker = "rollout-0";
  out.rollout.voice = 2;
  out.score = {{ordinal, 1}, example_score(), "reward-0"};
  return out;
}

inline StepBatch example_batch(int64_t samples = 2, int64_t response = 3) {
  StepBatch out;
  out.step = 40;
  out.total_samples = 2 * samples;
  for (int64_t i = 1; i <= samples; ++i) out.samples.push_back(example_scored(i, response));
  out.metrics = {{"reward/mean", 0.25}, {"data/dropped", 3}};
  out.replayed = true;
  out.circumstances = {{"fault/restarts", 1}};
  return out;
}

inline EvaluationBatch example_evaluation(int64_t samples = 2) {
  EvaluationBatch out;
  for (int64_t i = 1; i <= samples; ++i) {
    out.samples.push_back(example_scored(i));
    out.prompts.push_back("prompt " + std::to_string(i));
  }
  return out;
}

inline StepRecord example_step() {
  return {40, "aa", "bb", R"({"loss": 1})", true};
}

inline RowStep example_rows() {
  RowStep out;
  out.fresh = {{5, 1, 12, 2}};
  out.batch = {40, {{5, 1}}, R"({"ranks": 1})"};
  out.record = example_step();
  return out;
}

inline RunStatus example_status() {
  RunStatus out;
  out.run_id = "run";
  out.job = "job \xff";
  out.stage = 2;
  out.stage_name = "ppo";
  out.step = 40;
  out.total_steps = 100;
  out.weights = example_version();
  out.to_generate = 1;
  out.generating = 2;
  out.to_score = 3;
  out.scoring = 4;
  out.ready = 5;
  out.leases_reissued = 6;
  out.restarts = 7;
  out.set_aside = {"bad \xff prompt"};
  out.members = {{example_member(), 1.5, true, true, "signal 9", 11, 39, 1, 20}};
  out.balances[2] = {1, 6, 1, {{"late", 1}}, 1, 1, 1, 1};
  out.over = true;
  out.broadcast = {
      4, 9, {"learner-0", "rollout-0"}, {"rollout-0", "rollout-1"}, "rollout-1 has come"};
  return out;
}

inline OpenedBroadcast example_opened() {
  return {{4, 9}, {"learner-0", "rollout-0"}, true, {"rollout-1: signal 9 \xff"}};
}

/// As a worker is told.
inline BroadcastCall example_call() {
  return {{4, 9},
          std::string("id\0\xff", 4),
          1,
          {"learner-0", "rollout-0"},
          4096,
          {example_publication()}};
}

inline AwaitBroadcast example_await() {
  return {"rollout-0",
          {4, 8},
          BroadcastOutcome::kFailed,
          "rank 0 has gone \xff",
          std::chrono::milliseconds(5)};
}

}  // namespace praetor::testing
