#include "actors/serve/engine_loop.h"

#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/actors/serve/serve_fixture.h"
#include "tests/support/catch.h"

namespace praetor::serve {
namespace {

using namespace std::chrono_literals;
using praetor::testing::generate_all;
using praetor::testing::same_response;
using praetor::testing::ServedTiny;

GenerationRequest request_of(uint64_t number, int64_t tokens = 20) {
  return {.prompt = {5, 6, static_cast<int64_t>(7 + number)},
          .params = {.max_new_tokens = tokens},
          .key = {.job_seed = number}};
}

/// Everything that a call says, to its end.
std::vector<Event> all_of(Call& call, size_t generations) {
  std::vector<Event> events;
  size_t ended = 0;
  while (ended < generations) {
    auto event = call.next(10s);
    REQUIRE(event);
    ended += std::holds_alternative<Generation>(*event) ? 1 : 0;
    const bool last =
        std::holds_alternative<Refused>(*event) || std::holds_alternative<Failed>(*event);
    events.push_back(std::move(*event));
    if (last) break;
  }
  return events;
}

template <typename Condition>
bool soon(Condition holds) {
  for (int i = 0; i < 1000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

}  // namespace

TEST_CASE("callers on many threads get what each would get alone", "[actors][cpu]") {
  ServedTiny tiny;
  std::vector<Generation> alone;
  for (uint64_t i = 0; i < 24; ++i) {
    alone.push_back(generate_all(tiny.engine, {request_of(i)}).at(0));
  }
  EngineLoop loop(tiny.engine, 1000);
  std::vector<std::thread> callers;
  std::vector<Generation> made(alone.size());
  std::vector<std::string> streamed(alone.size());
  for (uint64_t i = 0; i < alone.size(); ++i) {
    callers.emplace_back([&, i] {
      const auto call = loop.submit({request_of(i)}, i % 2 == 0, std::nullopt);
      for (Event& event : all_of(*call, 1)) {
        if (auto* piece = std::get_if<TokenPiece>(&event)) streamed[i] += piece->text;
        if (auto* g = std::get_if<Generation>(&event)) made[i] = std::move(*g);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (size_t i = 0; i < alone.size(); ++i) {
    CHECK(same_response(made[i], alone[i]));
    CHECK(streamed[i] == (i % 2 == 0 ? alone[i].text : ""));
  }
  CHECK(soon([&] { return loop.stats().running == 0; }));
  CHECK(loop.stats().engine.responses == 24);
}

TEST_CASE("what the engine refuses is refused for the whole call", "[actors][cpu]") {
  ServedTiny tiny;
  EngineLoop loop(tiny.engine, 2);
  GenerationRequest bad = request_of(1);
  bad.prompt = {500};
  const auto call = loop.submit({request_of(0), bad}, false, std::nullopt);
  REQUIRE(call);
  const auto events = all_of(*call, 2);
  REQUIRE(events.size() == 1);
  CHECK_THAT(std::get<Refused>(events[0]).message, Catch::Matchers::Contains("500"));
  // What had begun is cancelled, and there is room again.
  CHECK(soon([&] { return loop.stats().running == 0; }));
  std::shared_ptr<Call> next;
  CHECK(soon([&] {
    next = loop.submit({request_of(0), request_of(1)}, false, std::nullopt);
    return next != nullptr;
  }));
  CHECK(all_of(*next, 2).size() == 3);
}

TEST_CASE("beyond the most that may be open, calls are turned away", "[actors][cpu]") {
  ServedTiny tiny;
  EngineLoop loop(tiny.engine, 3);
  const auto call =
      loop.submit({request_of(0, 60), request_of(1, 60), request_of(2, 60)}, true, std::nullopt);
  REQUIRE(call);
  CHECK(loop.submit({request_of(3)}, false, std::nullopt) == nullptr);
  all_of(*call, 3);
  CHECK(soon([&] { return loop.submit({request_of(3, 1)}, false, std::nullopt) != nullptr; }));
}

TEST_CASE("who leaves has his responses cancelled", "[actors][cpu]") {
  ServedTiny tiny;
  EngineLoop loop(tiny.engine, 100);
  for (int i = 0; i < 5; ++i) {
    GenerationRequest many = request_of(9, 70);
    many.samples = 40;
    const auto call = loop.submit({many}, true, std::nullopt);
    REQUIRE(call->next(10s));
    call->leave();
  }
  CHECK(soon([&] { return loop.stats().running == 0 && loop.stats().queued == 0; }));
  CHECK(loop.stats().engine.responses < 5 * 40);
}

TEST_CASE("a step that throws fails those in the engine, not the next ones", "[actors][cpu]") {
  ServedTiny tiny;
  EngineLoop loop(tiny.engine, 100);
  const at::Tensor head = tiny.model.head().weight;
  const at::Tensor kept = head.clone();
  at::Tensor(head).fill_(std::nanf(""));
  const auto broken = loop.submit({request_of(0)}, false, std::nullopt);
  const auto events = all_of(*broken, 1);
  CHECK_THAT(std::get<Failed>(events.back()).message,
             Catch::Matchers::Contains("generation failed"));
  at::Tensor(head).copy_(kept);
  const auto whole = loop.submit({request_of(0)}, false, std::nullopt);
  CHECK(std::holds_alternative<Generation>(all_of(*whole, 1).back()));
  CHECK(loop.stats().failures == 1);
}

TEST_CASE("at the end open calls hear of it", "[actors][cpu]") {
  ServedTiny tiny;
  EngineLoop loop(tiny.engine, 1000);
  GenerationRequest many = request_of(9, 70);
  many.samples = 200;
  const auto call = loop.submit({many}, false, std::nullopt);
  REQUIRE(call->next(10s));
  loop.stop();
  CHECK(std::holds_alternative<Failed>(all_of(*call, 200).back()));
  CHECK(loop.submit({request_of(0)}, false, std::nullopt) == nullptr);
}

}  // namespace praetor::serve
