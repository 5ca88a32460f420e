#include "reward/part_config.h"

#include <algorithm>
#include <map>
#include <optional>

#include "core/base/str.h"
#include "core/base/text.h"
#include "reward/judges/registry.h"

namespace praetor {

namespace {

const std::map<std::string, TreeKind>& tree_kinds() {
  static const std::map<std::string, TreeKind> kKinds = {{"all_of", TreeKind::kAllOf},
                                                         {"any_of", TreeKind::kAnyOf},
                                                         {"k_of_n", TreeKind::kKOfN},
                                                         {"gate", TreeKind::kGate},
                                                         {"sum", TreeKind::kSum}};
  return kKinds;
}

/// What a part is read for.
enum class Place {
  kTop,      ///< by itself
  kSummand,  ///< its score enters the sum of a tree
  kValue,    ///< its score is that of a gate
  kJudged,   ///< its verdict counts within a tree
};

class PartReader {
 public:
  explicit PartReader(std::set<std::string>& names) : names_(names) {}

  PartConfig read(YamlReader in, Place place) {
    PartConfig part;
    part.place = in;
    part.kind = in.require_string("kind", part_kinds());
    read_name(in, part);
    read_use(in, part, place);
    read_weight(in, part, place);
    const bool whole = read_kind(in, part, place);
    read_on_error(in, part, place);
    if (!whole) return part;  // without a kind there is no telling which keys are known
    check_place(in, part, place);
    in.reject_unknown_keys();
    return part;
  }

 private:
  void read_name(YamlReader& in, PartConfig& part) {
    part.name = in.get("name", part.kind);
    if (in.has("name") && !is_plain_name(part.name)) {
      in.error_at("name",
                  str("\"",
                      printable(part.name),
                      "\" may hold letters, digits, \"_\", \"-\" and \".\" only"));
    }
    if (!part.name.empty() && !names_.insert(part.name).second)
      in.error_at("name", str("another part is named \"", printable(part.name), "\" already"));
  }

  static void read_use(YamlReader& in, PartConfig& part, Place place) {
    if (place != Place::kTop) {
      if (!in.has("use")) return;
      in.get_optional_string("use");
      in.error_at("use", "has no effect within a tree; say it of the tree");
      return;
    }
    const std::string use = in.get("use", "reward", {"reward", "constraint", "monitor"});
    if (use == "constraint") part.use = PartUse::kConstraint;
    if (use == "monitor") part.use = PartUse::kMonitor;
  }

  static void read_weight(YamlReader& in, PartConfig& part, Place place) {
    const bool summed =
        place == Place::kSummand || (place == Place::kTop && part.use == PartUse::kReward);
    if (summed) {
      part.weight = in.get("weight", part.weight, closed(-1e9, 1e9));
      return;
    }
    part.weight = 0.0;
    if (!in.has("weight")) return;
    in.get_optional_number("weight");
    in.error_at("weight",
                place == Place::kTop
                    ? str("has no effect with use: ",
                          part.use == PartUse::kConstraint ? "constraint" : "monitor",
                          "; only use: reward enters the sum")
                    : "has no effect here; within a tree, only the parts of a sum have weights");
  }

