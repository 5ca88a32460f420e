#include "core/ledger/segment.h"

#include <sys/resource.h>

#include <csignal>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

std::vector<SegmentPosition> write_three(const fs::path& folder) {
  SegmentWriter writer(folder, 1);
  std::vector<SegmentPosition> out;
  for (const char* payload : {"first", "", "the third one"}) out.push_back(writer.append(payload));
  writer.sync();
  return out;
}

}  // namespace

TEST_CASE("records of a segment come back, and a writer goes on at its end",
          "[core][cpu][segment]") {
  const testing::TempDir dir;
  const auto at = write_three(dir.path());
  CHECK(at[0].offset == 16);
  CHECK(at[0].bytes == 13);
  CHECK(at[1].offset == 29);
  CHECK(read_segment_record(dir.path(), at[0]) == "first");
  CHECK(read_segment_record(dir.path(), at[1]).empty());
  CHECK(read_segment_record(dir.path(), at[2]) == "the third one");
  {
    SegmentWriter writer(dir.path(), 1);
    CHECK(read_segment_record(dir.path(), writer.append("fourth")) == "fourth");
    writer.cut(at[2].offset);
    CHECK(writer.size() == at[2].offset);
  }
  const SegmentScan scan = scan_segment(dir.path(), 1);
  CHECK(scan.records == 2);
  CHECK(scan.problem.empty());
}

TEST_CASE("a segment cut at any byte of its last record is told from a whole one",
          "[core][cpu][segment]") {
  const testing::TempDir dir;
  const auto at = write_three(dir.path());
  const fs::path file = segment_path(dir.path(), 1);
  const int64_t whole = at[2].offset + at[2].bytes;
  for (int64_t size = whole - 1; size > at[2].offset; --size) {
    fs::resize_file(file, static_cast<uintmax_t>(size));
    const SegmentScan scan = scan_segment(dir.path(), 1);
    CHECK(scan.records == 2);
    CHECK(scan.good_bytes == at[2].offset);
    CHECK_THAT(scan.problem, Contains("torn"));
    CHECK_THROWS_WITH(read_segment_record(dir.path(), at[2]),
                      Contains("offset 37: the record is torn"));
  }
}

TEST_CASE("a flipped bit anywhere in a segment is found", "[core][cpu][segment]") {
  const testing::TempDir dir;
  const auto at = write_three(dir.path());
  const fs::path file = segment_path(dir.path(), 1);
  const std::string good = read_file(file);
  for (size_t byte = 0; byte < good.size(); ++byte) {
    std::string bad = good;
    bad[byte] = static_cast<char>(bad[byte] ^ 0x10);
    write_file_atomic(file, bad);
    INFO("byte " << byte);
    CHECK_FALSE(scan_segment(dir.path(), 1).problem.empty());
  }
  std::string bad = good;
  bad[45] ^= 1;
  write_file_atomic(file, bad);
  CHECK_THROWS_WITH(read_segment_record(dir.path(), at[2]),
                    Contains("000001.seg: offset 37: the record's checksum does not match"));
  // A run of zeros, as a file system may leave after a power cut, is no record.
  write_file_atomic(file, good + std::string(64, '\0'));
  CHECK_THAT(scan_segment(dir.path(), 1).problem, Contains("checksum"));
}

TEST_CASE("foreign, renamed and missing segments are named", "[core][cpu][segment]") {
  const testing::TempDir dir;
  write_three(dir.path());
  fs::rename(segment_path(dir.path(), 1), segment_path(dir.path(), 2));
  CHECK_THAT(scan_segment(dir.path(), 2).problem, Contains("is not segment 2"));
  CHECK_THROWS_WITH(SegmentWriter(dir.path(), 2), Contains("is not segment 2"));
  CHECK_THROWS_AS(read_segment_record(dir.path(), {1, 16, 13}), MissingInput);
  CHECK_THROWS_AS(read_segment_record(dir.path(), {2, 16, 3}), DataError);
  CHECK_THROWS_AS(read_segment_record(dir.path(), {2, 16, 14}), DataError);
  write_file_atomic(segment_path(dir.path(), 3), "GIF89a, not a segment");
  CHECK_THAT(scan_segment(dir.path(), 3).problem,
             Contains("is not a segment file of this version"));
  write_file_atomic(segment_path(dir.path(), 4), "PRSEG");
  CHECK_THAT(scan_segment(dir.path(), 4).problem, Contains("has 5 bytes"));
  CHECK_THROWS_AS(SegmentWriter(dir / "none", 1), IoError);
}

TEST_CASE("a full disk leaves no part of a record, and the writer can go on",
          "[core][cpu][segment]") {
  const testing::TempDir dir;
  SegmentWriter writer(dir.path(), 1);
  writer.append("first");
  const int64_t before = writer.size();
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 100;  // the record below fits only in part
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    writer.append(std::string(1000, 'x'));
  } catch (const IoError& failure) {
    message = failure.what();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(message, Contains("make room"));
  CHECK(fs::file_size(segment_path(dir.path(), 1)) == static_cast<uintmax_t>(before));
  const SegmentPosition at = writer.append("second");
  CHECK(at.offset == before);
  CHECK(read_segment_record(dir.path(), at) == "second");
}

}  // namespace praetor
