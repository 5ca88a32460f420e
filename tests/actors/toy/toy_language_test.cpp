#include "actors/toy/toy_language.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

std::vector<nlohmann::json> rows(const std::filesystem::path& file) {
  std::istringstream lines(read_file(file));
  std::vector<nlohmann::json> out;
  for (std::string line; std::getline(lines, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

}  // namespace

TEST_CASE("the toy language depends on its seed alone", "[actors][cpu]") {
  const testing::TempDir dir;
  write_toy_language(dir / "a", 1, {});
  write_toy_language(dir / "b", 1, {});
  write_toy_language(dir / "c", 2, {});
  for (const char* file : {"sft.jsonl",
                           "pairs.jsonl",
                           "pairs_eval.jsonl",
                           "attributes.jsonl",
                           "attributes_eval.jsonl",
                           "prompts_train.jsonl",
                           "prompts_eval.jsonl"}) {
    CHECK(read_file(dir / "a" / file) == read_file(dir / "b" / file));
    CHECK(read_file(dir / "a" / file) != read_file(dir / "c" / file));
  }
}

TEST_CASE("held-out toy prompts are never trained on and sizes are kept", "[actors][cpu]") {
  const testing::TempDir dir;
  write_toy_language(
      dir.path(), 5, {.sft_rows = 30, .pair_rows = 40, .prompt_rows = 300, .eval_rows = 100});
  std::set<std::string> held_out;
  for (const auto& row : rows(dir / "prompts_eval.jsonl")) held_out.insert(row.at("prompt"));
  CHECK(held_out.size() == 100);
  const auto train = rows(dir / "prompts_train.jsonl");
  CHECK(train.size() == 300);
  for (const auto& row : train) CHECK(held_out.count(row.at("prompt")) == 0);
  CHECK(rows(dir / "sft.jsonl").size() == 30);
  const auto pairs = rows(dir / "pairs.jsonl");
  CHECK(pairs.size() == 40);
  for (const auto& pair : pairs) CHECK(pair.at("chosen") != pair.at("rejected"));
  const auto pairs_eval = rows(dir / "pairs_eval.jsonl");
  CHECK(pairs_eval.size() == 100);
  for (const auto& pair : pairs_eval)
    CHECK(std::find(pairs.begin(), pairs.end(), pair) == pairs.end());
  CHECK_THROWS_AS(write_toy_language(dir.path(), 5, {.prompt_rows = 400, .eval_rows = 100}),
                  InvalidArgument);
}

TEST_CASE("labelled toy rows come in twos, and some lack a label", "[actors][cpu]") {
  const testing::TempDir dir;
  write_toy_language(dir.path(), 5, {.eval_rows = 20, .attribute_rows = 80});
  const auto train = rows(dir / "attributes.jsonl");
  const auto held_out = rows(dir / "attributes_eval.jsonl");
  CHECK(train.size() == 80);
  CHECK(held_out.size() == 40);
  size_t labels = 0;
  for (size_t i = 0; i < train.size(); ++i) {
    CHECK(train[i].at("prompt") == train[i - i % 2].at("prompt"));
    labels += train[i].count("kindness") + train[i].count("verbosity");
  }
  CHECK(labels == 2 * 80 - 20);
  for (const auto& row : held_out) {
    const std::string text = row.at("completion");
    const auto sentences = std::count(text.begin(), text.end(), '.') - 1;
    CHECK(row.at("verbosity") == sentences);
    CHECK(std::abs(row.at("kindness").get<int>()) <= sentences);
    CHECK((row.at("kindness").get<int>() - sentences) % 2 == 0);
  }
}

TEST_CASE("every word of the toy language is one token", "[actors][cpu]") {
  const testing::TempDir dir;
  write_toy_language(dir.path(), 1, {});
  const auto tokenizer = Tokenizer::load(dir.path());
  const std::string text = "one morning the fox went to the river .";
  CHECK(tokenizer->encode(text).size() == 9);
  CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  REQUIRE(tokenizer->eos());
  CHECK(tokenizer->encode("<|end|>") == std::vector<int64_t>{*tokenizer->eos()});
  CHECK(tokenizer->vocab_size() == *tokenizer->eos() + 1);
  CHECK(tokenizer->vocab_size() == toy_language_vocabulary());
}

}  // namespace praetor
