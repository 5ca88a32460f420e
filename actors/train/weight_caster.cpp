#include "actors/train/weight_caster.h"

#include <atomic>
#include <thread>
#include <utility>

#include "actors/rpc/client.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/cuda/library.h"

namespace praetor {

namespace {

constexpr std::chrono::milliseconds kWatch{2000};
constexpr std::chrono::milliseconds kAfterFailure{500};

}  // namespace

NcclGroup groups_on(int32_t device) {
  return {.make_id = [] { return cuda::Library::instance().nccl_id(); },
          .join =
              [device](const std::string& id, int32_t rank, int32_t world) {
                return cuda::Library::instance().join(id, rank, world, device);
              }};
}

/// Asks the controller, on a thread of its own, whether a member was lost meanwhile.
class WeightCaster::Watch {
 public:
  Watch(WeightCaster& caster, const BroadcastNumber& number) {
    thread_ = std::thread([this, &caster, number] {
      while (!ended_) {
        // A thread body is a border: a controller out of reach ends no broadcast.
        try {
          if (const auto lost = caster.service_.watch_broadcast(number, kWatch)) {
            if (!ended_) caster.set_lost(*lost);
            return;
          }
        } catch (const CancelledError&) {
          return;
        } catch (const Error& failure) {
          log::warn(str("a broadcast of weights cannot be watched: ", failure.what()));
          std::this_thread::sleep_for(kAfterFailure);
        }
      }
    });
  }
  ~Watch() {
    ended_ = true;
    thread_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  /// What the controller answers from now on is no loss.
  void end() { ended_ = true; }

 private:
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

WeightCaster::WeightCaster(BroadcastService& service,
                           NcclGroup groups,
                           cuda::Device& device,
                           Options options)
    : service_(service),
      groups_(std::move(groups)),
      device_(device),
      options_(std::move(options)) {}

WeightCaster::~WeightCaster() = default;

std::string WeightCaster::lost() {
  const std::lock_guard lock(mutex_);
  return lost_;
}

void WeightCaster::set_lost(std::string why) {
  const std::lock_guard lock(mutex_);
  lost_ = std::move(why);
}

WeightCaster::Cast WeightCaster::cast(const std::vector<Publication>& files) {
  Cast out;
  const std::string what = str("weights of step ", files.back().version.step);
  bool started = false;
  OpenedBroadcast opened;
  try {
    opened = service_.open_broadcast(
        {.publisher = options_.name, .held = group_ ? group_->options().epoch : 0});
    for (const std::string& who : opened.dropped) log::warn(str("not broadcast to ", who));
    if (group_ && (opened.join || opened.number.epoch == 0)) {
      // The epoch is over, and some of it may have gone: nobody is to be waited for.
      group_->give_up();
      group_.reset();
    }
    if (opened.number.epoch == 0) return out;
    if (opened.join) id_ = groups_.make_id();
    service_.start_broadcast({.number = opened.number,
                              .id = id_,
                              .bucket_bytes = options_.bucket_bytes,
                              .files = files});
    started = true;
    set_lost("");
    Watch watch(*this, opened.number);
    try {
      broadcast(opened, files);
    } catch (const std::exception& failure) {
      out.failure = failure.what();
      group_.reset();
    }
    watch.end();
    service_.close_broadcast(opened.number, out.failure);
  } catch (const CancelledError&) {
    throw;
  } catch (const Error& failure) {
    if (out.failure.empty()) out.failure = failure.what();
    // The controller has not heard how it went: the next one is of another group.
    if (started) group_.reset();
  }
  if (!out.failure.empty()) {
    log::warn(str(what, " go as a file: ", out.failure));
    return out;
  }
  out.number = opened.number;
  out.receivers = static_cast<int64_t>(opened.members.size()) - 1;
  return out;
}

void WeightCaster::broadcast(const OpenedBroadcast& opened, const std::vector<Publication>& files) {
  if (opened.join) {
    auto joined = groups_.join(id_, 0, static_cast<int32_t>(opened.members.size()));
    group_ = std::make_unique<WeightBroadcast>(
        std::move(joined),
        device_,
        WeightBroadcastOptions{.epoch = opened.number.epoch,
                               .members = opened.members,
                               .rank = 0,
                               .bucket_bytes = options_.bucket_bytes,
                               .timeout = options_.timeout,
                               .given_up = [this] { return lost(); }});
  }
  PRAETOR_CHECK(group_ && group_->options().epoch == opened.number.epoch, "no group of the epoch");
  for (const Publication& file : files)
    group_->send(str("weights of step ", file.version.step), file.file);
}

}  // namespace praetor
