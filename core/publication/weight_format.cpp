#include "core/publication/weight_format.h"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/base/sha256.h"
#include "core/base/str.h"
#include "core/base/threads.h"

namespace praetor::weight_format {

std::string digest_of(const std::map<std::string, TensorFacts>& tensors, std::string_view config) {
  Sha256 digest;
  for (const auto& [name, facts] : tensors) {
    std::string line = str(name.size(), ' ', name, ' ', safetensors_dtype(facts.dtype), " [");
    for (const int64_t size : facts.shape) line += str(size, ' ');
    digest.update(line + "] " + facts.sha256 + '\n');
  }
  return digest.update(config).hex();
}

std::string seal_of(const WeightStamp& stamp, std::string_view digest) {
  return sha256_hex(str(kVersionKey,
                        ' ',
                        kVersion,
                        ' ',
                        stamp.stage,
                        ' ',
                        stamp.lineage,
                        ' ',
                        stamp.step,
                        ' ',
                        digest));
}

std::string file_name(const WeightStamp& stamp, std::string_view digest) {
  char step[32];
  std::snprintf(step, sizeof(step), "%06lld", static_cast<long long>(stamp.step));
  return str("stage-",
             stamp.stage,
             "-lineage-",
             stamp.lineage,
             "-step-",
             step,
             '-',
             digest.substr(0, 16),
             ".safetensors");
}

std::optional<WeightStamp> stamp_of(std::string_view name) {
  WeightStamp out;
  const auto skip = [&](std::string_view text) {
    const bool there = name.starts_with(text);
    if (there) name.remove_prefix(text.size());
    return there;
  };
  const auto number = [&](auto& value) {
    if (name.empty() || !std::isdigit(static_cast<unsigned char>(name[0]))) return false;
    const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), value);
    if (failure != std::errc()) return false;
    name.remove_prefix(static_cast<size_t>(end - name.data()));
    return true;
  };
  const bool whole =
      skip("stage-") && number(out.stage) && skip("-lineage-") && number(out.lineage) &&
      skip("-step-") && number(out.step) && skip("-") && name.size() > 16 &&
      std::all_of(
          name.begin(), name.begin() + 16, [](unsigned char c) { return std::isxdigit(c); }) &&
      name.substr(16) == ".safetensors";
  if (!whole) return std::nullopt;
  return out;
}

void run_parallel(int wanted, size_t count, const std::function<void(size_t)>& task) {
  const size_t limit = static_cast<size_t>(std::max(1, wanted > 0 ? wanted : threads()));
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (size_t i = next++; i < count; i = next++) task(i);
    } catch (...) {
      next = count;
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(limit, count); ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

std::vector<size_t> largest_first(const std::vector<uint64_t>& bytes) {
  std::vector<size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return bytes[a] > bytes[b]; });
  return order;
}

}  // namespace praetor::weight_format
