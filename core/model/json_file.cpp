#include "core/model/json_file.h"

#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"

namespace praetor {

nlohmann::json parse_json(std::string_view text, const std::filesystem::path& file) {
  using nlohmann::json;
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > 64) throw DataError(file.string(), ": nested deeper than 64 levels");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      throw DataError(
          file.string(), ": key \"", printable(parsed.get<std::string>()), "\" appears twice");
    }
    return true;
  };
  try {
    return json::parse(text, watch);
  } catch (const json::exception& failure) {
    throw DataError(file.string(), ": not valid JSON: ", printable(failure.what(), 200));
  }
}

nlohmann::json read_json_file(const std::filesystem::path& file, size_t max_bytes) {
  return parse_json(read_file(file, max_bytes), file);
}

}  // namespace praetor
