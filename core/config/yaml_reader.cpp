#include "core/config/yaml_reader.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/config/yaml_node.h"

namespace praetor {

namespace {

using Node = YamlReader::Node;

std::string number_text(double value) {
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  char buffer[32];
  const bool whole =
      std::abs(value) < 1e15 && std::nearbyint(value) == value;  // 1000000, not 1e+06
  const auto end =
      whole ? std::to_chars(buffer, buffer + sizeof(buffer), static_cast<int64_t>(value)).ptr
            : std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  return {buffer, end};
}

std::shared_ptr<Node> scalar(const std::string& text, bool quoted) {
  auto node = std::make_shared<Node>();
  node->kind = YamlKind::kScalar;
  node->text = text;
  node->quoted = quoted;
  return node;
}
std::shared_ptr<Node> to_node(double value) {
  return scalar(number_text(value), false);
}
std::shared_ptr<Node> to_node(int64_t value) {
  return scalar(std::to_string(value), false);
}
std::shared_ptr<Node> to_node(bool value) {
  return scalar(value ? "true" : "false", false);
}
std::shared_ptr<Node> to_node(const std::string& value) {
  return scalar(value, true);
}

template <typename T>
std::shared_ptr<Node> to_node(const std::vector<T>& values) {
  auto node = std::make_shared<Node>();
  node->kind = YamlKind::kList;
  for (const T& value : values) node->items.push_back(to_node(value));
  return node;
}

/// "1.5 is a fraction, but a whole number is wanted".
std::string mismatch(const Node& found, const std::string& wanted) {
  std::string what;
  switch (found.kind) {
    case YamlKind::kNull:
      what = "has no value";
      break;
    case YamlKind::kList:
      what = "is a list";
      break;
    case YamlKind::kMapping:
      what = "is a mapping";
      break;
    case YamlKind::kScalar: {
      const YamlScalar type = classify(found);
      const std::string shown = printable(found.text);
      what = type == YamlScalar::kText      ? str("\"", shown, "\" is text")
             : type == YamlScalar::kBool    ? shown + " is a boolean"
             : type == YamlScalar::kInteger ? shown + " is a number"
                                            : shown + " is a fraction";
      break;
    }
  }
  return what + ", but " + wanted + " is wanted";
}

std::string out_of_range(const std::string& shown, const Range& range) {
  const bool both = std::isfinite(range.low) && std::isfinite(range.high);
  return str(shown, both ? " is outside " : " is not ", range.text());
}

/// Conversions: a value, or the message that says why there is none.
struct Failure {
  std::string message;
};

double to_double(const Node& node, const Range& range, bool infinite_allowed) {
  const std::string wanted = "a number";
  if (node.kind != YamlKind::kScalar) throw Failure{mismatch(node, wanted)};
  const YamlScalar type = classify(node);
  if (type != YamlScalar::kInteger && type != YamlScalar::kNumber)
    throw Failure{mismatch(node, wanted)};
  std::string text = node.text;
  if (text[0] == '+') text.erase(0, 1);
  double value = 0;
  const size_t digits = text.find_first_not_of('-');
  if (text.compare(digits, 2, ".i") == 0 || text.compare(digits, 2, ".I") == 0) {
    value = digits == 0 ? INFINITY : -INFINITY;
  } else if (text.compare(digits, 2, ".n") == 0 || text.compare(digits, 2, ".N") == 0) {
    throw Failure{"not a number (.nan), but a number is wanted"};
  } else {
    const auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failure != std::errc() || stop != text.data() + text.size()) {
      throw Failure{printable(node.text) + " is beyond the range of a double"};
    }
  }
  if (std::isinf(value) && !infinite_allowed)
    throw Failure{"infinite, but a finite number is wanted"};
  if (!range.holds(value)) throw Failure{out_of_range(printable(node.text), range)};
  return value;
}

int64_t to_integer(const Node& node, const Range& range) {
  if (node.kind != YamlKind::kScalar || classify(node) != YamlScalar::kInteger) {
    throw Failure{mismatch(node, "a whole number")};
  }
  std::string_view text = node.text;
  if (text[0] == '+') text.remove_prefix(1);
  int64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) {
    throw Failure{printable(node.text) + " does not fit into 64 bits"};
  }
  if (!range.holds(static_cast<double>(value)))
    throw Failure{out_of_range(printable(node.text), range)};
  return value;
}

bool to_bool(const Node& node) {
  if (node.kind != YamlKind::kScalar || classify(node) != YamlScalar::kBool) {
    throw Failure{mismatch(node, "true or false")};
  }
  return node.text[0] == 't' || node.text[0] == 'T';
}

