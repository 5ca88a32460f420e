#include <algorithm>
#include <tuple>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/config/yaml_node.h"
#include "core/config/yaml_reader.h"

namespace praetor {

YamlReader::Node::Entry* YamlReader::Node::find(std::string_view key) {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  return found == entries.end() ? nullptr : &*found;
}

const YamlReader::Node::Entry* YamlReader::Node::find(std::string_view key) const {
  return const_cast<Node*>(this)->find(key);
}

void YamlReader::Node::ask(const std::string& key) {
  if (std::find(asked.begin(), asked.end(), key) == asked.end()) asked.push_back(key);
}

std::string YamlReader::Node::path_of(const std::string& key) const {
  const std::string shown = printable(key);
  return path.empty() ? shown : path + "." + shown;
}

std::string YamlDocument::State::where(const YamlPlace& place) const {
  if (place.override_index >= 0) {
    return "--set " + printable(overrides[static_cast<size_t>(place.override_index)], 120);
  }
  return str(name, ":", place.line, ":", place.column);
}

void YamlDocument::State::add_error(const YamlPlace& place,
                                    const std::string& path,
                                    const std::string& message) {
  Message added{place, str(where(place), ": ", path.empty() ? "" : path + ": ", message)};
  const auto order = [](const Message& m) {
    return std::make_tuple(m.place.override_index, m.place.line, m.place.column);
  };
  if (messages.size() >= kYamlMaxErrors ||
      std::any_of(messages.begin(), messages.end(), [&](const Message& m) {
        return m.text == added.text;
      })) {
    return;
  }
  const auto at = std::upper_bound(
      messages.begin(), messages.end(), added, [&](const Message& a, const Message& b) {
        return order(a) < order(b);
      });
  errors.insert(errors.begin() + (at - messages.begin()), added.text);
  messages.insert(at, std::move(added));
}

YamlDocument::YamlDocument() : state_(std::make_unique<State>()) {}
YamlDocument::~YamlDocument() = default;

std::shared_ptr<YamlDocument> YamlDocument::load(const std::filesystem::path& file,
                                                 const std::vector<std::string>& overrides) {
  std::string text;
  try {
    text = read_file(file, kYamlMaxBytes);
  } catch (const DataError&) {
    throw ConfigError(file.string(), ": larger than 1 MiB, too large for a job file");
  }
  return parse(text, file.string(), overrides);
}

std::shared_ptr<YamlDocument> YamlDocument::parse(const std::string& text,
                                                  const std::string& name,
                                                  const std::vector<std::string>& overrides) {
  std::shared_ptr<YamlDocument> document(new YamlDocument());
  State& state = *document->state_;
  state.name = name;
  state.overrides = overrides;
  state.root = parse_yaml(text, name);
  if (state.root->kind == YamlKind::kNull) {
    throw ConfigError(name, ":1:1: is empty; lines \"key: value\" are wanted");
  }
  if (state.root->kind != YamlKind::kMapping) {
    throw ConfigError(state.where(state.root->place),
                      ": is ",
                      state.root->kind == YamlKind::kList ? "a list" : "one value",
                      ", but lines \"key: value\" are wanted");
  }
  std::vector<std::string> failures;
  for (size_t i = 0; i < overrides.size(); ++i) {
    try {
      apply_override(*state.root, overrides[i], static_cast<int>(i));
    } catch (const ConfigError& failure) {
      failures.emplace_back(failure.what());
    }
  }
  if (!failures.empty()) throw ConfigError(join(failures, "\n"));
  return document;
}

YamlReader YamlDocument::root() {
  return YamlReader(shared_from_this(), state_->root);
}

const std::vector<std::string>& YamlDocument::errors() const {
  return state_->errors;
}

void YamlDocument::throw_if_errors() const {
  if (!state_->errors.empty()) throw ConfigError(join(state_->errors, "\n"));
}

std::string YamlDocument::resolved() const {
  return emit_yaml(*state_->root);
}

namespace {

void collect(const YamlReader::Node& node,
             const std::string& path,
             std::set<std::string>& given,
             std::set<std::string>& asked) {
  const std::string head = path.empty() ? "" : path + ".";
  for (const std::string& key : node.asked) asked.insert(head + key);
  for (const auto& entry : node.entries) {
    if (entry.given) given.insert(head + entry.key);
    collect(*entry.value, head + entry.key, given, asked);
  }
  for (const auto& item : node.items) collect(*item, path + "[]", given, asked);
}

}  // namespace

std::set<std::string> YamlDocument::given_keys() const {
  std::set<std::string> given, asked;
  collect(*state_->root, "", given, asked);
  return given;
}

std::set<std::string> YamlDocument::asked_keys() const {
  std::set<std::string> given, asked;
  collect(*state_->root, "", given, asked);
  return asked;
}

}  // namespace praetor
