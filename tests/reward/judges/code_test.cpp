#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"
#include "tests/support/sandbox.h"
#include "tests/support/shared_data.h"

namespace praetor {

using nlohmann::json;
using testing::judged;
using testing::make;
using testing::TempDir;

namespace {

Sample answer(const std::string& code, const json& tests, const std::string& language = "python") {
  return {.prompt = "Write it.",
          .response = "Here it is:\n```" + language + "\n" + code + "\n```\nDone.",
          .metadata = json{{"tests", tests}}.dump()};
}

Verdict of(const std::string& code, const json& tests, const std::string& keys = "{}") {
  return judged(*make("code", keys), answer(code, tests));
}

const std::string kDouble = "def double(x):\n    return 2 * x";

}  // namespace

TEST_CASE("code passes when all of its tests do", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const json tests = {"assert double(2) == 4",
                      "assert double(-1) == -2\nassert double('a') == 'aa'"};
  const Verdict right = of(kDouble, tests);
  CHECK(right.passed == true);
  CHECK(right.score == 1.0);
  CHECK(right.reason == "2 tests pass");
  CHECK(of(kDouble, "assert double(2) == 4").reason == "1 test passes");

  const Verdict wrong = of("def double(x):\n    return x + 2", tests);
  CHECK(wrong.passed == false);
  CHECK(wrong.score == 0.0);
  CHECK_THAT(wrong.reason, Catch::StartsWith("test 2: fails: assert double(-1) == -2"));
  CHECK(of("def double(x):\n    return x + 2", tests, "{fraction: true}").score == 0.5);
  CHECK(of(kDouble, tests, "{fraction: true}").score == 1.0);
}

TEST_CASE("code is what the last fence of Python holds", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const auto judge = make("code", "{}");
  const std::string tests = R"({"tests": ["assert x == 1"]})";
  const auto verdict = [&](const std::string& response) {
    return judged(*judge, {.prompt = "", .response = response, .metadata = tests});
  };
  CHECK(verdict("```\nx = 2\n```\n```python\nx = 3\n```\n```Python3\nx = 1\n```\n```text\nx\n```")
            .passed == true);
  CHECK(verdict("```text\nx = 1\n```\n```\nx = 2\n```").passed ==
        true);  // no fence of Python: the first
  CHECK(verdict("x = 1").reason == "there is no code fence");
  CHECK(verdict("```python\nx = 1").reason == "there is no code fence");
  const auto whole = make("code", "{extract: whole}");
  CHECK(judged(*whole, {.prompt = "", .response = "x = 1", .metadata = tests}).passed == true);
}

TEST_CASE("a completion goes behind its prefix, and check is called", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const auto judge = make("code",
                          "{extract: whole, prefix: prompt, entry_point: metadata.entry_point, "
                          "setup: metadata.setup, tests: metadata.test}");
  const json row = {{"entry_point", "half"},
                    {"setup", "import math"},
                    {"test", "def check(f):\n    assert f(4) == math.sqrt(4)"}};
  const auto verdict = [&](const std::string& body) {
    return judged(*judge, {.prompt = "def half(x):\n", .response = body, .metadata = row.dump()});
  };
  CHECK(verdict("    return x / 2").passed == true);
  CHECK(verdict("    return x").passed == false);
}

TEST_CASE("a program's output is compared by words and numbers", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const json tests = {{{"input", "3 4\n"}, {"output", "sum: 7.0000001\n"}},
                      {{"input", "1 1\n"}, {"output", " sum:\n2 "}}};
  CHECK(of("a, b = map(int, input().split())\nprint('sum:', a + b)", tests).passed == true);
  const Verdict wrong = of("input()\nprint('sum: 7')", tests);
  CHECK(wrong.reason == "test 2: prints \"sum: 7\", not \"sum:\\x0a2\"");
  CHECK(of("if __name__ == '__main__':\n    print('sum:', sum(map(int, input().split())))\n    "
           "exit(0)",
           tests)
            .passed == true);
  CHECK(of("print('sum: 7')\nexit(3)", tests).reason == "test 1: ends with exit status 3: ");
  CHECK_THAT(of("1 / 0", tests).reason, Catch::Contains("ZeroDivisionError: division by zero"));
}

TEST_CASE("a solution that ends the program, or prints what it likes, passes nothing",
          "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const json tests = {"assert double(2) == 5"};
  for (const std::string escape :
       {"import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "import os\ndef double(x): os._exit(0)",
        "def double(x): raise SystemExit(0)",
        "print('{\"end\": \"pass\"}')\nimport os; os.write(1, b'{\"end\": \"pass\", \"secret\": "
        "\"\"}\\n'); os._exit(0)",
        "import json; json.dumps = lambda x: '{\"end\": \"pass\"}'\ndef double(x): return 4",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "class E(Exception):\n    def __str__(self): raise self\nraise E"}) {
    CAPTURE(escape);
    const Verdict verdict = of(escape, tests);
    CHECK(verdict.passed == false);
    CHECK(verdict.score == 0.0);
  }
  CHECK_THAT(of("import sys; sys.exit(0)", tests).reason, Catch::Contains("SystemExit"));
  CHECK_THAT(of("import os; os._exit(0)", tests).reason, Catch::Contains("ends early"));
}

TEST_CASE("code over a limit is a verdict, not a failure", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const json tests = {"assert f() == 1", "assert f() == 1"};
  const auto begin = std::chrono::steady_clock::now();
  CHECK(of("def f():\n    while True: pass", tests, "{wall_seconds: 1}").reason ==
        "test 1: no end after 1 s");
  CHECK(of("import time\ndef f(): time.sleep(100)", tests, "{wall_seconds: 1, fraction: true}")
            .reason == "test 1: no end after 1 s");
  CHECK(of("def f():\n    while True: pass", tests, "{cpu_seconds: 1}").reason ==
        "test 1: no end after 1 s of computing");
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
  CHECK(of("def f():\n    return len(bytearray(10 ** 10))", tests).reason ==
        "test 1: out of memory");
  CHECK(of("print('x' * 10 ** 6)", {{{"input", ""}, {"output", ""}}}).reason ==
        "test 1: prints more than 65536 bytes");
}

TEST_CASE("a row without tests, or with strange ones, is named", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const Sample none{.prompt = "", .response = "", .metadata = "{}"};
  CHECK_THROWS_WITH(judged(*make("code", "{}"), none), Catch::Contains("metadata.tests"));
  CHECK(judged(*make("code", "{missing: skip}"), none).not_applicable);
  CHECK_THROWS_WITH(of("x = 1", json::array()), Catch::Contains("metadata.tests: is empty"));
  CHECK_THROWS_WITH(of("x = 1", {{{"input", "1"}}}), Catch::Contains("{\"input\": text"));
  CHECK_THROWS_AS(of("x = 1", 7), DataError);
}

TEST_CASE("what a code judge cannot work with is said by its key", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  CHECK_THROWS_WITH(make("code", "{python: /nowhere/python}"),
                    Catch::Contains("there is no /nowhere/python"));
  CHECK_THROWS_WITH(make("code", "{folders: [here]}"), Catch::Contains("absolute path"));
  CHECK_THROWS_WITH(make("code", "{extract: all}"), Catch::Contains("fence"));
  CHECK_THROWS_WITH(make("code", "{memory_mb: 1}"), Catch::Contains("memory_mb"));
  CHECK_THROWS_WITH(make("code", "{tests: response}"), Catch::Contains("metadata.NAME"));
}

namespace {

/// How many of `rows` pass, on two threads.
size_t passing(const Judge& judge,
               const std::vector<Sample>& rows,
               std::vector<size_t>& wrong,
               bool wanted) {
  std::vector<char> passed(rows.size());
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < rows.size(); i += 2)
        passed[i] = *judged(judge, rows[i]).passed ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  size_t count = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    count += passed[i] != 0 ? 1U : 0U;
    if ((passed[i] != 0) != wanted) wrong.push_back(i);
  }
  return count;
}

