#include "core/collective/nccl_collective.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/collective/grid.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using std::chrono::milliseconds;
using testing::run_ranks;

namespace {

using Bytes = std::vector<std::byte>;

/// What the ranks of a group of FakeCommunicator have in common.
struct FakeGroup {
  explicit FakeGroup(int32_t world) : joined(static_cast<size_t>(world)), sent(joined.size()) {}
  std::mutex mutex;
  std::vector<bool> joined;
  std::vector<std::vector<Bytes>> sent;                       ///< by rank, then piece of work
  std::map<std::pair<size_t, size_t>, std::deque<Bytes>> on;  ///< its way from one to another
  std::string failure;
  int64_t absent = -1;  ///< this rank's work is never seen by others
  int finished = 0;     ///< pieces that were copied to the processor
  int most = 0;         ///< in flight at once on a rank
  int aborts = 0;
};

using Element = cuda::Communicator::Element;

/// NCCL's part, without NCCL: work is done when every rank that has a part in it has started it.
class FakeCommunicator final : public cuda::Communicator {
 public:
  FakeCommunicator(FakeGroup& group, int32_t rank)
      : group_(group), rank_(static_cast<size_t>(rank)) {
    const std::lock_guard lock(group_.mutex);
    group_.joined[rank_] = true;
  }
  void start(const Work& work) override {
    const std::lock_guard lock(group_.mutex);
    const bool pair = work.operation == Operation::kSend || work.operation == Operation::kReceive;
    running_.push_back({work, pair ? 0 : started_++});
    group_.most = std::max(group_.most, static_cast<int>(running_.size()));
    if (static_cast<int64_t>(rank_) == group_.absent || work.operation == Operation::kReceive)
      return;
    const auto* from = static_cast<const std::byte*>(work.send);
    const Bytes bytes(from, from + work.send_count * cuda::bytes_of(work.type));
    if (pair) {
      group_.on[{rank_, static_cast<size_t>(work.root)}].push_back(bytes);
    } else {
      group_.sent[rank_].push_back(bytes);
    }
  }
  State poll_but(int64_t last) override {
    const std::lock_guard lock(group_.mutex);
    if (!group_.failure.empty()) return State::kFailed;
    for (const bool joined : group_.joined) {
      if (!joined) return State::kBusy;
    }
    while (!running_.empty() && come(running_.front())) {
      if (running_.front().work.on_device) put(running_.front().work);
      running_.pop_front();
    }
    return static_cast<int64_t>(running_.size()) <= last ? State::kDone : State::kRunning;
  }
  std::string failure() const override { return group_.failure; }
  void finish(const Work& work) override {
    const std::lock_guard lock(group_.mutex);
    ++group_.finished;
    put(work);
  }
  void abort() noexcept override {
    const std::lock_guard lock(group_.mutex);
    ++group_.aborts;
  }

 private:
  struct Piece {
    Work work;
    size_t number;  ///< of those that all ranks have a part in
  };

  /// What the ranks sent for it, if all have.
  bool come(const Piece& piece) {
    results_.clear();
    if (piece.work.operation == Operation::kSend) return true;
    if (piece.work.operation == Operation::kReceive) {
      auto& on = group_.on[{static_cast<size_t>(piece.work.root), rank_}];
      if (on.empty()) return false;
      results_.push_back(on.front());
      on.pop_front();
      return true;
    }
    for (const auto& all : group_.sent) {
      if (all.size() <= piece.number) return false;
      results_.push_back(all[piece.number]);
    }
    return true;
  }

