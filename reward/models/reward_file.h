#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// One number of a model that gives several, as its training left it.
struct Attribute {
  std::string name;
  double weight = 1.0;  ///< in the score
  double mean = 0.0;    ///< of its raw values over the training's reference samples
  double std = 1.0;     ///< > 0
};

/// FOLDER/praetor_reward.json: what the training of a reward model says of its scores.
struct RewardFile {
  double mean = 0.0;                  ///< of raw scores over the training's reference samples
  double std = 1.0;                   ///< > 0
  std::vector<Attribute> attributes;  ///< of a model with several numbers; empty: one score

  /// @throws MissingInput; DataError naming file, key and what is wanted
  static RewardFile read(const std::filesystem::path& folder);
  /// @throws IoError
  void write(const std::filesystem::path& folder) const;
  static bool in(const std::filesystem::path& folder);
};

/// The numbers that the model of a folder gives: names are those of its labels (config.json), the
/// rest is praetor_reward.json's, or plain where there is none. @throws DataError when the two do
/// not fit, or the folder has no sequence-classification head
std::vector<Attribute> attributes_in(const std::filesystem::path& folder);

/// Their names, in order.
std::vector<std::string> names_of(const std::vector<Attribute>& attributes);
/// What to say of a name that is none of `known`; nothing when it is one.
std::optional<std::string> unknown_attribute(const std::string& name,
                                             const std::vector<std::string>& known);

}  // namespace praetor
