#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// What a reward model or judge sees of a response: text, never the policy's tokens.
struct Sample {
  std::string prompt;  ///< as the policy saw it, special tokens left out
  std::string response;
  std::string metadata = "{}";  ///< JSON object: the row's other fields
  int64_t response_tokens = 0;
  bool finished = true;  ///< ended by itself, not by the length limit
};

/// Another response to the prompt of a sample, to compare it with.
struct Rival {
  int32_t sample = 0;  ///< its index
  std::string response;
};

/// One number of a model that gives several.
struct AttributeScore {
  std::string name;
  double value = 0.0;
  double weight = 0.0;  ///< in the part's score, the sum of weight x value
  bool operator==(const AttributeScore&) const = default;
};

/// Result of one part of a mixture.
struct PartScore {
  std::string name;
  double weight = 1.0;          ///< in the sum it enters; 0: in none
  std::optional<double> score;  ///< absent exactly when `error` is set
  std::optional<bool> verdict;  ///< judges: passed or not
  std::string reason;           ///< judges: why
  std::string error;            ///< "timeout after 2 s", "invalid UTF-8", ...
  double latency_ms = 0.0;
  bool not_applicable = false;                  ///< the sample lacks what the part needs; score 0
  bool cached = false;                          ///< the verdict on an equal sample before
  int32_t retries = 0;                          ///< attempts after the first
  std::vector<AttributeScore> attributes = {};  ///< of a part with a model of several numbers
};

/// How likely a sample is preferred to another one of its prompt.
struct Preference {
  int32_t rival = 0;       ///< sample index
  double probability = 0;  ///< [0, 1]
  bool operator==(const Preference&) const = default;
};

struct Score {
  std::optional<double>
      score;  ///< weighted sum of the parts; absent when a part failed and no fallback is set
  std::vector<PartScore> parts;
  std::optional<bool>
      satisfied;     ///< all constraints hold; absent when there are none, or one failed
  std::string task;  ///< whose parts scored it; empty without tasks
  std::vector<Preference> preferences;
};

}  // namespace praetor
