#include "core/model/kernels/self_check.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <functional>
#include <vector>

#include "core/base/random.h"
#include "core/base/str.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/linear.h"
#include "core/model/ops.h"

namespace praetor::ops {
namespace {

class Check {
 public:
  Check() : stream_(SampleKey{.job_seed = 1, .purpose = Purpose::kInitialise}) {}

  std::string failure;

  at::Tensor random(at::IntArrayRef sizes) {
    at::Tensor x = at::empty(sizes, at::kFloat);
    float* p = x.mutable_data_ptr<float>();
    for (int64_t i = 0; i < x.numel(); ++i) p[i] = static_cast<float>(2 * stream_.uniform() - 1);
    return x;
  }

  void same(const std::string& what, const at::Tensor& a, const at::Tensor& b) {
    if (failure.empty() && !at::equal(a, b)) failure = what;
  }

  /// `op` maps rows to rows: each must have the bits it has alone, on one thread.
  void rows(const std::string& what,
            const at::Tensor& x,
            const std::function<at::Tensor(const at::Tensor&)>& op) {
    at::set_num_threads(1);
    kernels::use_isa(kernels::available_isas().front());
    std::vector<at::Tensor> alone;
    for (int64_t i = 0; i < x.size(0); ++i) alone.push_back(op(x.narrow(0, i, 1)));
    const at::Tensor want = at::cat(alone, 0);
    for (const auto isa : kernels::available_isas()) {
      kernels::use_isa(isa);
      const std::string on = str(what, " on ", kernels::table().name);
      for (const int threads : {1, 2}) {
        at::set_num_threads(threads);
        for (const int64_t count : {2, 7, 16, 33}) {
          same(str(on, ", ", count, " rows, ", threads, " threads"),
               op(x.narrow(0, 0, count)),
               want.narrow(0, 0, count));
        }
        same(str(on, ", ", threads, " threads"), op(x), want);
      }
    }
  }

 private:
  RandomStream stream_;
};

// A sequence at once, then token by token through a cache of small blocks in mixed order.
void check_decoding(Check& check, const std::string& what, const AttentionOptions& options) {
  const int64_t tokens = 70, heads = 4, kv_heads = 2, d = 24, block = 16;
  const at::Tensor q = check.random({tokens, heads, d}), k = check.random({tokens, kv_heads, d});
  const at::Tensor v = check.random({tokens, kv_heads, d});
  at::set_num_threads(1);
  kernels::use_isa(kernels::available_isas().front());
  const at::Tensor whole = causal_attention(q, k, v, {0, tokens}, options);
  const std::vector<int32_t> blocks{3, 0, 4, 1, 2};
  for (const auto isa : kernels::available_isas()) {
    kernels::use_isa(isa);
    KvLayer layer{at::zeros({5, kv_heads, d, block}), at::zeros({5, block, kv_heads, d})};
    for (int64_t i = 0; i < tokens; ++i) {
      const CachedRows row{{0}, {static_cast<int32_t>(i)}, {0}, {&blocks}};
      const auto cut = [&](const at::Tensor& x) { return x.narrow(0, i, 1); };
      check.same(str("decoding token ", i, what, " on ", kernels::table().name),
                 cached_attention(cut(q), cut(k), cut(v), layer, block, row, options),
                 cut(whole));
    }
  }
}

void check_all(Check& check) {
  const at::Tensor weight = check.random({170, 300}), bias = check.random({170});
  // Enough rows that a second thread takes part.
  const at::Tensor x = check.random({61, 300}), norm = check.random({300});
  check.rows("linear", x, [&](const at::Tensor& rows) { return linear(rows, weight, bias); });
  for (const auto kind : {WeightKind::kBfloat16, WeightKind::kInt8}) {
    check.rows(str("linear in ", to_string(kind)), x, [&](const at::Tensor& rows) {
      return kernels::linear(rows, weight, bias, kind);
    });
  }
  check.rows("rms_norm", x, [&](const at::Tensor& rows) { return rms_norm(rows, norm, 1e-5); });
  check.rows("swiglu", x, [&](const at::Tensor& rows) { return swiglu(rows, rows); });
  check.rows("log_softmax", x, [&](const at::Tensor& rows) { return log_softmax(rows * 20); });
  check.rows(
      "layer_norm", x, [&](const at::Tensor& rows) { return layer_norm(rows, norm, norm, 1e-5); });
  check.rows("geglu", x, [&](const at::Tensor& rows) { return geglu(rows * 3, rows); });
  check.rows("softcap", x, [&](const at::Tensor& rows) { return softcap(rows * 20, 5); });
  check_decoding(check, "", {});
  check_decoding(check, " in a window", {.softcap = 2, .window = 21});
}

}  // namespace

std::string KernelReport::text() const {
  return str("cpu kernels: ",
             isa,
             ", row-invariance self-check ",
             passed ? "passed" : "FAILED (" + failure + ")",
             " in ",
             static_cast<int64_t>(milliseconds),
             " ms");
}

KernelReport kernels_self_check() {
  const auto start = std::chrono::steady_clock::now();
  struct Restore {
    int threads = at::get_num_threads();
    kernels::Isa isa = kernels::isa_in_use();
    ~Restore() {
      at::set_num_threads(threads);
      kernels::use_isa(isa);
    }
  };
  KernelReport report;
  report.isa = kernels::table().name;
  {
    const Restore restore;
    const at::NoGradGuard no_grad;
    Check check;
    check_all(check);
    report.failure = check.failure;
  }
  report.passed = report.failure.empty();
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
  report.milliseconds = spent.count();
  return report;
}

}  // namespace praetor::ops
