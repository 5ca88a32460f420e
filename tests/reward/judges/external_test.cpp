#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::make;
using testing::response;
using testing::TempDir;

namespace {

Deadline later() {
  return Deadline::after(milliseconds(60'000));
}

/// A judge whose program is a shell script. For each line it has `$id`, `$line`, and the number of
/// lines so far in `$n`.
std::shared_ptr<const Judge> scripted(const std::string& body,
                                      const std::string& keys = "",
                                      const std::string& before = "") {
  const std::string script =
      str(before,
          "\nn=0\nwhile read -r line; do n=$((n+1)); id=${line#*:}; id=${id%%,*}\n",
          body,
          "\ndone\n");
  return make(
      "external",
      str("{command: ", json({"sh", "-c", script}).dump(), keys.empty() ? "" : ", ", keys, "}"));
}

/// Answers with the number of lines so far.
const std::string kCount = R"(echo "{\"id\":$id,\"score\":$n}")";

double score(const Judge& judge, const std::string& text) {
  return judge.judge(response(text), later()).score;
}

std::string failure(const Judge& judge, const std::string& text) {
  try {
    judge.judge(response(text), later());
  } catch (const Error& error) {
    return error.what();
  }
  return "judged";
}

/// Dead and collected, or about to be by whoever is its parent.
bool gone(pid_t pid) {
  const std::string file = str("/proc/", pid, "/stat");
  try {
    const std::string stat = read_file(file);
    return stat.at(stat.rfind(')') + 2) == 'Z';
  } catch (const Error&) {
    return true;
  }
}

template <typename Condition>
bool eventually(Condition holds) {
  for (int i = 0; i < 10'000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return false;
}

pid_t pid_in(const std::filesystem::path& file) {
  return static_cast<pid_t>(std::stoi(read_file(file)));
}

}  // namespace

TEST_CASE("a program gets the sample as a line of JSON", "[reward][cpu]") {
  const TempDir dir;
  const auto judge =
      scripted(str("printf '%s' \"$line\" > ", (dir / "line").string(), "\n", kCount));
  Sample sample = response("two\nlines, \"quoted\" \xc3\xa9", R"({"a": [1, null]})");
  sample.prompt = "Say it.";
  judge->judge(sample, later());
  CHECK(json::parse(read_file(dir / "line")) == json({{"id", 1},
                                                      {"prompt", "Say it."},
                                                      {"response", sample.response},
                                                      {"metadata", {{"a", {1, nullptr}}}}}));
}

TEST_CASE("its answer becomes the verdict", "[reward][cpu]") {
  const auto judge = scripted(R"(
case $line in
  *plain*) echo "{\"id\":$id,\"score\":0.5}";;
  *low*) echo "{\"id\":$id,\"score\":-2.5}";;
  *said*) echo "{\"id\":$id,\"score\":0.9,\"satisfied\":false,\"reason\":\"too loud\"}";;
  *) echo "{\"id\":$id,\"error\":\"cannot read this\"}";;
esac)");
  const Verdict plain = judge->judge(response("plain"), later());
  CHECK(plain.score == 0.5);
  CHECK(plain.passed == true);  // the default threshold
  CHECK(plain.reason.empty());
  CHECK(judge->judge(response("low"), later()).score == -2.5);
  CHECK(judge->judge(response("low"), later()).passed == false);
  const Verdict said = judge->judge(response("said"), later());
  CHECK(said.score == 0.9);
  CHECK(said.passed == false);
  CHECK(said.reason == "too loud");
  CHECK(failure(*judge, "other") == "the scorer says: cannot read this");
  CHECK(judge->judge(response("plain"), later()).passed == true);
  CHECK_THROWS_AS(judge->judge(response("plain", "[]"), later()), DataError);
}

