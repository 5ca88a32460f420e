#include "reward/reward_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/part_config.h"

namespace praetor {

namespace {

void read_on_error(YamlReader& in, RewardConfig& config) {
  const std::string on_error = in.get("on_error", "drop", {"drop", "fail", "value"});
  if (on_error == "fail") config.on_error = OnError::kFail;
  if (on_error == "value") {
    config.on_error = OnError::kValue;
    config.error_value = in.require_number("error_value", closed(-1e9, 1e9));
  } else if (in.has("error_value")) {
    in.get_optional_number("error_value");
    in.error_at("error_value",
                str("has no effect with on_error: ", on_error, "; it needs on_error: value"));
  }
}

void read_tasks(YamlReader& in, RewardConfig& config, std::set<std::string>& names) {
  auto tasks = in.optional_child("tasks");
  if (!tasks) return;
  config.task_field = in.get("task_field", config.task_field);
  if (config.task_field.empty()) in.error_at("task_field", "empty, but a field's name is wanted");
  if (tasks->keys().empty()) in.error_at("tasks", "at least one task is needed");
  for (const std::string& name : tasks->keys()) {
    if (!is_plain_name(name)) {
      tasks->error_at(name,
                      "the name of a task may hold letters, digits, \"_\", \"-\" and \".\" only");
    }
    YamlReader task = tasks->child(name);
    config.tasks.push_back({.name = name, .parts = parts_from_yaml(task, names)});
    task.reject_unknown_keys();
  }
}

/// What a sample is scored by, `shared` and `own` together, must make one score and one list of
/// preferences.
void check_mixture(YamlReader in,
                   const std::vector<PartConfig>& shared,
                   const std::vector<PartConfig>& own) {
  const auto rewards = [](const PartConfig& part) { return part.use == PartUse::kReward; };
  if (shared.empty() && own.empty()) {
    in.error_at("parts", "at least one part is needed");
  } else if (std::ranges::none_of(shared, rewards) && std::ranges::none_of(own, rewards)) {
    in.error_at("parts", "at least one part with use: reward is needed");
  }
  const auto compares = [](const PartConfig& part) { return part.preference.has_value(); };
  if (std::ranges::count_if(shared, compares) + std::ranges::count_if(own, compares) > 1)
    in.error_at("parts", "more than one preference part; a sample's preferences are one model's");
}

void list_part(const PartConfig& part,
               std::optional<size_t> task,
               std::optional<PartUse> above,
               std::vector<ListedPart>& out) {
  const size_t at = out.size();
  const PartUse use = above.value_or(part.use);
  out.push_back({.config = &part, .task = task, .top = !above, .use = use, .children = {}});
  for (const PartConfig& child : part.children) {
    out[at].children.push_back(out.size());
    list_part(child, task, use, out);
  }
}

}  // namespace

RewardConfig RewardConfig::from_yaml(YamlReader in) {
  RewardConfig config;
  config.timeout = std::chrono::milliseconds(
      in.get("timeout_ms", static_cast<int64_t>(config.timeout.count()), closed(1, 600'000)));
  config.retries = in.get("retries", config.retries, closed(0, 10));
  read_on_error(in, config);
  config.cache_entries = in.get("cache_entries", config.cache_entries, closed(0, 1e8));
  std::set<std::string> names;
  config.parts = parts_from_yaml(in, names);
  read_tasks(in, config, names);
  if (!in.has("tasks")) check_mixture(in, config.parts, {});
  for (const TaskConfig& task : config.tasks)
    check_mixture(in.child("tasks").child(task.name), config.parts, task.parts);
  in.reject_unknown_keys();
  return config;
}

std::optional<size_t> RewardConfig::task_of(const std::string& metadata) const {
  if (tasks.empty()) return std::nullopt;
  std::vector<std::string> known;
  for (const TaskConfig& task : tasks) known.push_back(task.name);
  const std::string wanted = str("; one of ", join(known, ", "), " is wanted");
  const nlohmann::json row = nlohmann::json::parse(metadata, nullptr, false);
  const auto field = row.is_object() ? row.find(task_field) : row.end();
  if (!row.is_object() || field == row.end())
    throw DataError("the row has no field \"", printable(task_field), "\"", wanted);
  if (!field->is_string()) {
    throw DataError("field \"", printable(task_field), "\" is a ", field->type_name(), wanted);
  }
  const auto name = field->get<std::string>();
  const auto found = std::ranges::find(known, name);
  if (found == known.end()) throw DataError("unknown task \"", printable(name), "\"", wanted);
  return static_cast<size_t>(found - known.begin());
}

std::vector<ListedPart> list_parts(const RewardConfig& config) {
  std::vector<ListedPart> out;
  for (const PartConfig& part : config.parts) list_part(part, std::nullopt, std::nullopt, out);
  for (size_t task = 0; task < config.tasks.size(); ++task) {
    for (const PartConfig& part : config.tasks[task].parts)
      list_part(part, task, std::nullopt, out);
  }
  return out;
}

}  // namespace praetor
