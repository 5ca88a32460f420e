#include "learners/sharding/flat_unit.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "core/model/kernels/packed_weight.h"
#include "core/model/model_weights.h"
#include "learners/sharding/resize_storage.h"

namespace praetor {
namespace {

template <typename T>
std::span<T> elements(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<T>(), static_cast<size_t>(tensor.numel())};
}

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

std::vector<at::Tensor> tensors_of(const std::vector<NamedTensor>& parameters) {
  std::vector<at::Tensor> out;
  for (const NamedTensor& parameter : parameters) out.push_back(parameter.tensor);
  return out;
}

/// What passes between ranks does so through the processor's memory: the tensor itself where it
/// lies there, else a copy,
at::Tensor on_host(const at::Tensor& tensor) {
  return tensor.cpu();
}

/// or room for one, whose values `from_host` brings.
at::Tensor room_on_host(const at::Tensor& tensor) {
  return tensor.is_cpu() ? tensor : at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
}

void from_host(const at::Tensor& host, const at::Tensor& tensor) {
  if (!host.is_same(tensor)) tensor.copy_(host);
}

}  // namespace

FlatUnit::FlatUnit(const std::string& who,
                   std::vector<NamedTensor> parameters,
                   ShardingRanks ranks,
                   int64_t alignment,
                   int64_t bucket_bytes)
    : parameters_(std::move(parameters)),
      shards_(*ranks.shards),
      copies_(ranks.replicas),
      bucket_bytes_(bucket_bytes),
      layout_(parameters_, shards_.world_size(), alignment),
      pieces_(layout_.pieces_of(shards_.rank())),
      seen_(parameters_.size(), false) {
  for (const NamedTensor& parameter : parameters_) {
    const at::Tensor& first = parameters_.front().tensor;
    if (parameter.tensor.scalar_type() != first.scalar_type()) {
      throw InvalidArgument(who,
                            ": ",
                            parameter.name,
                            " is ",
                            c10::toString(parameter.tensor.scalar_type()),
                            " and ",
                            parameters_.front().name,
                            " ",
                            c10::toString(first.scalar_type()),
                            "; parts of several ranks need one type");
    }
    if (!parameter.tensor.is_contiguous())
      throw InvalidArgument(who, ": ", parameter.name, " is not contiguous");
  }
  const at::NoGradGuard no_grad;
  for (const FlatPiece& piece : pieces_) {
    const NamedTensor& whole = parameters_[piece.parameter];
    const at::Tensor alias = whole.tensor.detach();
    const bool all = piece.begin == 0 && piece.end == alias.numel();
    at::Tensor mine;  // of one that waits for its weights not before `cut`
    if (!is_waiting(alias))
      mine = all ? alias : alias.view(-1).slice(0, piece.begin, piece.end).detach();
    owned_.push_back({piece_name(whole.name, piece.begin, piece.end, alias.numel()), mine});
  }
}

int64_t FlatUnit::bucket() const {
  const int64_t size = parameters_.front().tensor.element_size() * shards_.world_size();
  return std::max<int64_t>(bucket_bytes_ / size, 1);
}

int64_t FlatUnit::gradient_bytes() const {
  int64_t out = 0;
  for (const NamedTensor& parameter : parameters_) {
    if (parameter.tensor.grad().defined())
      out += static_cast<int64_t>(parameter.tensor.grad().nbytes());
  }
  if (whole_gradient_.defined()) out += static_cast<int64_t>(whole_gradient_.nbytes());
  return out;
}

std::vector<at::Tensor> FlatUnit::gradients() const {
  std::vector<at::Tensor> out;
  for (const NamedTensor& parameter : parameters_) {
    at::Tensor& gradient = parameter.tensor.mutable_grad();
    if (gradient.defined() && !gradient.is_contiguous()) gradient = gradient.contiguous();
    out.push_back(gradient);
  }
  return out;
}

void FlatUnit::mark_seen() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].tensor.grad().defined()) seen_[i] = true;
  }
}

void FlatUnit::drop_own_gradients() {
  for (const NamedTensor& parameter : parameters_) parameter.tensor.mutable_grad() = at::Tensor();
}

void FlatUnit::add(const at::Tensor& sums) {
  if (gradient_.defined()) {
    gradient_.add_(sums);
  } else {
    gradient_ = sums;
  }
}

void FlatUnit::add_gradients() {
  if (parameters_.empty()) return;
  const at::NoGradGuard no_grad;
  mark_seen();
  const auto options = parameters_.front().tensor.options().requires_grad(false);
  at::Tensor sums = at::empty({layout_.part()}, options.device(at::kCPU));
  if (sums.scalar_type() == at::kDouble) {
    reduce<double>(sums);
  } else {
    reduce<float>(sums);
  }
  drop_own_gradients();
  add(sums.to(options.device()));
}

