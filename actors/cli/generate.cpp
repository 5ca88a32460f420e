#include "actors/cli/generate.h"

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "actors/cli/commands.h"
#include "actors/cli/generate_prompts.h"
#include "actors/cli/options.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/base/threads.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"
#include "rollout/engine.h"
#include "rollout/sampling_config.h"

namespace praetor::cli {
namespace {

using nlohmann::ordered_json;

std::string read_input(const std::string& prompts, std::istream& in) {
  if (prompts != "-") return read_file(prompts);
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) throw IoError("cannot read the prompts from standard input");
  return text;
}

/// Of each token the most likely ones: [[{"token": 5, "logprob": -0.1}, ...], ...].
ordered_json tops_of(const Generation& g) {
  ordered_json out = ordered_json::array();
  const size_t each = g.top_logprobs.size() / g.tokens.size();
  for (size_t i = 0; i < g.top_logprobs.size(); ++i) {
    if (i % each == 0) out.push_back(ordered_json::array());
    out.back().push_back(
        {{"token", g.top_logprobs[i].token}, {"logprob", g.top_logprobs[i].logprob}});
  }
  return out;
}

std::string line_of(const Generation& g) {
  ordered_json line;
  line["prompt_index"] = g.request;
  line["sample_index"] = g.sample;
  line["tokens"] = g.tokens;
  line["text"] = g.text;
  line["logprobs"] = g.model_logprobs;
  if (!g.top_logprobs.empty()) line["top_logprobs"] = tops_of(g);
  line["finish_reason"] = to_string(g.finish);
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

/// Writes responses in the order of prompts and samples, each as soon as its turn has come.
class InOrder {
 public:
  InOrder(std::ostream& out, int32_t samples) : out_(out), samples_(samples) {}

  void add(const Generation& g) {
    waiting_.emplace(g.request * samples_ + g.sample, line_of(g));
    for (auto it = waiting_.begin(); it != waiting_.end() && it->first == next_; ++next_) {
      out_ << it->second << '\n';
      it = waiting_.erase(it);
    }
    out_.flush();
    if (!out_) throw IoError("cannot write the responses to standard output");
  }

 private:
  std::ostream& out_;
  int64_t samples_;
  int64_t next_ = 0;
  std::map<int64_t, std::string> waiting_;
};

void write_stats(const std::filesystem::path& file, size_t prompts, const EngineStats& stats) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  ordered_json json;
  json["prompts"] = prompts;
  json["tokens"] = stats.tokens;
  json["seconds"] = stats.seconds;
  json["tokens_per_second"] =
      stats.seconds > 0 ? static_cast<double>(stats.tokens) / stats.seconds : 0.0;
  json["steps"] = stats.steps;
  json["drafted"] = stats.drafted;
  json["accepted"] = stats.accepted;
  json["peak_rss_bytes"] = static_cast<int64_t>(usage.ru_maxrss) * 1024;
  write_file_atomic(file, json.dump() + "\n");
}

void add_sampling_options(CLI::App& command, SamplingParams& p) {
  command.add_option("--max-new-tokens", p.max_new_tokens, "longest response, tokens")
      ->capture_default_str();
  command.add_option("--temperature", p.temperature, "0 is greedy")->capture_default_str();
  command.add_option("--top-k", p.top_k, "sample from the k most likely; 0: off")
      ->capture_default_str();
  command.add_option("--top-p", p.top_p, "sample from the fewest that hold this share; 1: off")
      ->capture_default_str();
  command
      .add_option("--min-p", p.min_p, "sample from those this likely relative to the first; 0: off")
      ->capture_default_str();
  command
      .add_option("--repetition-penalty",
                  p.repetition_penalty,
                  "divides the logits of tokens already seen; 1: off")
      ->capture_default_str();
  command
      .add_option(
          "--stop", p.stop_strings, "text that ends a response and is cut from it; may be repeated")
      ->allow_extra_args(false);
  command.add_option("--top-logprobs", p.top_logprobs, "report so many of the most likely tokens")
      ->check(CLI::Range(int64_t{0}, kMostTopLogprobs))
      ->capture_default_str();
  command.add_flag("--ignore-eos", p.ignore_eos, "go on past the model's end token");
}

/// An option that adds a processor, as often as it is given; several stand in the order of the
/// command line.
template <typename Value, typename Make>
void add_processor_option(CLI::App& command,
                          SamplingParams& p,
                          const std::string& name,
                          const std::string& help,
                          const Make& make) {
  command
      .add_option_function<Value>(
          name, [&p, make](const Value& value) { p.processors.push_back(make(value)); }, help)
      ->trigger_on_parse();
}

void add_processor_options(CLI::App& command, SamplingParams& p) {
  add_processor_option<int64_t>(
      command, p, "--min-new-tokens", "no end before so many tokens", min_new_tokens);
  add_processor_option<std::string>(command,
                                    p,
                                    "--bad-word",
                                    "text that no response holds; may be repeated",
                                    [](const auto& word) {
                                      return bad_words(ordered_json::array({word}).dump(
                                          -1, ' ', false, ordered_json::error_handler_t::replace));
                                    });
  add_processor_option<std::string>(command,
                                    p,
                                    "--logit-bias",
                                    "ID:BIAS, added to a token's logit; may be repeated",
                                    bias_of_flag);
  add_processor_option<double>(command,
                               p,
                               "--presence-penalty",
                               "taken off the logits of tokens of the response",
                               presence_penalty);
  add_processor_option<double>(command,
                               p,
                               "--frequency-penalty",
                               "the same, for each time that a token stands there",
                               frequency_penalty);
  add_processor_option<std::string>(
      command, p, "--regex", "the whole response matches this pattern", regex_constraint);
  add_processor_option<std::string>(
      command,
      p,
      "--json-schema",
      "file of a JSON Schema that the response meets",
      [](const std::string& file) { return json_schema_constraint(read_file(file)); });
  add_processor_option<std::string>(command,
                                    p,
                                    "--processor",
                                    "KIND={...}, any kind of sampling.processors; may be repeated",
                                    processor_of_flag);
}

}  // namespace

