#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"

// The tree behind YamlReader and YamlDocument; private to core/config.

namespace praetor {

/// Where a node was written: a line and column of the file, or one of the `--set` overrides.
struct YamlPlace {
  int line = 1;
  int column = 1;
  int override_index = -1;
};

enum class YamlKind { kNull, kScalar, kList, kMapping };

struct YamlReader::Node {
  struct Entry {
    std::string key;
    YamlPlace place;  ///< of the key
    std::shared_ptr<Node> value;
    bool given = true;  ///< written by the user; false: a default that a reader filled in
  };

  YamlKind kind = YamlKind::kNull;
  std::string text;     ///< of a scalar
  bool quoted = false;  ///< quotes or a block scalar: text, whatever it looks like
  YamlPlace place;      ///< of the value
  std::string path;     ///< dotted path, set when a reader reaches the node
  std::vector<Entry> entries;
  std::vector<std::shared_ptr<Node>> items;
  std::vector<std::string> asked;  ///< keys that readers have named, in that order

  Entry* find(std::string_view key);
  const Entry* find(std::string_view key) const;
  /// Remembers that `key` is known.
  void ask(const std::string& key);
  /// "a.b" below "a", "b" below the root.
  std::string path_of(const std::string& key) const;
};

struct YamlDocument::State {
  struct Message {
    YamlPlace place;
    std::string text;
  };
  std::string name;
  std::vector<std::string> overrides;
  std::shared_ptr<YamlReader::Node> root;
  std::vector<Message> messages;    ///< sorted by place
  std::vector<std::string> errors;  ///< their texts, in the same order

  /// "job.yaml:14:13", or "--set a.b=c".
  std::string where(const YamlPlace& place) const;
  void add_error(const YamlPlace& place, const std::string& path, const std::string& message);
};

/// What a plain (unquoted) scalar is by YAML 1.2's core schema, hexadecimal and octal left out.
enum class YamlScalar { kNull, kBool, kInteger, kNumber, kText };
YamlScalar classify_plain(std::string_view text);
/// As classify_plain for a scalar node; quoted ones are text.
YamlScalar classify(const YamlReader::Node& scalar);

/// Parses one document. Empty text gives a null node. Aliases are copied out.
/// @throws ConfigError "name:line:column: ...", or "name: ..." when `override_index` >= 0.
std::shared_ptr<YamlReader::Node> parse_yaml(const std::string& text,
                                             const std::string& name,
                                             int override_index = -1);

/// Applies "a.b[2].c=value" to the tree. @throws ConfigError that starts with "--set OVERRIDE: "
void apply_override(YamlReader::Node& root, const std::string& override_text, int override_index);

/// Block-style YAML of a mapping: keys in the order readers asked for them, then the others as
/// given.
std::string emit_yaml(const YamlReader::Node& mapping);

/// Bounds that keep a hostile file cheap.
inline constexpr size_t kYamlMaxBytes = size_t{1} << 20;
inline constexpr size_t kYamlMaxNodes = 100000;  ///< after copying aliases
inline constexpr size_t kYamlMaxKeys = 1000;     ///< of one mapping
inline constexpr size_t kYamlMaxKeyBytes = 200;
inline constexpr size_t kYamlMaxDepth = 64;
inline constexpr size_t kYamlMaxErrors = 200;

}  // namespace praetor
