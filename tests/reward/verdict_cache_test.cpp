#include "reward/verdict_cache.h"

#include <set>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("the oldest verdict goes when the cache is full", "[reward][cpu]") {
  VerdictCache cache(2);
  CHECK(cache.on());
  for (const char* key : {"a", "b", "a", "c"})
    cache.keep(key, {.score = static_cast<double>(key[0]), .passed = true, .reason = key});
  CHECK_FALSE(cache.find("a"));
  CHECK(cache.find("b")->score == 98.0);
  CHECK(cache.find("c")->reason == "c");
  CHECK_FALSE(VerdictCache(0).on());
}

TEST_CASE("every field of a sample, the part and its version make the key", "[reward][cpu]") {
  const Sample sample{.prompt = "ab", .response = "c", .metadata = "{}", .response_tokens = 1};
  const std::vector<Sample> others = {
      // The same bytes, cut elsewhere.
      {.prompt = "a", .response = "bc", .metadata = "{}", .response_tokens = 1},
      {.prompt = "ab", .response = "c", .metadata = R"({"a": 1})", .response_tokens = 1},
      {.prompt = "ab", .response = "c", .metadata = "{}", .response_tokens = 2},
      {.prompt = "ab", .response = "c", .metadata = "{}", .response_tokens = 1, .finished = false}};
  std::set<std::string> keys = {VerdictCache::key(0, sample), VerdictCache::key(1, sample)};
  for (const Sample& other : others) keys.insert(VerdictCache::key(0, other));
  keys.insert(VerdictCache::key(0, sample, "1.0"));
  keys.insert(VerdictCache::key(0, sample, "1.1"));
  CHECK(keys.size() == 8);
  CHECK(keys.contains(VerdictCache::key(0, sample)));
}

}  // namespace praetor
