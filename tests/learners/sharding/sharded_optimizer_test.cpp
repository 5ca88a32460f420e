#include "learners/sharding/sharded_optimizer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/optim/adamw.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {
namespace {

using testing::run_ranks;

std::vector<NamedTensor> parameters() {
  return {{"a.weight", at::arange(35).to(at::kFloat).view({5, 7}).div(9)},
          {"a.bias", at::arange(7).to(at::kFloat).div(3)},
          {"idle.weight", at::arange(40).to(at::kFloat)},
          {"b.weight", at::arange(20).to(at::kFloat).sin()}};
}

/// Gradient of parameter i on a rank; of "a.bias" on rank 1 alone, of "idle.weight" nowhere.
at::Tensor gradient(size_t i, const at::Tensor& like, int32_t rank) {
  if (i == 2 || (i == 1 && rank != 1)) return {};
  return (at::arange(like.numel()).to(at::kFloat) + 31 * rank + static_cast<double>(i))
      .cos()
      .view(like.sizes());
}

OptimizerConfig settings(double max_grad_norm = 1) {
  return {.learning_rate = 0.1, .weight_decay = 0.5, .max_grad_norm = max_grad_norm};
}

struct Result {
  std::vector<at::Tensor> weights;
  double norm = 0;
};

Result two_steps(Collective& ranks, double max_grad_norm, int64_t bucket_bytes, bool transposed) {
  std::vector<NamedTensor> mine = parameters();
  ShardedOptimizer optimizer("policy", mine, settings(max_grad_norm), ranks, bucket_bytes);
  Result out;
  for (int step = 0; step < 2; ++step) {
    for (size_t i = 0; i < mine.size(); ++i) {
      at::Tensor g = gradient(i, mine[i].tensor, ranks.rank());
      if (transposed && g.defined() && g.dim() == 2) g = g.t().contiguous().t();
      mine[i].tensor.mutable_grad() = g;
    }
    optimizer.reduce_gradients();
    out.norm = optimizer.clip_gradients();
    optimizer.step(0.1);
    optimizer.zero_grad();
  }
  for (const NamedTensor& p : mine) out.weights.push_back(p.tensor.detach().clone());
  return out;
}

}  // namespace

namespace {

/// AdamW on the sums of `world` ranks' gradients, added in rank order.
Result two_whole_steps(int32_t world, double max_grad_norm) {
  std::vector<NamedTensor> whole = parameters();
  AdamW adam(whole, settings(max_grad_norm));
  Result out;
  for (int step = 0; step < 2; ++step) {
    double squares = 0;
    for (size_t i = 0; i < whole.size(); ++i) {
      at::Tensor sum;
      for (int32_t r = 0; r < world; ++r) {
        const at::Tensor g = gradient(i, whole[i].tensor, r);
        if (g.defined()) sum = sum.defined() ? sum + g : g;
      }
      if (sum.defined()) squares += sum.to(at::kDouble).square().sum().item<double>();
      whole[i].tensor.mutable_grad() = sum;
    }
    out.norm = std::sqrt(squares);
    for (const NamedTensor& p : whole) {
      if (p.tensor.grad().defined() && max_grad_norm > 0)
        p.tensor.grad().mul_(max_grad_norm / (out.norm + 1e-6));
    }
    adam.step(0.1);
  }
  for (const NamedTensor& p : whole) out.weights.push_back(p.tensor);
  return out;
}

void check_group(int32_t world, double max_grad_norm, int64_t bucket, bool transposed) {
  const Result wanted = two_whole_steps(world, max_grad_norm);
  std::vector<Result> got(static_cast<size_t>(world));
  CHECK(run_ranks(world, [&](Collective& ranks) {
          got[static_cast<size_t>(ranks.rank())] =
              two_steps(ranks, max_grad_norm, bucket, transposed);
        }) == std::vector<std::string>(static_cast<size_t>(world)));
  for (const Result& one : got) {
    CHECK(one.norm == Approx(wanted.norm).epsilon(1e-12));
    CHECK(at::equal(one.weights[2], parameters()[2].tensor));
    for (size_t i = 0; i < one.weights.size(); ++i) {
      CHECK(at::equal(one.weights[i], got[0].weights[i]));
      // The norm is summed by parts; without it every bit is that of the whole.
      CHECK((max_grad_norm > 0 ? at::allclose(one.weights[i], wanted.weights[i], 1e-6, 1e-7)
                               : at::equal(one.weights[i], wanted.weights[i])));
    }
  }
}

}  // namespace

TEST_CASE("parts, buckets and layouts of gradients change no bit", "[learners][cpu]") {
  for (const int32_t world : {1, 2, 3, 4}) {
    for (const int64_t bucket : {int64_t{1}, int64_t{100}, ShardedOptimizer::kBucketBytes}) {
      for (const bool transposed : {false, true}) {
        check_group(world, 0, bucket, transposed);
        check_group(world, 1, bucket, transposed);
      }
    }
  }
}

TEST_CASE("a piece of a bias does not decay, and one of a weight does", "[learners][cpu]") {
  // Gradients of zero leave the decay alone. Rank 1 owns elements 32 .. 63: three of a.weight, all
  // of a.bias, the rest of idle.weight.
  std::vector<at::Tensor> weights(2), biases(2);
  run_ranks(2, [&](Collective& ranks) {
    std::vector<NamedTensor> mine = parameters();
    mine[2].tensor = at::zeros({3});
    ShardedOptimizer optimizer("policy", mine, settings(), ranks);
    for (const NamedTensor& p : mine) p.tensor.mutable_grad() = at::zeros_like(p.tensor);
    optimizer.reduce_gradients();
    optimizer.step(0.1);
    const auto r = static_cast<size_t>(ranks.rank());
    weights[r] = mine[0].tensor.detach().clone();
    biases[r] = mine[1].tensor.detach().clone();
  });
  for (size_t r = 0; r < 2; ++r) {
    CHECK(at::allclose(weights[r], parameters()[0].tensor * 0.95));
    CHECK(at::equal(biases[r], parameters()[1].tensor));
  }
}

TEST_CASE("the version of a weight that another rank stepped moves, too", "[learners][cpu]") {
  std::vector<int64_t> moved(2), idle(2);
  run_ranks(2, [&](Collective& ranks) {
    std::vector<NamedTensor> mine = parameters();
    const auto r = static_cast<size_t>(ranks.rank());
    ShardedOptimizer optimizer("policy", mine, settings(), ranks);
    const auto before = mine[0].tensor._version(), idle_before = mine[2].tensor._version();
    for (size_t i = 0; i < mine.size(); ++i)
      mine[i].tensor.mutable_grad() = gradient(i, mine[i].tensor, ranks.rank());
    optimizer.reduce_gradients();
    optimizer.step(0.1);
    moved[r] = mine[0].tensor._version() - before;
    idle[r] = mine[2].tensor._version() - idle_before;
  });
  for (const size_t r : {0, 1}) {
    CHECK(moved[r] > 0);
    CHECK(idle[r] == 0);
  }
}

TEST_CASE("parameters of two types are refused in a group", "[learners][cpu]") {
  const auto errors = run_ranks(2, [](Collective& ranks) {
    ShardedOptimizer(
        "policy", {{"a", at::zeros({3})}, {"b", at::zeros({3}, at::kDouble)}}, settings(), ranks);
  });
  CHECK_THAT(errors[0], Catch::Contains("b is Double and a Float"));
}

}  // namespace praetor