ProcessorSpec processor_of_flag(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos)
    throw InvalidArgument("--processor: KIND={...} is wanted, not ", printable(text));
  return {text.substr(0, equals), text.substr(equals + 1)};
}

ProcessorSpec bias_of_flag(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos)
    throw InvalidArgument("--logit-bias: ID:BIAS is wanted, not ", printable(text));
  const ordered_json id = text.substr(0, colon);
  return logit_bias("{" + id.dump() + ":" + text.substr(colon + 1) + "}");
}

void run_generate(const GenerateOptions& options, std::istream& in, std::ostream& out) {
  SamplingParams params = options.sampling;
  check_sampling(params, "generate");
  check_processors(params, "generate");
  set_threads(options.threads);
  const std::string name = options.prompts == "-" ? "standard input" : options.prompts;
  const std::string text = read_input(options.prompts, in);
  const Transformer model = load_for_engine(options.model, options.dtype, options.engine);
  const auto tokenizer = Tokenizer::load(options.model);
  auto prompts =
      read_generate_prompts(text, name, *tokenizer, model.config(), options.chat_template);
  const auto& ends = model.config().eos_tokens;
  params.stop_tokens.insert(params.stop_tokens.end(), ends.begin(), ends.end());

  std::vector<GenerationRequest> requests;
  for (auto& prompt : prompts) {
    requests.push_back({.prompt = std::move(prompt),
                        .params = params,
                        .key = {.job_seed = options.seed, .prompt_ordinal = requests.size()},
                        .samples = options.samples});
  }
  EngineConfig config = options.engine;
  config.max_step_tokens = std::max(config.max_step_tokens, config.max_sequences);
  Engine engine(model, *tokenizer, config);
  InOrder writer(out, options.samples);
  engine.generate(requests, [&](Generation&& g) {
    writer.add(g);
    return true;
  });
  if (!options.stats.empty()) write_stats(options.stats, requests.size(), engine.stats());
}

void add_generate(CLI::App& app, int&) {
  auto* command = app.add_subcommand("generate", "Sample responses to prompts");
  command->footer(
      "{\"prompt\":...}, {\"tokens\":[...]} or {\"messages\":[...]} a line in; "
      "{\"prompt_index\",\"sample_index\","
      "\"tokens\",\"text\",\"logprobs\",\"finish_reason\"} (and \"top_logprobs\", when they are "
      "wanted) a line out, in the order of the "
      "prompts.\n"
      "The same seed gives the same responses, whatever --batch and --threads are.");
  const auto options = std::make_shared<GenerateOptions>();
  command->add_option("--model", options->model, "Hugging Face folder")->required();
  command->add_option("--prompts", options->prompts, "JSON lines; - reads standard input")
      ->required();
  add_sampling_options(*command, options->sampling);
  add_processor_options(*command, options->sampling);
  command->add_option("--n", options->samples, "responses to each prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "of the random numbers")->capture_default_str();
  add_dtype(*command, options->dtype);
  command->add_option("--batch", options->engine.max_sequences, "responses that grow at once")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  add_engine(*command, options->engine);
  add_draft_tokens(*command, options->engine.draft_tokens);
  command->add_option("--threads", options->threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->add_option("--template", options->chat_template, "for rows of messages")
      ->check(CLI::IsMember(chat_template_names()))
      ->capture_default_str();
  command->add_option("--stats", options->stats, "file for speed and memory, as JSON");
  command->callback([options, command] {
    settle_engine(*command, options->engine);
    run_generate(*options, std::cin, std::cout);
  });
}

}  // namespace praetor::cli
