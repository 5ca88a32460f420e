#include "core/collective/roll_call.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {
namespace {

using Mail = std::vector<std::vector<SideChannel::Word>>;

/// Words in a vector; one thread.
class FakeChannel final : public SideChannel {
 public:
  FakeChannel(std::shared_ptr<Mail> mail, int32_t rank) : mail_(std::move(mail)), rank_(rank) {}
  void send_abort(const std::string& /*reason*/) noexcept override {}
  std::optional<Word> aborted() override { return std::nullopt; }
  void tell(int32_t to, const std::string& text) noexcept override {
    (*mail_)[static_cast<size_t>(to)].push_back({rank_, text});
  }
  std::vector<Word> heard() override {
    return std::exchange((*mail_)[static_cast<size_t>(rank_)], {});
  }

 private:
  std::shared_ptr<Mail> mail_;
  int32_t rank_;
};

struct Ranks {
  std::shared_ptr<Mail> mail = std::make_shared<Mail>(3);
  RollCall zero{0, 3, std::make_shared<FakeChannel>(mail, 0)};
  RollCall one{1, 3, std::make_shared<FakeChannel>(mail, 1)};
  RollCall two{2, 3, std::make_shared<FakeChannel>(mail, 2)};
};

/// A wait that has lasted long enough to be told.
class Lasting {
 public:
  Lasting(RollCall& roll, const std::string& what, int64_t step)
      : wait_(
            roll, [what] { return what; }, step) {
    while (!wait_.attend()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void attend() { wait_.attend(); }

 private:
  RollCall::Wait wait_;
};

constexpr std::chrono::milliseconds kLong{60'000};
const std::string kBarrier = "barrier #1 over nccl";

}  // namespace

TEST_CASE("a roll call tells who does not answer and who waits elsewhere", "[core][cpu]") {
  Ranks ranks;
  const std::vector<int32_t> others = {1, 2};
  Lasting mine(ranks.zero, kBarrier, 4);
  CHECK_FALSE(ranks.zero.ask(kLong));  // nobody could answer yet
  CHECK(ranks.zero.missing(kBarrier, others) == "ranks 1, 2 do not answer");
  CHECK_FALSE(ranks.zero.all_answered(others));

  // Asked before it came, and thought to be in another step.
  Lasting first(ranks.one, kBarrier, 5);
  mine.attend();
  CHECK(ranks.zero.missing(kBarrier, others) == "rank 2 does not answer");
  CHECK(ranks.zero.missing("barrier #2 over nccl", others) ==
        "rank 2 does not answer; rank 1 waits in barrier #1 over nccl in step 5");
  CHECK(ranks.zero.missing(kBarrier, {1}).empty());
  CHECK_FALSE(ranks.zero.all_answered(others));
  // When there was time to answer nobody is asked again.
  while (!ranks.zero.ask(kLong)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(ranks.zero.missing(kBarrier, others) == "rank 2 does not answer");
  {
    const Lasting elsewhere(ranks.two, "broadcast #7 of 2 float32 from rank 0 over mpi", -1);
    mine.attend();
    CHECK(ranks.zero.missing(kBarrier, others) ==
          "rank 2 waits in broadcast #7 of 2 float32 from rank 0 over mpi");
    CHECK(ranks.zero.all_answered(others));
    // Its other thread comes: who has asked is told without asking again.
    const Lasting here(ranks.two, kBarrier, 4);
    mine.attend();
    CHECK(ranks.zero.missing(kBarrier, others).empty());
    CHECK(ranks.zero.missing("split #2 over nccl", {2}) ==
          "rank 2 waits in broadcast #7 of 2 float32 from rank 0 over mpi and barrier #1 over nccl "
          "in step 4");
  }
  mine.attend();
  CHECK(ranks.zero.missing(kBarrier, others) == "rank 2 waited and has gone on");
}

TEST_CASE("answers to an earlier roll call count no more", "[core][cpu]") {
  Ranks ranks;
  Lasting mine(ranks.zero, kBarrier, 4);
  ranks.zero.ask(kLong);
  { const Lasting past(ranks.one, kBarrier, 4); }
  ranks.zero.ask_anew();
  mine.attend();
  CHECK(ranks.zero.missing(kBarrier, {1}) == "rank 1 does not answer");
  // An answer of which a line was cut off.
  (*ranks.mail)[0].push_back({1, "!2\n" + kBarrier + "\t4\nbarrier #9 ov"});
  mine.attend();
  CHECK(ranks.zero.missing(kBarrier, {1}).empty());
  CHECK(ranks.zero.missing("", {1}) == "rank 1 waits in barrier #1 over nccl in step 4");
  const std::string cut = "barrier #9 over nccl\t";
  (*ranks.mail)[0].push_back({1, "!2\n" + cut});
  mine.attend();
  CHECK(ranks.zero.missing("", {1}) == "rank 1 waits in barrier #9 over nccl");
}

TEST_CASE("who gives up is heard by all who wait, the first of them by name", "[core][cpu]") {
  Ranks ranks;
  Lasting mine(ranks.zero, kBarrier, 4), others(ranks.one, kBarrier, 4);
  CHECK_FALSE(ranks.zero.given_up());
  ranks.two.give_up("no memory");
  ranks.one.give_up("rank 2 gave up");
  mine.attend();
  others.attend();
  REQUIRE(ranks.zero.given_up());
  CHECK(ranks.zero.given_up()->from == 2);
  CHECK(ranks.zero.given_up()->text == "no memory");
  REQUIRE(ranks.one.given_up());
  CHECK(ranks.one.given_up()->text == "no memory");
  CHECK_FALSE(ranks.two.given_up());

  RollCall alone(0, 1, nullptr);
  RollCall::Wait wait(
      alone, [] { return kBarrier; }, 4);
  alone.give_up("no memory");
  CHECK(alone.ask(kLong));
  CHECK_FALSE(wait.attend());
  CHECK(alone.all_answered({}));
}

}  // namespace praetor
