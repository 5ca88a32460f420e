#include "core/data/dataset.h"

#include <zlib.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/data/line_reader.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;
namespace fs = std::filesystem;

namespace {

std::vector<Row> rows_of(std::string_view text, RowForm form) {
  const testing::TempDir dir;
  write_file_atomic(dir / "d.jsonl", text);
  return read_rows(dir / "d.jsonl", form);
}

/// The message that reading ends with, its folder taken out.
std::string error_of(std::string_view text, RowForm form) {
  const testing::TempDir dir;
  write_file_atomic(dir / "d.jsonl", text);
  try {
    read_rows(dir / "d.jsonl", form);
  } catch (const DataError& failure) {
    std::string what = failure.what();
    const std::string folder = dir.path().string() + "/";
    for (size_t at = what.find(folder); at != std::string::npos; at = what.find(folder)) {
      what.erase(at, folder.size());
    }
    return what;
  }
  return "no error";
}

void write_gz(const fs::path& file, std::string_view text) {
  gzFile out = gzopen(file.c_str(), "wb");
  REQUIRE(out);
  REQUIRE(gzwrite(out, text.data(), static_cast<unsigned>(text.size())) ==
          static_cast<int>(text.size()));
  REQUIRE(gzclose(out) == Z_OK);
}

}  // namespace

TEST_CASE("each form takes its fields and keeps the others as metadata", "[core][cpu][dataset]") {
  const auto prompts = rows_of(
      "{\"prompt\": \"Once\", \"id\": 7, \"answer\": \"42\"}\r\n"
      "\n"
      "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
      "\"content\": \"u\"}]}",
      RowForm::kPrompt);
  REQUIRE(prompts.size() == 2);
  CHECK(prompts[0].prompt == "Once");
  CHECK(prompts[0].metadata == R"({"id":7,"answer":"42"})");
  CHECK(prompts[0].line == 1);
  CHECK(prompts[1].line == 3);
  REQUIRE(prompts[1].messages.size() == 2);
  CHECK(prompts[1].messages[1].content == "u");
  CHECK(prompts[1].metadata == "{}");

  const auto tuned =
      rows_of(R"({"prompt": "", "completion": "text", "margin": 2})", RowForm::kCompletion);
  CHECK(tuned[0].completion == "text");
  CHECK(tuned[0].margin == 0.0);
  CHECK(tuned[0].metadata == R"({"margin":2})");

  const auto pairs = rows_of(
      R"({"prompt": "p", "chosen": "good", "rejected": "", "margin": 1.5})"
      "\n"
      R"({"chosen": [{"role":"user","content":"q"},{"role":"assistant","content":"a"}],)"
      R"( "rejected": [{"role":"user","content":"q"},{"role":"assistant","content":"b"}]})"
      "\n"
      R"({"prompt": "p", "chosen": [{"role":"assistant","content":"a"}], "rejected": [{"role":"assistant","content":"b"}]})",
      RowForm::kPreference);
  REQUIRE(pairs.size() == 3);
  CHECK(pairs[0].margin == 1.5);
  CHECK(pairs[0].metadata == "{}");
  REQUIRE(pairs[1].messages.size() == 1);
  CHECK(pairs[1].messages[0].content == "q");
  CHECK(pairs[1].chosen == "a");
  CHECK(pairs[1].rejected == "b");
  CHECK(pairs[2].prompt == "p");
  CHECK(pairs[2].messages.empty());

  // What another form would use is metadata here: a judge may want the reference answer.
  CHECK(rows_of(R"({"prompt": "p", "completion": "c"})", RowForm::kPrompt)[0].metadata ==
        R"({"completion":"c"})");
}

