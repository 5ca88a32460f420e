#include "rollout/prefix_tree.h"

#include <cstdint>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {
namespace {

const std::vector<int64_t> kOne = {1, 2};
const std::vector<int64_t> kTwo = {3, 4};

}  // namespace

TEST_CASE("a block is found by the tokens before and in it", "[rollout][cpu]") {
  KvBlocks blocks(4);
  PrefixTree tree(blocks);
  const auto root = PrefixTree::root(0);
  const int32_t a = blocks.allocate().value();
  const int32_t b = blocks.allocate().value();
  const auto node = tree.insert(root, kOne, a, 1);
  tree.insert(node, kTwo, b, 1);
  CHECK(tree.find(root, kOne, 1)->block == a);
  CHECK(tree.find(node, kTwo, 1)->block == b);
  CHECK_FALSE(tree.find(root, kTwo, 1));
  CHECK_FALSE(tree.find(node, kOne, 1));
  CHECK_FALSE(tree.find(PrefixTree::root(1), kOne, 1));
  // Another block of the same tokens changes nothing.
  const int32_t c = blocks.allocate().value();
  CHECK(tree.insert(root, kOne, c, 1) == node);
  CHECK(tree.find(root, kOne, 1)->block == a);
  blocks.release(c);
  CHECK(blocks.free() == 2);
}

TEST_CASE("a block serves those who need no more models than it holds", "[rollout][cpu]") {
  KvBlocks blocks(4);
  PrefixTree tree(blocks);
  const auto root = PrefixTree::root(0);
  const int32_t policy = blocks.allocate().value();
  const int32_t both = blocks.allocate().value();
  const int32_t other = blocks.allocate().value();
  const auto node = tree.insert(root, kOne, policy, 1);
  CHECK_FALSE(tree.find(root, kOne, 3));
  CHECK(tree.insert(root, kOne, other, 2) == node);  // serves others, not more
  CHECK(tree.find(root, kOne, 1)->block == policy);
  CHECK(tree.insert(root, kOne, both, 3) == node);
  for (const PrefixTree::Models models : {1U, 2U, 3U}) {
    CHECK(tree.find(root, kOne, models)->block == both);
  }
  // The replaced block is an ordinary one again.
  blocks.release(policy);
  blocks.release(both);
  CHECK(blocks.free() == 3);
  blocks.share(both);
  CHECK(blocks.users(both) == 1);
}

TEST_CASE("what is handed out again is found no more", "[rollout][cpu]") {
  KvBlocks blocks(1);
  PrefixTree tree(blocks);
  const int32_t a = blocks.allocate().value();
  tree.insert(PrefixTree::root(0), kOne, a, 1);
  blocks.release(a);
  CHECK(tree.find(PrefixTree::root(0), kOne, 1).has_value());
  CHECK(blocks.allocate().value() == a);
  CHECK(tree.size() == 0);
  CHECK_FALSE(tree.find(PrefixTree::root(0), kOne, 1));
  tree.insert(PrefixTree::root(0), kTwo, a, 1);
  blocks.release(a);
  tree.clear();
  CHECK(tree.size() == 0);
  CHECK(blocks.free() == 1);
}

}  // namespace praetor
