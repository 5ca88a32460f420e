#include "actors/train/summary.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "actors/train/plot.h"
#include "core/base/fs.h"
#include "core/base/str.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr size_t kShownSamples = 3;

std::string figure(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f", value);
  return text;
}

/// The first few lines of the first and of the last samples file, side by side.
std::string shown_samples(const fs::path& folder) {
  std::vector<fs::path> files;
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  }
  if (files.size() < 2) return "";
  std::sort(files.begin(), files.end());
  std::istringstream before(read_file(files.front())), after(read_file(files.back()));
  std::string out, first, last;
  for (size_t i = 0; i < kShownSamples && std::getline(before, first) && std::getline(after, last);
       ++i) {
    const auto a = nlohmann::json::parse(first), b = nlohmann::json::parse(last);
    const auto line = [](const char* when, const nlohmann::json& row) {
      const auto& score = row.at("score");
      return str("    ",
                 when,
                 " (",
                 score.is_null() ? "unscored" : figure(score.get<double>()),
                 ") ",
                 row.at("response").get<std::string>(),
                 "\n");
    };
    out += str("  ", a.at("prompt").get<std::string>(), "\n", line("before", a), line("after ", b));
  }
  return out;
}

}  // namespace

StageSummary summarise(const fs::path& run_dir, const StageConfig& stage) {
  const Headline names = stage.trains() ? stage.make_algorithm()->headline() : Headline{};
  StageSummary out;
  std::vector<double> curve;
  int64_t last_step = 0, dropped = 0;
  std::istringstream lines(read_file(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (row.is_discarded() || row.value("stage", "") != stage.name) continue;
    const auto step = row.at("step").get<int64_t>();
    if (row.contains(names.quality) && row[names.quality].is_number()) {
      if (step == 0) out.before = row[names.quality].get<double>();
      const double value = row[names.quality].get<double>();
      const bool better =
          !out.after || (names.more_is_better ? value > *out.after : value < *out.after);
      // With keep: best the result is the best evaluated state, else the last.
      if (step > 0 && (stage.checkpoint.keep != "best" || better)) out.after = value;
    }
    if (row.contains(names.curve) && row[names.curve].is_number())
      curve.push_back(row[names.curve].get<double>());
    dropped += row.value("data/dropped", int64_t{0});
    last_step = step;
  }
  out.text = stage.name + ": ";
  if (out.before && out.after) {
    out.text +=
        str(names.quality, " ", figure(*out.before), " before, ", figure(*out.after), " after\n");
  } else {
    out.text += str(last_step, " steps\n");
  }
  if (dropped > 0) {
    out.text += str(
        "  ", dropped, " samples were dropped; praetor status ", run_dir.string(), " says why\n");
  }
  if (stage.online()) {
    out.text += plot(names.curve + " over the steps", curve, 1, last_step);
    out.text += shown_samples(run_dir / "samples" / stage.name);
  }
  return out;
}

}  // namespace praetor
