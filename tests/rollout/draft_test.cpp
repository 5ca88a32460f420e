#include "rollout/draft.h"

#include <cstdint>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {
namespace {

std::vector<int64_t> guess(const std::vector<int64_t>& tokens, int64_t most) {
  std::vector<int64_t> draft = {99};
  guess_next(tokens, most, draft);
  return draft;
}

}  // namespace

TEST_CASE("a guess is what stood behind the last tokens before", "[rollout][cpu]") {
  CHECK(guess({1, 2, 3, 4, 1, 2}, 2) == std::vector<int64_t>{3, 4});
  CHECK(guess({1, 2, 3, 4, 1, 2}, 1) == std::vector<int64_t>{3});
  // It ends with the sequence: what was guessed is not guessed on.
  CHECK(guess({1, 2, 3, 4, 1, 2}, 9) == std::vector<int64_t>{3, 4, 1, 2});
  CHECK(guess({7, 7, 7}, 3) == std::vector<int64_t>{7});
  // The longest agreement counts, of equal ones the last.
  CHECK(guess({5, 1, 2, 8, 1, 2, 9, 5, 1, 2}, 1) == std::vector<int64_t>{8});
  CHECK(guess({1, 2, 8, 1, 2, 9, 1, 2}, 1) == std::vector<int64_t>{9});
}

TEST_CASE("there is no guess where nothing like it stood", "[rollout][cpu]") {
  CHECK(guess({}, 4).empty());
  CHECK(guess({1}, 4).empty());
  CHECK(guess({1, 1}, 4).empty());
  CHECK(guess({1, 2, 3, 4}, 4).empty());
  CHECK(guess({3, 2, 1, 2}, 4).empty());  // one token alone says too little
  CHECK(guess({1, 2, 1, 2}, 0).empty());
}

}  // namespace praetor
