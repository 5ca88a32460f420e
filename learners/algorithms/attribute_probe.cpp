// A linear probe of a frozen backbone by ridge regression (ArmoRM, Wang et al. 2024,
// arXiv:2406.12845).
#include "learners/algorithms/attribute_probe.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/str.h"

namespace praetor {

AttributeProbeConfig AttributeProbeConfig::from_yaml(YamlReader in) {
  AttributeProbeConfig c;
  c.attributes = attributes_from_yaml(in, c.attributes);
  c.probe.alphas = in.get("alphas", c.probe.alphas);
  if (c.probe.alphas.empty()) in.error_at("alphas", "at least one is wanted");
  for (const double alpha : c.probe.alphas) {
    if (!(alpha > 0 && std::isfinite(alpha)))
      in.error_at("alphas", str(alpha, " is not above 0, as each must be"));
  }
  c.probe.held_out = in.get("held_out", c.probe.held_out, open(0, 1));
  in.reject_unknown_keys();
  return c;
}

namespace {

class AttributeProbe final : public AttributeModel {
 public:
  explicit AttributeProbe(AttributeProbeConfig config)
      : AttributeModel({.batch_size = 0, .attributes = std::move(config.attributes)}),
        probe_(std::move(config.probe)) {}

  std::string name() const override { return "attribute_probe"; }
  ModelPlan models() const override {
    ModelPlan plan = AttributeModel::models();
    plan.probe = probe_;
    return plan;
  }

 private:
  ProbePlan probe_;
};

}  // namespace

std::unique_ptr<Algorithm> make_attribute_probe(AttributeProbeConfig config) {
  return std::make_unique<AttributeProbe>(std::move(config));
}

std::unique_ptr<Algorithm> make_attribute_probe(const AlgorithmContext& context) {
  return make_attribute_probe(AttributeProbeConfig::from_yaml(context.config));
}

}  // namespace praetor
