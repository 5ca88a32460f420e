#include "actors/rpc/secret.h"

#include <sys/stat.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "actors/controller/services.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

using namespace praetor;
using praetor::testing::TempDir;

TEST_CASE("a secret is made once, for its owner's eyes", "[actors][rpc][cpu]") {
  const TempDir run;
  CHECK_THROWS_AS(read_secret(run.path()), MissingInput);
  const std::string secret = make_secret(run.path());
  CHECK(secret.size() == 64);
  CHECK(read_secret(run.path()) == secret);
  CHECK(make_secret(run.path()) == secret);
  struct stat info {};
  REQUIRE(::stat(secret_file(run.path()).c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(make_secret(TempDir().path()) != secret);
  // Nothing is left beside it.
  CHECK(std::distance(std::filesystem::directory_iterator(run.path()), {}) == 1);
}

TEST_CASE("makers of a secret that race agree", "[actors][rpc][cpu]") {
  const TempDir run;
  std::vector<std::string> got(8);
  std::vector<std::thread> makers;
  for (std::string& secret : got)
    makers.emplace_back([&run, &secret] { secret = make_secret(run.path()); });
  for (std::thread& maker : makers) maker.join();
  for (const std::string& secret : got) CHECK(secret == got[0]);
}

TEST_CASE("a secret that others can read is refused", "[actors][rpc][cpu]") {
  const TempDir run;
  make_secret(run.path());
  const std::string file = secret_file(run.path()).string();
  REQUIRE(::chmod(file.c_str(), 0640) == 0);
  CHECK_THROWS_AS(read_secret(run.path()), RefusedError);
  CHECK_THROWS_WITH(read_secret(run.path()), Catch::Contains("chmod 600 " + file));
}

TEST_CASE("a file that holds no secret is named", "[actors][rpc][cpu]") {
  const TempDir run;
  write_file_atomic(secret_file(run.path()), "hello\n");
  REQUIRE(::chmod(secret_file(run.path()).c_str(), 0600) == 0);
  CHECK_THROWS_AS(read_secret(run.path()), DataError);
  CHECK_THROWS_WITH(read_secret(run.path()), !Catch::Contains("hello"));
  std::filesystem::remove(secret_file(run.path()));
  std::filesystem::create_symlink("elsewhere", secret_file(run.path()));
  CHECK_THROWS_AS(read_secret(run.path()), RefusedError);
}

TEST_CASE("secrets compare as texts do", "[actors][rpc][cpu]") {
  CHECK(same_secret("abc", "abc"));
  CHECK_FALSE(same_secret("abd", "abc"));
  CHECK_FALSE(same_secret("ab", "abc"));
  CHECK_FALSE(same_secret("abcd", "abc"));
  CHECK_FALSE(same_secret("", "abc"));
  CHECK_FALSE(same_secret("abcabc", "abc"));
  CHECK_FALSE(same_secret("abc", ""));
}
