#include "core/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/base/text.h"
#include "core/data/line_reader.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxErrors = 20;
constexpr int64_t kMaxRows = int64_t{1} << 31;

/// What is wrong with one row; becomes "file:line: ...".
struct RowError {
  std::string what;
};

template <typename... Args>
[[noreturn]] void refuse(const Args&... what) {
  throw RowError{str(what...)};
}

/// The library's words without its own prefix: "column 12: ...".
std::string shorten(const std::string& what) {
  constexpr std::string_view kPosition = "parse error at line 1, ";
  if (const size_t at = what.find(kPosition); at != std::string::npos) {
    return printable(what.substr(at + kPosition.size()), 200);
  }
  const size_t bracket = what.find("] ");
  return printable(bracket == std::string::npos ? what : what.substr(bracket + 2), 200);
}

Json parse_object(const std::string& line) {
  if (!is_utf8(line)) {
    const std::string_view text = line;
    size_t good = 0;
    for (size_t length = 1; length <= 4; ++length) {
      if (!is_utf8(text.substr(good, length))) continue;
      good += length;
      length = 0;
    }
    refuse("not UTF-8 at byte ", good + 1, " of the line; convert the file to UTF-8");
  }
  std::set<std::string> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) refuse("nested deeper than ", kMaxDepth, " levels");
    if (event == Json::parse_event_t::key && depth == 1) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.insert(key).second) refuse("key \"", printable(key), "\" stands twice");
    }
    return true;
  };
  Json row;
  try {
    row = Json::parse(line, watch);
  } catch (const Json::exception& failure) {
    refuse("not JSON: ", shorten(failure.what()));
  }
  if (!row.is_object()) refuse("a JSON object {...} is wanted, not ", row.type_name());
  return row;
}

std::vector<std::string> keys_of(const Json& row) {
  std::vector<std::string> keys;
  for (const auto& item : row.items()) keys.push_back(item.key());
  return keys;
}

[[noreturn]] void refuse_missing(const Json& row,
                                 const std::string& key,
                                 const std::string& why = "") {
  const std::vector<std::string> keys = keys_of(row);
  std::string there;
  for (size_t i = 0; i < keys.size() && i < 12; ++i) {
    there += str(i == 0 ? "" : ", ", "\"", printable(keys[i], 40), "\"");
  }
  if (keys.size() > 12) there += ", ...";
  const auto near = nearest(key, keys);
  refuse("missing \"",
         key,
         "\"",
         why,
         near ? str("; did you mean it by \"", printable(*near, 40), "\"?")
              : str("; the row has ", keys.empty() ? "no keys" : there));
}

std::string string_at(const Json& row, const std::string& key) {
  const Json& value = row.at(key);
  if (!value.is_string()) refuse("\"", key, "\" must be a string, not ", value.type_name());
  return value.get<std::string>();
}

std::vector<Message> messages_at(const Json& row, const std::string& key) {
  const Json& list = row.at(key);
  if (!list.is_array()) refuse("\"", key, "\" must be a list of messages, not ", list.type_name());
  if (list.empty()) refuse("\"", key, "\" is an empty list; at least one message is wanted");
  static const std::vector<std::string> kRoles = {"system", "user", "assistant"};
  std::vector<Message> out;
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& one = list[i];
    const std::string where = str("\"", key, "\"[", i, "]");
    if (!one.is_object()) {
      refuse(where, " must be an object {\"role\", \"content\"}, not ", one.type_name());
    }
    for (const char* field : {"role", "content"}) {
      if (!one.contains(field)) {
        const auto near = nearest(field, keys_of(one));
        refuse(where,
               ": missing \"",
               field,
               "\"",
               near ? str("; did you mean it by \"", printable(*near, 40), "\"?") : std::string());
      }
      if (!one.at(field).is_string()) {
        refuse(where, ": \"", field, "\" must be a string, not ", one.at(field).type_name());
      }
    }
    Message message{one.at("role").get<std::string>(), one.at("content").get<std::string>()};
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      const auto near = nearest(message.role, kRoles);
      refuse(where,
             ": unknown role \"",
             printable(message.role, 40),
             "\"",
             near ? str("; did you mean \"", *near, "\"?")
                  : str("; the roles are ", join(kRoles, ", ")));
    }
    out.push_back(std::move(message));
  }
  return out;
}

