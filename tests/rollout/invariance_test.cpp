#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/threads.h"
#include "rollout/sampling_config.h"
#include "tests/rollout/engine_fixture.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

using testing::generate_all;
using testing::LetterTokenizer;
using testing::same_response;
using testing::tiny_model;

std::vector<nlohmann::json> rows_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

/// The responses of `requests` under each of many engine settings and orders equal those of one
/// request at a time.
void check_invariance(const Transformer& model,
                      const Tokenizer& tokenizer,
                      const std::vector<GenerationRequest>& requests,
                      int64_t least_blocks) {
  const int before = threads();
  set_threads(1);
  std::vector<Generation> alone;
  {
    Engine engine(model, tokenizer, {.max_sequences = 1, .max_step_tokens = 1000});
    for (const GenerationRequest& r : requests) alone.push_back(generate_all(engine, {r})[0]);
  }
  std::vector<size_t> order(requests.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto compare = [&](const EngineConfig& config) {
    Engine engine(model, tokenizer, config);
    std::vector<GenerationRequest> ordered;
    for (const size_t i : order) ordered.push_back(requests[i]);
    const auto made = generate_all(engine, ordered);
    REQUIRE(made.size() == requests.size());
    INFO("max_sequences " << config.max_sequences << ", max_step_tokens " << config.max_step_tokens
                          << ", block_size " << config.block_size << ", threads " << threads());
    for (size_t i = 0; i < made.size(); ++i) CHECK(same_response(made[i], alone[order[i]]));
    return engine.stats();
  };
  for (const int64_t neighbours : {2, 3, 5, 8, 16}) {
    compare({.max_sequences = neighbours, .max_step_tokens = neighbours + 7});
  }
  for (const int64_t block_size : {1, 7, 64}) compare({.block_size = block_size});
  set_threads(2);
  compare({});
  std::reverse(order.begin(), order.end());
  compare({.max_sequences = 6, .max_step_tokens = 30});
  std::rotate(order.begin(), order.begin() + 3, order.end());
  compare({});
  // Blocks for little more than one sequence.
  const ModelConfig& c = model.config();
  const int64_t bytes = c.num_layers * 2 * 4 * c.num_kv_heads * c.head_dim * 4;
  const EngineStats short_of_blocks =
      compare({.block_size = 4, .cache_bytes = least_blocks * bytes});
  CHECK(short_of_blocks.preemptions > 0);
  CHECK(short_of_blocks.peak_blocks <= least_blocks);
  set_threads(before);
}

}  // namespace

namespace {

/// Prompts and responses of 1 to 40 tokens, with all kinds of sampling.
std::vector<GenerationRequest> mixed_requests(uint64_t vocab_size) {
  RandomStream random({.job_seed = 15});
  std::vector<GenerationRequest> requests;
  for (uint64_t i = 0; i < 17; ++i) {
    GenerationRequest r{.key = {.job_seed = 2, .prompt_ordinal = i}};
    for (uint64_t n = 1 + random.below(40); n > 0; --n) {
      r.prompt.push_back(static_cast<int64_t>(random.below(vocab_size)));
    }
    r.params.max_new_tokens = 1 + static_cast<int64_t>(random.below(40));
    if (i % 3 == 1) r.params.temperature = 0.8;
    if (i % 4 == 2) r.params.top_p = 0.9;
    if (i % 5 == 3) r.params.repetition_penalty = 1.2;
    if (i % 6 == 4) r.params.temperature = 0.0;
    if (i % 7 == 5) r.params.stop_strings = {"q"};
    if (i % 4 == 1) r.params.processors = {frequency_penalty(0.5), bad_words("[[3],[5,6]]")};
    if (i % 4 == 3) r.params.processors = {regex_constraint("([a-m]{2}|[n-z])*")};
    if (i % 8 == 7) r.params.top_logprobs = 3;
    requests.push_back(r);
  }
  return requests;
}

}  // namespace

TEST_CASE("a response of a random model does not depend on its company", "[rollout][cpu]") {
  check_invariance(tiny_model(), LetterTokenizer(97), mixed_requests(97), 24);
}

TEST_CASE("a response of a model of any family does not depend on its company", "[rollout][cpu]") {
  for (const std::string name : {"mistral_window", "gpt2", "phi3_longrope", "gemma2", "gemma3"}) {
    INFO(name);
    const Transformer model = Transformer::load(testing::golden("families/" + name));
    check_invariance(model, LetterTokenizer(64), mixed_requests(64), 24);
  }
}

