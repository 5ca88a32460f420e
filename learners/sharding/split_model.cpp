#include "learners/sharding/split_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "core/model/kernels/packed_weight.h"
#include "learners/sharding/resize_storage.h"

namespace praetor {
namespace {

class PartWeights final : public ModelWeights {
 public:
  PartWeights(std::shared_ptr<const ModelWeights> whole,
              const TensorGroup& group,
              std::function<void(const NamedTensor&)> seen)
      : whole_(std::move(whole)), group_(group), seen_(std::move(seen)), shell_(whole_->shell()) {
    for (const NamedTensor& named : shell_.parameters()) sizes_[named.name] = named.tensor.sizes();
  }

  Transformer shell() const override { return split_model(shell_, group_); }

 private:
  void read_own(std::span<const NamedTensor> parameters) const override {
    for (const NamedTensor& named : parameters) {
      const TensorPart place =
          tensor_part(shell_.config(), named.name, group_.rank(), group_.size());
      NamedTensor all = named;
      if (!place.everywhere()) all.tensor = at::empty(sizes_.at(named.name), at::dtype(dtype()));
      whole_->read(std::span(&all, 1));
      seen_(all);
      if (!place.everywhere()) named.tensor.detach().copy_(place.of(all.tensor));
    }
  }
  at::ScalarType dtype() const override { return shell_.dtype(); }

  std::shared_ptr<const ModelWeights> whole_;
  const TensorGroup& group_;
  std::function<void(const NamedTensor&)> seen_;
  Transformer shell_;
  std::map<std::string, at::IntArrayRef> sizes_;  ///< of the shell's parameters
};

}  // namespace

SplitModel::SplitModel(Transformer& model, const TensorGroup& group)
    : part_(model), group_(group), whole_(std::move(model)) {
  part_ = split_model(whole_, group_);
  for (size_t i = 0; i < whole_.parameters().size(); ++i) {
    const NamedTensor& named = whole_.parameters()[i];
    places_.push_back(tensor_part(whole_.config(), named.name, group_.rank(), group_.size()));
    release(i);
  }
}

void SplitModel::gather(size_t i, bool keep) {
  const TensorPart& place = places_[i];
  if (place.everywhere()) return;
  const at::NoGradGuard no_grad;
  const at::Tensor mine = part_.parameters()[i].tensor.detach();
  // A language head that nobody uses stays in parts.
  if (mine.storage().nbytes() == 0) return;
  const at::Tensor& whole = whole_.parameters()[i].tensor;
  const auto part_of = [&](int64_t rank) {
    return tensor_part(whole_.config(), whole_.parameters()[i].name, rank, group_.size());
  };
  // Parts may differ by a row or a column; elements pass between ranks in the longest one's place.
  int64_t longest = 0;
  const int64_t others = mine.numel() / place.range.size();
  for (int64_t r = 0; r < group_.size(); ++r)
    longest = std::max(longest, part_of(r).range.size() * others);
  at::Tensor sent = mine.reshape({-1});
  if (sent.numel() < longest) {
    sent = at::zeros({longest}, mine.options());
    sent.narrow(0, 0, mine.numel()).copy_(mine.view({-1}));
  }
  const at::Tensor all = group_.all(sent);
  if (!keep) return;
  resize_storage(whole, static_cast<size_t>(whole.numel()) * whole.element_size());
  for (int64_t r = 0; r < group_.size(); ++r) {
    const TensorPart part = part_of(r);
    at::Tensor to = part.of(whole.detach());
    to.copy_(all[r].narrow(0, 0, to.numel()).view(to.sizes()));
  }
  whole.unsafeGetTensorImpl()->bump_version();
}

void SplitModel::release(size_t i) {
  if (places_[i].everywhere()) return;
  const at::Tensor& whole = whole_.parameters()[i].tensor;
  if (whole.storage().nbytes() == 0) return;
  ops::kernels::forget_packed_weights(whole);
  resize_storage(whole, 0);
}

std::shared_ptr<const ModelWeights> part_weights(std::shared_ptr<const ModelWeights> whole,
                                                 const TensorGroup& group,
                                                 std::function<void(const NamedTensor&)> seen) {
  return std::make_shared<PartWeights>(std::move(whole), group, std::move(seen));
}

}  // namespace praetor
