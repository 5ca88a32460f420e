#include "learners/sharding/sharded_network.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/model/boundary.h"

namespace praetor {
namespace {

/// Parameters of a unit begin on a 64-byte border, as they do in memory of their own: products of
/// MKL may have other bits elsewhere.
constexpr int64_t kAlignment = 16;
constexpr int64_t kCopyAlignment = 32;  ///< with a copy of two bytes an element

constexpr const char* kLanguageHead = "lm_head.weight";

}  // namespace

ShardedNetwork::ShardedNetwork(const std::string& who,
                               Transformer& model,
                               ShardingRanks ranks,
                               LockStep& steps,
                               UnitMeter& meter,
                               Options options)
    : model_(model), steps_(steps), meter_(meter), options_(std::move(options)) {
  auto named = parts_of(model);
  auto& heads = named.back();
  if (!options_.language_head) {
    const auto unused = std::ranges::find(heads, kLanguageHead, &NamedTensor::name);
    if (unused != heads.end()) {
      if (options_.cut) add_unit(who, {*unused}, ranks, options_.read);
      heads.erase(unused);
    }
  }
  heads.insert(heads.end(), options_.scalar_head.begin(), options_.scalar_head.end());
  const auto copies = parts_of_copy();
  for (size_t i = 0; i < named.size(); ++i) {
    FlatUnit* const unit = add_unit(who, std::move(named[i]), ranks, options_.read);
    FlatUnit* read = unit;
    if (options_.cut && options_.copy) {
      // Of what waited for its weights the copy is made part by part.
      read = add_unit(who, copies[i], ranks, [](std::span<const NamedTensor>) {});
      twins_.push_back({.unit = unit, .copy = read});
      if (options_.read) read->copy_part(*unit);
    }
    used_.push_back(unit);
    parts_.push_back({.read = {read}});
    if (options_.trained) parts_.back().summed = {unit};
  }
  if (options_.language_head && model.config().tie_embeddings)
    parts_.back().read.insert(parts_.back().read.begin(), parts_.front().read.front());
  set_hooks(model_, this);
  if (options_.copy) set_hooks(options_.copy->network(), this);
}

std::vector<std::vector<NamedTensor>> ShardedNetwork::parts_of_copy() const {
  if (!options_.copy) return {};
  auto out = parts_of(options_.copy->network());
  if (!options_.language_head)
    std::erase_if(out.back(), [](const NamedTensor& p) { return p.name == kLanguageHead; });
  for (const NamedTensor& head : options_.scalar_head)
    out.back().push_back({head.name, options_.copy->scalar_head()});
  return out;
}

ShardedNetwork::~ShardedNetwork() {
  set_hooks(model_, nullptr);
  if (options_.copy) set_hooks(options_.copy->network(), nullptr);
}

FlatUnit* ShardedNetwork::add_unit(const std::string& who,
                                   std::vector<NamedTensor> parameters,
                                   ShardingRanks ranks,
                                   const FlatUnit::Reader& read) {
  const int64_t alignment = options_.copy ? kCopyAlignment : kAlignment;
  units_.push_back(std::make_unique<FlatUnit>(who, std::move(parameters), ranks, alignment));
  if (options_.cut) units_.back()->cut(meter_, read);
  return units_.back().get();
}

at::Tensor ShardedNetwork::enter(size_t part, const at::Tensor& x) {
  at::Tensor out = x;
  if (!steps_.running()) {
    PRAETOR_CHECK(!options_.cut || whole_,
                  "a forward outside of a pass, while weights are in parts");
    return out;
  }
  if (options_.cut) steps_.reach({this, part, Exchange::Kind::kGather});
  if (part > 0 && has_backward()) {
    add_boundary({&out}, [this, part] { steps_.reach({this, part, Exchange::Kind::kReduce}); });
  }
  return out;
}

at::Tensor ShardedNetwork::leave(size_t part, const at::Tensor& x) {
  at::Tensor out = x;
  if (!steps_.running() || !options_.cut) return out;
  release_part(part);
  // The backward of an embedding reads no weight.
  if (part > 0 && has_backward()) {
    add_boundary({&out}, [this, part] { steps_.reach({this, part, Exchange::Kind::kRegather}); });
  }
  return out;
}

void ShardedNetwork::finish(const std::vector<at::Tensor*>& outputs) {
  if (!steps_.running() || !options_.cut) return;
  release_part(last());
  if (!has_backward()) return;
  add_boundary(outputs, [this] { steps_.reach({this, last(), Exchange::Kind::kRegather}); });
}

void ShardedNetwork::release_part(size_t part) {
  for (FlatUnit* unit : parts_[part].read) unit->release();
}

void ShardedNetwork::gather(bool keep) {
  PRAETOR_CHECK(!steps_.running() && !open_, "weights are gathered once, between passes");
  if (!options_.cut) return;
  for (FlatUnit* unit : used_) unit->gather(keep);
  open_ = true;
  whole_ = keep;
}

void ShardedNetwork::release() {
  for (FlatUnit* unit : used_) unit->release();
  for (const Twin& twin : twins_) twin.copy->release();
  open_ = whole_ = false;
}

void ShardedNetwork::refresh_copies() const {
  for (const Twin& twin : twins_) twin.copy->copy_part(*twin.unit);
}

void ShardedNetwork::add_forward(std::vector<Exchange>& program) {
  PRAETOR_CHECK(!open_, "weights that are gathered for reading take part in no pass");
  if (!options_.cut) return;
  for (size_t part = 0; part < parts_.size(); ++part)
    program.push_back({this, part, Exchange::Kind::kGather});
}

void ShardedNetwork::add_backward(std::vector<Exchange>& program) {
  for (size_t part = parts_.size(); part-- > 0;) {
    if (options_.cut && part > 0) program.push_back({this, part, Exchange::Kind::kRegather});
    program.push_back({this, part, Exchange::Kind::kReduce});
  }
}

void ShardedNetwork::perform(const Exchange& exchange, bool computes) {
  const Part& part = parts_[exchange.part];
  if (exchange.kind != Exchange::Kind::kReduce) {
    for (FlatUnit* unit : part.read) unit->gather(computes);
    return;
  }
  release_part(exchange.part);
  measure_gradients();
  for (FlatUnit* unit : part.summed) unit->add_gradients();
}

void ShardedNetwork::measure_gradients() {
  int64_t waiting = 0;
  for (const FlatUnit* unit : used_) waiting += unit->gradient_bytes();
  meter_.peak_gradient_bytes = std::max(meter_.peak_gradient_bytes, waiting);
}

void ShardedNetwork::start_gather(const Exchange& exchange) {
  for (FlatUnit* unit : parts_[exchange.part].read) unit->start_gather();
}

void ShardedNetwork::finish_gather(const Exchange& exchange, bool computes) {
  for (FlatUnit* unit : parts_[exchange.part].read) unit->finish_gather(computes);
}

void ShardedNetwork::start_sum(const Exchange& exchange) {
  release_part(exchange.part);
  measure_gradients();
  finish_sums();
  summing_ = parts_[exchange.part].summed;
  for (FlatUnit* unit : summing_) unit->start_adding();
}

void ShardedNetwork::finish_sums() {
  for (FlatUnit* unit : summing_) unit->finish_adding();
  summing_.clear();
}

bool ShardedNetwork::share_units(size_t a, size_t b) const {
  return std::ranges::any_of(parts_[a].read, [&](const FlatUnit* unit) {
    return std::ranges::find(parts_[b].read, unit) != parts_[b].read.end();
  });
}

}  // namespace praetor
