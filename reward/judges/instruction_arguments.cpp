#include "reward/judges/instruction_arguments.h"

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

InstructionArguments::InstructionArguments(const std::string& id, const nlohmann::json& arguments)
    : id_(id), arguments_(arguments) {
  if (!arguments_.is_object() && !arguments_.is_null()) {
    throw DataError(
        id_, ": the arguments are of type ", arguments_.type_name(), ", but an object is wanted");
  }
}

void InstructionArguments::fail(const std::string& name, const std::string& message) const {
  throw DataError(id_, ": argument \"", printable(name), "\": ", message);
}

const nlohmann::json& InstructionArguments::value(const std::string& name) {
  asked_.insert(name);
  const auto found = arguments_.find(name);
  if (found == arguments_.end() || found->is_null()) fail(name, "is missing");
  return *found;
}

int64_t InstructionArguments::integer(const std::string& name) {
  const nlohmann::json& given = value(name);
  // Columns with gaps turn whole numbers into 3.0.
  const bool whole =
      given.is_number_float() && given.get<double>() >= 0 && given.get<double>() < 1e15 &&
      given.get<double>() == static_cast<double>(static_cast<int64_t>(given.get<double>()));
  if (whole) return static_cast<int64_t>(given.get<double>());
  if (!given.is_number_integer() || given < 0 || given > int64_t{1'000'000'000'000'000})
    fail(name, str(printable(given.dump()), " is not a whole number >= 0"));
  return given.get<int64_t>();
}

std::string InstructionArguments::text(const std::string& name) {
  const nlohmann::json& given = value(name);
  if (!given.is_string()) fail(name, str(printable(given.dump()), " is not text"));
  if (given.get_ref<const std::string&>().empty()) fail(name, "is empty");
  return given.get<std::string>();
}

std::vector<std::string> InstructionArguments::texts(const std::string& name) {
  const nlohmann::json& given = value(name);
  if (!given.is_array() || given.empty())
    fail(name, str(printable(given.dump()), " is not a list of texts"));
  std::vector<std::string> out;
  for (const nlohmann::json& item : given) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty())
      fail(name, str(printable(item.dump()), " is not a text, or is an empty one"));
    out.push_back(item.get<std::string>());
  }
  return out;
}

Relation InstructionArguments::relation(const std::string& relation, const std::string& number) {
  const std::string word = text(relation);
  if (word != "at least" && word != "less than")
    fail(relation, str("\"", printable(word), "\" is not \"at least\" or \"less than\""));
  return {.at_least = word == "at least", .bound = integer(number)};
}

BoundedRegex InstructionArguments::pattern(const std::string& name,
                                           const std::string& text,
                                           bool whole_words) const {
  try {
    return BoundedRegex(whole_words ? "\\b(?:" + text + ")\\b" : text, {.ignore_case = true});
  } catch (const InvalidArgument& failure) {
    fail(name, failure.what());
  }
}

void InstructionArguments::reject_others() const {
  if (arguments_.is_null()) return;
  for (const auto& [name, given] : arguments_.items()) {
    if (!given.is_null() && !asked_.contains(name))
      fail(name, "the instruction has no such argument");
  }
}

}  // namespace praetor
