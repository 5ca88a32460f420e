#include "core/ledger/rollout_codec.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/error.h"
#include "core/ledger/ledger_impl.h"

namespace praetor {

namespace {

constexpr uint8_t kVersion = 1;          // all tokens of one version of the weights
constexpr uint8_t kSeveralVersions = 2;  // the versions follow, in runs

template <typename T>
void put_array(std::string& out, const std::vector<T>& values) {
  if (values.empty()) return;
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

void put_runs(std::string& out, const std::vector<int64_t>& versions) {
  std::vector<std::pair<int64_t, uint32_t>> runs;
  for (const int64_t version : versions) {
    if (runs.empty() || runs.back().first != version) runs.emplace_back(version, 0);
    ++runs.back().second;
  }
  put(out, static_cast<uint32_t>(runs.size()));
  for (const auto& [version, tokens] : runs) {
    put(out, version);
    put(out, tokens);
  }
}

std::vector<int64_t> take_runs(ByteReader& in, size_t tokens) {
  std::vector<int64_t> out;
  for (uint32_t left = in.number<uint32_t>(); left > 0 && !in.failed(); --left) {
    const auto version = in.number<int64_t>();
    const auto length = in.number<uint32_t>();
    if (length > tokens - out.size()) break;  // said below
    out.insert(out.end(), length, version);
  }
  if (!in.failed() && out.size() != tokens)
    throw DataError("rollout payload: ", out.size(), " versions for ", tokens, " response tokens");
  return out;
}

void check_versions(int32_t stage, const RolloutRecord& r, int64_t response) {
  if (r.versions.empty()) return;
  const bool rising = std::ranges::is_sorted(r.versions);
  if (static_cast<int64_t>(r.versions.size()) == response && rising &&
      r.versions.front() == r.weight_version)
    return;
  throw InvalidArgument("rollout of ",
                        name_of(stage, r.id),
                        ": versions are to rise from weight_version ",
                        r.weight_version,
                        ", one for each of ",
                        response,
                        " response tokens");
}

}  // namespace

void check_rollout(int32_t stage, const RolloutRecord& r) {
  const auto refuse = [&](const auto&... what) {
    throw InvalidArgument("rollout of ", name_of(stage, r.id), ": ", what...);
  };
  const auto total = static_cast<int64_t>(r.tokens.size());
  if (r.prompt_length < 0 || r.prompt_length > total) {
    refuse("prompt_length ", r.prompt_length, " is outside [0, ", total, "]");
  }
  const int64_t response = total - r.prompt_length;
  const auto check_length =
      [&](const char* field, const std::vector<float>& values, bool optional) {
        const auto length = static_cast<int64_t>(values.size());
        if (length == response || (optional && length == 0)) return;
        refuse(field, " has ", length, " values for ", response, " response tokens");
      };
  check_length("behavior_logprobs", r.behavior_logprobs, false);
  check_length("model_logprobs", r.model_logprobs, true);
  check_length("sampled_logprobs", r.sampled_logprobs, true);
  check_versions(stage, r, response);
  for (size_t i = 0; i < r.tokens.size(); ++i) {
    if (r.tokens[i] < 0 || r.tokens[i] > std::numeric_limits<int32_t>::max()) {
      refuse("token ", i, " is ", r.tokens[i], ", which is outside [0, 2^31)");
    }
  }
  if (r.voice < 0 || r.voice > std::numeric_limits<uint16_t>::max())
    refuse("voice ", r.voice, " is outside [0, 2^16)");
  if (r.finish == FinishReason::kCancelled) refuse("it was cancelled, so it is not a sample");
}

std::string encode_rollout(int32_t stage, const RolloutRecord& r) {
  std::string out;
  out.reserve(64 + r.tokens.size() * 4 + r.behavior_logprobs.size() * 12 + r.text.size());
  put(out, r.versions.empty() ? kVersion : kSeveralVersions);
  put(out, static_cast<uint8_t>(r.finish));
  put(out, static_cast<uint16_t>(r.voice));
  put(out, stage);
  put(out, r.id.ordinal);
  put(out, r.id.sample);
  put(out, static_cast<uint32_t>(r.prompt_length));
  put(out, r.weight_version);
  for (const size_t count : {r.tokens.size(),
                             r.behavior_logprobs.size(),
                             r.model_logprobs.size(),
                             r.sampled_logprobs.size(),
                             r.worker.size(),
                             r.text.size()}) {
    put(out, static_cast<uint32_t>(count));
  }
  const std::vector<int32_t> narrow(r.tokens.begin(), r.tokens.end());
  put_array(out, narrow);
  put_array(out, r.behavior_logprobs);
  put_array(out, r.model_logprobs);
  put_array(out, r.sampled_logprobs);
  out += r.worker;
  out += r.text;
  if (!r.versions.empty()) put_runs(out, r.versions);
  return out;
}

StagedRollout decode_rollout(std::string_view payload) {
  ByteReader in(payload);
  const auto version = in.number<uint8_t>();
  if (version != kVersion && version != kSeveralVersions) {
    throw DataError("rollout payload: version ",
                    int{version},
                    ", this program reads ",
                    int{kVersion},
                    " and ",
                    int{kSeveralVersions});
  }
  StagedRollout out;
  RolloutRecord& r = out.rollout;
  const auto finish = in.number<uint8_t>();
  if (finish > static_cast<uint8_t>(FinishReason::kCancelled)) {
    throw DataError("rollout payload: unknown finish reason ", int{finish});
  }
  r.finish = static_cast<FinishReason>(finish);
  r.voice = in.number<uint16_t>();
  out.stage = in.number<int32_t>();
  r.id.ordinal = in.number<int64_t>();
  r.id.sample = in.number<int32_t>();
  r.prompt_length = in.number<uint32_t>();
  r.weight_version = in.number<int64_t>();
  uint32_t counts[6];
  for (uint32_t& count : counts) count = in.number<uint32_t>();
  const auto narrow = in.array<int32_t>(counts[0]);
  r.tokens.assign(narrow.begin(), narrow.end());
  r.behavior_logprobs = in.array<float>(counts[1]);
  r.model_logprobs = in.array<float>(counts[2]);
  r.sampled_logprobs = in.array<float>(counts[3]);
  r.worker = std::string(in.take(counts[4]).value_or(""));
  r.text = std::string(in.take(counts[5]).value_or(""));
  if (version == kSeveralVersions) r.versions = take_runs(in, counts[1]);
  if (in.failed()) throw DataError("rollout payload: cut short at ", payload.size(), " bytes");
  if (!in.rest().empty()) {
    throw DataError("rollout payload: ", in.rest().size(), " bytes too many");
  }
  return out;
}

std::string score_to_json(const Score& score) {
  nlohmann::ordered_json parts = nlohmann::ordered_json::array();
  for (const PartScore& part : score.parts) {
    nlohmann::ordered_json one;
    one["name"] = part.name;
    one["weight"] = part.weight;
    one["score"] = nullptr;
    if (part.score) one["score"] = *part.score;
    if (part.verdict) one["verdict"] = *part.verdict;
    if (!part.reason.empty()) one["reason"] = part.reason;
    if (!part.error.empty()) one["error"] = part.error;
    if (part.not_applicable) one["not_applicable"] = true;
    one["latency_ms"] = part.latency_ms;
    for (const AttributeScore& attribute : part.attributes)
      one["attributes"].push_back({attribute.name, attribute.value, attribute.weight});
    parts.push_back(std::move(one));
  }
  nlohmann::ordered_json whole = std::move(parts);
  if (score.satisfied || !score.task.empty() || !score.preferences.empty()) {
    whole = nlohmann::ordered_json{{"parts", std::move(whole)}};
    if (score.satisfied) whole["satisfied"] = *score.satisfied;
    if (!score.task.empty()) whole["task"] = score.task;
    for (const Preference& one : score.preferences)
      whole["preferences"].push_back({one.rival, one.probability});
  }
  // A judge's reason may quote broken text; it is kept as far as it is text.
  return whole.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void score_from_json(std::string_view json, Score& score) {
  score.parts.clear();
  score.preferences.clear();
  try {
    const auto whole = nlohmann::json::parse(json);
    const bool more = whole.is_object();
    if (more) {
      if (whole.contains("satisfied")) score.satisfied = whole.at("satisfied").get<bool>();
      score.task = whole.value("task", "");
      if (whole.contains("preferences")) {
        for (const auto& one : whole.at("preferences"))
          score.preferences.push_back({one.at(0).get<int32_t>(), one.at(1).get<double>()});
      }
    }
    for (const auto& one : more ? whole.at("parts") : whole) {
      PartScore part;
      part.name = one.at("name").get<std::string>();
      part.weight = one.at("weight").is_null() ? 0.0 : one.at("weight").get<double>();
      if (!one.at("score").is_null()) part.score = one.at("score").get<double>();
      if (one.contains("verdict")) part.verdict = one.at("verdict").get<bool>();
      part.reason = one.value("reason", "");
      part.error = one.value("error", "");
      part.not_applicable = one.value("not_applicable", false);
      part.latency_ms = one.at("latency_ms").is_null() ? 0.0 : one.at("latency_ms").get<double>();
      if (one.contains("attributes")) {
        for (const auto& attribute : one.at("attributes")) {
          part.attributes.push_back({attribute.at(0).get<std::string>(),
                                     attribute.at(1).get<double>(),
                                     attribute.at(2).get<double>()});
        }
      }
      score.parts.push_back(std::move(part));
    }
  } catch (const nlohmann::json::exception& failure) {
    throw DataError("the parts of a score are not what was written: ", failure.what());
  }
}

}  // namespace praetor