TEST_CASE("the engine continues every family's prompt as transformers does", "[rollout][cpu]") {
  for (const std::string name : {"llama3",
                                 "mistral_window",
                                 "qwen2_tied",
                                 "qwen2_window",
                                 "gpt2",
                                 "qwen3",
                                 "phi3",
                                 "phi3_longrope",
                                 "phi3_partial",
                                 "gemma2",
                                 "gemma3"}) {
    INFO(name);
    const Transformer model = Transformer::load(testing::golden("families/" + name));
    const LetterTokenizer tokenizer(64);
    std::ifstream file(testing::golden("families/" + name + ".json"));
    const auto wanted = nlohmann::json::parse(file);
    const auto prompt = wanted["prompt"].get<std::vector<int64_t>>();
    auto ids = wanted["greedy"].get<std::vector<int64_t>>();
    ids.erase(ids.begin(), ids.begin() + static_cast<int64_t>(prompt.size()));
    GenerationRequest request{
        .prompt = prompt,
        .params = {.max_new_tokens = static_cast<int64_t>(ids.size()), .temperature = 0},
        .samples = 3};
    Engine engine(model, tokenizer, {.max_sequences = 2, .max_step_tokens = 20, .block_size = 5});
    for (const Generation& made : generate_all(engine, {request})) CHECK(made.tokens == ids);
  }
}

TEST_CASE("forks of a prompt that is as long as a sequence may be before a switch compute anew",
          "[rollout][cpu]") {
  // phi3_longrope switches above 24 tokens: the first response token makes 25.
  const Transformer model = Transformer::load(testing::golden("families/phi3_longrope"));
  const LetterTokenizer tokenizer(64);
  REQUIRE(model.config().switch_length() == 24);
  for (const int64_t length : {23, 24, 25}) {
    GenerationRequest request{
        .params = {.max_new_tokens = 6}, .key = {.job_seed = 3}, .samples = 4};
    RandomStream random({.job_seed = 16});
    for (int64_t i = 0; i < length; ++i)
      request.prompt.push_back(static_cast<int64_t>(random.below(64)));
    Engine together(model, tokenizer, {.block_size = 5});
    const auto all = generate_all(together, {request});
    for (int32_t sample = 0; sample < 4; ++sample) {
      INFO("prompt of " << length << ", sample " << sample);
      GenerationRequest one = request;
      one.samples = 1;
      one.key.sample_index = static_cast<decltype(one.key.sample_index)>(sample);
      Engine engine(model, tokenizer, {.max_sequences = 1, .max_step_tokens = 100});
      CHECK(same_response(generate_all(engine, {one})[0], all[static_cast<size_t>(sample)]));
    }
    // Each token's log-probability is that of the sequence up to it, computed at once.
    for (const Generation& made : all) {
      std::vector<int64_t> tokens = request.prompt;
      for (size_t i = 0; i < made.tokens.size(); ++i) {
        const at::Tensor logits = model.logits(model.hidden(pack({tokens})).slice(0, -1));
        const at::Tensor all_tokens = ops::log_softmax(logits)[0];
        CHECK(all_tokens[made.tokens[i]].item<float>() == made.model_logprobs[i]);
        tokens.push_back(made.tokens[i]);
      }
    }
  }
}

TEST_CASE("a story does not depend on its company", "[rollout][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto folder = shared / "data" / "stories260K";
  const Transformer model = Transformer::load(folder);
  const auto tokenizer = Tokenizer::load(folder);
  std::vector<GenerationRequest> requests;
  for (const auto& row : rows_of(shared / "data" / "story-prompts" / "eval.jsonl")) {
    if (requests.size() == 16) break;
    const size_t i = requests.size();
    requests.push_back({.prompt = tokenizer->encode(row.at("prompt").get<std::string>()),
                        .params = {.max_new_tokens = 20 + 3 * static_cast<int64_t>(i),
                                   .temperature = i % 2 == 0 ? 1.0 : 0.7,
                                   .top_k = i % 4 == 3 ? 20 : 0,
                                   .stop_tokens = model.config().eos_tokens},
                        .key = {.job_seed = 6, .prompt_ordinal = i}});
  }
  REQUIRE(requests.size() == 16);
  check_invariance(model, *tokenizer, requests, 40);
}

TEST_CASE("greedy continuations equal transformers'", "[rollout][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto folder = shared / "data" / "stories260K";
  const Transformer model = Transformer::load(folder);
  const auto tokenizer = Tokenizer::load(folder);
  const auto rows = rows_of(folder / "golden.jsonl");
  std::vector<GenerationRequest> requests;
  std::vector<std::vector<int64_t>> wanted;
  for (const auto& row : rows) {
    const bool story = row.contains("greedy_255_ids");
    const auto prompt =
        story ? std::vector<int64_t>{1} : row.at("prompt_ids").get<std::vector<int64_t>>();
    auto ids = row.at(story ? "greedy_255_ids" : "greedy_48_ids").get<std::vector<int64_t>>();
    REQUIRE(std::equal(prompt.begin(), prompt.end(), ids.begin()));
    ids.erase(ids.begin(), ids.begin() + static_cast<int64_t>(prompt.size()));
    const auto count = static_cast<int64_t>(ids.size());
    requests.push_back({.prompt = prompt, .params = {.max_new_tokens = count, .temperature = 0.0}});
    wanted.push_back(std::move(ids));
  }
  REQUIRE(requests.size() == 5);
  Engine engine(model, *tokenizer);
  const auto made = generate_all(engine, requests);
  REQUIRE(made.size() == 5);
  for (size_t i = 0; i < made.size(); ++i) {
    CHECK(made[i].tokens == wanted[i]);
    CHECK(made[i].text == tokenizer->decode(wanted[i]));
  }
}

}  // namespace praetor