void FlatUnit::start_adding() {
  PRAETOR_CHECK(!sums_come_, "gradients of a unit are being summed already");
  if (parameters_.empty()) return;
  const at::NoGradGuard no_grad;
  mark_seen();
  const auto options = parameters_.front().tensor.options().requires_grad(false).device(at::kCPU);
  const int64_t all = layout_.part() * shards_.world_size();
  whole_gradient_ = at::empty({all}, options);
  sums_ = at::empty({layout_.part()}, options);
  gather_flat(layout_, gradients(), 0, all, whole_gradient_);
  drop_own_gradients();
  if (sums_.scalar_type() == at::kDouble) {
    sums_come_ = shards_.start_reduce_scatter<double>(elements<double>(whole_gradient_),
                                                      elements<double>(sums_));
  } else {
    sums_come_ = shards_.start_reduce_scatter<float>(elements<float>(whole_gradient_),
                                                     elements<float>(sums_));
  }
}

void FlatUnit::finish_adding() {
  if (!sums_come_) return;
  sums_come_->wait();
  sums_come_.reset();
  whole_gradient_ = at::Tensor();
  const at::NoGradGuard no_grad;
  add(std::exchange(sums_, at::Tensor()).to(parameters_.front().tensor.device()));
}

template <typename T>
void FlatUnit::reduce(at::Tensor& sums) {
  const std::vector<at::Tensor> own = gradients();
  const int64_t world = shards_.world_size(), part = layout_.part();
  const at::Tensor bucket_of_all = at::empty({std::min(bucket(), part) * world}, sums.options());
  const std::span<T> reduced = elements<T>(sums), send = elements<T>(bucket_of_all);
  for (int64_t at = 0; at < part; at += bucket()) {
    const int64_t length = std::min(bucket(), part - at);
    for (int64_t r = 0; r < world; ++r) {
      const int64_t begin = r * part + at;
      gather_flat(layout_, own, begin, begin + length, bucket_of_all.narrow(0, r * length, length));
    }
    shards_.reduce_scatter<T>(
        send.first(static_cast<size_t>(length * world)),
        reduced.subspan(static_cast<size_t>(at), static_cast<size_t>(length)));
  }
}

void FlatUnit::add_over_copies() {
  if (!copies_ || parameters_.empty()) return;
  const at::NoGradGuard no_grad;
  // The other copies' passes may have been more.
  if (!gradient_.defined()) {
    gradient_ =
        at::zeros({layout_.part()}, parameters_.front().tensor.options().requires_grad(false));
  }
  if (gradient_.scalar_type() == at::kDouble) {
    reduce_over_copies<double>();
  } else {
    reduce_over_copies<float>();
  }
}

template <typename T>
void FlatUnit::reduce_over_copies() {
  const at::Tensor host = on_host(gradient_);
  const std::span<T> all = elements<T>(host);
  const size_t most = std::max<size_t>(static_cast<size_t>(bucket_bytes_) / sizeof(T), 1);
  for (size_t at = 0; at < all.size(); at += most)
    copies_->all_reduce<T>(all.subspan(at, std::min(most, all.size() - at)));
  from_host(host, gradient_);
}

void FlatUnit::hand_over(const std::vector<bool>& any) {
  for (size_t i = 0; i < owned_.size(); ++i) {
    const FlatPiece& piece = pieces_[i];
    if (!any[piece.parameter]) continue;
    const at::Tensor& weight = owned_[i].tensor;
    weight.mutable_grad() =
        gradient_.slice(0, piece.at, piece.at + piece.end - piece.begin).view(weight.sizes());
  }
}

void FlatUnit::drop_gradients() {
  drop_own_gradients();
  for (const NamedTensor& piece : owned_) piece.tensor.mutable_grad() = at::Tensor();
  gradient_ = at::Tensor();
  seen_.assign(parameters_.size(), false);
}

void FlatUnit::share_weights() {
  PRAETOR_CHECK(!is_cut(), "weights in parts are gathered, not shared");
  if (parameters_.empty() || shards_.world_size() == 1) return;
  const std::vector<at::Tensor> weights = tensors_of(parameters_);
  const auto options = parameters_.front().tensor.options().requires_grad(false).device(at::kCPU);
  const int64_t world = shards_.world_size(), rank = shards_.rank(), part = layout_.part();
  const int64_t size = parameters_.front().tensor.element_size();
  const at::Tensor bucket_of_all = at::empty({std::min(bucket(), part) * world}, options);
  const std::span<std::byte> all = bytes_of(bucket_of_all);
  for (int64_t at = 0; at < part; at += bucket()) {
    const int64_t length = std::min(bucket(), part - at);
    const auto place = [&](int64_t r) { return bucket_of_all.narrow(0, r * length, length); };
    const auto begin = [&](int64_t r) { return r * part + at; };
    gather_flat(layout_, weights, begin(rank), begin(rank) + length, place(rank));
    shards_.all_gather<std::byte>(bytes_of(place(rank)),
                                  all.first(static_cast<size_t>(length * world * size)));
    for (int64_t r = 0; r < world; ++r) {
      if (r != rank) scatter_flat(layout_, weights, begin(r), begin(r) + length, place(r));
    }
  }
}

