#include <algorithm>
#include <iterator>
#include <set>

#include "actors/job/cluster.h"
#include "actors/job/job_config.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

std::vector<std::string> only_in(const std::set<std::string>& a, const std::set<std::string>& b) {
  std::vector<std::string> out;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}

}  // namespace

TEST_CASE("the reference job documents every key that any reader knows, and no other",
          "[actors][cpu]") {
  const testing::TempDir dir;
  std::filesystem::copy_file("configs/reference.yaml", dir / "reference.yaml");
  // The reward section looks for its model and its corpus when it is read.
  std::filesystem::create_directories(dir / "models" / "reward");
  write_file_atomic(dir / "models" / "reward" / "config.json", "{}");
  write_file_atomic(dir / "corpus.txt", "");

  const JobConfig job = JobConfig::read(dir / "reference.yaml");
  CHECK(join(job.document->errors(), "\n") == "");
  const auto given = job.document->given_keys();
  const auto asked = job.document->asked_keys();
  CHECK(join(only_in(asked, given), "\n") == "");
  CHECK(join(only_in(given, asked), "\n") == "");
  CHECK(given.size() > 150);
}

TEST_CASE("every other job of the configs folder has no errors in its keys", "[actors][cpu]") {
  int seen = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("configs")) {
    if (entry.path().extension() != ".yaml" || entry.path().filename() == "reference.yaml")
      continue;
    const auto folder = entry.path().parent_path().filename();
    if (folder == "judges") continue;  // rewards sections, no jobs
    CAPTURE(entry.path().string());
    if (folder == "clusters") {
      CHECK_NOTHROW(ClusterConfig::load(entry.path()));
      continue;
    }
    CHECK(join(JobConfig::read(entry.path()).document->errors(), "\n") == "");
    ++seen;
  }
  CHECK(seen >= 1);
}

TEST_CASE("the defaults that the reference job states are the defaults", "[actors][cpu]") {
  const testing::TempDir dir;
  std::filesystem::create_directories(dir / "models" / "reward");
  write_file_atomic(dir / "models" / "reward" / "config.json", "{}");
  write_file_atomic(dir / "corpus.txt", "");
  // Lines that are marked "(default: ...)" or "required", or that name things, differ on purpose;
  // all others must not change the job when they are left out. A line is left out when it is a
  // plain `key: value` of a mapping.
  const std::string text = read_file("configs/reference.yaml");
  write_file_atomic(dir / "job.yaml", text);
  const std::string whole = JobConfig::read(dir / "job.yaml").resolved();
  const std::set<std::string> kept = {
      "kind",       "name",        "train", "eval",    "stage",    "path",     "required",
      "forbidden",  "min",         "max",   "pattern", "weight",   "mean",     "std",
      "from_model", "error_value", "form",  "text",    "positive", "negative", "categories",
      "k",          "on_error",    "steps", "epochs"};
  int64_t tried = 0;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string line = text.substr(start, end - start);
    const size_t from = start;
    start = end + 1;
    const size_t key_at = line.find_first_not_of(' ');
    if (key_at == std::string::npos || line[key_at] == '#' || line[key_at] == '-') continue;
    const size_t colon = line.find(": ");
    if (colon == std::string::npos || kept.contains(line.substr(key_at, colon - key_at))) continue;
    const size_t value_at = line.find_first_not_of(' ', colon + 2);
    if (value_at == std::string::npos || line[value_at] == '#') continue;  // a section
    if (line.find("(default:") != std::string::npos) continue;
    std::string without = text;
    without.replace(from, line.size(), std::string(key_at, ' ') + "# left out");
    // In place, so that paths resolve alike.
    write_file_atomic(dir / "job.yaml", without);
    CAPTURE(line);
    CHECK(JobConfig::read(dir / "job.yaml").resolved() == whole);
    ++tried;
  }
  CHECK(tried > 100);
}

}  // namespace praetor
