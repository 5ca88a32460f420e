#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/config/yaml_node.h"

namespace praetor {

namespace {

using Node = YamlReader::Node;

/// Builds the tree from yaml-cpp's events. Events, not YAML::Node, because that type keeps the last
/// of duplicate keys in silence and expands nothing it can be asked to bound.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(std::string name, int override_index)
      : name_(std::move(name)), override_index_(override_index) {}

  std::shared_ptr<Node> take() { return root_ ? root_ : std::make_shared<Node>(); }
  const std::vector<std::string>& duplicates() const { return duplicates_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) fail(mark, "a second document starts here; a job file holds one");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(mark, anchor, make(mark, YamlKind::kNull));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto target = anchors_.find(anchor);
    if (target == anchors_.end()) fail(mark, "an alias to an anchor that is not there");
    for (const Frame& frame : stack_) {
      if (frame.node == target->second) fail(mark, "an alias to a node that contains it");
    }
    add(mark, 0, copy(mark, *target->second, stack_.size()));
  }

  void OnScalar(const YAML::Mark& mark,
                const std::string& tag,
                YAML::anchor_t anchor,
                const std::string& value) override {
    auto node = make(mark, YamlKind::kScalar);
    node->text = value;
    node->quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    check_tag(mark, tag);
    if (!node->quoted && classify_plain(value) == YamlScalar::kNull) node->kind = YamlKind::kNull;
    add(mark, anchor, node);
  }

  void OnSequenceStart(const YAML::Mark& mark,
                       const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlKind::kList);
  }
  void OnSequenceEnd() override { stack_.pop_back(); }

  void OnMapStart(const YAML::Mark& mark,
                  const std::string& tag,
                  YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlKind::kMapping);
  }
  void OnMapEnd() override { stack_.pop_back(); }

 private:
  struct Frame {
    std::shared_ptr<Node> node;
    std::string path;
    bool key_next = true;  // of a mapping: the next event is a key
    bool keep = true;      // false: the value of a duplicate key, built only to be dropped
    std::unordered_map<std::string, int> lines = {};  // of the keys
  };

  YamlPlace place(const YAML::Mark& mark) const {
    return {mark.line + 1, mark.column + 1, override_index_};
  }

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& message) const {
    throw ConfigError(head(mark), message);
  }
  std::string head(const YAML::Mark& mark) const {
    if (override_index_ >= 0) return str(name_, ": ");
    return str(name_, ":", mark.line + 1, ":", mark.column + 1, ": ");
  }

  void count(const YAML::Mark& mark) {
    if (++nodes_ > kYamlMaxNodes) {
      fail(mark, str("more than ", kYamlMaxNodes, " values once aliases are expanded"));
    }
  }

  std::shared_ptr<Node> make(const YAML::Mark& mark, YamlKind kind) {
    count(mark);
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->place = place(mark);
    return node;
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    static const std::unordered_set<std::string> kKnown = {
        "", "?", "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"};
    if (!kKnown.contains(tag)) {
      fail(mark, str("the tag \"", printable(tag), "\" is not supported; leave it out"));
    }
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlKind kind) {
    check_tag(mark, tag);
    if (stack_.size() >= kYamlMaxDepth) {
      fail(mark, str("nested more than ", kYamlMaxDepth, " levels deep"));
    }
    auto node = make(mark, kind);
    Frame frame{.node = node, .path = next_path()};
    add(mark, anchor, node);
    stack_.push_back(std::move(frame));
  }

  std::string next_path() const {
    if (stack_.empty()) return "";
    const Frame& top = stack_.back();
    if (top.node->kind == YamlKind::kList) return str(top.path, "[", top.node->items.size(), "]");
    return top.path.empty() ? key_ : top.path + "." + key_;
  }

  void add(const YAML::Mark& mark, YAML::anchor_t anchor, std::shared_ptr<Node> node) {
    if (anchor != 0) anchors_[anchor] = node;
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& top = stack_.back();
    if (top.node->kind == YamlKind::kList) {
      top.node->items.push_back(std::move(node));
    } else if (top.key_next) {
      add_key(mark, top, *node);
    } else {
      // yaml-cpp puts "key:" with nothing after it at the next token; its key is where a person
      // looks.
      if (node->kind == YamlKind::kNull && node->text.empty()) {
        node->place = top.node->entries.back().place;
      }
      if (top.keep) top.node->entries.back().value = std::move(node);
      top.key_next = true;
    }
  }

  void add_key(const YAML::Mark& mark, Frame& top, const Node& key) {
    if (key.kind != YamlKind::kScalar) {
      fail(mark, "a key must be a word, not a list or mapping (or a bracket is not closed)");
    }
    if (key.text.size() > kYamlMaxKeyBytes) {
      fail(mark,
           str("a key of ", key.text.size(), " bytes; at most ", kYamlMaxKeyBytes, " are allowed"));
    }
    if (key.text == "<<" && !key.quoted) {
      fail(mark, "merge keys (<<) are not supported; write the keys out");
    }
    key_ = key.text;
    top.key_next = false;
    const auto [first, fresh] = top.lines.emplace(key.text, mark.line + 1);
    top.keep = fresh;
    if (!fresh) {
      if (duplicates_.size() < kYamlMaxErrors) {
        duplicates_.push_back(str(head(mark),
                                  top.path.empty() ? "" : printable(top.path) + ": ",
                                  "duplicate key \"",
                                  printable(key.text),
                                  "\", first given in line ",
                                  first->second));
      }
      return;
    }
    if (top.node->entries.size() >= kYamlMaxKeys) {
      fail(mark, str("more than ", kYamlMaxKeys, " keys in one mapping"));
    }
    top.node->entries.push_back(
        {.key = key.text, .place = place(mark), .value = std::make_shared<Node>()});
  }

  std::shared_ptr<Node> copy(const YAML::Mark& mark, const Node& from, size_t depth) {
    if (depth > kYamlMaxDepth) fail(mark, str("nested more than ", kYamlMaxDepth, " levels deep"));
    count(mark);
    auto to = std::make_shared<Node>(from);
    for (Node::Entry& entry : to->entries) entry.value = copy(mark, *entry.value, depth + 1);
    for (auto& item : to->items) item = copy(mark, *item, depth + 1);
    return to;
  }

  std::string name_;
  int override_index_;
  int documents_ = 0;
  size_t nodes_ = 0;
  std::string key_;
  std::shared_ptr<Node> root_;
  std::vector<Frame> stack_;
  std::unordered_map<YAML::anchor_t, std::shared_ptr<Node>> anchors_;
  std::vector<std::string> duplicates_;
};

