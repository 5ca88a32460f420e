#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"

namespace praetor {

/// The options of a processor. All complaints are InvalidArgument and begin with the key.
class ProcessorOptions {
 public:
  /// @throws InvalidArgument when `json` is no JSON object
  explicit ProcessorOptions(const std::string& json);

  double number(const std::string& key, Range range);
  int64_t integer(const std::string& key, Range range);
  std::string text(const std::string& key);
  std::vector<int64_t> token_ids(const std::string& key);  ///< a list, not empty
  /// {"ID": number, ...}
  std::vector<std::pair<int64_t, double>> numbers_by_token(const std::string& key, Range range);
  const nlohmann::ordered_json& value(const std::string& key);  ///< of any shape
  void reject_unknown_keys() const;

 private:
  nlohmann::ordered_json json_;
  std::vector<std::string> known_;
};

/// `value`, a list of whole numbers >= 0, not empty. @throws InvalidArgument beginning with `key`
std::vector<int64_t> token_ids_of(const nlohmann::ordered_json& value, const std::string& key);

}  // namespace praetor