TEST_CASE("a program is started once and kept", "[reward][cpu]") {
  const auto judge = scripted(kCount);
  CHECK(score(*judge, "a") == 1.0);
  CHECK(score(*judge, "b") == 2.0);
  CHECK(score(*judge, "c") == 3.0);
}

TEST_CASE("a program that dies over a sample is named and started anew", "[reward][cpu]") {
  const auto judge = scripted(
      "case $line in *crash*) echo first >&2; echo 'out of paint' >&2; exit 3;; "
      "*kill*) kill -9 $$;; esac\n" +
      kCount);
  for (int round = 0; round < 2; ++round) {
    CHECK_THAT(failure(*judge, "crash"),
               Catch::EndsWith(
                   " ended with exit status 3 without an answer; its last words: out of paint"));
    CHECK(score(*judge, "fine") == 1.0);
    CHECK(score(*judge, "fine") == 2.0);
    CHECK_THAT(failure(*judge, "kill"),
               Catch::EndsWith(" was ended by signal 9 without an answer"));
    CHECK(score(*judge, "fine") == 1.0);
  }
}

TEST_CASE("a program may end between samples", "[reward][cpu]") {
  const auto judge = scripted(kCount + "\nexit 0");
  for (int i = 0; i < 5; ++i) CHECK(score(*judge, "a") == 1.0);
}

TEST_CASE("a program that hangs is ended at the deadline with all it has started",
          "[reward][cpu]") {
  const TempDir dir;
  const auto judge = scripted(str("case $line in *hang*) sleep 1000 & echo $! > ",
                                  (dir / "child").string(),
                                  "; wait;; esac\n",
                                  kCount));
  CHECK(score(*judge, "fine") == 1.0);
  CHECK_THROWS_WITH(judge->judge(response("hang"), Deadline::after(milliseconds(300))),
                    "timeout after 300 ms");
  CHECK(eventually([&] { return gone(pid_in(dir / "child")); }));
  CHECK(score(*judge, "fine") == 1.0);
}

TEST_CASE("a program that still starts outlives a deadline", "[reward][cpu]") {
  const TempDir dir;
  const std::string flag = (dir / "go").string();
  const auto judge = scripted(kCount, "", str("while [ ! -e ", flag, " ]; do sleep 0.01; done"));
  for (int i = 0; i < 2; ++i) {
    CHECK_THROWS_AS(judge->judge(response("a"), Deadline::after(milliseconds(30))), TimeoutError);
  }
  write_file_atomic(flag, "");
  // The answer to the first question is passed over; the second was never sent.
  CHECK(score(*judge, "b") == 2.0);
  CHECK(score(*judge, "c") == 3.0);
}

TEST_CASE("but not its own time to start", "[reward][cpu]") {
  const TempDir dir;
  const std::string pid = (dir / "pid").string();
  const auto judge =
      scripted(kCount, "start_timeout_ms: 1", str("echo $$ > ", pid, "; exec sleep 1000"));
  CHECK_THROWS_AS(judge->judge(response("a"), Deadline::after(milliseconds(1000))), TimeoutError);
  CHECK(gone(pid_in(pid)));
}

TEST_CASE("an answer that is none is the sample's error", "[reward][cpu]") {
  for (const std::string& answer : {std::string("hello"),
                                    std::string(R"({"id":7,"score":1})"),
                                    std::string(R"({"score":1})"),
                                    std::string(R"({"id":1})"),
                                    std::string(R"({"id":1,"score":"1"})"),
                                    std::string(R"({"id":1,"score":1,"satisfied":1})"),
                                    std::string(R"({"id":1,"score":1,"reason":1})"),
                                    std::string(R"({"id":1,"error":1})"),
                                    std::string("[]"),
                                    std::string()}) {
    CAPTURE(answer);
    const auto judge =
        scripted(str("case $line in *bad*) echo '", answer, "';; *) ", kCount, ";; esac"));
    CHECK_THAT(failure(*judge, "bad"),
               Catch::StartsWith(str("the scorer answered ", answer, "; {\"id\": 1, ")));
    CHECK(score(*judge, "good") == 1.0);  // a fresh program
  }
}