std::string to_text(const Node& node, const std::vector<std::string>& one_of = {}) {
  // Numbers are taken as they are written (a name may be 2024); a bare boolean is more likely a
  // slip.
  if (node.kind != YamlKind::kScalar || classify(node) == YamlScalar::kBool) {
    throw Failure{mismatch(node, one_of.empty() ? "text" : "one of " + join(one_of, ", "))};
  }
  if (one_of.empty()) return node.text;
  for (const std::string& word : one_of) {
    if (word == node.text) return node.text;
  }
  const auto near = nearest(node.text, one_of);
  throw Failure{near ? str("unknown value \"",
                           printable(node.text),
                           "\", did you mean \"",
                           *near,
                           "\"? (one of ",
                           join(one_of, ", "),
                           ")")
                     : str("unknown value \"",
                           printable(node.text),
                           "\"; one of ",
                           join(one_of, ", "),
                           " is wanted")};
}

/// A number as JSON writes it: YAML allows "+1", ".5" and "1.".
std::string number_as_json(const Node& node) {
  if (classify(node) == YamlScalar::kInteger) return std::to_string(to_integer(node, {}));
  return nlohmann::json(to_double(node, {}, false)).dump();
}

std::string text_as_json(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string to_json(Node& node);

std::string scalar_as_json(const Node& node) {
  switch (classify(node)) {
    case YamlScalar::kNull:
      return "null";
    case YamlScalar::kBool:
      return to_bool(node) ? "true" : "false";
    case YamlScalar::kInteger:
    case YamlScalar::kNumber:
      return number_as_json(node);
    case YamlScalar::kText:
      break;
  }
  return text_as_json(node.text);
}

std::string mapping_as_json(Node& node) {
  std::string out;
  for (Node::Entry& entry : node.entries) {
    node.ask(entry.key);
    out += str(out.empty() ? "" : ",", text_as_json(entry.key), ":", to_json(*entry.value));
  }
  return "{" + out + "}";
}

std::string to_json(Node& node) {
  switch (node.kind) {
    case YamlKind::kNull:
      return "null";
    case YamlKind::kScalar:
      return scalar_as_json(node);
    case YamlKind::kMapping:
      return mapping_as_json(node);
    case YamlKind::kList:
      break;
  }
  std::string out;
  for (const auto& item : node.items) out += (out.empty() ? "" : ",") + to_json(*item);
  return "[" + out + "]";
}

/// Asks `mapping` for `key`, converts what is given, or records the default.
template <typename T, typename Convert>
T read(YamlDocument::State& state,
       Node& mapping,
       const std::string& key,
       const T& fallback,
       const Convert& convert) {
  mapping.ask(key);
  Node::Entry* entry = mapping.find(key);
  if (!entry) {
    auto node = to_node(fallback);
    node->place = mapping.place;
    mapping.entries.push_back(
        {.key = key, .place = mapping.place, .value = std::move(node), .given = false});
    return fallback;
  }
  try {
    return convert(*entry->value);
  } catch (const Failure& failure) {
    state.add_error(entry->value->place, mapping.path_of(key), failure.message);
    return fallback;
  }
}

/// As read, for a key without a default.
template <typename T, typename Convert>
std::optional<T> read_optional(YamlDocument::State& state,
                               Node& mapping,
                               const std::string& key,
                               const Convert& convert) {
  mapping.ask(key);
  Node::Entry* entry = mapping.find(key);
  if (!entry || entry->value->kind == YamlKind::kNull) return std::nullopt;
  return read<T>(state, mapping, key, T{}, convert);
}

template <typename T, typename Convert>
std::vector<T> read_list(YamlDocument::State& state,
                         Node& mapping,
                         const std::string& key,
                         const std::vector<T>& fallback,
                         const std::string& wanted,
                         const Convert& convert) {
  return read(state, mapping, key, fallback, [&](const Node& node) {
    if (node.kind != YamlKind::kList) throw Failure{mismatch(node, "a list of " + wanted)};
    std::vector<T> out;
    for (size_t i = 0; i < node.items.size(); ++i) {
      try {
        out.push_back(convert(*node.items[i]));
      } catch (const Failure& failure) {
        state.add_error(
            node.items[i]->place, str(mapping.path_of(key), "[", i, "]"), failure.message);
      }
    }
    return out;
  });
}

}  // namespace

bool Range::holds(double value) const {
  return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
}

