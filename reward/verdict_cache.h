#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "core/data/sample.h"
#include "reward/judge.h"

namespace praetor {

/// Verdicts of judges on samples they have seen. A judge is a function of the sample alone
/// (judge.h), so that an answer from here is the answer it would give. The oldest entry goes first.
/// Any thread.
class VerdictCache {
 public:
  /// @param entries  how many are kept; 0: none
  explicit VerdictCache(int64_t entries) : entries_(entries) {}

  bool on() const { return entries_ > 0; }
  /// Names part and sample: SHA-256 over the part's place, every field of the sample, and the
  /// version of a judge that may change while we run.
  static std::string key(size_t part, const Sample& sample, std::string_view version = {});
  std::optional<Verdict> find(const std::string& key) const;
  void keep(const std::string& key, const Verdict& verdict);

 private:
  const int64_t entries_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Verdict> verdicts_;
  std::deque<std::string> order_;  ///< keys, oldest first
};

}  // namespace praetor
