#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/judges/fields.h"
#include "reward/judges/instruction_checks.h"
#include "reward/judges/registry.h"
#include "reward/judges/text_tools.h"

namespace praetor {

namespace {

/// Checks the instructions that the data row lists for its prompt (IFEval, Zhou et al. 2023,
/// arXiv:2311.07911).
///   score = 1 when the response follows every one, else 0; with `each`, the fraction it follows
struct InstructionFollowingConfig {
  Field instructions;  ///< a list of ids
  Field arguments;     ///< a list of objects, as long
  Missing missing = Missing::kError;
  /// An instruction is followed when one of eight variants of the response follows it; see
  /// loose_variants.
  bool loose = false;
  bool each = false;
};

class InstructionFollowingJudge final : public Judge {
 public:
  explicit InstructionFollowingJudge(InstructionFollowingConfig config)
      : config_(std::move(config)) {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    const auto ids = config_.instructions.json(sample);
    if (!ids) return missing_field(config_.instructions, config_.missing);
    const auto arguments = config_.arguments.json(sample);
    if (!arguments) return missing_field(config_.arguments, config_.missing);
    check_lists(*ids, *arguments);

    std::vector<std::string> texts;
    if (config_.loose) {
      texts = loose_variants(sample.response);
    } else if (!is_blank(sample.response)) {
      texts.push_back(sample.response);
    }
    std::vector<std::string> failed;
    for (size_t i = 0; i < ids->size(); ++i) {
      const auto id = (*ids)[i].get<std::string>();
      const InstructionCheck check = make_instruction_check(id, (*arguments)[i]);
      const auto follows = [&](const std::string& text) {
        deadline.check();
        return check(text, deadline);
      };
      if (std::ranges::none_of(texts, follows)) failed.push_back(id);
    }
    const auto total = static_cast<double>(ids->size());
    const double followed = total - static_cast<double>(failed.size());
    return {.score = config_.each ? followed / total : (failed.empty() ? 1.0 : 0.0),
            .passed = failed.empty(),
            .reason = failed.empty() ? str("all ", total, " followed")
                                     : "not followed: " + join(failed, ", ")};
  }

 private:
  void check_lists(const nlohmann::json& ids, const nlohmann::json& arguments) const {
    const auto text = [](const nlohmann::json& id) { return id.is_string(); };
    if (!ids.is_array() || ids.empty() || !std::all_of(ids.begin(), ids.end(), text)) {
      throw DataError(config_.instructions.name(),
                      ": ",
                      printable(ids.dump()),
                      " is not a list of instructions");
    }
    if (!arguments.is_array() || arguments.size() != ids.size()) {
      throw DataError(config_.arguments.name(),
                      ": a list of ",
                      ids.size(),
                      ", one object an instruction, is wanted");
    }
  }

  InstructionFollowingConfig config_;
};

}  // namespace

std::shared_ptr<const Judge> make_instruction_following(YamlReader& in) {
  InstructionFollowingConfig config;
  config.instructions = Field::of_metadata(in, "instructions", "metadata.instruction_id_list");
  config.arguments = Field::of_metadata(in, "arguments", "metadata.kwargs");
  config.missing = missing_from_yaml(in);
  config.loose = in.get("mode", "strict", {"strict", "loose"}) == "loose";
  config.each = in.get("each", config.each);
  return std::make_shared<InstructionFollowingJudge>(std::move(config));
}

}  // namespace praetor
