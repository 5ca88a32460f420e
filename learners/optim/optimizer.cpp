#include "learners/optim/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "learners/optim/adafactor.h"
#include "learners/optim/adamw.h"
#include "learners/optim/rounding.h"
#include "learners/optim/sgd.h"
#include "learners/sharding/flat_layout.h"

namespace praetor {
namespace {

void require_usable(const std::string& who, const NamedTensor& owned, bool offload) {
  const at::Tensor& t = owned.tensor;
  if (offload && t.is_cpu()) {
    throw InvalidArgument(who,
                          ": optimizer.offload: ",
                          owned.name,
                          " is on the CPU, and so is what the optimizer keeps for it");
  }
  const bool known = t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble;
  if (known && t.is_contiguous()) return;
  throw InvalidArgument(
      who, ": ", owned.name, " is ", t.toString(), "; wanted contiguous float32 or float64");
}

}  // namespace

std::vector<StateSpec> state_of(const OptimizerConfig& config,
                                at::IntArrayRef sizes,
                                c10::ScalarType dtype) {
  const c10::ScalarType large = dtype == at::kFloat ? config.state_dtype : dtype;
  const std::vector<int64_t> all = sizes.vec();
  if (config.kind == "adamw") return {{"exp_avg", all, large}, {"exp_avg_sq", all, large}};
  std::vector<StateSpec> out;
  if (config.kind == "sgd") {
    if (config.momentum > 0) out.push_back({"momentum", all, large});
    return out;
  }
  if (config.beta1 > 0) out.push_back({"exp_avg", all, large});
  if (sizes.size() == 2) {
    out.push_back({"exp_avg_sq_row", {sizes[0]}, dtype, false});
    out.push_back({"exp_avg_sq_col", {sizes[1]}, dtype, false});
  } else {
    out.push_back({"exp_avg_sq", all, dtype});
  }
  return out;
}

Optimizer::Optimizer(OptimizerSetup setup, OptimizerConfig config)
    : ranks_(setup.ranks), owned_(std::move(setup.owned)), config_(std::move(config)) {
  const std::string who = config_.kind + (setup.name.empty() ? "" : " of the " + setup.name);
  std::map<std::string, size_t> index;
  std::set<const OptimizerGroup*> used;
  for (const NamedTensor& parameter : setup.parameters) {
    Whole whole{.name = parameter.name,
                .sizes = parameter.tensor.sizes().vec(),
                .numel = parameter.tensor.numel()};
    if (!index.emplace(whole.name, wholes_.size()).second)
      throw InvalidArgument(who, ": parameter ", whole.name, " is given twice");
    const OptimizerGroup* group = config_.group_of(whole.name);
    used.insert(group);
    if (group) whole.rate = group->learning_rate_factor;
    whole.decay = config_.decay_of(whole.name);
    whole.key = rounding_key(config_.seed, config_.stage, setup.name + "/" + whole.name);
    whole.specs = state_of(config_, whole.sizes, parameter.tensor.scalar_type());
    for (const StateSpec& spec : whole.specs)
      whole.states.push_back(spec.elementwise ? at::Tensor() : at::zeros(spec.sizes, spec.dtype));
    wholes_.push_back(std::move(whole));
  }
  for (const OptimizerGroup& group : config_.groups) {
    if (used.contains(&group)) continue;
    throw InvalidArgument(who,
                          ": optimizer.groups: no parameter",
                          wholes_.empty() ? "" : " such as " + wholes_.front().name,
                          " is left for the group that matches \"",
                          group.match,
                          "\"");
  }
  for (const NamedTensor& owned : owned_) {
    require_usable(who, owned, config_.offload);
    const PieceName name = split_piece_name(owned.name);
    const auto found = index.find(name.parameter);
    PRAETOR_CHECK(found != index.end(), who, ": ", owned.name, " is a piece of no parameter");
    Piece piece{.whole = found->second,
                .begin = name.range ? name.range->first : 0,
                .weight = owned.tensor};
    const at::Device place = config_.offload ? at::Device(at::kCPU) : owned.tensor.device();
    for (const StateSpec& spec : wholes_[piece.whole].specs)
      piece.states.push_back(
          spec.elementwise
              ? at::zeros(owned.tensor.sizes(), at::TensorOptions(spec.dtype).device(place))
              : at::Tensor());
    pieces_.push_back(std::move(piece));
  }
}

Optimizer::OffloadedPiece::OffloadedPiece(const Piece& of, const at::Tensor& its_gradient)
    : piece(of), gradient(its_gradient.cpu()) {
  piece.weight = of.weight.detach().cpu();
}

void Optimizer::OffloadedPiece::give_back(const Piece& to) const {
  to.weight.detach().copy_(piece.weight);
}

void Optimizer::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  ++steps_;
  update(learning_rate);
  bump_versions();
}

void Optimizer::zero_grad() {
  for (NamedTensor& piece : owned_) piece.tensor.mutable_grad() = at::Tensor();
}

void Optimizer::bump_versions() const {
  for (const Piece& piece : pieces_) {
    if (piece.weight.grad().defined()) piece.weight.unsafeGetTensorImpl()->bump_version();
  }
}

std::vector<Optimizer::HeldState> Optimizer::held_state() const {
  std::vector<HeldState> out;
  for (const Piece& piece : pieces_) {
    const Whole& whole = wholes_[piece.whole];
    for (size_t k = 0; k < piece.states.size(); ++k) {
      if (!whole.specs[k].elementwise) continue;
      out.push_back({.name = whole.specs[k].name + "/" + whole.name,
                     .begin = piece.begin,
                     .whole = whole.numel,
                     .tensor = piece.states[k]});
    }
  }
  for (const Whole& whole : wholes_) {
    for (size_t k = 0; k < whole.states.size(); ++k) {
      if (whole.specs[k].elementwise) continue;
      out.push_back({.name = whole.specs[k].name + "/" + whole.name,
                     .whole = whole.states[k].numel(),
                     .tensor = whole.states[k],
                     .everywhere = true});
    }
  }
  return out;
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> out;
  for (const HeldState& held : held_state()) {
    if (held.everywhere && ranks_ && ranks_->rank() > 0) continue;
    const int64_t end = held.begin + held.tensor.numel();
    out.push_back({piece_name(held.name, held.begin, end, held.whole), held.tensor});
  }
  return out;
}

int64_t Optimizer::state_bytes() const {
  int64_t out = 0;
  for (const HeldState& held : held_state()) out += static_cast<int64_t>(held.tensor.nbytes());
  return out;
}

std::unique_ptr<Optimizer> make_optimizer(OptimizerSetup setup, OptimizerConfig config) {
  if (config.kind == "sgd") return std::make_unique<Sgd>(std::move(setup), std::move(config));
  if (config.kind == "adafactor")
    return std::make_unique<Adafactor>(std::move(setup), std::move(config));
  if (config.kind == "adamw") return std::make_unique<AdamW>(std::move(setup), std::move(config));
  throw InvalidArgument("optimizer \"", config.kind, "\"; there are adamw, sgd, adafactor");
}

}  // namespace praetor
