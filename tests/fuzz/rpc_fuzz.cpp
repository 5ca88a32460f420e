// Any bytes as any message of the wire: first byte the kind, the rest the message. Requests go
// through their handlers to interfaces in memory, answers through the client's conversion; each is
// taken or refused by InvalidArgument, and what is taken is sound.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "actors/rpc/handlers.h"
#include "tests/actors/rpc/fake_services.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const praetor::Completion& completion) {
  require(!completion.worker.empty() && completion.lease > 0);
  for (const auto& [id, generation] : completion.rollouts) {
    require(id.ordinal >= 0 && id.sample >= 0);
    require(generation.behavior_logprobs.size() == generation.tokens.size());
    for (const int64_t token : generation.tokens) require(token >= 0 && token < (int64_t{1} << 31));
  }
  for (const auto& [id, score] : completion.scores) {
    require(id.ordinal >= 0 && id.sample >= 0);
    require(!score.score || std::isfinite(*score.score));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  praetor::testing::FakeServices fake;
  const praetor::RpcServices services{&fake, &fake, &fake, &fake};
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    praetor::rpc::try_bytes(services, data[0] % praetor::rpc::message_kinds(), bytes);
  } catch (const praetor::InvalidArgument&) {
    require(fake.calls().empty());  // refused before the interface saw it
  }
  for (const praetor::Completion& completion : fake.completions) check(completion);
  return 0;
}