/// Fills what a prompt or a fine-tuning row has, and says which keys it used.
std::set<std::string> read_prompt(const Json& json, RowForm form, Row& row) {
  const bool has_prompt = json.contains("prompt");
  const bool has_messages = json.contains("messages");
  if (has_prompt && has_messages) refuse("has both \"prompt\" and \"messages\"; one is wanted");
  if (has_messages) {
    row.messages = messages_at(json, "messages");
    const std::string& last = row.messages.back().role;
    if (form == RowForm::kPrompt && last != "user") {
      refuse("\"messages\" ends with the turn of the ", last, "; a prompt ends with the user's");
    }
    if (form == RowForm::kCompletion) {
      const bool any = std::any_of(row.messages.begin(), row.messages.end(), [](const Message& m) {
        return m.role == "assistant";
      });
      if (!any) refuse("\"messages\" has no turn of the assistant, so there is nothing to learn");
    }
    return {"messages"};
  }
  if (!has_prompt) refuse_missing(json, "prompt");
  row.prompt = string_at(json, "prompt");
  if (form == RowForm::kPrompt) {
    if (row.prompt.empty()) refuse("\"prompt\" is empty");
    return {"prompt"};
  }
  if (!json.contains("completion")) refuse_missing(json, "completion");
  row.completion = string_at(json, "completion");
  if (row.completion.empty()) refuse("\"completion\" is empty");
  return {"prompt", "completion"};
}

bool same(const Message& a, const Message& b) {
  return a.role == b.role && a.content == b.content;
}

/// A row of {"text", "label"} is half a pair until the whole file is read.
enum class Side { kBoth, kGood, kBad };

/// {"text", "label"}: a response without a prompt that is good (1, true) or bad (0, false).
Side read_labelled(const Json& json, Row& row) {
  const Json& label = json.at("label");
  const bool good = label == true || label == 1;
  if (!good && label != false && label != 0) {
    refuse("\"label\" must be 0, 1, true or false, not ", printable(label.dump(), 40));
  }
  std::string text = string_at(json, "text");
  if (text.empty()) refuse("\"text\" is empty");
  (good ? row.chosen : row.rejected) = std::move(text);
  return good ? Side::kGood : Side::kBad;
}

/// The i-th good text against the i-th bad one; what is left over of either kind goes.
std::vector<Row> pair_labelled(std::vector<Row> rows, const std::vector<Side>& sides) {
  std::vector<Row> out, bad;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (sides[i] == Side::kBad) bad.push_back(std::move(rows[i]));
  }
  size_t next = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (sides[i] == Side::kBad || (sides[i] == Side::kGood && next == bad.size())) continue;
    if (sides[i] == Side::kGood) rows[i].rejected = std::move(bad[next++].rejected);
    out.push_back(std::move(rows[i]));
  }
  return out;
}