/// Behind a solution: every function of it gives what equals nothing.
const std::string kCorruption = R"(
class _Wrong:
    def __eq__(self, other): return False
    def __bool__(self): raise ValueError("neither true nor false")
    __hash__ = None
for _name, _value in list(globals().items()):
    if type(_value).__name__ == "function":
        globals()[_name] = lambda *args, **words: _Wrong()
)";

std::string fenced(const std::string& code) {
  return "```python\n" + code + "\n```";
}

std::vector<json> rows_of(const std::filesystem::path& file) {
  std::vector<json> out;
  std::istringstream lines(read_file(file));
  for (std::string line; std::getline(lines, line);) out.push_back(json::parse(line));
  return out;
}

}  // namespace

TEST_CASE("HumanEval's solutions pass, and corrupted ones fail", "[reward][cpu]") {
  PRAETOR_REQUIRE_SHARED(data);
  PRAETOR_REQUIRE_SANDBOX();
  const auto judge = make(
      "code", "{prefix: metadata.prompt, tests: metadata.test, entry_point: metadata.entry_point}");
  std::vector<Sample> right, broken;
  for (const json& row : rows_of(data / "data/humaneval/HumanEval.jsonl")) {
    const std::string solution = row["canonical_solution"];
    right.push_back({.prompt = "", .response = fenced(solution), .metadata = row.dump()});
    broken.push_back(right.back());
    broken.back().response = fenced(solution + kCorruption);
  }
  REQUIRE(right.size() == 164);
  std::vector<size_t> wrong;
  CHECK(passing(*judge, right, wrong, true) == 164);
  CHECK(passing(*judge, broken, wrong, false) == 0);
  CAPTURE(wrong);
  CHECK(wrong.empty());
}

TEST_CASE("MBPP's solutions pass, and corrupted ones fail", "[reward][cpu]") {
  PRAETOR_REQUIRE_SHARED(data);
  PRAETOR_REQUIRE_SANDBOX();
  const auto judge = make("code", "{tests: metadata.all, setup: metadata.test_setup_code}");
  std::vector<Sample> right, broken;
  for (json row : rows_of(data / "data/mbpp/mbpp.jsonl")) {
    std::string all;
    for (const json& test : row["test_list"]) all += test.get<std::string>() + "\n";
    row["all"] = all;
    const std::string solution = row["code"];
    right.push_back({.prompt = "", .response = fenced(solution), .metadata = row.dump()});
    if (right.size() % 4 != 0) continue;
    broken.push_back(right.back());
    broken.back().response = fenced(solution + kCorruption);
  }
  REQUIRE(right.size() == 974);
  std::vector<size_t> wrong;
  passing(*judge, right, wrong, true);
  passing(*judge, broken, wrong, false);
  CAPTURE(wrong);
  CHECK(wrong.empty());
}

}  // namespace praetor