std::string Range::text() const {
  const bool has_low = std::isfinite(low), has_high = std::isfinite(high);
  if (has_low && has_high) {
    return str(
        low_open ? "(" : "[", number_text(low), ", ", number_text(high), high_open ? ")" : "]");
  }
  if (has_low) return str(low_open ? "> " : ">= ", number_text(low));
  if (has_high) return str(high_open ? "< " : "<= ", number_text(high));
  return "any number";
}

YamlReader::YamlReader(std::shared_ptr<YamlDocument> document, std::shared_ptr<Node> node)
    : document_(std::move(document)), node_(std::move(node)) {}

double YamlReader::get(const std::string& key, double fallback, Range range) {
  return read(*document_->state_, *node_, key, fallback, [&](const Node& node) {
    return to_double(node, range, std::isinf(fallback));
  });
}

int64_t YamlReader::get(const std::string& key, int64_t fallback, Range range) {
  return read(*document_->state_, *node_, key, fallback, [&](const Node& node) {
    return to_integer(node, range);
  });
}

int64_t YamlReader::get(const std::string& key, int fallback, Range range) {
  return get(key, static_cast<int64_t>(fallback), range);
}

bool YamlReader::get(const std::string& key, bool fallback) {
  return read(*document_->state_, *node_, key, fallback, to_bool);
}

std::string YamlReader::get(const std::string& key,
                            const std::string& fallback,
                            const std::vector<std::string>& one_of) {
  return read(*document_->state_, *node_, key, fallback, [&](const Node& node) {
    return to_text(node, one_of);
  });
}

std::string YamlReader::get(const std::string& key,
                            const char* fallback,
                            const std::vector<std::string>& one_of) {
  return get(key, std::string(fallback), one_of);
}

std::vector<std::string> YamlReader::get(const std::string& key,
                                         const std::vector<std::string>& fallback) {
  return read_list(*document_->state_, *node_, key, fallback, "texts", [](const Node& node) {
    return to_text(node);
  });
}

std::vector<int64_t> YamlReader::get(const std::string& key, const std::vector<int64_t>& fallback) {
  return read_list(
      *document_->state_, *node_, key, fallback, "whole numbers", [](const Node& node) {
        return to_integer(node, {});
      });
}

std::vector<double> YamlReader::get(const std::string& key, const std::vector<double>& fallback) {
  return read_list(*document_->state_, *node_, key, fallback, "numbers", [](const Node& node) {
    return to_double(node, {}, false);
  });
}

std::optional<double> YamlReader::get_optional_number(const std::string& key, Range range) {
  return read_optional<double>(*document_->state_, *node_, key, [&](const Node& node) {
    return to_double(node, range, false);
  });
}

std::optional<int64_t> YamlReader::get_optional_integer(const std::string& key, Range range) {
  return read_optional<int64_t>(
      *document_->state_, *node_, key, [&](const Node& node) { return to_integer(node, range); });
}

std::optional<std::string> YamlReader::get_optional_string(const std::string& key) {
  return read_optional<std::string>(
      *document_->state_, *node_, key, [](const Node& node) { return to_text(node); });
}

std::optional<std::string> YamlReader::get_optional_json(const std::string& key) {
  node_->ask(key);
  Node::Entry* entry = node_->find(key);
  if (!entry || !entry->given) return std::nullopt;
  try {
    return to_json(*entry->value);
  } catch (const Failure& failure) {
    error_at(key, failure.message);
    return std::nullopt;
  }
}

std::string YamlReader::require_string(const std::string& key,
                                       const std::vector<std::string>& one_of) {
  if (!has(key)) {
    missing(key, one_of.empty() ? "text" : "one of " + join(one_of, ", "));
    return "";
  }
  return get(key, std::string(), one_of);
}

double YamlReader::require_number(const std::string& key, Range range) {
  if (!has(key)) {
    missing(key, "a number");
    return 0.0;
  }
  return get(key, 0.0, range);
}

int64_t YamlReader::require_integer(const std::string& key, Range range) {
  if (!has(key)) {
    missing(key, "a whole number");
    return 0;
  }
  return get(key, int64_t{0}, range);
}

void YamlReader::missing(const std::string& key, const std::string& wanted) {
  node_->ask(key);
  document_->state_->add_error(
      node_->place, node_->path, str("missing key \"", key, "\"; ", wanted, " is wanted"));
}

