#include "learners/preference/reference_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/sha256.h"
#include "core/model/safetensors.h"
#include "learners/sharding/agreement.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTensor = "reference_logprob";
constexpr const char* kOf = "of";  // metadata: the digest
constexpr size_t kAtOnce = 1024;   // examples, so that the copies stay small

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

/// Names the policy and the rows.
std::string digest(const Learner& learner, std::span<Example* const> examples) {
  Sha256 out;
  out.update(learner.policy().digest());
  for (const Example* example : examples) {
    // Lengths first, so that no two sets of rows are the same bytes.
    out.update(str(" ", example->tokens.size(), " "));
    out.update(bytes_of(example->tokens)).update(bytes_of(example->target));
  }
  return out.hex();
}

size_t targets_of(const Example& example) {
  const auto count =
      std::ranges::count_if(example.target, [](uint8_t target) { return target != 0; });
  return static_cast<size_t>(count);
}

/// The file's values as bytes; empty when there is no file.
std::string read(const fs::path& file, const std::string& wanted, size_t count) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return "";
  const SafetensorsFile kept(file);
  const auto of = kept.metadata().find(kOf);
  if (of == kept.metadata().end() || of->second != wanted) {
    throw DataError(file.string(),
                    ": the reference's log-probabilities of other rows, another tokenizer or "
                    "another policy than this stage has now; when that change is meant, remove the "
                    "file, and they are computed anew");
  }
  const at::Tensor values = kept.tensor(kTensor).contiguous();
  if (values.scalar_type() != at::kFloat || values.numel() != static_cast<int64_t>(count)) {
    throw DataError(file.string(),
                    ": ",
                    values.numel(),
                    " values of ",
                    safetensors_dtype(values.scalar_type()),
                    ", but ",
                    count,
                    " of F32 are wanted");
  }
  return {static_cast<const char*>(values.const_data_ptr()), values.nbytes()};
}

std::vector<float> compute(const Learner& learner, std::span<Example* const> examples) {
  std::vector<float> out;
  for (size_t begin = 0; begin < examples.size(); begin += kAtOnce) {
    std::vector<Example> some;
    const size_t count = std::min(kAtOnce, examples.size() - begin);
    for (const Example* example : examples.subspan(begin, count)) some.push_back(*example);
    const at::Tensor values = learner.policy_logprobs(some).to(at::kFloat).contiguous();
    const auto* const data = values.const_data_ptr<float>();
    out.insert(out.end(), data, data + values.numel());
  }
  return out;
}

void write(const fs::path& file, const std::vector<float>& values, const std::string& of) {
  std::error_code failure;  // the writer says what is wrong
  fs::create_directories(file.parent_path(), failure);
  const NamedTensor tensor{kTensor, at::tensor(values, at::kFloat)};
  write_safetensors(file, std::span(&tensor, 1), {{kOf, of}});
}

}  // namespace

void add_reference_logprobs(const Learner& learner,
                            Collective& ranks,
                            const fs::path& file,
                            std::span<Example* const> examples) {
  PRAETOR_CHECK(learner.step() == 0, "the policy is the reference before its first update only");
  const bool leads = ranks.rank() == 0;
  const std::string of = [&] {
    const auto whole = learner.gather_weights({&learner.policy()});
    return leads ? digest(learner, examples) : std::string();
  }();
  size_t count = 0;
  for (const Example* example : examples) count += targets_of(*example);
  const std::string kept =
      gather_agreed(ranks, [&] { return leads ? read(file, of, count) : std::string(); }).front();
  std::vector<float> values(count);
  if (kept.empty()) {
    if (leads)
      log::info(str("computing the reference's log-probabilities of ", count, " tokens, once"));
    values = compute(learner, examples);
    run_agreed(ranks, [&] {
      if (leads) write(file, values, of);
    });
  } else {
    std::memcpy(values.data(), kept.data(), kept.size());
  }
  auto next = values.cbegin();
  for (Example* example : examples) {
    const auto end = next + static_cast<std::ptrdiff_t>(targets_of(*example));
    example->reference_logprob.assign(next, end);
    next = end;
  }
}

}  // namespace praetor
