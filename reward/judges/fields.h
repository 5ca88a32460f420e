#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "core/config/yaml_reader.h"
#include "core/data/sample.h"
#include "reward/judge.h"

namespace praetor {

/// A text of a sample, by name: "response", "prompt", or "metadata.NAME" for a field of its data
/// row. Strings are taken as they are, numbers and booleans as JSON writes them.
class Field {
 public:
  /// Reads `key` of a part; a name of another form is recorded as an error.
  static Field from_yaml(YamlReader& in, const std::string& key, const std::string& fallback);

  /// The same for what may be a list or an object: a name other than "metadata.NAME" is an error.
  static Field of_metadata(YamlReader& in, const std::string& key, const std::string& fallback);

  const std::string& name() const { return name_; }
  /// Nothing when the row has no such field, or null there.
  /// @throws DataError when the metadata is not a JSON object, or the field is a list or an object
  std::optional<std::string> text(const Sample& sample) const;
  /// A metadata field of any kind. @throws DataError when the metadata is not a JSON object
  std::optional<nlohmann::json> json(const Sample& sample) const;

 private:
  std::string name_;
};

/// What a judge does with a row that lacks the field it needs: `missing: error` (the default) or
/// `missing: skip`.
enum class Missing { kError, kSkip };
Missing missing_from_yaml(YamlReader& in);
/// The verdict "not applicable" for kSkip. @throws DataError naming the field for kError
Verdict missing_field(const Field& field, Missing missing);

}  // namespace praetor