TEST_CASE("a broken row is named by file and line, with what would be right",
          "[core][cpu][dataset]") {
  struct Case {
    const char* text;
    RowForm form;
    const char* message;
  };
  constexpr auto kPrompt = RowForm::kPrompt;
  constexpr auto kCompletion = RowForm::kCompletion;
  constexpr auto kPreference = RowForm::kPreference;
  const Case cases[] = {
      {"{\"prompt\": \"a\"}\n{\"prompt\": \"b\"", kPrompt, "d.jsonl:2: not JSON: column 15: "},
      {"[1, 2]", kPrompt, "d.jsonl:1: a JSON object {...} is wanted, not array"},
      {"{\"prompt\": 3}", kPrompt, "d.jsonl:1: \"prompt\" must be a string, not number"},
      {"{\"prompt\": \"\"}", kPrompt, "d.jsonl:1: \"prompt\" is empty"},
      {"{\"promt\": \"a\"}", kPrompt, "missing \"prompt\"; did you mean it by \"promt\"?"},
      {"{\"text\": \"a\", \"id\": 1}", kPrompt, "missing \"prompt\"; the row has \"text\", \"id\""},
      {"{}", kPrompt, "missing \"prompt\"; the row has no keys"},
      {"{\"prompt\": \"a\", \"completon\": \"b\"}",
       kCompletion,
       "missing \"completion\"; did you mean it by \"completon\"?"},
      {"{\"prompt\": \"a\", \"completion\": \"\"}", kCompletion, "\"completion\" is empty"},
      {"{\"prompt\": \"a\", \"prompt\": \"b\"}", kPrompt, "key \"prompt\" stands twice"},
      {"{\"prompt\": \"a\xff\"}", kPrompt, "not UTF-8 at byte 14 of the line"},
      {"{\"prompt\": \"\xc3\xa9\xe2\x82\"}", kPrompt, "not UTF-8 at byte 15 of the line"},
      {"{\"prompt\": \"\\ud800\"}", kPrompt, "not JSON: "},
      {"{\"prompt\": \"a\", \"n\": 1e999}", kPrompt, "not JSON: "},
      {"{\"prompt\": \"a\", \"messages\": []}", kPrompt, "has both \"prompt\" and \"messages\""},
      {"{\"messages\": []}", kPrompt, "\"messages\" is an empty list"},
      {"{\"messages\": \"hello\"}", kPrompt, "\"messages\" must be a list of messages, not string"},
      {"{\"messages\": [\"hi\"]}",
       kPrompt,
       "\"messages\"[0] must be an object {\"role\", \"content\"}, not string"},
      {"{\"messages\": [{\"role\": \"user\", \"contnt\": \"x\"}]}",
       kPrompt,
       "\"messages\"[0]: missing \"content\"; did you mean it by \"contnt\"?"},
      {"{\"messages\": [{\"role\": \"asistant\", \"content\": \"x\"}]}",
       kPrompt,
       "unknown role \"asistant\"; did you mean \"assistant\"?"},
      {"{\"messages\": [{\"role\": \"narrator\", \"content\": \"x\"}]}",
       kPrompt,
       "the roles are system, user, assistant"},
      {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}",
       kPrompt,
       "a prompt ends with the user's"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
       kCompletion,
       "no turn of the assistant"},
      {"{\"prompt\": \"p\", \"chosen\": \"a\"}", kPreference, "missing \"rejected\""},
      {"{\"chosen\": \"a\", \"rejected\": \"b\"}", kPreference, "missing \"prompt\""},
      {"{\"prompt\": \"\", \"chosen\": \"a\", \"rejected\": \"b\"}",
       kPreference,
       "\"prompt\" is empty"},
      {"{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": "
       "[{\"role\":\"user\",\"content\":\"q\"}]}",
       kPreference,
       "must both be strings or both be lists"},
      {"{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", \"margin\": \"2\"}",
       kPreference,
       "\"margin\" must be a number, not string"},
      {"{\"chosen\": "
       "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
       " \"rejected\": "
       "[{\"role\":\"user\",\"content\":\"r\"},{\"role\":\"assistant\",\"content\":\"b\"}]}",
       kPreference,
       "must be the same up to their last message"},
      {"{\"chosen\": [{\"role\":\"user\",\"content\":\"q\"}], \"rejected\": "
       "[{\"role\":\"user\",\"content\":\"q\"}]}",
       kPreference,
       "\"chosen\" must end with the turn of the assistant, not of the user"},
      {"", kPrompt, "d.jsonl: no rows"},
      {"\n  \n", kPrompt, "d.jsonl: no rows"},
  };
  for (const Case& one : cases) {
    INFO(one.text);
    CHECK_THAT(error_of(one.text, one.form), Contains(one.message));
  }
}

