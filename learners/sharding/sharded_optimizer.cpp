#include "learners/sharding/sharded_optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "learners/optim/clip_grad.h"

namespace praetor {
namespace {

template <typename T>
std::span<T> elements(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<T>(), static_cast<size_t>(tensor.numel())};
}

/// What this rank steps: in a world of one the parameters, else aliases of their pieces, which
/// carry the reduced gradients while the parameters carry the rank's own.
std::vector<NamedTensor> pieces_of(const std::vector<NamedTensor>& parameters,
                                   const std::vector<FlatPiece>& owned) {
  const at::NoGradGuard no_grad;
  std::vector<NamedTensor> out;
  for (const FlatPiece& piece : owned) {
    const NamedTensor& whole = parameters[piece.parameter];
    const at::Tensor alias = whole.tensor.detach();
    const bool all = piece.begin == 0 && piece.end == alias.numel();
    out.push_back({piece_name(whole.name, piece.begin, piece.end, alias.numel()),
                   all ? alias : alias.view(-1).slice(0, piece.begin, piece.end).detach()});
  }
  return out;
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(std::string name,
                                   std::vector<NamedTensor> parameters,
                                   OptimizerConfig config,
                                   Collective& ranks,
                                   int64_t bucket_bytes)
    : name_(std::move(name)),
      parameters_(std::move(parameters)),
      ranks_(ranks),
      bucket_bytes_(bucket_bytes),
      layout_(parameters_, ranks.world_size()),
      owned_(layout_.pieces_of(ranks.rank())) {
  if (alone()) {
    adam_ = std::make_unique<AdamW>(parameters_, std::move(config));
    return;
  }
  for (const NamedTensor& parameter : parameters_) {
    if (parameter.tensor.scalar_type() != parameters_.front().tensor.scalar_type()) {
      throw InvalidArgument("optimizer of the ",
                            name_,
                            ": ",
                            parameter.name,
                            " is ",
                            c10::toString(parameter.tensor.scalar_type()),
                            " and ",
                            parameters_.front().name,
                            " ",
                            c10::toString(parameters_.front().tensor.scalar_type()),
                            "; parts of several ranks need one type");
    }
    if (!parameter.tensor.is_contiguous()) {
      throw InvalidArgument("optimizer of the ", name_, ": ", parameter.name, " is not contiguous");
    }
  }
  adam_ = std::make_unique<AdamW>(pieces_of(parameters_, owned_), std::move(config));
}

int64_t ShardedOptimizer::bucket() const {
  const int64_t size = parameters_.front().tensor.element_size() * ranks_.world_size();
  return std::max<int64_t>(bucket_bytes_ / size, 1);
}

void ShardedOptimizer::reduce_gradients() {
  if (alone() || parameters_.empty()) return;
  const auto count = parameters_.size();
  std::vector<std::byte> mine(count), all(count * static_cast<size_t>(ranks_.world_size()));
  for (size_t i = 0; i < count; ++i) mine[i] = std::byte(parameters_[i].tensor.grad().defined());
  ranks_.all_gather<std::byte>(mine, all);
  has_gradient_.assign(count, false);
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] != std::byte{0}) has_gradient_[i % count] = true;
  }
  if (parameters_.front().tensor.scalar_type() == at::kDouble) {
    reduce_buckets<double>();
  } else {
    reduce_buckets<float>();
  }
  for (const NamedTensor& parameter : parameters_) parameter.tensor.mutable_grad() = at::Tensor();
  for (size_t i = 0; i < owned_.size(); ++i) {
    const FlatPiece& piece = owned_[i];
    if (!has_gradient_[piece.parameter]) continue;
    const at::Tensor& weight = adam_->parameters()[i].tensor;
    weight.mutable_grad() =
        gradient_.slice(0, piece.at, piece.at + piece.end - piece.begin).view(weight.sizes());
  }
}