void FlatUnit::cut(UnitMeter& meter, const Reader& read) {
  PRAETOR_CHECK(!is_cut(), "a unit is cut once");
  if (parameters_.empty()) return;
  meter_ = &meter;
  const at::NoGradGuard no_grad;
  const auto options = parameters_.front().tensor.options().requires_grad(false);
  const int64_t part = layout_.part(), begin = shards_.rank() * part;
  // First what goes again: the next unit's takes its place, and the parts lie side by side.
  storage_ = at::empty({shards_.world_size() * part}, options);
  part_ = at::empty({part}, options);
  const bool waits =
      std::ranges::any_of(parameters_, [](const NamedTensor& p) { return is_waiting(p.tensor); });
  if (!waits) {
    gather_flat(layout_, tensors_of(parameters_), begin, begin + part, part_);
  }
  std::vector<at::Tensor> before;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& tensor = parameters_[i].tensor;
    const int64_t from = layout_.begin_of(i);
    if (waits) before.push_back(tensor.detach());
    tensor.set_data(storage_.slice(0, from, from + tensor.numel()).view(tensor.sizes()));
  }
  if (waits) {
    fill_waiting(before, read);
    part_.copy_(storage_.slice(0, begin, begin + part));
  }
  for (size_t i = 0; i < owned_.size(); ++i) {
    const FlatPiece& piece = pieces_[i];
    const at::Tensor& whole = parameters_[piece.parameter].tensor;
    const at::Tensor mine = part_.slice(0, piece.at, piece.at + piece.end - piece.begin);
    owned_[i].tensor = (mine.numel() == whole.numel() ? mine.view(whole.sizes()) : mine).detach();
  }
  resize_storage(storage_, 0);
  meter_->part_bytes += static_cast<int64_t>(part_.nbytes());
}

void FlatUnit::fill_waiting(const std::vector<at::Tensor>& before, const Reader& read) {
  storage_.zero_();
  std::vector<NamedTensor> waiting;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (is_waiting(before[i])) {
      waiting.push_back(parameters_[i]);
    } else {
      parameters_[i].tensor.detach().copy_(before[i]);
    }
  }
  PRAETOR_CHECK(read, waiting.front().name, " has no weights, and nothing to read them from");
  read(waiting);
}

void FlatUnit::copy_part(const FlatUnit& other) {
  PRAETOR_CHECK(is_cut() && !gathered_ && part_.sizes() == other.part_.sizes(),
                "a part is taken from that of a twin, between passes");
  const at::NoGradGuard no_grad;
  part_.copy_(other.part_);
}

void FlatUnit::allocate() {
  PRAETOR_CHECK(!gathered_ && !weights_come_, "a unit is gathered already");
  resize_storage(storage_, static_cast<size_t>(storage_.numel() * storage_.element_size()));
  ++meter_->units;
  meter_->bytes += static_cast<int64_t>(storage_.nbytes());
  meter_->peak_units = std::max(meter_->peak_units, meter_->units);
  meter_->peak_bytes = std::max(meter_->peak_bytes, meter_->bytes);
}

void FlatUnit::gather(bool keep) {
  if (!is_cut()) return;
  allocate();
  gathered_ = true;
  const at::NoGradGuard no_grad;
  const at::Tensor host = room_on_host(storage_);
  shards_.all_gather<std::byte>(bytes_of(on_host(part_)), bytes_of(host));
  if (keep) from_host(host, storage_);
  if (!keep) release();
}

void FlatUnit::start_gather() {
  if (!is_cut()) return;
  allocate();
  const at::NoGradGuard no_grad;
  host_part_ = on_host(part_);
  host_storage_ = room_on_host(storage_);
  weights_come_ =
      shards_.start_all_gather<std::byte>(bytes_of(host_part_), bytes_of(host_storage_));
}

void FlatUnit::finish_gather(bool keep) {
  if (!is_cut()) return;
  PRAETOR_CHECK(weights_come_, "a unit that has not been asked for");
  weights_come_->wait();
  weights_come_.reset();
  gathered_ = true;
  const at::NoGradGuard no_grad;
  if (keep) from_host(host_storage_, storage_);
  host_part_ = host_storage_ = at::Tensor();
  if (!keep) release();
}

void FlatUnit::release() {
  if (!gathered_) return;
  ops::kernels::forget_packed_weights(storage_);
  --meter_->units;
  meter_->bytes -= static_cast<int64_t>(storage_.nbytes());
  resize_storage(storage_, 0);
  gathered_ = false;
}

void FlatUnit::bump_versions(const std::vector<bool>& which) const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (which[i]) parameters_[i].tensor.unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace praetor
