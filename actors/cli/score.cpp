#include "actors/cli/score.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "actors/cli/commands.h"
#include "actors/rpc/scorer_client.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/config/yaml_reader.h"
#include "reward/reward_config.h"
#include "reward/scorer.h"

namespace praetor::cli {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr size_t kMostErrors = 20;
constexpr size_t kChunk = 256;  ///< samples between two writes

/// Takes `key` out of the row; the message of what is wrong, or "".
template <typename T>
std::string take(
    json& row, const char* key, bool needed, json::value_t type, const char* wanted, T& into) {
  const auto found = row.find(key);
  if (found == row.end())
    return needed ? str("field \"", key, "\" is missing; ", wanted, " is wanted") : "";
  // JSON readers hold whole numbers from 0 up as unsigned.
  const bool fits = found->type() == type || (type == json::value_t::number_unsigned &&
                                              found->is_number_integer() && *found >= 0);
  if (!fits)
    return str("field \"", key, "\" is a ", found->type_name(), "; ", wanted, " is wanted");
  into = found->template get<T>();
  row.erase(found);
  return "";
}

/// Takes the list "rivals" out of the row; the message of what is wrong, or "".
std::string take_rivals(json& row, std::vector<Rival>& into) {
  const auto found = row.find("rivals");
  if (found == row.end()) return "";
  const bool fits = found->is_array() &&
                    std::ranges::all_of(*found, [](const json& one) { return one.is_string(); });
  if (!fits) return "field \"rivals\" is not a list of texts";
  for (const json& one : *found)
    into.push_back({static_cast<int32_t>(into.size()), one.get<std::string>()});
  row.erase(found);
  return "";
}

/// Fills `out` from one line; the message of what is wrong, or "".
std::string parse_row(const std::string& line, ScoreRow& out) {
  Sample& sample = out.sample;
  json row = json::parse(line, nullptr, false);
  if (!row.is_object()) return str("not a JSON object in UTF-8: ", printable(line));
  using Type = json::value_t;
  std::string wrong = take(row, "prompt", true, Type::string, "text", sample.prompt);
  if (wrong.empty()) wrong = take(row, "response", true, Type::string, "text", sample.response);
  if (wrong.empty()) {
    wrong = take(
        row, "response_tokens", false, Type::number_unsigned, "a count", sample.response_tokens);
  }
  if (wrong.empty())
    wrong = take(row, "finished", false, Type::boolean, "true or false", sample.finished);
  if (wrong.empty()) wrong = take_rivals(row, out.rivals);
  sample.metadata = row.dump();
  return wrong;
}

ordered_json part_json(const PartScore& part) {
  ordered_json out;
  out["score"] = part.score ? ordered_json(*part.score) : ordered_json(nullptr);
  out["weight"] = part.weight;
  if (part.verdict) out["verdict"] = *part.verdict;
  for (const AttributeScore& one : part.attributes)
    out["attributes"][one.name] = {{"value", one.value}, {"weight", one.weight}};
  if (part.not_applicable) out["not_applicable"] = true;
  if (!part.reason.empty()) out["reason"] = part.reason;
  if (!part.error.empty()) out["error"] = part.error;
  return out;
}

std::string score_line(const Score& score) {
  ordered_json parts = ordered_json::object();
  for (const PartScore& part : score.parts) parts[part.name] = part_json(part);
  ordered_json out{{"score", score.score ? ordered_json(*score.score) : ordered_json(nullptr)}};
  if (score.satisfied) out["satisfied"] = *score.satisfied;
  if (!score.task.empty()) out["task"] = score.task;
  for (const Preference& one : score.preferences) out["preferences"].push_back(one.probability);
  out["parts"] = std::move(parts);
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

void report(const Scorer& scorer) {
  for (const PartCounters& part : scorer.counters()) {
    std::string line = str(part.name, ": ", part.scored, " scored");
    if (part.passed + part.failed > 0) line += str(", ", part.passed, " passed");
    if (part.not_applicable > 0) line += str(", ", part.not_applicable, " not applicable");
    if (part.cached > 0) line += str(", ", part.cached, " known already");
    if (part.retries > 0) line += str(", ", part.retries, " retries");
    if (part.errors + part.timeouts > 0) {
      line += str(", ",
                  part.errors,
                  " errors, ",
                  part.timeouts,
                  " timeouts; the first: ",
                  part.first_error);
    }
    log::info(line);
  }
}

}  // namespace

std::vector<ScoreRow> read_score_rows(std::istream& in, const std::string& name) {
  std::vector<ScoreRow> rows;
  std::vector<std::string> wrong;
  int64_t number = 0;
  for (std::string line; std::getline(in, line) && wrong.size() < kMostErrors;) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    ScoreRow row{.sample = {}, .rivals = {}, .line = number};
    const std::string message = parse_row(line, row);
    if (message.empty()) {
      rows.push_back(std::move(row));
    } else {
      wrong.push_back(str(name, ":", number, ": ", message));
    }
  }
  if (in.bad()) throw IoError(name, ": cannot be read to its end");
  if (!wrong.empty()) throw DataError(join(wrong, "\n"));
  return rows;
}

