#include "actors/launch/allocation_watch.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::streamoff kTail = 1 << 18;  // bytes of metrics that are read: some hundred rows

}  // namespace

AllocationWatch::AllocationWatch(AllocationWatchOptions options) : options_(std::move(options)) {
  thread_ = std::thread([this] { watch(); });
}

AllocationWatch::~AllocationWatch() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void AllocationWatch::watch() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    milliseconds rest = options_.longest;
    lock.unlock();
    // A thread body is a border: without an answer the signal that Slurm sends is left.
    try {
      if (const auto left = options_.left()) {
        const seconds need = options_.need();
        if (*left <= need) {
          options_.near(*left);
          return;
        }
        rest = std::clamp<milliseconds>((*left - need) / 2, options_.shortest, options_.longest);
      }
    } catch (const Error& failure) {
      log::warn(str("the end of the allocation is not known: ", failure.what()));
    }
    lock.lock();
    changed_.wait_for(lock, rest, [this] { return ending_; });
  }
}

seconds measured_leave_time(const std::filesystem::path& metrics_file) {
  std::ifstream in(metrics_file, std::ios::binary);
  if (!in) return seconds(0);
  in.seekg(0, std::ios::end);
  in.seekg(std::max<std::streamoff>(0, static_cast<std::streamoff>(in.tellg()) - kTail));
  double step = 0, checkpoint = 0;
  for (std::string line; std::getline(in, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (!row.is_object()) continue;  // the first line may be half a row
    step = std::max(step, row.value("time/step", 0.0));
    checkpoint = std::max(checkpoint, row.value("time/checkpoint", 0.0));
  }
  return seconds(static_cast<int64_t>(std::ceil(step + checkpoint)));
}

}  // namespace praetor
