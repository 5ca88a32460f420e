// libsentencepiece and our messages each bring a Protobuf of their own into one process
// (proto/CMakeLists.txt); neither may call into the other.
#include <string>

#include "actors/rpc/convert.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/actors/rpc/examples.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

using namespace praetor;
using namespace praetor::testing;

namespace {

std::string through_the_wire(const std::string& digest) {
  RunStatus status = example_status();
  status.weights.digest = digest;
  v1::StatusResponse message;
  rpc::to_proto(status, &message);
  v1::StatusResponse read;
  REQUIRE(read.ParseFromString(message.SerializeAsString()));
  return rpc::from_proto(read).weights.digest;
}

}  // namespace

TEST_CASE("a SentencePiece model is read between two messages", "[actors][rpc][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const TempDir folder;
  for (const char* file : {"tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"}) {
    const auto from = shared / "data" / "stories260K" / file;
    if (std::filesystem::exists(from)) std::filesystem::copy_file(from, folder / file);
  }
  for (int round = 0; round < 3; ++round) {
    CHECK(through_the_wire("abc") == "abc");
    const auto tokenizer = Tokenizer::load(folder.path());
    const auto tokens = tokenizer->encode("Once upon a time");
    CHECK(tokens.size() > 2);
    CHECK(tokenizer->decode(tokens, true) == "Once upon a time");
  }
  CHECK(through_the_wire("def") == "def");
}
