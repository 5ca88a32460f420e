#include "rollout/stop_strings.h"

#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("a stop string is found wherever the pieces are cut", "[rollout][cpu]") {
  const std::vector<std::string> stops = {"END"};
  const std::string text = "aENEND!";
  // Every way to cut the text into three pieces.
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      StopStrings found(stops);
      bool ended = false;
      for (const auto& piece : {text.substr(0, i), text.substr(i, j - i), text.substr(j)}) {
        if (!ended) ended = found.push(piece);
      }
      INFO("cut at " << i << " and " << j);
      CHECK(ended);
      CHECK(found.text() == "aEN");
    }
  }
}

TEST_CASE("of several stop strings the one that starts first cuts the text", "[rollout][cpu]") {
  const std::vector<std::string> stops = {"day", "One day", "xyz"};
  StopStrings found(stops);
  CHECK_FALSE(found.push("Once. "));
  CHECK_FALSE(found.push("One "));
  CHECK(found.push("day,"));
  CHECK(found.text() == "Once. ");
}

TEST_CASE("text without a stop string is kept whole", "[rollout][cpu]") {
  const std::vector<std::string> stops = {"\n\n"};
  StopStrings found(stops);
  CHECK_FALSE(found.push("a\n"));
  CHECK_FALSE(found.push(""));
  CHECK_FALSE(found.push("b\n"));
  CHECK(found.text() == "a\nb\n");
  CHECK(found.push("\n"));
  CHECK(found.text() == "a\nb");
}

TEST_CASE("without stop strings nothing stops", "[rollout][cpu]") {
  StopStrings found({});
  CHECK_FALSE(found.any());
  CHECK_FALSE(found.push("anything"));
  CHECK(found.text() == "anything");
}

}  // namespace praetor