std::set<std::string> read_preference(const Json& json, Row& row) {
  std::set<std::string> used = {"chosen", "rejected"};
  for (const char* key : {"chosen", "rejected"}) {
    if (!json.contains(key)) refuse_missing(json, key);
  }
  const bool list = json.at("chosen").is_array();
  if (list != json.at("rejected").is_array()) {
    refuse("\"chosen\" and \"rejected\" must both be strings or both be lists of messages");
  }
  if (json.contains("prompt")) {
    row.prompt = string_at(json, "prompt");
    if (row.prompt.empty()) refuse("\"prompt\" is empty");
    used.insert("prompt");
  }
  if (list) {
    std::vector<Message> chosen = messages_at(json, "chosen");
    std::vector<Message> rejected = messages_at(json, "rejected");
    for (const auto* side : {&chosen, &rejected}) {
      if (side->back().role != "assistant") {
        refuse("\"",
               side == &chosen ? "chosen" : "rejected",
               "\" must end with the turn of the assistant, not of the ",
               side->back().role);
      }
    }
    row.chosen = std::move(chosen.back().content);
    row.rejected = std::move(rejected.back().content);
    chosen.pop_back();
    rejected.pop_back();
    if (chosen.size() != rejected.size() ||
        !std::equal(chosen.begin(), chosen.end(), rejected.begin(), same)) {
      refuse("\"chosen\" and \"rejected\" must be the same up to their last message");
    }
    if (!chosen.empty() && used.contains("prompt")) {
      refuse(
          "has \"prompt\" and also a conversation before the last message of \"chosen\"; one is "
          "wanted");
    }
    if (chosen.empty() && !used.contains("prompt")) {
      refuse_missing(json, "prompt", " (\"chosen\" has one message only)");
    }
    row.messages = std::move(chosen);
  } else {
    row.chosen = string_at(json, "chosen");
    row.rejected = string_at(json, "rejected");
    if (!used.contains("prompt")) refuse_missing(json, "prompt");
  }
  if (json.contains("margin")) {
    const Json& margin = json.at("margin");
    if (!margin.is_number()) refuse("\"margin\" must be a number, not ", margin.type_name());
    row.margin = margin.get<double>();
    if (!std::isfinite(row.margin)) refuse("\"margin\" must be finite");
    used.insert("margin");
  }
  return used;
}

Row read_row(const std::string& line, RowForm form, Side& side) {
  const Json json = parse_object(line);
  Row row;
  std::set<std::string> used;
  if (form != RowForm::kPreference) {
    used = read_prompt(json, form, row);
  } else if (json.contains("label") && json.contains("text") && !json.contains("chosen")) {
    side = read_labelled(json, row);
    used = {"text", "label"};
  } else {
    used = read_preference(json, row);
  }
  Json rest = Json::object();
  for (const auto& item : json.items()) {
    if (!used.contains(item.key())) rest[item.key()] = item.value();
  }
  row.metadata = rest.dump();
  return row;
}

}  // namespace

std::vector<Row> read_rows(const fs::path& file, RowForm form) {
  LineReader reader(file);
  std::vector<Row> rows;
  std::vector<Side> sides;
  std::vector<std::string> errors;
  const auto give_up = [&] { throw DataError(join(errors, "\n")); };
  std::string line;
  try {
    while (reader.next(line)) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      try {
        Side side = Side::kBoth;
        rows.push_back(read_row(line, form, side));
        sides.push_back(side);
        rows.back().line = reader.line();
      } catch (const RowError& error) {
        errors.push_back(str(file.string(), ":", reader.line(), ": ", error.what));
        if (errors.size() == kMaxErrors) {
          errors.push_back(str(file.string(), ": stopped after ", kMaxErrors, " errors"));
          give_up();
        }
      }
      if (static_cast<int64_t>(rows.size()) > kMaxRows) {
        throw DataError(file.string(), ": more than ", kMaxRows, " rows");
      }
    }
  } catch (const DataError& failure) {
    if (errors.size() > kMaxErrors) throw;
    // The file itself is broken further on: what was found before is told with it.
    errors.push_back(failure.what());
    give_up();
  }
  if (!errors.empty()) give_up();
  if (rows.empty()) throw DataError(file.string(), ": no rows; one JSON object a line is wanted");
  if (form == RowForm::kPreference) {
    rows = pair_labelled(std::move(rows), sides);
    if (rows.empty())
      throw DataError(file.string(),
                      ": labels of one kind only; pairs need texts with label 1 and with 0");
  }
  return rows;
}

std::vector<int64_t> epoch_order(
    int64_t rows, int64_t epoch, uint64_t seed, uint32_t stage, bool shuffle) {
  PRAETOR_CHECK(rows >= 0 && epoch >= 0, rows, " rows, epoch ", epoch);
  if (shuffle) {
    SampleKey key;
    key.job_seed = seed;
    key.stage = stage;
    key.prompt_ordinal = static_cast<uint64_t>(epoch);
    key.purpose = Purpose::kShuffle;
    return RandomStream(key).permutation(rows);
  }
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

}  // namespace praetor
