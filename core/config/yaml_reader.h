#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace praetor {

/// Bounds of a number; the message says them: "ppo.clip_low: 1.7 is outside (0, 1)".
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;
  bool holds(double value) const;
  std::string text() const;  ///< "(0, 1]", ">= 1"
};
inline Range open(double low, double high) {
  return {low, high, true, true};
}
inline Range left_open(double low, double high) {
  return {low, high, true, false};
}
inline Range closed(double low, double high) {
  return {low, high, false, false};
}
inline Range at_least(double low) {
  return {.low = low};
}
inline Range greater_than(double low) {
  return {.low = low, .low_open = true};
}

/// A YAML file with the overrides of `--set`, as a tree whose every node knows its place.
class YamlDocument;

/// Reads one mapping of a YAML document into a struct. Errors do not throw: they gather, with
/// file:line:column and the dotted key, in the document, so that one run reports all of them; a
/// reader goes on with the default. Every value read, defaults included, is recorded and makes up
/// resolved.yaml.
///
/// One from_yaml per section:
///   PpoConfig PpoConfig::from_yaml(YamlReader in) {
///     PpoConfig c;
///     c.clip_low = in.get("clip_low", c.clip_low, open(0, 1));
///     c.epochs = in.get("epochs", c.epochs, at_least(1));
///     in.reject_unknown_keys();
///     return c;
///   }
/// A reader is a cheap handle; the document must outlive it.
class YamlReader {
 public:
  double get(const std::string& key, double fallback, Range range = {});
  int64_t get(const std::string& key, int64_t fallback, Range range = {});
  int64_t get(const std::string& key, int fallback, Range range = {});
  bool get(const std::string& key, bool fallback);
  /// `one_of` not empty: any other word is an error that names the nearest.
  std::string get(const std::string& key,
                  const std::string& fallback,
                  const std::vector<std::string>& one_of = {});
  std::string get(const std::string& key,
                  const char* fallback,
                  const std::vector<std::string>& one_of = {});
  std::vector<std::string> get(const std::string& key, const std::vector<std::string>& fallback);
  std::vector<int64_t> get(const std::string& key, const std::vector<int64_t>& fallback);
  std::vector<double> get(const std::string& key, const std::vector<double>& fallback);
  /// Absent key: nothing, and no default is recorded.
  std::optional<double> get_optional_number(const std::string& key, Range range = {});
  std::optional<int64_t> get_optional_integer(const std::string& key, Range range = {});
  std::optional<std::string> get_optional_string(const std::string& key);

  /// The value under `key`, whatever its shape, as JSON without needless spaces: mappings keep
  /// their order, plain scalars are null, booleans or numbers where they look like them. Absent
  /// key: nothing. All keys within count as known.
  std::optional<std::string> get_optional_json(const std::string& key);

  /// As get, but a missing key is an error.
  std::string require_string(const std::string& key, const std::vector<std::string>& one_of = {});
  double require_number(const std::string& key, Range range = {});
  int64_t require_integer(const std::string& key, Range range = {});

  /// A file or folder, made absolute (in resolved.yaml too). Relative paths are taken from the
  /// folder of the job file;
  /// "~" and $NAME are not expanded.
  /// Empty when absent (require_path: an error). Existence is the caller's check, reported with
  /// error_at.
  std::filesystem::path get_path(const std::string& key);
  std::filesystem::path require_path(const std::string& key);

  bool has(const std::string& key) const;
  /// The mapping under `key`; when absent, an empty one, so that its defaults are recorded.
  YamlReader child(const std::string& key);
  /// The mapping under `key`, or nothing.
  std::optional<YamlReader> optional_child(const std::string& key);
  /// The list of mappings under `key`; empty when absent.
  std::vector<YamlReader> list(const std::string& key);
  /// Keys of this mapping in file order.
  std::vector<std::string> keys() const;

  /// Records "file:line:column: dotted.key: message" at `key` (at the mapping itself when it has no
  /// such key).
  void error_at(const std::string& key, const std::string& message);
  /// Records an error at each key that no get has named, with the nearest known one.
  void reject_unknown_keys();

  /// "stages[2].ppo"
  std::string path() const;
  /// "job.yaml:14:13" of `key`, or of the mapping.
  std::string where(const std::string& key = "") const;
  /// "job.yaml:14:13: stages[2].ppo.epochs", the head of a message about `key` (or the mapping)
  /// that is made later.
  std::string label(const std::string& key = "") const;
  /// Writes `value` into resolved.yaml in place of what was given, where the two differ (a path
  /// made absolute).
  void resolve(const std::string& key, const std::string& value);

  struct Node;  // implementation
  YamlReader(std::shared_ptr<YamlDocument> document, std::shared_ptr<Node> node);

 private:
  void missing(const std::string& key, const std::string& wanted);

  std::shared_ptr<YamlDocument> document_;
  std::shared_ptr<Node> node_;
};

class YamlDocument : public std::enable_shared_from_this<YamlDocument> {
 public:
  /// Reads a file. `overrides` are "a.b[2].c=value" as given to --set, applied before reading
  /// (value is YAML).
  /// @throws MissingInput; ConfigError with file:line:column on a syntax error, a duplicate key, an
  /// alias bomb or more than 1 MiB; ConfigError naming the override that cannot be applied. In an
  /// override's path an item of a list may be called by its `name` (by its `kind` when it has
  /// none): stages.ppo.seed=2.
  static std::shared_ptr<YamlDocument> load(const std::filesystem::path& file,
                                            const std::vector<std::string>& overrides = {});
  /// As load, for text at hand; `name` stands in the messages.
  static std::shared_ptr<YamlDocument> parse(const std::string& text,
                                             const std::string& name = "job.yaml",
                                             const std::vector<std::string>& overrides = {});
  ~YamlDocument();

  YamlReader root();
  const std::vector<std::string>& errors() const;
  /// @throws ConfigError with all gathered errors, a line each, when there are any.
  void throw_if_errors() const;
  /// The document with every default filled in, as YAML.
  std::string resolved() const;
  /// Dotted keys that the file and the overrides give, and those that readers have asked for; list
  /// items as "a[].b".
  std::set<std::string> given_keys() const;
  std::set<std::string> asked_keys() const;

  struct State;  // implementation

 private:
  friend class YamlReader;
  YamlDocument();
  std::unique_ptr<State> state_;
};

}  // namespace praetor