TEST_CASE("deep nesting is refused at its line, wherever it stands", "[core][cpu][dataset]") {
  const auto nested = [](int depth) {
    const auto n = static_cast<size_t>(depth);
    return "{\"prompt\": \"a\", \"x\": " + std::string(n, '[') + std::string(n, ']') + "}";
  };
  CHECK(rows_of(nested(63), RowForm::kPrompt).size() == 1);
  CHECK_THAT(error_of(nested(65), RowForm::kPrompt), Contains("nested deeper than 64 levels"));
  CHECK_THAT(error_of(nested(1000000), RowForm::kPrompt), Contains("nested deeper than 64 levels"));
}

TEST_CASE("the first twenty errors are told at once", "[core][cpu][dataset]") {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "{\"prompt\": 1}\n{\"prompt\": \"ok\"}\n";
  const std::string what = error_of(text, RowForm::kPrompt);
  CHECK(std::count(what.begin(), what.end(), '\n') == 20);
  CHECK_THAT(what,
             Contains("d.jsonl:1: ") && Contains("d.jsonl:39: ") && !Contains("d.jsonl:41: "));
  CHECK_THAT(what, EndsWith("d.jsonl: stopped after 20 errors"));
}

TEST_CASE("lines of a gzip file are those of the plain one", "[core][cpu][dataset]") {
  const testing::TempDir dir;
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "{\"prompt\": \"line " + std::to_string(i) + "\"}\n";
  write_gz(dir / "d.jsonl.gz", text);
  const auto rows = read_rows(dir / "d.jsonl.gz", RowForm::kPrompt);
  REQUIRE(rows.size() == 20000);
  CHECK(rows[19999].prompt == "line 19999");
  CHECK(rows[19999].line == 20000);

  const std::string bytes = read_file(dir / "d.jsonl.gz");
  write_file_atomic(dir / "torn.jsonl.gz", bytes.substr(0, bytes.size() / 2));
  CHECK_THROWS_WITH(read_rows(dir / "torn.jsonl.gz", RowForm::kPrompt),
                    Contains("the gzip data end early"));
  std::string bad = bytes;
  bad[bytes.size() / 2] = static_cast<char>(bad[bytes.size() / 2] ^ 0x55);
  write_file_atomic(dir / "bad.jsonl.gz", bad);
  CHECK_THROWS_AS(read_rows(dir / "bad.jsonl.gz", RowForm::kPrompt), DataError);
  write_file_atomic(dir / "plain.jsonl.gz", text);
  CHECK_THROWS_WITH(read_rows(dir / "plain.jsonl.gz", RowForm::kPrompt),
                    Contains("does not hold gzip data"));
  write_file_atomic(dir / "zipped.jsonl", bytes);
  CHECK_THROWS_WITH(read_rows(dir / "zipped.jsonl", RowForm::kPrompt),
                    Contains("give it a name that ends in .gz"));
  write_gz(dir / "empty.jsonl.gz", "");
  CHECK_THROWS_WITH(read_rows(dir / "empty.jsonl.gz", RowForm::kPrompt), Contains("no rows"));
}

TEST_CASE("missing files and folders are told apart from bad ones", "[core][cpu][dataset]") {
  const testing::TempDir dir;
  CHECK_THROWS_AS(read_rows(dir / "none.jsonl", RowForm::kPrompt), MissingInput);
  CHECK_THROWS_AS(read_rows(dir.path(), RowForm::kPrompt), MissingInput);
}

