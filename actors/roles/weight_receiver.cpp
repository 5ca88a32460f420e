#include "actors/roles/weight_receiver.h"

#include <algorithm>
#include <utility>

#include "actors/rpc/client.h"
#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

namespace {

/// A question that stays open; short, so that the thread notices soon that the worker ends.
constexpr std::chrono::milliseconds kWait{2000};
constexpr std::chrono::milliseconds kAfterFailure{1000};
/// Two versions of a policy and its companion.
constexpr size_t kMostKept = 4;

}  // namespace

WeightReceiver::WeightReceiver(BroadcastService& service,
                               NcclGroup groups,
                               cuda::Device& device,
                               Options options)
    : service_(service), groups_(std::move(groups)), device_(device), options_(std::move(options)) {
  thread_ = std::thread([this] { run(); });
}

WeightReceiver::~WeightReceiver() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

std::optional<AnyPublished> WeightReceiver::take(const Publication& publication) {
  const BroadcastNumber number{publication.epoch, publication.broadcast};
  std::unique_lock lock(mutex_);
  const auto find = [&] {
    return std::ranges::find(
        kept_, publication.version.digest, &std::pair<std::string, AnyPublished>::first);
  };
  const auto expected = [&] {
    return !ending_ && number.epoch > 0 && number.epoch == epoch_ && number > done_;
  };
  if (find() == kept_.end() && !expected()) {
    // The publisher has given it up, or has not counted this worker in.
    const bool coming = now_ && std::ranges::any_of(now_->files, [&](const Publication& file) {
                          return file.version.digest == publication.version.digest;
                        });
    if (coming) given_up_ = "the publisher has given it up";
    return std::nullopt;
  }
  changed_.wait_for(lock, options_.timeout, [&] { return find() != kept_.end() || !expected(); });
  const auto found = find();
  if (found == kept_.end()) return std::nullopt;
  AnyPublished out = std::move(found->second);
  kept_.erase(found);
  return out;
}

void WeightReceiver::keep(const std::string& digest, AnyPublished weights) {
  const std::lock_guard lock(mutex_);
  std::erase_if(kept_, [&](const auto& one) { return one.first == digest; });
  kept_.emplace_back(digest, std::move(weights));
  if (kept_.size() > kMostKept) kept_.pop_front();
  changed_.notify_all();
}

std::string WeightReceiver::why_give_up() {
  const std::lock_guard lock(mutex_);
  return ending_ ? "the worker ends" : given_up_;
}

void WeightReceiver::receive(const BroadcastCall& call) {
  if (!group_ || group_->options().epoch != call.number.epoch) {
    // The epoch is over, and some of it may have gone: nobody is to be waited for.
    if (group_) group_->give_up();
    group_.reset();
    auto joined = groups_.join(call.id, call.rank, static_cast<int32_t>(call.members.size()));
    group_ = std::make_unique<WeightBroadcast>(
        std::move(joined),
        device_,
        WeightBroadcastOptions{.epoch = call.number.epoch,
                               .members = call.members,
                               .rank = call.rank,
                               .bucket_bytes = call.bucket_bytes,
                               .timeout = options_.timeout,
                               .given_up = [this] { return why_give_up(); }});
  }
  std::string damage;
  for (const Publication& file : call.files) {
    const std::string what = str("weights of step ", file.version.step);
    log::info(
        str(what, ": receiving broadcast ", call.number.number, " of epoch ", call.number.epoch));
    // Damage of one file is no reason to keep the others of the group waiting for this rank.
    try {
      keep(file.version.digest, group_->receive(what, file.bytes, file.version.digest));
    } catch (const DataError& failure) {
      damage = failure.what();
    }
  }
  if (!damage.empty()) throw DataError(damage);
}

void WeightReceiver::run() {
  AwaitBroadcast question{.worker = options_.worker, .wait = kWait};
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (ending_) return;
    }
    // A thread body is a border: what fails here the worker has as a file.
    try {
      const auto call = service_.await_broadcast(question);
      question.outcome = BroadcastOutcome::kNone;
      question.why.clear();
      if (!call) continue;
      question.seen = call->number;
      {
        const std::lock_guard lock(mutex_);
        now_ = *call;
        epoch_ = call->number.epoch;
        given_up_.clear();
      }
      std::string failure;
      try {
        receive(*call);
      } catch (const std::exception& error) {
        failure = error.what();
        log::warn(str("the weights are taken as a file: ", failure));
        group_.reset();
      }
      question.outcome = failure.empty() ? BroadcastOutcome::kReceived : BroadcastOutcome::kFailed;
      question.why = failure;
      const std::lock_guard lock(mutex_);
      now_.reset();
      done_ = call->number;
      changed_.notify_all();
    } catch (const CancelledError&) {
      return;
    } catch (const Error& failure) {
      log::warn(str("broadcasts of weights cannot be waited for: ", failure.what()));
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kAfterFailure, [&] { return ending_; });
    }
  }
}

}  // namespace praetor