  void put(const Work& work) {
    auto* to = static_cast<std::byte*>(work.receive);
    const int64_t bytes = work.receive_count * cuda::bytes_of(work.type);
    const auto add = [&](int64_t skip) {
      std::memset(to, 0, static_cast<size_t>(bytes));
      for (const auto& part : results_) {
        for (int64_t i = 0; i < work.receive_count; ++i) {
          if (work.type == Element::kFloat32) {
            reinterpret_cast<float*>(to)[i] +=
                reinterpret_cast<const float*>(part.data())[skip + i];
          } else {
            reinterpret_cast<int64_t*>(to)[i] +=
                reinterpret_cast<const int64_t*>(part.data())[skip + i];
          }
        }
      }
    };
    const auto world = static_cast<int64_t>(group_.joined.size());
    switch (work.operation) {
      case Operation::kReduceScatter:
        return add(static_cast<int64_t>(rank_) * work.receive_count);
      case Operation::kAllReduce:
        return add(0);
      case Operation::kAllGather:
        for (const auto& part : results_) to = std::copy(part.begin(), part.end(), to);
        return;
      case Operation::kBroadcast:
        std::memcpy(
            to, results_[static_cast<size_t>(work.root)].data(), static_cast<size_t>(bytes));
        return;
      case Operation::kAllToAll:
        for (const auto& part : results_) {
          const std::byte* mine = part.data() + static_cast<int64_t>(rank_) * bytes / world;
          to = std::copy(mine, mine + bytes / world, to);
        }
        return;
      case Operation::kSend:
        return;
      case Operation::kReceive:
        std::memcpy(to, results_[0].data(), static_cast<size_t>(bytes));
    }
  }