TEST_CASE("lines are cut at their ends, and one that is too long is refused",
          "[core][cpu][dataset]") {
  const testing::TempDir dir;
  write_file_atomic(dir / "t", "one\r\n\ntwo\nxxxxxxxxxx\nlast");
  LineReader reader(dir / "t", 10);
  std::string line;
  std::vector<std::string> lines;
  while (reader.next(line)) lines.push_back(line);
  CHECK(lines == std::vector<std::string>{"one", "", "two", std::string(10, 'x'), "last"});
  CHECK(reader.line() == 5);
  LineReader strict(dir / "t", 9);
  for (int i = 0; i < 3; ++i) CHECK(strict.next(line));
  CHECK_THROWS_WITH(strict.next(line), Contains("t:4: the line is longer than 9 bytes"));
  // Longer than the reader's buffer, and without an end.
  write_file_atomic(dir / "long", std::string(1 << 20, 'y'));
  LineReader whole(dir / "long");
  CHECK(whole.next(line));
  CHECK(line.size() == 1 << 20);
  CHECK_FALSE(whole.next(line));
  LineReader refused(dir / "long", (1 << 20) - 1);
  CHECK_THROWS_AS(refused.next(line), DataError);
}

TEST_CASE("an epoch's order is a permutation that depends on seed, stage and epoch alone",
          "[core][cpu][dataset]") {
  std::vector<int64_t> ascending(100);
  std::iota(ascending.begin(), ascending.end(), 0);
  CHECK(epoch_order(100, 3, 7, 0, false) == ascending);
  const auto order = epoch_order(100, 0, 7, 0, true);
  CHECK(order != ascending);
  CHECK(order == epoch_order(100, 0, 7, 0, true));
  CHECK(order != epoch_order(100, 1, 7, 0, true));
  CHECK(order != epoch_order(100, 0, 8, 0, true));
  CHECK(order != epoch_order(100, 0, 7, 1, true));
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == ascending);
  CHECK(epoch_order(0, 0, 7, 0, true).empty());
}

TEST_CASE("real data sets are read whole", "[core][cpu][dataset]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto prompts = read_rows(shared / "data/story-prompts/train.jsonl", RowForm::kPrompt);
  CHECK(prompts.size() == 600);
  const auto pairs = read_rows(shared / "data/hh-rlhf-helpful-dove/val_conditional_pref.jsonl",
                               RowForm::kPreference);
  CHECK(pairs.size() == 363);
  CHECK_FALSE(pairs[0].chosen.empty());
  // Question and answer under other names: each row of the first twenty is told what is missing.
  CHECK_THROWS_WITH(
      read_rows(shared / "data/gsm8k/train.jsonl.gz", RowForm::kCompletion),
      Contains("train.jsonl.gz:20: missing \"prompt\"; the row has \"question\", \"answer\""));
}

TEST_CASE("labelled texts become pairs of a good and a bad one", "[core][cpu]") {
  const testing::TempDir dir;
  const auto file = dir / "rows.jsonl";
  write_file_atomic(file,
                    "{\"text\":\"g1\",\"label\":1}\n{\"text\":\"b1\",\"label\":0}\n"
                    "{\"text\":\"b2\",\"label\":false}\n{\"text\":\"g2\",\"label\":true}\n"
                    "{\"text\":\"g3\",\"label\":1}\n");
  const auto pairs = read_rows(file, RowForm::kPreference);
  REQUIRE(pairs.size() == 2);
  CHECK(pairs[0].chosen + pairs[0].rejected == "g1b1");
  CHECK(pairs[1].chosen + pairs[1].rejected == "g2b2");
  CHECK(pairs[0].prompt.empty());
  write_file_atomic(file, "{\"text\":\"g1\",\"label\":1}\n");
  CHECK_THROWS_WITH(
      read_rows(file, RowForm::kPreference),
      file.string() + ": labels of one kind only; pairs need texts with label 1 and with 0");
  write_file_atomic(file, "{\"text\":\"g1\",\"label\":3}\n");
  CHECK_THROWS_WITH(read_rows(file, RowForm::kPreference),
                    file.string() + ":1: \"label\" must be 0, 1, true or false, not 3");
}

}  // namespace praetor