  /// False when the kind, or the form of the kind, is not known.
  bool read_kind(YamlReader& in, PartConfig& part, Place place) {
    const auto& judges = judge_kinds();
    if (part.kind == "model") {
      part.model = RewardModelConfig::from_yaml(in);
    } else if (part.kind == "attributes") {
      part.attributes = AttributePartConfig::from_yaml(in);
    } else if (part.kind == "llm_judge") {
      part.llm_judge = LlmJudgeConfig::from_yaml(in);
    } else if (part.kind == "preference") {
      read_preference(in, part, place);
      return part.preference->scalar || part.preference->generative;
    } else if (const auto tree = tree_kinds().find(part.kind); tree != tree_kinds().end()) {
      part.tree = TreeRule{.kind = tree->second};
      read_tree(in, part);
    } else if (std::ranges::find(judges, part.kind) != judges.end()) {
      if (part.kind == "external" && in.has("address")) {
        part.service = ExternalServiceConfig::from_yaml(in);
      } else {
        part.judge = make_judge(part.kind, in);
      }
      const auto timeout = in.get_optional_integer("timeout_ms", closed(1, 600'000));
      if (timeout && *timeout > 0) part.timeout = std::chrono::milliseconds(*timeout);
      if (!timeout && part.judge) part.timeout = part.judge->usual_timeout();
      part.retries = in.get_optional_integer("retries", closed(0, 10));
    } else {
      return false;
    }
    return true;
  }

  static void read_preference(YamlReader& in, PartConfig& part, Place place) {
    part.preference = PreferenceConfig::from_yaml(in);
    if (place != Place::kTop)
      in.error_at("kind", "a preference stands by itself, not within a tree");
    if (part.use == PartUse::kMonitor) {
      in.error_at("use",
                  "a preference is what the learner compares by; weight: 0 keeps it out of the "
                  "score");
    }
  }

  void read_tree(YamlReader& in, PartConfig& part) {
    TreeRule& rule = *part.tree;
    const Place place = rule.kind == TreeKind::kSum ? Place::kSummand : Place::kJudged;
    const auto parts = in.list("parts");
    if (parts.empty()) in.error_at("parts", "at least one part is needed");
    for (const YamlReader& child : parts) part.children.push_back(read(child, place));
    const auto count = static_cast<int64_t>(parts.size());
    if (rule.kind == TreeKind::kAllOf) rule.k = count;
    if (rule.kind == TreeKind::kKOfN) {
      rule.k = in.require_integer("k", at_least(1));
      if (in.has("k") && rule.k > count)
        in.error_at("k", str(rule.k, " is more than the ", count, " parts"));
    }
    if (rule.kind != TreeKind::kGate) return;
    rule.cap = in.get("cap", rule.cap, closed(-1e9, 1e9));
    if (auto value = in.optional_child("value")) {
      part.children.push_back(read(*value, Place::kValue));
    } else {
      in.error_at("",
                  "missing key \"value\"; the part whose score the gate lets through is wanted");
    }
  }

  static void read_on_error(YamlReader& in, PartConfig& part, Place place) {
    if (!in.has("on_error")) {
      if (in.has("error_value")) {
        in.get_optional_number("error_value");
        in.error_at("error_value", "has no effect; it needs on_error: value");
      }
      return;
    }
    std::vector<std::string> known;
    const bool judged = place == Place::kJudged || part.use == PartUse::kConstraint;
    if (place == Place::kTop) known = {"drop", "fail"};
    known.emplace_back(judged ? "violated" : "value");
    if (part.use == PartUse::kMonitor) {
      in.get_optional_string("on_error");
      in.error_at("on_error", "has no effect with use: monitor, which never drops a sample");
      return;
    }
    const std::string chosen = in.require_string("on_error", known);
    if (chosen == "drop") part.on_error = OnError::kDrop;
    if (chosen == "fail") part.on_error = OnError::kFail;
    if (chosen == "violated") part.on_error = OnError::kViolated;
    if (chosen == "value") {
      part.on_error = OnError::kValue;
      part.error_value = in.require_number("error_value", closed(-1e9, 1e9));
    } else if (in.has("error_value")) {
      in.get_optional_number("error_value");
      in.error_at("error_value",
                  str("has no effect with on_error: ", chosen, "; it needs on_error: value"));
    }
  }

  static void check_place(YamlReader& in, const PartConfig& part, Place place) {
    if (part.gives_verdict()) return;
    if (part.use == PartUse::kConstraint)
      in.error_at("use", str("a ", part.kind, " gives no verdict, which a constraint needs"));
    if (place == Place::kJudged)
      in.error_at("kind", str("a ", part.kind, " gives no verdict, which counts here"));
  }

  std::set<std::string>& names_;
};

}  // namespace

const std::vector<std::string>& part_kinds() {
  static const std::vector<std::string> kKinds = [] {
    std::vector<std::string> kinds = {"model",
                                      "attributes",
                                      "llm_judge",
                                      "preference",
                                      "all_of",
                                      "any_of",
                                      "k_of_n",
                                      "gate",
                                      "sum"};
    kinds.insert(kinds.end(), judge_kinds().begin(), judge_kinds().end());
    return kinds;
  }();
  return kKinds;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

std::vector<PartConfig> parts_from_yaml(YamlReader& in, std::set<std::string>& names) {
  PartReader reader(names);
  std::vector<PartConfig> out;
  for (const YamlReader& part : in.list("parts")) out.push_back(reader.read(part, Place::kTop));
  return out;
}

bool PartConfig::gives_verdict() const {
  if (!tree) return !model && !attributes;
  // Each child of the others gives one, or is an error; a value's counts for nothing.
  return tree->kind != TreeKind::kSum || std::ranges::any_of(children, &PartConfig::gives_verdict);
}

std::optional<ModelFolder> PartConfig::folder() const {
  if (model) return model->folder();
  if (attributes) return attributes->folder();
  if (llm_judge) return llm_judge->model.folder;
  if (preference) return preference->folder();
  return std::nullopt;
}

}  // namespace praetor
