#include "learners/optim/optimizer_config.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/str.h"

namespace praetor {
namespace {

void read_adafactor(YamlReader& in, OptimizerConfig& c) {
  const std::vector<double> eps = in.get("eps", std::vector<double>{c.eps_square, c.eps_scale});
  if (eps.size() == 2 && eps[0] >= 0 && eps[1] >= 0) {
    c.eps_square = eps[0];
    c.eps_scale = eps[1];
  } else {
    in.error_at("eps",
                "adafactor wants two numbers, 0 or more: what is added to squared gradients, and "
                "the least scale of a parameter, as in [1e-30, 1e-3]");
  }
  // Without a first moment nothing but rows and columns of the second is kept.
  c.beta1 = in.get("beta1", c.kind == "adafactor" ? c.beta1 : 0.0, Range{0, 1, false, true});
  c.clip_threshold = in.get("clip_threshold", c.clip_threshold, greater_than(0));
  c.decay_rate = in.get("decay_rate", c.decay_rate, Range{-1, 0, false, true});
  c.scale_parameter = in.get("scale_parameter", c.scale_parameter);
}

/// Adafactor's own learning rate leaves no room for these keys: they are read, and so filled in
/// where they are absent, without it alone.
void read_schedule(YamlReader& in, OptimizerConfig& c) {
  const auto wanted = [&](const char* key) {
    if (!c.relative_step) return true;
    if (in.has(key))
      in.error_at(key,
                  "relative_step makes the learning rate min(0.01, 1 / sqrt(step)); leave this "
                  "key out, or relative_step");
    return in.has(key);
  };
  Schedule& s = c.schedule;
  if (wanted("learning_rate"))
    c.learning_rate = in.get("learning_rate", c.learning_rate, greater_than(0));
  if (wanted("schedule")) s.shape = in.get("schedule", s.shape, {"constant", "linear", "cosine"});
  if (wanted("warmup_steps")) s.warmup_steps = in.get("warmup_steps", s.warmup_steps, at_least(0));
  if (wanted("min_ratio")) s.min_ratio = in.get("min_ratio", s.min_ratio, Range{0, 1, false, true});
}

std::vector<OptimizerGroup> read_groups(YamlReader& in, double weight_decay) {
  std::vector<OptimizerGroup> out;
  for (YamlReader item : in.list("groups")) {
    OptimizerGroup group;
    group.match = item.require_string("match");
    if (item.has("match") && group.match.empty())
      item.error_at("match", "wanted a part of the names of the parameters that are meant");
    group.learning_rate_factor =
        item.get("learning_rate_factor", group.learning_rate_factor, at_least(0));
    group.weight_decay = item.get("weight_decay", weight_decay, at_least(0));
    item.reject_unknown_keys();
    out.push_back(std::move(group));
  }
  return out;
}

bool contains(const std::string& name, const std::string& part) {
  return name.find(part) != std::string::npos;
}

}  // namespace

std::vector<std::string> norms_and_biases() noexcept {
  return {"norm", "bias"};
}

OptimizerConfig OptimizerConfig::from_yaml(YamlReader in, OptimizerConfig defaults) {
  OptimizerConfig c = std::move(defaults);
  const std::string kind = in.get("kind", c.kind, {"adamw", "sgd", "adafactor"});
  c.relative_step = kind == "adafactor" && in.get("relative_step", c.relative_step);
  read_schedule(in, c);
  if (kind == "adamw") {
    c.beta1 = in.get("beta1", c.beta1, Range{0, 1, false, true});
    c.beta2 = in.get("beta2", c.beta2, Range{0, 1, false, true});
    c.eps = in.get("eps", c.eps, greater_than(0));
  } else if (kind == "sgd") {
    c.momentum = in.get("momentum", c.momentum, Range{0, 1, false, true});
    c.nesterov = in.get("nesterov", c.nesterov);
    if (c.nesterov && c.momentum == 0)
      in.error_at("nesterov", "wants a momentum above 0, such as 0.9");
  } else {
    read_adafactor(in, c);
  }
  c.kind = kind;
  c.weight_decay = in.get("weight_decay", c.weight_decay, at_least(0));
  c.no_decay = in.get("no_decay", c.no_decay);
  if (std::ranges::count(c.no_decay, std::string()) > 0)
    in.error_at("no_decay", "an empty word is in every name; for no decay at all: weight_decay: 0");
  c.groups = read_groups(in, c.weight_decay);
  const std::string states = in.get("state_dtype", "float32", {"float32", "bfloat16"});
  c.state_dtype = states == "bfloat16" ? c10::kBFloat16 : c10::kFloat;
  const bool large_states = c.kind == "adamw" || (c.kind == "sgd" && c.momentum > 0) ||
                            (c.kind == "adafactor" && c.beta1 > 0);
  if (c.state_dtype == c10::kBFloat16 && !large_states) {
    in.error_at("state_dtype",
                str(c.kind,
                    " keeps no state as large as the parameters without ",
                    c.kind == "sgd" ? "momentum" : "beta1",
                    " above 0; leave this key out"));
  }
  c.offload = in.get("offload", c.offload);
  const bool movable = c.kind == "adamw" || (c.kind == "sgd" && c.momentum > 0);
  if (c.offload && !movable) {
    in.error_at("offload",
                str(c.kind == "sgd" ? "sgd without momentum keeps nothing that could be"
                                    : "adafactor keeps little, which its steps read where they are",
                    "; leave this key out, or take adamw"));
  }
  c.max_grad_norm = in.get("max_grad_norm", c.max_grad_norm, at_least(0));
  in.reject_unknown_keys();
  return c;
}

double OptimizerConfig::rate(int64_t update, int64_t step) const {
  if (kind == "adafactor" && relative_step)
    return std::min(1e-2, 1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(step, 1))));
  return learning_rate * schedule.factor(update);
}

const OptimizerGroup* OptimizerConfig::group_of(const std::string& parameter) const {
  const auto found = std::ranges::find_if(
      groups, [&](const OptimizerGroup& one) { return contains(parameter, one.match); });
  return found == groups.end() ? nullptr : &*found;
}

double OptimizerConfig::decay_of(const std::string& parameter) const {
  if (const OptimizerGroup* group = group_of(parameter)) return group->weight_decay;
  const bool exempt = std::ranges::any_of(
      no_decay, [&](const std::string& part) { return contains(parameter, part); });
  return exempt ? 0.0 : weight_decay;
}

}  // namespace praetor
