#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"

namespace praetor {

/// A text with {names} in it that stand for other texts. Only a word of lower-case letters and "_"
/// between braces is a name; other braces stand for themselves. What is filled in is never looked
/// at again, so that a response cannot name anything.
class TextTemplate {
 public:
  /// Reads `key`, which is wanted; a name that is not one of `known` is recorded as an error.
  static TextTemplate from_yaml(YamlReader& in,
                                const std::string& key,
                                const std::vector<std::string>& known);

  /// A text of our own, in which every name is known.
  static TextTemplate parse(const std::string& text);

  bool holds(const std::string& name) const;
  /// @param values  one for each name that the template holds
  std::string fill(const std::map<std::string, std::string>& values) const;

 private:
  /// Plain text, then a name (empty at the end).
  std::vector<std::pair<std::string, std::string>> pieces_;
};

}  // namespace praetor
