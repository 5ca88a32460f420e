#include <chrono>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "core/collective/nccl_collective.h"
#include "tests/cuda/gpu.h"

namespace praetor {

namespace {

std::unique_ptr<Collective> group_of_one(bool on_device) {
  const cuda::Library& library = cuda::Library::instance();
  const auto meeting = make_local_collective();
  return make_nccl_collective(*meeting,
                              {.make_id = [&] { return library.nccl_id(); },
                               .join =
                                   [&](const std::string& id, int32_t rank, int32_t world) {
                                     return library.join(id, rank, world, 0);
                                   },
                               .on_device = on_device},
                              {.deadline = std::chrono::seconds(60)});
}

}  // namespace

TEST_CASE("a group of one GPU exchanges with itself over NCCL", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  CHECK(gpu.description().memory_bytes > 0);
  const auto ranks = group_of_one(false);
  CHECK(ranks->backend() == "nccl");
  std::vector<float> values = {1, 2, 3}, part(3), all(3), other(3);
  ranks->all_reduce<float>(values);
  ranks->reduce_scatter<float>(values, part);
  ranks->all_gather<float>(part, all);
  ranks->broadcast<float>(all, 0);
  ranks->all_to_all<float>(all, other);
  ranks->barrier();
  CHECK(other == std::vector<float>{1, 2, 3});
  CHECK(ranks->all_gather_bytes("abc") == std::vector<std::string>{"abc"});
}

TEST_CASE("a group of one GPU exchanges memory of the GPU with itself", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  const auto ranks = group_of_one(true);
  constexpr size_t kCount = 1 << 20;
  std::vector<float> values(kCount), back(kCount);
  std::iota(values.begin(), values.end(), 0.0f);
  const auto bytes = static_cast<int64_t>(kCount * sizeof(float));
  auto* const from = static_cast<float*>(gpu.allocate(bytes));
  auto* const to = static_cast<float*>(gpu.allocate(bytes));
  gpu.upload(from, values.data(), bytes);
  gpu.synchronize();
  const auto first = ranks->start_all_gather<float>({from, kCount}, {to, kCount});
  const auto second = ranks->start_reduce_scatter<float>({to, kCount}, {from, kCount});
  second->wait();
  first->wait();
  ranks->all_reduce<float>(std::span(from, kCount));
  CHECK(ranks->all_gather_bytes("abc") == std::vector<std::string>{"abc"});
  gpu.download(back.data(), from, bytes);
  gpu.synchronize();
  CHECK(back == values);
  gpu.release(from);
  gpu.release(to);
}

}  // namespace praetor