void score_file(const fs::path& reward, const fs::path& input, std::ostream& out) {
  const auto document = YamlDocument::load(reward);
  const RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();

  std::vector<ScoreRow> rows;
  const std::string name = input == "-" ? "standard input" : input.string();
  if (input == "-") {
    rows = read_score_rows(std::cin, name);
  } else {
    std::ifstream file(input);
    if (!file || fs::is_directory(input)) throw MissingInput(name, ": no such file");
    rows = read_score_rows(file, name);
  }

  size_t begin = 0;
  const auto no_stage = [&](const std::string& stage) -> fs::path {
    throw ConfigError(reward.string(),
                      ": stage \"",
                      stage,
                      "\": scoring by itself has no stages; give the model's path");
  };
  const auto line_of = [&](size_t sample) { return str(name, ":", rows[begin + sample].line); };
  const auto scorer =
      Scorer::make(config, no_stage, {.name_of = line_of, .connect = ScorerClient::connect});
  for (; begin < rows.size(); begin += kChunk) {
    const size_t end = std::min(begin + kChunk, rows.size());
    std::vector<Sample> samples;
    std::vector<std::vector<Rival>> rivals;
    for (size_t i = begin; i < end; ++i) {
      samples.push_back(std::move(rows[i].sample));
      rivals.push_back(std::move(rows[i].rivals));
    }
    for (const Score& score : scorer->score(samples, rivals)) out << score_line(score) << '\n';
    out.flush();
    if (!out) throw IoError("the scores cannot be written");
  }
  report(*scorer);
}

void add_score(CLI::App& app, int&) {
  CLI::App* command = app.add_subcommand("score", "Score responses with reward models and judges");
  static fs::path reward, input;
  command->add_option("--reward", reward, "YAML file that holds a job's rewards section alone")
      ->required();
  command->add_option("--input", input, "JSON lines with prompt and response; - is standard input")
      ->required();
  command->footer(
      "\"rivals\" of a line is a list of other responses for a preference part to compare with; "
      "every\n"
      "further field is metadata for the judges. Writes a JSON line a sample:\n"
      "  {\"score\": 1.0, \"parts\": {\"NAME\": {\"score\": 1.0, \"weight\": 1.0, \"verdict\": "
      "true, \"reason\": \"...\"}}}\n"
      "with \"satisfied\" where there are constraints, \"task\" where there are tasks and\n"
      "\"preferences\" where there were rivals, in their order. A part that could not score a "
      "sample\n"
      "has null and \"error\".");
  command->callback([] { score_file(reward, input, std::cout); });
}

}  // namespace praetor::cli
