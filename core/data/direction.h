#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/config/yaml_reader.h"
#include "core/data/dataset.h"
#include "core/data/example.h"
#include "core/data/text_template.h"

namespace praetor {

/// A unit vector over two objectives: how much of each is wanted.
using Direction = std::array<double, 2>;

/// (cos, sin) of an angle in degrees. -30: (0.866025, -0.5)
Direction direction_at(double degrees);

constexpr const char* kDirectionText =
    "Your response should maximize weighted rating = helpfulness*{a} + verbosity*{b}\n";

/// Directions of preference that prompts are asked in, and the text that says so (Wang et al. 2024,
/// arXiv:2402.18571).
struct DirectionPlan {
  double low = -45.0;  ///< degrees; angles are uniform in [low, high]
  double high = 0.0;
  TextTemplate text;  ///< of {a} and {b}: 100 v, rounded

  DirectionPlan();
  /// Keys `angle` and `text` of an algorithm's section.
  static DirectionPlan from_yaml(YamlReader& in);

  /// The direction of a prompt; depends on the key alone, whose purpose becomes kDirection.
  Direction draw(SampleKey key) const;
  /// The row as the policy is asked it: the text is the system's message where the row is rendered
  /// by a chat template (before what the system says already), else it stands before the prompt.
  Row ask(const Row& row, const TextFormat& format, const Direction& direction) const;
};

/// `metadata`, a JSON object, with the direction as its field "direction".
std::string with_direction(const std::string& metadata, const Direction& direction);
/// The field "direction" of `metadata`, a list of `size` numbers. @throws DataError
std::vector<double> direction_of(const std::string& metadata, size_t size);

}  // namespace praetor
