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
#include <utility>

#include "core/base/sha256.h"
#include "core/base/str.h"
#include "core/base/threads.h"

namespace praetor::weight_format {

Contents contents_of_weights(const std::string& config) {
  return {.metadata = {{"config", config}}, .digested = config};
}

std::string digest_of(const std::map<std::string, TensorFacts>& tensors, const Contents& contents) {
  Sha256 digest;
  for (const auto& [name, facts] : tensors) {
    std::string line = str(name.size(), ' ', name, ' ', safetensors_dtype(facts.dtype), " [");
    for (const int64_t size : facts.shape) line += str(size, ' ');
    digest.update(line + "] " + facts.sha256 + '\n');
  }
  return digest.update(contents.digested).hex();
}

std::string seal_of(const WeightStamp& stamp, std::string_view digest, const Contents& contents) {
  return sha256_hex(str(contents.kind,
                        ' ',
                        kVersion,
                        ' ',
                        stamp.stage,
                        ' ',
                        stamp.lineage,
                        ' ',
                        stamp.step,
                        ' ',
                        digest,
                        contents.sealed));
}

std::string Metadata::take(const std::string& key) {
  const auto found = rest_.find(key);
  if (found == rest_.end()) fail("has no metadata \"", printable(key), "\"");
  std::string out = std::move(found->second);
  rest_.erase(found);
  return out;
}

void Metadata::take_version(const char* kind, const char* what) {
  if (!has(kind)) {
    if (has(kAdapterVersionKey)) fail("holds an adapter alone, where whole weights are wanted");
    if (has(kVersionKey)) fail("holds whole weights, where an adapter is wanted");
    fail("is not a file of published ", what, ": has no metadata \"", kind, "\"");
  }
  const std::string version = take(kind);
  if (version != kVersion) {
    fail("format version \"",
         printable(version),
         "\" of published ",
         what,
         "; this program reads version ",
         kVersion);
  }
}

void Metadata::done() const {
  if (!rest_.empty())
    fail("metadata \"", printable(rest_.begin()->first), "\" is not of this format");
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

std::string shape_text(at::IntArrayRef shape) {
  std::string out;
  for (const int64_t size : shape) out += (out.empty() ? "[" : ", ") + std::to_string(size);
  return out.empty() ? "[]" : out + ']';
}

}  // namespace praetor::weight_format