template <typename T>
void ShardedOptimizer::reduce_buckets() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const NamedTensor& parameter : parameters_) {
    at::Tensor& gradient = parameter.tensor.mutable_grad();
    if (gradient.defined() && !gradient.is_contiguous()) gradient = gradient.contiguous();
    gradients.push_back(gradient);
  }
  const auto options = parameters_.front().tensor.options().requires_grad(false);
  const int64_t world = ranks_.world_size();
  gradient_ = at::empty({layout_.part()}, options);
  const at::Tensor bucket_of_all = at::empty({std::min(bucket(), layout_.part()) * world}, options);
  const std::span<T> reduced = elements<T>(gradient_), send = elements<T>(bucket_of_all);
  for (int64_t at = 0; at < layout_.part(); at += bucket()) {
    const int64_t length = std::min(bucket(), layout_.part() - at);
    for (int64_t r = 0; r < world; ++r) {
      const int64_t begin = r * layout_.part() + at;
      gather_flat(layout_, gradients, begin, begin + length, send.data() + r * length, sizeof(T));
    }
    ranks_.reduce_scatter<T>(send.first(static_cast<size_t>(length * world)),
                             reduced.subspan(static_cast<size_t>(at), static_cast<size_t>(length)));
  }
}

void ShardedOptimizer::digest_gradients(Sha256& digest) const {
  for (const NamedTensor& parameter : adam_->parameters()) {
    if (!parameter.tensor.grad().defined()) continue;
    const at::Tensor gradient = parameter.tensor.grad().contiguous();
    digest.update(
        std::span(static_cast<const std::byte*>(gradient.const_data_ptr()), gradient.nbytes()));
  }
}

double ShardedOptimizer::clip_gradients() {
  if (alone()) return clip_grad_norm(parameters_, config().max_grad_norm);
  const double mine = grad_square_sum(adam_->parameters());
  std::vector<double> parts(static_cast<size_t>(ranks_.world_size()));
  ranks_.all_gather<double>(std::span(&mine, 1), parts);
  double total = 0;
  for (const double part : parts) total += part;
  const double norm = std::sqrt(total);
  scale_gradients(adam_->parameters(), norm, config().max_grad_norm);
  return norm;
}

void ShardedOptimizer::step(double learning_rate) {
  adam_->step(learning_rate);
  if (alone() || parameters_.empty()) return;
  if (parameters_.front().tensor.scalar_type() == at::kDouble) {
    gather_weights<double>();
  } else {
    gather_weights<float>();
  }
  // Caches made from weights that another rank has stepped are old, too.
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (has_gradient_[i]) parameters_[i].tensor.unsafeGetTensorImpl()->bump_version();
  }
}

template <typename T>
void ShardedOptimizer::gather_weights() {
  std::vector<at::Tensor> weights;
  for (const NamedTensor& parameter : parameters_) weights.push_back(parameter.tensor);
  const auto options = parameters_.front().tensor.options().requires_grad(false);
  const int64_t world = ranks_.world_size(), rank = ranks_.rank();
  const at::Tensor bucket_of_all = at::empty({std::min(bucket(), layout_.part()) * world}, options);
  const std::span<T> all = elements<T>(bucket_of_all);
  for (int64_t at = 0; at < layout_.part(); at += bucket()) {
    const int64_t length = std::min(bucket(), layout_.part() - at);
    const auto place = [&](int64_t r) {
      return all.subspan(static_cast<size_t>(r * length), static_cast<size_t>(length));
    };
    const auto begin = [&](int64_t r) { return r * layout_.part() + at; };
    gather_flat(layout_, weights, begin(rank), begin(rank) + length, place(rank).data(), sizeof(T));
    ranks_.all_gather<T>(place(rank), all.first(static_cast<size_t>(length * world)));
    for (int64_t r = 0; r < world; ++r) {
      if (r != rank)
        scatter_flat(layout_, weights, begin(r), begin(r) + length, place(r).data(), sizeof(T));
    }
  }
}

void ShardedOptimizer::zero_grad() {
  for (const NamedTensor& parameter : parameters_) parameter.tensor.mutable_grad() = at::Tensor();
  adam_->zero_grad();
  gradient_ = at::Tensor();
}

}  // namespace praetor
