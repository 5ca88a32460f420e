#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/base/bounded_regex.h"

namespace praetor {

/// How a count must stand to its bound.
struct Relation {
  bool at_least = true;  ///< else: less than
  int64_t bound = 0;
  bool holds(int64_t count) const { return at_least ? count >= bound : count < bound; }
};

/// Reads the arguments of one instruction, which must outlive it. What is wrong with one throws a
/// DataError that names the instruction.
class InstructionArguments {
 public:
  InstructionArguments(const std::string& id, const nlohmann::json& arguments);

  int64_t integer(const std::string& name);  ///< >= 0
  std::string text(const std::string& name);
  std::vector<std::string> texts(const std::string& name);
  /// The bound in `number` and the word in `relation`.
  Relation relation(const std::string& relation, const std::string& number);
  /// `text` as a pattern without case; `name` is the argument it came from.
  BoundedRegex pattern(const std::string& name, const std::string& text, bool whole_words) const;
  /// @throws DataError for an argument that nobody has asked for
  void reject_others() const;
  [[noreturn]] void fail(const std::string& name, const std::string& message) const;

 private:
  const nlohmann::json& value(const std::string& name);

  const std::string& id_;
  const nlohmann::json& arguments_;
  std::set<std::string> asked_;
};

}  // namespace praetor
