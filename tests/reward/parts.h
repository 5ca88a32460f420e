#pragma once

#include <memory>
#include <string>

#include "core/config/yaml_reader.h"
#include "reward/judges/registry.h"

namespace praetor::testing {

/// A judge from its keys as they stand in a job file: make("length", "{min: 3}").
inline std::shared_ptr<const Judge> make(const std::string& kind, const std::string& keys) {
  auto document = YamlDocument::parse(keys, "reward.yaml");
  YamlReader root = document->root();
  auto judge = make_judge(kind, root);
  root.reject_unknown_keys();
  document->throw_if_errors();
  return judge;
}

inline Sample response(const std::string& text, const std::string& metadata = "{}") {
  Sample sample;
  sample.response = text;
  sample.metadata = metadata;
  return sample;
}

inline Verdict judged(const Judge& judge, const Sample& sample) {
  return judge.judge(sample, Deadline::never());
}

}  // namespace praetor::testing
