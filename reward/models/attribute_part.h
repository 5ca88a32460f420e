#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/model/attribute_gate.h"
#include "reward/models/batch_part.h"
#include "reward/models/model_folder.h"
#include "reward/models/reward_file.h"
#include "reward/models/reward_model.h"

namespace praetor {

struct AttributePartConfig : ReaderConfig {
  std::filesystem::path path;              ///< folder; empty when `stage` names where it comes from
  std::string stage;                       ///< an earlier stage of the job, whose result is loaded
  std::optional<ScoreNormaliser> rescale;  ///< of each attribute
  std::vector<std::pair<std::string, double>> weights;  ///< empty: the folder's own
  /// Attributes that a row's direction weighs, in its order; empty: none does.
  std::vector<std::string> direction;

  ModelFolder folder() const {
    return {.path = path, .stage = stage, .attributes = true, .max_length = max_length};
  }
  /// Reads and checks the keys of a part of kind "attributes". Unknown keys are the caller's to
  /// reject.
  static AttributePartConfig from_yaml(YamlReader& in);
  /// The key that names an attribute which is not one of `known`, and what to say of it.
  std::optional<std::pair<std::string, std::string>> misfit(
      const std::vector<std::string>& known) const;
};

/// A reward model of several numbers, the attributes (Wang et al. 2024, arXiv:2406.08673), as a
/// part of a mixture. Its score is sum_a w_a r_a, where w are
///   the direction of the sample, its row's field "direction" (arXiv:2402.18571), with `direction`;
///   else `weights`, 0 for attributes that are left out;
///   else what the folder's gate makes of the prompt (arXiv:2406.12845), where it has one;
///   else the folder's weights.
/// r is corrected for verbosity where the folder has a gate, then rescaled as configured.
class AttributePart final : public BatchPart {
 public:
  /// @throws MissingInput; DataError naming the folder, or the attributes it has where one that is
  /// asked for is none of them
  static std::unique_ptr<AttributePart> load(const std::filesystem::path& folder,
                                             const AttributePartConfig& config);
  std::vector<BatchResult> score(std::span<const BatchItem> items) const override;

  const std::vector<Attribute>& attributes() const { return attributes_; }

 private:
  explicit AttributePart(SampleReader reader) : reader_(std::move(reader)) {}
  size_t place(const std::string& name) const;

  SampleReader reader_;
  std::vector<Attribute> attributes_;  ///< with the weights, means and deviations that are used
  std::optional<AttributeGate> gate_;
  bool gated_ = false;             ///< the gate weighs
  std::vector<size_t> direction_;  ///< places of the attributes that the direction weighs
};

}  // namespace praetor
