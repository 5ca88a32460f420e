#include <vector>

#include "core/collective/nccl_collective.h"
#include "tests/cuda/gpu.h"

namespace praetor {

TEST_CASE("a group of one GPU exchanges with itself over NCCL", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  CHECK(gpu.description().memory_bytes > 0);
  const cuda::Library& library = cuda::Library::instance();
  const auto meeting = make_local_collective();
  const auto ranks = make_nccl_collective(
      *meeting,
      {.make_id = [&] { return library.nccl_id(); },
       .join = [&](const std::string& id,
                   int32_t rank,
                   int32_t world) { return library.join(id, rank, world, 0); }},
      {.deadline = std::chrono::seconds(60)});
  CHECK(ranks->backend() == "nccl");
  std::vector<float> values = {1, 2, 3}, part(3), all(3);
  ranks->all_reduce<float>(values);
  ranks->reduce_scatter<float>(values, part);
  ranks->all_gather<float>(part, all);
  ranks->broadcast<float>(all, 0);
  ranks->barrier();
  CHECK(all == std::vector<float>{1, 2, 3});
  CHECK(ranks->all_gather_bytes("abc") == std::vector<std::string>{"abc"});
}

}  // namespace praetor
