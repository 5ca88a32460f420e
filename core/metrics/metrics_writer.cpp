#include "core/metrics/metrics_writer.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/metrics/append_file.h"
#include "core/metrics/event_file.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kEventFile = "events.out.tfevents.praetor";

std::string json_quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

double system_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

struct LineHead {
  std::string stage;
  int64_t step = 0;
};

/// Stage and step of a line; nothing for a line that is not ours.
std::optional<LineHead> head_of(std::string_view line) {
  const auto row = nlohmann::json::parse(line, nullptr, false);
  if (!row.is_object() || !row.contains("stage") || !row.contains("step")) return std::nullopt;
  if (!row["stage"].is_string() || !row["step"].is_number_integer()) return std::nullopt;
  return LineHead{row["stage"].get<std::string>(), row["step"].get<int64_t>()};
}

AppendFile open_append(const fs::path& file) {
  std::error_code failure;
  fs::create_directories(file.parent_path(), failure);
  if (failure) {
    throw IoError("cannot make ", file.parent_path().string(), ": ", failure.message());
  }
  return AppendFile(file);
}

}  // namespace

std::string metrics_line(std::string_view stage, int64_t step, const MetricList& metrics) {
  std::string out = "{\"stage\": " + json_quoted(stage) + ", \"step\": " + std::to_string(step);
  for (const auto& [name, value] : metrics) {
    out += ", " + json_quoted(name) + ": ";
    if (!std::isfinite(value)) {
      out += "null";
      continue;
    }
    char digits[40];
    const auto end = std::to_chars(digits, digits + sizeof(digits), value);
    out.append(digits, end.ptr);
  }
  return out + "}";
}

struct MetricsWriter::Impl {
  Impl(const fs::path& folder, MetricsOptions writer_options)
      : run_dir(folder),
        options(std::move(writer_options)),
        lines(open_append(folder / "metrics.jsonl")) {
    if (!options.wall_time) options.wall_time = system_seconds;
    const std::string text = read_file(lines.path());
    const size_t end = text.rfind('\n');
    const size_t whole = end == std::string::npos ? 0 : end + 1;
    if (whole < text.size()) lines.cut(static_cast<int64_t>(whole));
    read_last(std::string_view(text).substr(0, whole));
  }

  /// Last step of each stage in the lines that stay.
  void read_last(std::string_view text) {
    last.clear();
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      if (const auto head = head_of(text.substr(at, end - at))) last[head->stage] = head->step;
      at = end + 1;
    }
  }

  fs::path event_path(std::string_view stage) const {
    return run_dir / "tensorboard" / fs::path(stage) / kEventFile;
  }

  AppendFile& events(const std::string& stage) {
    if (const auto known = event_files.find(stage); known != event_files.end())
      return known->second;
    AppendFile file = open_append(event_path(stage));
    const EventScan scan = scan_events(read_file(file.path()), std::numeric_limits<int64_t>::max());
    if (scan.good_bytes < file.size()) file.cut(scan.good_bytes);
    if (file.size() == 0) file.append(event_frame(version_event(options.wall_time())));
    return event_files.emplace(stage, std::move(file)).first->second;
  }

  fs::path run_dir;
  MetricsOptions options;
  AppendFile lines;
  std::map<std::string, AppendFile> event_files;
  std::map<std::string, int64_t, std::less<>> last;
};

MetricsWriter::MetricsWriter(const fs::path& run_dir, MetricsOptions options)
    : impl_(std::make_unique<Impl>(run_dir, std::move(options))) {}

MetricsWriter::~MetricsWriter() = default;

void MetricsWriter::write(std::string_view stage, int64_t step, const MetricList& metrics) {
  const auto known = impl_->last.find(stage);
  if (known != impl_->last.end() && step <= known->second) {
    throw InvalidArgument(
        "metrics of stage ", stage, ": step ", step, " came after step ", known->second);
  }
  std::set<std::string_view> names = {"stage", "step"};
  for (const auto& [name, value] : metrics) {
    if (!names.insert(name).second) {
      throw InvalidArgument(
          "metrics of stage ", stage, ", step ", step, ": \"", name, "\" stands twice");
    }
  }
  impl_->lines.append(metrics_line(stage, step, metrics) + "\n");
  impl_->last.insert_or_assign(std::string(stage), step);
  if (!impl_->options.tensorboard) return;
  impl_->events(std::string(stage))
      .append(event_frame(scalars_event(impl_->options.wall_time(), step, metrics)));
}

void MetricsWriter::truncate_after(std::string_view stage, int64_t step) {
  const std::string text = read_file(impl_->lines.path());
  bool seen = false;
  std::optional<size_t> cut;    // start of the first line that goes
  std::set<std::string> later;  // stages of the lines behind it
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (const auto head = head_of(std::string_view(text).substr(at, end - at))) {
      const bool ours = head->stage == stage;
      seen = seen || ours;
      if (!cut && (ours ? head->step > step : seen)) cut = at;
      if (cut && !ours) later.insert(head->stage);
    }
    at = end + 1;
  }
  const size_t keep = cut.value_or(text.size());
  if (keep < text.size()) impl_->lines.cut(static_cast<int64_t>(keep));
  impl_->read_last(std::string_view(text).substr(0, keep));
  const auto cut_events = [&](const std::string& name, int64_t last_step) {
    if (!fs::exists(impl_->event_path(name))) return;
    AppendFile& file = impl_->events(name);
    const EventScan scan = scan_events(read_file(file.path()), last_step);
    if (scan.good_bytes < file.size()) file.cut(scan.good_bytes);
    if (file.size() == 0) file.append(event_frame(version_event(impl_->options.wall_time())));
  };
  cut_events(std::string(stage), step);
  for (const std::string& name : later) cut_events(name, -1);
}

void MetricsWriter::sync() {
  impl_->lines.sync();
  for (auto& [stage, file] : impl_->event_files) file.sync();
}

}  // namespace praetor
