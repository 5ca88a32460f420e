#include "actors/cli/logprobs.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "actors/cli/commands.h"
#include "actors/cli/options.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/base/threads.h"
#include "core/model/sequence_logprobs.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor::cli {

namespace {

using nlohmann::json;

/// Turns input lines into token ids; loads the tokenizer when the first row of text comes.
class RowReader {
 public:
  RowReader(const LogprobsOptions& options, const ModelConfig& config)
      : options_(options), config_(config) {}

  std::vector<int64_t> read(const std::string& line, size_t number) {
    number_ = number;
    json row;
    try {
      row = json::parse(line);
    } catch (const json::exception& failure) {
      fail("not valid JSON: ", printable(failure.what(), 160));
    }
    if (!row.is_object()) fail("must be an object");
    const bool tokens = row.contains("tokens");
    const bool text = row.contains("text");
    const bool pair = row.contains("prompt") || row.contains("response");
    if (tokens + text + pair != 1) {
      fail("must have exactly one of \"tokens\", \"text\", or \"prompt\" with \"response\"");
    }
    std::vector<int64_t> out;
    if (tokens) {
      out = ids(row["tokens"]);
    } else if (text) {
      out = tokenizer().encode(string(row, "text"));
    } else {
      out = tokenizer().encode(string(row, "prompt"));
      const auto response = tokenizer().encode(string(row, "response"), /*add_special=*/false);
      out.insert(out.end(), response.begin(), response.end());
    }
    if (out.empty()) fail("has no tokens; at least 1 is needed");
    if (static_cast<int64_t>(out.size()) > config_.max_positions) {
      fail("has ", out.size(), " tokens, the model takes at most ", config_.max_positions);
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (out[i] < 0 || out[i] >= config_.vocab_size) {
        fail("token ",
             i,
             " is ",
             out[i],
             ", outside the model's vocabulary of ",
             config_.vocab_size);
      }
    }
    return out;
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail(const Args&... args) const {
    throw DataError(options_.input.string(), ":", number_, ": ", args...);
  }
  std::vector<int64_t> ids(const json& list) const {
    if (!list.is_array()) fail("\"tokens\" must be a list of token ids");
    std::vector<int64_t> out;
    for (const json& id : list) {
      if (!id.is_number_integer() || (id.is_number_unsigned() && id.get<uint64_t>() >> 63 != 0)) {
        fail("\"tokens\" must be a list of token ids, found ", printable(id.dump()));
      }
      out.push_back(id.get<int64_t>());
    }
    return out;
  }
  std::string string(const json& row, const char* key) const {
    if (!row.contains(key)) fail("has no \"", key, "\"");
    if (!row[key].is_string()) fail('"', key, "\" must be a string");
    return row[key].get<std::string>();
  }
  const Tokenizer& tokenizer() {
    if (!tokenizer_) tokenizer_ = Tokenizer::load(options_.model);
    return *tokenizer_;
  }

  const LogprobsOptions& options_;
  const ModelConfig& config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  size_t number_ = 0;
};

void write_row(const std::vector<int64_t>& tokens,
               const std::vector<float>& logprobs,
               std::ostream& out) {
  std::string line = "{\"tokens\":[";
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i != 0) line += ',';
    line += std::to_string(tokens[i]);
  }
  line += "],\"logprobs\":[";
  for (size_t i = 0; i < logprobs.size(); ++i) {
    char number[32];
    std::snprintf(number, sizeof(number), "%s%.9g", i ? "," : "", static_cast<double>(logprobs[i]));
    // JSON has no infinity; a model whose weights overflow gives null.
    line += std::isfinite(logprobs[i]) ? number : i ? ",null" : "null";
  }
  out << line << "]}\n";
}

}  // namespace

void run_logprobs(const LogprobsOptions& options, std::ostream& out) {
  set_threads(options.threads);
  // Split here rather than by a stream, which would end quietly on a read error.
  const std::string text = read_file(options.input);
  const Transformer model = Transformer::load(options.model, dtype_of(options.dtype));

  RowReader reader(options, model.config());
  std::vector<std::vector<int64_t>> sequences;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    sequences.push_back(reader.read(line, number));
  }

  // Whole batches are scored and written one after the other, so that output begins early and is
  // held once.
  size_t done = 0;
  while (done < sequences.size()) {
    size_t end = done;
    for (int64_t tokens = 0; end < sequences.size(); ++end) {
      tokens += static_cast<int64_t>(sequences[end].size());
      if (end > done && tokens > options.batch_tokens) break;
    }
    const std::vector<std::vector<int64_t>> batch(sequences.begin() + done,
                                                  sequences.begin() + end);
    const auto logprobs = sequence_logprobs(model, batch, options.batch_tokens);
    for (size_t i = 0; i < batch.size(); ++i) write_row(batch[i], logprobs[i], out);
    done = end;
  }
  out.flush();
  if (!out) throw IoError("cannot write the log-probabilities to standard output");
}

void add_logprobs(CLI::App& app, int&) {
  auto* command = app.add_subcommand("logprobs", "Log-probabilities of given tokens");
  command->footer(
      "{\"tokens\":[...]}, {\"text\":...} or {\"prompt\":...,\"response\":...} a line in; "
      "{\"tokens\":[...],\"logprobs\":[...]} a line out, logprobs[i] = ln p(tokens[i+1] | "
      "tokens[0..i]).");
  const auto options = std::make_shared<LogprobsOptions>();
  command->add_option("--model", options->model, "Hugging Face folder")->required();
  command->add_option("--input", options->input, "JSON lines")->required();
  add_dtype(*command, options->dtype);
  command
      ->add_option("--batch-tokens",
                   options->batch_tokens,
                   "tokens a forward; the values do not depend on it")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->callback([options] { run_logprobs(*options, std::cout); });
}

}  // namespace praetor::cli