TEST_CASE("an answer without an end is cut off", "[reward][cpu]") {
  const auto judge =
      scripted("case $line in *long*) exec head -c 3000000 /dev/zero;; esac\n" + kCount);
  CHECK_THAT(failure(*judge, "long"), Catch::EndsWith("answers with a line of more than 1 MiB"));
  CHECK(score(*judge, "short") == 1.0);
}

TEST_CASE("neither long questions nor chatter on stderr block the exchange", "[reward][cpu]") {
  const auto judge = scripted("head -c 1000000 /dev/zero >&2\n" + kCount);
  CHECK(score(*judge, std::string(150'000, 'x')) == 1.0);
  CHECK(score(*judge, "a") == 2.0);
  // A program that reads nothing of a question that no pipe can hold.
  const auto deaf = make("external", "{command: [sleep, '1000'], start_timeout_ms: 1}");
  CHECK_THROWS_AS(
      deaf->judge(response(std::string(1'000'000, 'x')), Deadline::after(milliseconds(50))),
      TimeoutError);
}

TEST_CASE("several programs serve several threads, each one sample at a time", "[reward][cpu]") {
  const auto judge = scripted(
      "text=${line##*:}; text=${text%% *}; echo \"{\\\"id\\\":$id,\\\"score\\\":$text,"
      "\\\"reason\\\":\\\"$$\\\"}\"",
      "processes: 3");
  std::mutex mutex;
  std::set<std::string> programs;
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        Sample sample = response("");
        // The script answers with what stands between the line's last colon and a blank.
        sample.response = str(":", 100 * t + i, " ");
        try {
          const Verdict verdict = judge->judge(sample, later());
          right += verdict.score == 100 * t + i;
          const std::lock_guard lock(mutex);
          programs.insert(verdict.reason);
        } catch (const Error&) {
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 120);
  CHECK(programs.size() <= 3);
}

TEST_CASE("a judge that goes takes its programs along", "[reward][cpu]") {
  const TempDir dir;
  const std::string files = str(
      "echo $$ > ", (dir / "pid").string(), "; sleep 1000 & echo $! > ", (dir / "child").string());
  auto judge = scripted(kCount, "", files);
  score(*judge, "a");
  const pid_t pid = pid_in(dir / "pid");
  const pid_t child = pid_in(dir / "child");
  CHECK_FALSE(gone(pid));
  CHECK_FALSE(gone(child));
  judge.reset();
  CHECK(::kill(pid, 0) == -1);  // collected: no zombie
  CHECK(eventually([&] { return gone(child); }));
}

TEST_CASE("a program ends with the process that asked it", "[reward][cpu]") {
  const TempDir dir;
  const std::string file = (dir / "pid").string();
  const pid_t parent = ::fork();
  if (parent == 0) {
    // No exception may leave the copy of this test.
    try {
      const auto judge =
          scripted(kCount, "", str("echo $$ > ", file, ".new; mv ", file, ".new ", file));
      // The thread that asks ends; its program must not end with it.
      std::thread([&] { judge->judge(response("a"), Deadline::never()); }).join();
      for (;;) ::pause();
    } catch (...) {
    }
    ::_exit(1);
  }
  REQUIRE(eventually([&] { return std::filesystem::exists(file); }));
  const pid_t program = pid_in(file);
  std::this_thread::sleep_for(milliseconds(20));
  CHECK_FALSE(gone(program));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  CHECK(eventually([&] { return gone(program); }));
}

TEST_CASE("a program that is not there is named", "[reward][cpu]") {
  const auto judge = make("external", "{command: [no-such-scorer, --fast]}");
  CHECK(failure(*judge, "a") ==
        "cannot start \"no-such-scorer --fast\": No such file or directory");
}

}  // namespace praetor
