#include "core/base/fs.h"

#include <fstream>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/base/text.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

TEST_CASE("an atomic write leaves the new content and no temporary file", "[core][cpu]") {
  const testing::TempDir dir;
  write_file_atomic(dir / "a.txt", "one");
  write_file_atomic(dir / "a.txt", "two");
  CHECK(read_file(dir / "a.txt") == "two");
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
  CHECK_THROWS_AS(write_file_atomic(dir / "none" / "a.txt", "x"), IoError);
}

TEST_CASE("missing, foreign and oversized files are told apart", "[core][cpu]") {
  const testing::TempDir dir;
  CHECK_THROWS_AS(read_file(dir / "none"), MissingInput);
  CHECK_THROWS_AS(read_file(dir.path()), MissingInput);
  CHECK_THROWS_AS(MappedFile(dir / "none"), MissingInput);
  write_file_atomic(dir / "big", std::string(100, 'x'));
  CHECK_THROWS_AS(read_file(dir / "big", 99), DataError);
  CHECK(MappedFile(dir / "big").text() == std::string(100, 'x'));
  write_file_atomic(dir / "empty", "");
  CHECK(MappedFile(dir / "empty").bytes().empty());
}

TEST_CASE("SHA-256 gives the standard's answers", "[core][cpu]") {
  CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(Sha256().update("ab").update("c").hex() ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("the nearest word is a slip of the finger, not any word", "[core][cpu]") {
  CHECK(nearest("clip_hgih", {"clip_low", "clip_high"}) == "clip_high");
  CHECK_FALSE(nearest("zebra", {"clip_low", "clip_high"}));
  CHECK(is_utf8("na\xc3\xafve \xf0\x9f\x98\x80"));
  CHECK_FALSE(is_utf8("\xc0\x80"));
  CHECK_FALSE(is_utf8("\xed\xa0\x80"));
  CHECK(printable("a\n\xff") == "a\\x0a\\xff");
}

}  // namespace praetor