/// Offset of the first byte that is no part of a UTF-8 character.
size_t first_bad_byte(std::string_view row) {
  size_t good = 0;
  while (good < row.size()) {
    size_t length = 1;
    while (length <= 4 && !(good + length <= row.size() && is_utf8(row.substr(good, length))))
      ++length;
    if (length > 4) break;
    good += length;
  }
  return good;
}

/// What yaml-cpp would take in silence, or report in the wrong place.
void check_bytes(const std::string& text, const std::string& name, int override_index) {
  const auto fail = [&](int line, size_t column, const std::string& message) {
    if (override_index >= 0) throw ConfigError(name, ": ", message);
    throw ConfigError(name, ":", line, ":", column + 1, ": ", message);
  };
  if (text.size() > kYamlMaxBytes)
    throw ConfigError(name, ": larger than 1 MiB, too large for a job file");
  int line = 0;
  for (size_t start = 0; start < text.size();) {
    ++line;
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view row(text.data() + start, end - start);
    start = end + 1;
    if (!is_utf8(row)) fail(line, first_bad_byte(row), "not valid UTF-8; save the file as UTF-8");
    bool indentation = true;
    for (size_t i = 0; i < row.size(); ++i) {
      const char c = row[i];
      const bool last_return = c == '\r' && i + 1 == row.size();
      if ((static_cast<unsigned char>(c) < 0x20 && c != '\t' && !last_return) || c == 0x7F) {
        fail(line, i, "a control character; YAML text has none");
      }
      if (c == '\t' && indentation && row.find_first_not_of(" \t\r") != std::string_view::npos) {
        fail(line, i, "a tab in the indentation; YAML wants spaces");
      }
      if (c != ' ' && c != '\t') indentation = false;
    }
  }
}

}  // namespace

std::shared_ptr<Node> parse_yaml(const std::string& text,
                                 const std::string& name,
                                 int override_index) {
  check_bytes(text, name, override_index);
  TreeBuilder builder(name, override_index);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& failure) {
    if (override_index >= 0) throw ConfigError(name, ": not valid YAML: ", printable(failure.msg));
    throw ConfigError(name,
                      ":",
                      failure.mark.line + 1,
                      ":",
                      failure.mark.column + 1,
                      ": not valid YAML: ",
                      printable(failure.msg));
  }
  if (!builder.duplicates().empty()) throw ConfigError(join(builder.duplicates(), "\n"));
  return builder.take();
}

}  // namespace praetor
