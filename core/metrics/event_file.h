#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/metrics/metrics_writer.h"

namespace praetor {

/// TensorBoard's event file: TFRecord frames (length u64, masked CRC-32C of it, data, masked
/// CRC-32C of the data) around `tensorflow.Event` messages, written by hand since core knows no
/// Protobuf. Fields used: Event.wall_time 1, Event.step 2, Event.file_version 3, Event.summary 5;
/// Summary.value 1; Summary.Value.tag 1, simple_value 2.
std::string event_frame(std::string_view event);
std::string version_event(double wall_time);
/// Values are float in this format; those that are not finite are left out.
std::string scalars_event(double wall_time, int64_t step, const MetricList& metrics);

/// Length of the leading frames that are whole and whose step is at most `max_step`, and the last
/// step among them.
struct EventScan {
  int64_t good_bytes = 0;
  int64_t last_step = 0;
};
EventScan scan_events(std::string_view file, int64_t max_step);

}  // namespace praetor