std::filesystem::path YamlReader::get_path(const std::string& key) {
  const auto text = get_optional_string(key);
  if (!text) return {};
  if (text->empty()) {
    error_at(key, "empty, but a path is wanted");
    return {};
  }
  const auto folder = std::filesystem::path(document_->state_->name).parent_path();
  const auto path = std::filesystem::absolute(folder / *text).lexically_normal();
  resolve(key, path.string());
  return path;
}

std::filesystem::path YamlReader::require_path(const std::string& key) {
  if (!has(key)) {
    missing(key, "a path");
    return {};
  }
  return get_path(key);
}

void YamlReader::resolve(const std::string& key, const std::string& value) {
  node_->ask(key);
  if (Node::Entry* entry = node_->find(key)) {
    const YamlPlace place = entry->value->place;
    entry->value = to_node(value);
    entry->value->place = place;
    return;
  }
  node_->entries.push_back(
      {.key = key, .place = node_->place, .value = to_node(value), .given = false});
  node_->entries.back().value->place = node_->place;
}

bool YamlReader::has(const std::string& key) const {
  const Node::Entry* entry = node_->find(key);
  return entry && entry->given;
}

YamlReader YamlReader::child(const std::string& key) {
  node_->ask(key);
  Node::Entry* entry = node_->find(key);
  if (!entry) {
    node_->entries.push_back(
        {.key = key, .place = node_->place, .value = std::make_shared<Node>(), .given = false});
    entry = &node_->entries.back();
    entry->value->place = node_->place;
  }
  Node& value = *entry->value;
  if (value.kind == YamlKind::kNull)
    value.kind = YamlKind::kMapping;  // "ppo:" with nothing below it
  value.path = node_->path_of(key);
  if (value.kind != YamlKind::kMapping) {
    document_->state_->add_error(value.place, value.path, mismatch(value, "a mapping"));
    auto empty = std::make_shared<Node>();
    empty->kind = YamlKind::kMapping;
    empty->place = value.place;
    empty->path = value.path;
    return YamlReader(document_, std::move(empty));
  }
  return YamlReader(document_, entry->value);
}

std::optional<YamlReader> YamlReader::optional_child(const std::string& key) {
  node_->ask(key);
  if (!has(key)) return std::nullopt;
  return child(key);
}

std::vector<YamlReader> YamlReader::list(const std::string& key) {
  node_->ask(key);
  Node::Entry* entry = node_->find(key);
  if (!entry || entry->value->kind == YamlKind::kNull) return {};
  Node& value = *entry->value;
  if (value.kind != YamlKind::kList) {
    document_->state_->add_error(value.place, node_->path_of(key), mismatch(value, "a list"));
    return {};
  }
  std::vector<YamlReader> out;
  for (size_t i = 0; i < value.items.size(); ++i) {
    Node& item = *value.items[i];
    item.path = str(node_->path_of(key), "[", i, "]");
    if (item.kind == YamlKind::kMapping) {
      out.emplace_back(YamlReader(document_, value.items[i]));
    } else {
      document_->state_->add_error(item.place, item.path, mismatch(item, "a mapping"));
    }
  }
  return out;
}

std::vector<std::string> YamlReader::keys() const {
  std::vector<std::string> out;
  for (const Node::Entry& entry : node_->entries) {
    if (entry.given) out.push_back(entry.key);
  }
  return out;
}

void YamlReader::error_at(const std::string& key, const std::string& message) {
  const Node::Entry* entry = node_->find(key);
  document_->state_->add_error(entry ? entry->value->place : node_->place,
                               key.empty() ? node_->path : node_->path_of(key),
                               message);
}

void YamlReader::reject_unknown_keys() {
  for (const Node::Entry& entry : node_->entries) {
    bool known = !entry.given;
    for (const std::string& key : node_->asked) known = known || key == entry.key;
    if (known) continue;
    const auto near = nearest(entry.key, node_->asked);
    const std::string head = str("unknown key \"", printable(entry.key), "\"");
    document_->state_->add_error(entry.place,
                                 node_->path,
                                 near ? str(head, ", did you mean \"", *near, "\"?")
                                      : str(head, "; known here: ", join(node_->asked, ", ")));
  }
}

std::string YamlReader::path() const {
  return node_->path;
}

std::string YamlReader::where(const std::string& key) const {
  const Node::Entry* entry = node_->find(key);
  return document_->state_->where(entry ? entry->value->place : node_->place);
}

std::string YamlReader::label(const std::string& key) const {
  const std::string path = key.empty() ? node_->path : node_->path_of(key);
  return path.empty() ? where(key) : where(key) + ": " + path;
}

}  // namespace praetor
