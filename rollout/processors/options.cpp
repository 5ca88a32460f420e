#include "rollout/processors/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {
namespace {

using Json = nlohmann::ordered_json;

template <typename... Args>
[[noreturn]] void refuse(const std::string& key, const Args&... what) {
  throw InvalidArgument(key, ": ", what...);
}

std::string shown(const Json& value) {
  return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

double number_of(const Json& value, const std::string& key, const Range& range) {
  if (!value.is_number()) refuse(key, shown(value), " is no number");
  const auto number = value.get<double>();
  if (!std::isfinite(number) || !range.holds(number))
    refuse(key, shown(value), " is outside ", range.text());
  return number;
}

}  // namespace

std::vector<int64_t> token_ids_of(const Json& value, const std::string& key) {
  if (!value.is_array() || value.empty()) refuse(key, "a list of token ids is wanted, not empty");
  std::vector<int64_t> out;
  for (const Json& id : value) {
    if (!id.is_number_integer() || id < 0) refuse(key, shown(id), " is no token id");
    out.push_back(id.get<int64_t>());
  }
  return out;
}

ProcessorOptions::ProcessorOptions(const std::string& json)
    : json_(Json::parse(json, nullptr, false)) {
  if (!json_.is_object())
    throw InvalidArgument("the options are no JSON object: ", printable(json));
}

const Json& ProcessorOptions::value(const std::string& key) {
  known_.push_back(key);
  const auto found = json_.find(key);
  if (found == json_.end()) refuse(key, "is missing");
  return *found;
}

double ProcessorOptions::number(const std::string& key, Range range) {
  return number_of(value(key), key, range);
}

int64_t ProcessorOptions::integer(const std::string& key, Range range) {
  const Json& given = value(key);
  if (!given.is_number_integer()) refuse(key, shown(given), " is no whole number");
  number_of(given, key, range);
  return given.get<int64_t>();
}

std::string ProcessorOptions::text(const std::string& key) {
  const Json& given = value(key);
  if (!given.is_string()) refuse(key, shown(given), " is no text");
  return given.get<std::string>();
}

std::vector<int64_t> ProcessorOptions::token_ids(const std::string& key) {
  return token_ids_of(value(key), key);
}

std::vector<std::pair<int64_t, double>> ProcessorOptions::numbers_by_token(const std::string& key,
                                                                           Range range) {
  const Json& given = value(key);
  if (!given.is_object() || given.empty())
    refuse(key, "a mapping of token ids is wanted, not empty");
  std::vector<std::pair<int64_t, double>> out;
  for (const auto& [name, number] : given.items()) {
    int64_t id = -1;
    const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (failure != std::errc() || end != name.data() + name.size() || id < 0)
      refuse(key, "\"", printable(name), "\" is no token id");
    out.emplace_back(id, number_of(number, str(key, "[", id, "]"), range));
  }
  return out;
}

void ProcessorOptions::reject_unknown_keys() const {
  for (const auto& [key, value] : json_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    refuse(printable(key), "is not known here; known: ", join(known_, ", "));
  }
}

}  // namespace praetor
