#include "core/metrics/event_file.h"

#include <cmath>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"

namespace praetor {

namespace {

// Protobuf's wire types, of which these messages need three and a reader must be able to skip four.
constexpr uint64_t kVarint = 0;
constexpr uint64_t kFixed64 = 1;
constexpr uint64_t kBytes = 2;
constexpr uint64_t kFixed32 = 5;

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_tag(std::string& out, uint64_t field, uint64_t type) {
  put_varint(out, field << 3 | type);
}

void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_tag(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event_head(double wall_time) {
  std::string event;
  put_tag(event, 1, kFixed64);
  put(event, wall_time);
  return event;
}

uint64_t take_varint(ByteReader& in) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = in.number<uint8_t>();
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (!(byte & 0x80)) break;
  }
  return value;
}

/// Field 2 of an Event; 0 when it has none, as the version event.
int64_t step_of(std::string_view event) {
  ByteReader in(event);
  while (!in.rest().empty()) {
    const uint64_t tag = take_varint(in);
    if (tag == (2 << 3 | kVarint)) return static_cast<int64_t>(take_varint(in));
    switch (tag & 7) {
      case kVarint:
        take_varint(in);
        break;
      case kFixed64:
        in.take(8);
        break;
      case kBytes:
        in.take(take_varint(in));
        break;
      case kFixed32:
        in.take(4);
        break;
      default:
        return 0;
    }
  }
  return 0;
}

}  // namespace

std::string event_frame(std::string_view event) {
  std::string out;
  put(out, static_cast<uint64_t>(event.size()));
  put(out, masked_crc32c(out));
  out += event;
  put(out, masked_crc32c(event));
  return out;
}

std::string version_event(double wall_time) {
  std::string event = event_head(wall_time);
  put_bytes(event, 3, "brain.Event:2");
  return event;
}

std::string scalars_event(double wall_time, int64_t step, const MetricList& metrics) {
  std::string summary;
  for (const auto& [name, number] : metrics) {
    if (!std::isfinite(number)) continue;
    std::string value;
    put_bytes(value, 1, name);
    put_tag(value, 2, kFixed32);
    put(value, static_cast<float>(number));
    put_bytes(summary, 1, value);
  }
  std::string event = event_head(wall_time);
  put_tag(event, 2, kVarint);
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary);
  return event;
}

EventScan scan_events(std::string_view file, int64_t max_step) {
  EventScan scan;
  ByteReader in(file);
  while (!in.rest().empty()) {
    const std::string_view head = in.rest().substr(0, 8);
    const auto length = in.number<uint64_t>();
    const auto length_crc = in.number<uint32_t>();
    if (in.failed() || length_crc != masked_crc32c(head)) break;
    const auto event = in.take(length);
    const auto event_crc = in.number<uint32_t>();
    if (in.failed() || event_crc != masked_crc32c(*event)) break;
    const int64_t step = step_of(*event);
    if (step > max_step) break;
    scan.last_step = step;
    scan.good_bytes = static_cast<int64_t>(file.size() - in.rest().size());
  }
  return scan;
}

}  // namespace praetor
