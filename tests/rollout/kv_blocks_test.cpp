#include "rollout/kv_blocks.h"

#include <cstdint>
#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("blocks are handed out until none is left, and come back", "[rollout][cpu]") {
  KvBlocks blocks(3);
  const int32_t a = blocks.allocate().value();
  const int32_t b = blocks.allocate().value();
  const int32_t c = blocks.allocate().value();
  CHECK((a != b && b != c && a != c));
  CHECK_FALSE(blocks.allocate().has_value());
  CHECK(blocks.free() == 0);
  blocks.release(b);
  CHECK(blocks.free() == 1);
  CHECK(blocks.allocate().value() == b);
  blocks.release(a);
  blocks.release(b);
  blocks.release(c);
  CHECK(blocks.free() == 3);
  CHECK(blocks.peak() == 3);
}

TEST_CASE("a shared block is free only when its last user lets go", "[rollout][cpu]") {
  KvBlocks blocks(1);
  const int32_t a = blocks.allocate().value();
  blocks.share(a);
  blocks.share(a);
  CHECK(blocks.users(a) == 3);
  blocks.release(a);
  blocks.release(a);
  CHECK_FALSE(blocks.allocate().has_value());
  blocks.release(a);
  CHECK(blocks.allocate().has_value());
  CHECK(blocks.used() == 1);
}

TEST_CASE("a free block can be neither shared nor freed again", "[rollout][cpu]") {
  KvBlocks blocks(2);
  const int32_t a = blocks.allocate().value();
  blocks.release(a);
  CHECK_THROWS_AS(blocks.share(a), InternalError);
  CHECK_THROWS_AS(blocks.release(a), InternalError);
}

TEST_CASE("a kept block idles until room is needed, the longest idle one first", "[rollout][cpu]") {
  KvBlocks blocks(3);
  std::vector<int32_t> evicted;
  blocks.set_on_evict([&](int32_t block) { evicted.push_back(block); });
  const int32_t a = blocks.allocate().value();
  const int32_t b = blocks.allocate().value();
  blocks.keep(a);
  blocks.keep(b);
  blocks.release(b);
  blocks.release(a);
  CHECK(blocks.free() == 3);
  CHECK(blocks.used() == 0);
  blocks.share(b);  // idle: its first user again
  CHECK(blocks.users(b) == 1);
  CHECK(blocks.used() == 1);
  const int32_t c = blocks.allocate().value();
  CHECK(c != a);  // a block that holds nothing goes first
  CHECK(evicted.empty());
  CHECK(blocks.allocate().value() == a);
  CHECK(evicted == std::vector<int32_t>{a});
  CHECK_FALSE(blocks.allocate().has_value());
  // `a` is an ordinary block now; `b` still kept, until it is forgotten.
  blocks.release(a);
  blocks.release(b);
  blocks.forget(b);
  CHECK(blocks.free() == 2);
  CHECK_THROWS_AS(blocks.share(b), InternalError);
  CHECK_THROWS_AS(blocks.keep(b), InternalError);
  CHECK(blocks.allocate().has_value());
  CHECK(blocks.allocate().has_value());
  CHECK(evicted.size() == 1);
}

TEST_CASE("the number of blocks rounds up", "[rollout][cpu]") {
  CHECK(blocks_for(0, 16) == 0);
  CHECK(blocks_for(1, 16) == 1);
  CHECK(blocks_for(16, 16) == 1);
  CHECK(blocks_for(17, 16) == 2);
}

}  // namespace praetor
