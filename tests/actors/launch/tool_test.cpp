#include "actors/launch/tool.h"

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

using std::chrono::milliseconds;

TEST_CASE("a tool's words come apart, and its status with them", "[actors][cpu]") {
  const ToolResult both = run_tool({"sh", "-c", "echo out; echo ' err ' >&2; exit 3"});
  CHECK(both.out == "out");
  CHECK(both.err == " err");
  CHECK(both.status == 3);
  CHECK_FALSE(both.success());
  CHECK(run_tool({"true"}).success());
  CHECK(run_tool({"sh", "-c", "kill -9 $$"}).status == 128 + 9);
  // It reads nothing, and more than a pipe holds is read.
  CHECK(run_tool({"cat"}).out.empty());
  CHECK(run_tool({"head", "-c", "300000", "/dev/zero"}).out.size() == 300000);
}

TEST_CASE("a tool that is not there, or does not end, is told", "[actors][cpu]") {
  CHECK_THROWS_AS(run_tool({"praetor-has-no-such-tool"}), MissingInput);
  CHECK_THROWS_WITH(run_tool({"sleep", "100"}, milliseconds(50)),
                    Catch::Matchers::StartsWith("sleep 100: no end after"));
}

}  // namespace praetor
