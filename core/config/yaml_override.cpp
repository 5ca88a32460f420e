#include <charconv>
#include <variant>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/config/yaml_node.h"

namespace praetor {

namespace {

using Node = YamlReader::Node;
using Step = std::variant<std::string, size_t>;  // a key, or an index into a list

/// "a.b[2].c" in steps; empty when it is not of that form.
std::vector<Step> split_path(std::string_view path) {
  std::vector<Step> steps;
  size_t at = 0;
  while (at < path.size()) {
    if (path[at] == '[') {
      const size_t close = path.find(']', at);
      size_t index = 0;
      if (steps.empty() || close == std::string_view::npos) return {};
      const char* end = path.data() + close;
      const auto [stop, failure] = std::from_chars(path.data() + at + 1, end, index);
      if (failure != std::errc() || stop != end) return {};
      steps.emplace_back(index);
      at = close + 1;
      if (at < path.size() && path[at] != '.' && path[at] != '[') return {};
      continue;
    }
    if (path[at] == '.') {
      if (steps.empty()) return {};
      ++at;
    }
    const size_t end = std::min(path.find_first_of(".[", at), path.size());
    if (end == at) return {};
    steps.emplace_back(std::string(path.substr(at, end - at)));
    at = end;
  }
  return steps;
}

/// Items of a list answer to their `name`, or to their `kind` when they have none, as stages do.
std::string name_of(const Node& item) {
  if (item.kind != YamlKind::kMapping) return "";
  for (const char* key : {"name", "kind"}) {
    if (const auto* entry = item.find(key)) return entry->value->text;
  }
  return "";
}

class Override {
 public:
  Override(const std::string& text, int index) : text_(text), place_{1, 1, index} {}

  void apply(Node& root) {
    const size_t equals = text_.find('=');
    if (equals == std::string::npos) fail("no \"=\"; an override is written key=value");
    const std::string path = text_.substr(0, equals);
    const std::vector<Step> steps = split_path(path);
    if (steps.empty() || path.back() == '.') {
      fail(str("\"", printable(path), "\" is not a path of keys like a.b[2].c"));
    }
    if (steps.size() > kYamlMaxDepth) fail(str("more than ", kYamlMaxDepth, " levels deep"));
    const auto value = parse_yaml(text_.substr(equals + 1), head(), place_.override_index);
    std::shared_ptr<Node> holder(&root, [](Node*) {});
    std::shared_ptr<Node>* at = &holder;
    std::string seen;
    for (const Step& step : steps) {
      at = std::holds_alternative<size_t>(step) ? &item(**at, seen, std::get<size_t>(step))
                                                : &member(**at, seen, std::get<std::string>(step));
      seen += std::holds_alternative<size_t>(step)
                  ? str("[", std::get<size_t>(step), "]")
                  : (seen.empty() ? "" : ".") + std::get<std::string>(step);
    }
    *at = value;
  }

 private:
  std::string head() const { return "--set " + printable(text_, 120); }
  [[noreturn]] void fail(const std::string& message) const {
    throw ConfigError(head(), ": ", message);
  }

  std::shared_ptr<Node>& item(Node& list, const std::string& seen, size_t index) {
    if (list.kind != YamlKind::kList) fail(str(printable(seen), " is not a list"));
    if (index >= list.items.size()) {
      fail(str(printable(seen), " has ", list.items.size(), " items; the first is [0]"));
    }
    return list.items[index];
  }

  std::shared_ptr<Node>& member(Node& node, const std::string& seen, const std::string& key) {
    if (node.kind == YamlKind::kList) return named(node, seen, key);
    if (node.kind == YamlKind::kNull) {
      node.kind = YamlKind::kMapping;
      node.quoted = false;
      node.text.clear();
      node.place = place_;
    }
    if (node.kind != YamlKind::kMapping) {
      fail(str(printable(seen),
               " is ",
               printable(node.text),
               ", not a mapping that could hold \"",
               printable(key),
               "\""));
    }
    if (Node::Entry* entry = node.find(key)) {
      entry->place = place_;
      return entry->value;
    }
    if (key.size() > kYamlMaxKeyBytes || node.entries.size() >= kYamlMaxKeys)
      fail("too many keys, or too long a key");
    node.entries.push_back({.key = key, .place = place_, .value = std::make_shared<Node>()});
    node.entries.back().value->place = place_;
    return node.entries.back().value;
  }

  std::shared_ptr<Node>& named(Node& list, const std::string& seen, const std::string& name) {
    std::vector<std::string> names;
    for (auto& candidate : list.items) {
      names.push_back(name_of(*candidate));
      if (names.back() == name) return candidate;
    }
    fail(str(printable(seen),
             " has no item named \"",
             printable(name),
             "\"; its items: ",
             printable(join(names, ", "), 200)));
  }

  std::string text_;
  YamlPlace place_;
};

}  // namespace

void apply_override(Node& root, const std::string& override_text, int override_index) {
  Override(override_text, override_index).apply(root);
}

}  // namespace praetor
