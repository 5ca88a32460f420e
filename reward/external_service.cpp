#include "reward/external_service.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/deadline.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "reward/parallel.h"

namespace praetor {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

bool is_host_and_port(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view digits = address.substr(colon + 1);
  const char* const end = digits.data() + digits.size();
  int port = 0;
  const auto [stop, failure] = std::from_chars(digits.data(), end, port);
  return failure == std::errc() && stop == end && port >= 1 && port <= 65535;
}

void fill(PartScore& out, const Verdict& verdict) {
  out.error.clear();
  out.score = verdict.score;
  out.verdict = verdict.passed;
  out.reason = verdict.reason;
}

/// Why a sample is not sent; empty when it is.
std::string unfit(const Sample& sample) {
  if (nlohmann::json::parse(sample.metadata, nullptr, false).is_object()) return "";
  return "the metadata is not a JSON object: " + printable(sample.metadata);
}

}  // namespace

ExternalServiceConfig ExternalServiceConfig::from_yaml(YamlReader& in) {
  ExternalServiceConfig config;
  config.address = in.require_string("address");
  if (in.has("command")) {
    in.get("command", std::vector<std::string>());
    in.error_at("address", "command is given as well; keep one of the two");
  }
  if (!is_host_and_port(config.address)) {
    in.error_at("address",
                str("\"",
                    printable(config.address),
                    "\" is not HOST:PORT of a scorer that listens, as in localhost:50051"));
  }
  config.batch = in.get("batch", config.batch, closed(1, 4096));
  config.threshold = in.get("threshold", config.threshold, closed(-1e9, 1e9));
  return config;
}

ExternalService::ExternalService(ExternalServiceConfig config,
                                 std::unique_ptr<ScorerService> service)
    : config_(std::move(config)), service_(std::move(service)) {}

void ExternalService::score(std::span<const Item> items,
                            const Limits& limits,
                            size_t part,
                            VerdictCache& cache) {
  if (items.empty() || !meet(items, limits)) return;
  std::vector<Item> open;
  for (const Item& item : items) {
    std::optional<Verdict> known;
    if (cache.on()) known = cache.find(VerdictCache::key(part, *item.sample, identity_.version));
    item.out->cached = known.has_value();
    item.out->error = known ? "" : unfit(*item.sample);
    if (known) fill(*item.out, *known);
    if (!known && item.out->error.empty()) open.push_back(item);
  }
  for (int32_t attempt = 0; attempt <= limits.retries && !open.empty(); ++attempt) {
    for (const Item& item : open) item.out->retries = attempt;
    const auto most = static_cast<size_t>(config_.batch);
    for_each_index((open.size() + most - 1) / most, limits.threads, [&](size_t call) {
      const size_t begin = call * most;
      ask(std::span<const Item>(open).subspan(begin, std::min(most, open.size() - begin)),
          limits.timeout,
          part,
          cache);
    });
    std::erase_if(open, [](const Item& item) { return item.out->error.empty(); });
  }
}

/// Asks for the version, under which verdicts are kept. @return false when nobody says it, which is
/// every item's error then
bool ExternalService::meet(std::span<const Item> items, const Limits& limits) {
  const auto begin = Clock::now();
  std::string error;
  for (int64_t attempt = 0; attempt <= limits.retries; ++attempt) {
    // As for a judge: whatever a call throws becomes the samples' named error.
    try {
      ScorerIdentity now = service_->describe(limits.timeout);
      const std::string shown = str("the scorer at ",
                                    config_.address,
                                    " is ",
                                    printable(now.name),
                                    ", version ",
                                    printable(now.version));
      if (identity_.version.empty()) {
        log::info(shown);
      } else if (now.version != identity_.version) {
        log::warn(str(shown, "; it was ", printable(identity_.version), " so far"));
      }
      identity_ = std::move(now);
      return true;
    } catch (const std::exception& failure) {
      error = failure.what();
    }
  }
  for (const Item& item : items) {
    item.out->error = error;
    item.out->retries = static_cast<int32_t>(limits.retries);
    item.out->latency_ms = milliseconds_since(begin);
  }
  return false;
}

/// One call.
void ExternalService::ask(std::span<const Item> items,
                          std::chrono::milliseconds timeout,
                          size_t part,
                          VerdictCache& cache) const {
  std::vector<const Sample*> samples;
  for (const Item& item : items) samples.push_back(item.sample);
  const auto begin = Clock::now();
  // A thread's body is a border.
  try {
    const ScorerReply reply = service_->score(samples, timeout);
    PRAETOR_CHECK(reply.answers.size() == items.size(), "an answer a sample");
    for (size_t i = 0; i < items.size(); ++i) {
      PartScore& out = *items[i].out;
      try {
        if (!reply.answers[i]) throw DataError(missing(reply));
        const Verdict verdict = verdict_of(*reply.answers[i]);
        fill(out, verdict);
        if (cache.on()) cache.keep(VerdictCache::key(part, *samples[i], reply.version), verdict);
      } catch (const DataError& failure) {
        out.error = failure.what();
      }
    }
  } catch (const std::exception& failure) {
    for (const Item& item : items) item.out->error = failure.what();
  }
  for (const Item& item : items) item.out->latency_ms += milliseconds_since(begin);
}

/// @throws DataError for a sample that was not judged, or not with a number
Verdict ExternalService::verdict_of(const ScorerAnswer& answer) const {
  if (!answer.error.empty())
    throw DataError("the scorer at ", config_.address, " says: ", printable(answer.error, 300));
  if (!answer.score || !std::isfinite(*answer.score)) {
    throw DataError("the scorer at ",
                    config_.address,
                    " answered ",
                    answer.score ? str("score ", *answer.score) : "neither score nor error",
                    "; a finite score or an error is wanted");
  }
  return {.score = *answer.score,
          .passed = answer.satisfied.value_or(*answer.score >= config_.threshold),
          .reason = answer.reason};
}

std::string ExternalService::missing(const ScorerReply& reply) const {
  const auto present =
      std::ranges::count_if(reply.answers, [](const auto& answer) { return answer.has_value(); });
  return str("the scorer at ",
             config_.address,
             " answered ",
             present,
             " of ",
             reply.answers.size(),
             " samples, and not this one");
}

}  // namespace praetor
