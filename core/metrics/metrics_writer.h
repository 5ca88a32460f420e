#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace praetor {

/// Name and value, in the order in which they are written; names are those of the design's list
/// ("policy/loss").
using MetricList = std::vector<std::pair<std::string, double>>;

struct MetricsOptions {
  bool tensorboard = true;
  std::function<double()>
      wall_time;  ///< seconds since 1970 for event files; the system clock when empty
};

/// Writes RUN_DIR/metrics.jsonl, one object a step {"stage": "ppo", "step": 3, "policy/loss": 0.25,
/// ...}, and RUN_DIR/tensorboard/STAGE/events.out.tfevents.praetor. Numbers are the shortest text
/// that reads back as the same double; NaN and infinities are null in the first and left out of the
/// second. Not thread-safe; one writer a run.
class MetricsWriter {
 public:
  /// Goes on at the end of what is there; a torn last line or event (a crash while writing) is cut.
  /// @throws IoError
  explicit MetricsWriter(const std::filesystem::path& run_dir, MetricsOptions options = {});
  ~MetricsWriter();

  /// One line. Steps of a stage ascend. @throws InvalidArgument for a step that does not, a name
  /// that stands twice or is "stage" or "step"
  void write(std::string_view stage, int64_t step, const MetricList& metrics);

  /// Drops what was written after (stage, step), so that replayed steps are written once: later
  /// steps of the stage and every stage that follows it.
  void truncate_after(std::string_view stage, int64_t step);

  /// Makes all lines durable; called before a checkpoint commits.
  void sync();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One line of metrics.jsonl, without its newline.
std::string metrics_line(std::string_view stage, int64_t step, const MetricList& metrics);

}  // namespace praetor
