#include "reward/verdict_cache.h"

#include "core/base/sha256.h"
#include "core/base/str.h"

namespace praetor {

std::string VerdictCache::key(size_t part, const Sample& sample, std::string_view version) {
  // Lengths first, so that no two samples are the same bytes.
  Sha256 digest;
  digest.update(str(part,
                    " ",
                    sample.response_tokens,
                    " ",
                    sample.finished,
                    " ",
                    sample.prompt.size(),
                    " ",
                    sample.response.size(),
                    " ",
                    sample.metadata.size(),
                    " "));
  digest.update(sample.prompt).update(sample.response).update(sample.metadata).update(version);
  return digest.hex();
}

std::optional<Verdict> VerdictCache::find(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = verdicts_.find(key);
  if (found == verdicts_.end()) return std::nullopt;
  return found->second;
}

void VerdictCache::keep(const std::string& key, const Verdict& verdict) {
  const std::lock_guard lock(mutex_);
  if (!verdicts_.emplace(key, verdict).second) return;
  order_.push_back(key);
  if (static_cast<int64_t>(order_.size()) <= entries_) return;
  verdicts_.erase(order_.front());
  order_.pop_front();
}

}  // namespace praetor