  FakeGroup& group_;
  size_t rank_;
  size_t started_ = 0;
  std::deque<Piece> running_;
  std::vector<Bytes> results_;  ///< of the last that was through
};

NcclGroup group_of(FakeGroup& fake) {
  return {.make_id = [] { return std::string("id\0of a group", 13); },
          .join =
              [&fake](const std::string& id, int32_t rank, int32_t world) {
                if (id != std::string("id\0of a group", 13) || world != 3)
                  throw InternalError("another id");
                return std::make_unique<FakeCommunicator>(fake, rank);
              }};
}

/// `work` on three ranks; what each threw.
std::vector<std::string> run_three(FakeGroup& fake,
                                   const std::function<void(Collective&)>& work,
                                   milliseconds deadline = milliseconds(60'000)) {
  return run_ranks(3, [&](Collective& meeting) {
    const auto nccl = make_nccl_collective(meeting, group_of(fake), {.deadline = deadline});
    work(*nccl);
  });
}

const std::vector<std::string> kNone = {"", "", ""};

/// NCCL's names and the groups that have them.
struct FakeNccl {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<FakeGroup>> groups;
  int named = 0;

  NcclGroup functions() {
    return {.make_id =
                [this] {
                  const std::lock_guard lock(mutex);
                  return str("group ", named++);
                },
            .join =
                [this](const std::string& id, int32_t rank, int32_t world) {
                  const std::lock_guard lock(mutex);
                  auto& group = groups[id];
                  if (!group) group = std::make_unique<FakeGroup>(world);
                  return std::make_unique<FakeCommunicator>(*group, rank);
                }};
  }
};

}  // namespace

TEST_CASE("the nccl collective's operations are those of the others", "[core][cpu][cuda]") {
  FakeGroup fake(3);
  std::vector<std::string> seen(3);
  CHECK(
      run_three(fake, [&](Collective& ranks) {
        const float r = static_cast<float>(ranks.rank());
        std::vector<float> all = {r, 10 * r}, part(1);
        ranks.all_reduce<float>(all);
        ranks.reduce_scatter<float>(std::vector<float>{r, r + 1, r + 2}, part);
        std::vector<int64_t> gathered(3), given = {ranks.rank()};
        gathered[static_cast<size_t>(ranks.rank())] = 5 + ranks.rank();
        ranks.all_gather<int64_t>(std::span(gathered).subspan(static_cast<size_t>(ranks.rank()), 1),
                                  gathered);
        ranks.broadcast<int64_t>(given, 2);
        ranks.barrier();
        ranks.all_reduce<float>(std::span<float>());
        const auto texts = ranks.all_gather_bytes(std::string(
            static_cast<size_t>(2 * ranks.rank()), static_cast<char>('a' + ranks.rank())));
        seen[static_cast<size_t>(ranks.rank())] =
            str(ranks.backend(), ranks.world_size(), " ", all[0], " ", all[1], " ", part[0], " ") +
            str(gathered[0], gathered[1], gathered[2], " ", given[0], " ") + texts[0] + "," +
            texts[1] + "," + texts[2];
      }) == kNone);
  CHECK(seen[0] == "nccl3 3 30 3 567 2 ,bb,cccc");
  CHECK(seen[1] == "nccl3 3 30 6 567 2 ,bb,cccc");
  CHECK(seen[2] == "nccl3 3 30 9 567 2 ,bb,cccc");
}

TEST_CASE("an operation of NCCL's that does not end is given up at the deadline",
          "[core][cpu][cuda]") {
  using Catch::Contains;
  FakeGroup fake(3);
  fake.absent = 1;
  const auto errors = run_three(
      fake,
      [](Collective& ranks) {
        std::vector<float> values(7);
        try {
          ranks.all_reduce<float>(values);
        } catch (const CollectiveError&) {
          ranks.barrier();  // failed once, it stays failed
        }
      },
      milliseconds(800));
  for (const size_t r : {0, 2}) {
    CHECK_THAT(errors[r],
               Contains(str("rank ", r, ": barrier #1: the group has failed before: ")) &&
                   Contains("all_reduce #0 of 7 float32: timed out after 0.") &&
                   Contains("(all its ranks wait: a GPU or a link between them stands still)"));
  }
}

TEST_CASE("NCCL's failure ends the call with its words", "[core][cpu][cuda]") {
  using Catch::Contains;
  FakeGroup fake(3);
  const auto errors = run_three(fake, [&](Collective& ranks) {
    ranks.barrier();
    {
      const std::lock_guard lock(fake.mutex);
      fake.failure = "remote process exited";
    }
    ranks.barrier();
  });
  // A rank may see the failure within its first barrier.
  for (const std::string& error : errors)
    CHECK_THAT(error, Contains("barrier #") && Contains("NCCL: remote process exited"));
}

TEST_CASE("a group that cannot be named or does not come together is refused on all ranks",
          "[core][cpu][cuda]") {
  using Catch::Contains;
  using Catch::StartsWith;
  FakeGroup fake(3);
  NcclGroup broken = group_of(fake);
  broken.make_id = []() -> std::string { throw InvalidArgument("no GPU here"); };
  for (const std::string& error :
       run_ranks(3, [&](Collective& meeting) { make_nccl_collective(meeting, broken); })) {
    CHECK(error == "rank 0 could not name the NCCL group: no GPU here");
  }
  NcclGroup partly = group_of(fake);
  partly.join =
      [&](const std::string&, int32_t rank, int32_t) -> std::unique_ptr<cuda::Communicator> {
    if (rank == 2) throw InvalidArgument("GPU 2 is asked for, but this machine has 2");
    return std::make_unique<FakeCommunicator>(fake, rank);
  };
  const auto errors = run_ranks(3, [&](Collective& meeting) {
    make_nccl_collective(meeting, partly, {.deadline = milliseconds(50)});
  });
  CHECK_THAT(errors[0],
             StartsWith("rank 0: join #0: timed out after") && Contains("rank 2 does not answer"));
  CHECK_THAT(errors[2], Contains("GPU 2 is asked for"));
  CHECK_THROWS_WITH(
      make_nccl_collective(*make_local_collective(), partly, {.deadline = milliseconds(0)}),
      "collective: deadline is 0 ms, but must be above 0");
}

TEST_CASE("the nccl collective refuses spans that do not fit each other", "[core][cpu][cuda]") {
  FakeGroup fake(3);
  for (const std::string& error : run_three(fake, [](Collective& ranks) {
         std::vector<float> send(4), receive(1);
         try {
           ranks.reduce_scatter<float>(send, receive);
         } catch (const InvalidArgument&) {
           try {
             ranks.all_gather<float>(send, receive);
           } catch (const InvalidArgument&) {
             ranks.broadcast<float>(send, 3);
           }
         }
       })) {
    CHECK(error.ends_with("broadcast from rank 3 of 3 ranks"));
  }
}

TEST_CASE("groups over NCCL are communicators of their own, and fail together",
          "[core][cpu][cuda]") {
  using Catch::Contains;
  FakeNccl fake;
  std::vector<std::string> seen(4);
  const auto errors = run_ranks(4, [&](Collective& meeting) {
    const auto nccl =
        make_nccl_collective(meeting, fake.functions(), {.deadline = milliseconds(60'000)});
    const CollectiveGrid grid = make_grid(*nccl, 2, "shards", "replicas");
    std::vector<int64_t> row = {meeting.rank()}, column = row;
    grid.row->all_reduce<int64_t>(row);
    grid.column->all_reduce<int64_t>(column);
    seen[static_cast<size_t>(meeting.rank())] = str(grid.row->backend(), row[0], column[0]);
    nccl->set_step(3);
    grid.row->abort("no memory");
    grid.column->barrier();
  });
  CHECK(seen == std::vector<std::string>{"nccl12", "nccl14", "nccl52", "nccl54"});
  CHECK(errors[3] ==
        "rank 3, group replicas of ranks 1, 3: barrier #1 in step 3: the group has failed before: "
        "no memory");
  for (const std::string& error : run_ranks(2, [&](Collective& meeting) {
         NcclGroup mine = fake.functions();
         if (meeting.rank() == 1)
           mine.make_id = []() -> std::string { throw InvalidArgument("no GPU here"); };
         const auto nccl = make_nccl_collective(meeting, mine);
         const auto alone = nccl->split("alone", meeting.rank());
       })) {
    CHECK(error == "rank 1 could not name the NCCL group: no GPU here");
  }
}

TEST_CASE("ranks hand each other what is another's over NCCL", "[core][cpu][cuda]") {
  using Catch::Contains;
  FakeGroup fake(3);
  std::vector<std::vector<int64_t>> seen(3);
  CHECK(run_three(fake, [&](Collective& ranks) {
          const int64_t r = ranks.rank();
          std::vector<int64_t>& all = seen[static_cast<size_t>(r)];
          all.resize(6);
          const std::vector<int64_t> mine = {10 * r, 10 * r, 10 * r + 1, 10 * r + 1, 10 * r + 2, r};
          ranks.all_to_all<int64_t>(mine, all);
          int64_t passed = r;
          if (r > 0) ranks.receive<int64_t>(std::span(&passed, 1), static_cast<int32_t>(r) - 1);
          passed += 100;
          if (r < 2) ranks.send<int64_t>(std::span(&passed, 1), static_cast<int32_t>(r) + 1);
          all.push_back(passed);
        }) == kNone);
  CHECK(seen[0] == std::vector<int64_t>{0, 0, 10, 10, 20, 20, 100});
  CHECK(seen[1] == std::vector<int64_t>{1, 1, 11, 11, 21, 21, 200});
  CHECK(seen[2] == std::vector<int64_t>{2, 0, 12, 1, 22, 2, 300});
  for (const std::string& error : run_three(fake, [](Collective& ranks) {
         std::vector<int64_t> four(4);
         try {
           ranks.all_to_all<int64_t>(four, four);
         } catch (const InvalidArgument&) {
           try {
             ranks.send<int64_t>(four, ranks.rank());
           } catch (const InvalidArgument&) {
             ranks.receive<int64_t>(four, 3);
           }
         }
       })) {
    CHECK(error.ends_with("receive from rank 3 of 3 ranks"));
  }
}

namespace {

/// `work` on three ranks with a group for memory of a device, which is the processor's here.
std::vector<std::string> run_on_device(FakeGroup& fake,
                                       const std::function<void(Collective&)>& work) {
  return run_ranks(3, [&](Collective& ranks) {
    NcclGroup group = group_of(fake);
    group.on_device = true;
    ranks.set_device(make_nccl_collective(ranks, group, {.deadline = milliseconds(60'000)}));
    work(ranks);
  });
}

}  // namespace

TEST_CASE("operations on a device's memory go on side by side with the rank", "[core][cpu][cuda]") {
  FakeGroup fake(3);
  std::vector<std::vector<float>> seen(3);
  CHECK(run_on_device(fake, [&](Collective& ranks) {
          Collective& device = *ranks.device();
          const auto r = static_cast<float>(ranks.rank());
          const std::vector<float> part = {r, -r}, terms = {r, 2 * r, 3 * r};
          std::vector<float> all(6), sum(1), later = {r};
          if (ranks.rank() > 0) ranks.barrier();  // until the first has started both
          const auto gathered = device.start_all_gather<float>(part, all);
          const auto summed = device.start_reduce_scatter<float>(terms, sum);
          if (ranks.rank() == 0) ranks.barrier();
          device.all_reduce<float>(later);
          summed->wait();
          gathered->wait();
          std::vector<float>& out = seen[static_cast<size_t>(ranks.rank())];
          out = all;
          out.push_back(sum[0]);
          out.push_back(later[0]);
        }) == kNone);
  for (size_t r = 0; r < 3; ++r)
    CHECK(seen[r] == std::vector<float>{0, 0, 1, -1, 2, -2, 3 * static_cast<float>(r + 1), 3});
  CHECK(fake.most >= 2);
  CHECK(fake.finished == 0);  // nothing went through the processor's memory
  CHECK(fake.aborts == 0);
}

TEST_CASE("a handle that nobody waits for waits itself, or gives the group up",
          "[core][cpu][cuda]") {
  using Catch::Contains;
  FakeGroup calm(3);
  CHECK(run_on_device(calm, [&](Collective& ranks) {
          std::vector<float> part = {1}, all(3);
          ranks.device()->start_all_gather<float>(part, all).reset();
          if (all != std::vector<float>{1, 1, 1}) throw InternalError("it did not wait");
        }) == kNone);
  FakeGroup fake(3);
  fake.absent = 1;  // it would never be done
  const auto errors = run_on_device(fake, [&](Collective& ranks) {
    std::vector<float> part = {1}, all(3);
    try {
      const auto gathered = ranks.device()->start_all_gather<float>(part, all);
      throw InvalidArgument("no memory");
    } catch (const InvalidArgument&) {
      ranks.device()->barrier();
    }
  });
  for (const std::string& error : errors)
    CHECK_THAT(error,
               Contains("the group has failed before: all_gather #0 of 3 float32 was given up"));
}

TEST_CASE("what is under way on a device is ended when another group of its rank has failed",
          "[core][cpu][cuda]") {
  using Catch::Contains;
  FakeGroup fake(3);
  fake.absent = 1;  // it would never be done
  const auto errors = run_on_device(fake, [&](Collective& ranks) {
    std::vector<float> part = {1}, all(3);
    const auto gathered = ranks.device()->start_all_gather<float>(part, all);
    try {
      ranks.rank() == 0 ? ranks.barrier() : (void)ranks.all_gather_bytes("another call");
    } catch (const CollectiveError&) {
      gathered->wait();
    }
  });
  for (const std::string& error : errors)
    CHECK_THAT(error, Contains("all_gather #0 of 3 float32: the group has failed before: "));
  CHECK(fake.aborts >= 3);
}

TEST_CASE("a group on a device is split and given up with its ranks'", "[core][cpu][cuda]") {
  using Catch::Contains;
  FakeNccl fake;
  std::vector<std::string> seen(4);
  const auto errors = run_ranks(4, [&](Collective& ranks) {
    NcclGroup group = fake.functions();
    group.on_device = true;
    ranks.set_device(make_nccl_collective(ranks, group, {.deadline = milliseconds(60'000)}));
    const CollectiveGrid grid = make_grid(ranks, 2, "shards", "replicas");
    std::vector<int64_t> row = {ranks.rank()}, column = row;
    grid.row->device()->all_reduce<int64_t>(row);
    grid.column->device()->all_reduce<int64_t>(column);
    seen[static_cast<size_t>(ranks.rank())] = str(grid.row->device()->backend(), row[0], column[0]);
    ranks.barrier();
    ranks.set_step(7);
    grid.row->abort("no memory");
    grid.column->device()->barrier();
  });
  CHECK(seen == std::vector<std::string>{"nccl12", "nccl14", "nccl52", "nccl54"});
  CHECK(errors[3] ==
        "rank 3, group replicas of ranks 1, 3: barrier #1 in step 7: the group has failed before: "
        "no memory");
  CHECK(run_ranks(2, [](Collective& ranks) { ranks.set_device(make_local_collective()); })[1] ==
        "a group on the device of other ranks than it is for");
}

}  // namespace praetor
