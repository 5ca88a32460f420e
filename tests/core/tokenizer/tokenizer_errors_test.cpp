#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/core/tokenizer/tiny_tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

using Catch::Matchers::Contains;
using nlohmann::json;

/// What loading says about a folder with this tokenizer.json.
std::string complaint(const std::string& text, const std::string& config = "") {
  const testing::TempDir dir;
  write_file_atomic(dir / "tokenizer.json", text);
  if (!config.empty()) write_file_atomic(dir / "tokenizer_config.json", config);
  try {
    Tokenizer::load(dir.path());
  } catch (const DataError& failure) {
    const std::string what = failure.what();
    CHECK_THAT(what, Catch::StartsWith(dir.path().string()));
    CHECK(failure.exit_status() == kExitBadData);
    return what;
  }
  return "";
}

std::string complaint_after(const std::function<void(json&)>& edit,
                            const std::string& config = "") {
  json document = testing::tiny_byte_level({"<end>"});
  edit(document);
  return complaint(document.dump(), config);
}

}  // namespace

TEST_CASE("a broken tokenizer.json is refused by file, key and value", "[core][cpu][tokenizer]") {
  CHECK(complaint(testing::tiny_byte_level().dump())
            .empty());  // the document that the cases below break

  CHECK_THAT(complaint("{\"model\": "),
             Contains("tokenizer.json: not valid JSON: parse error at line 1"));
  CHECK_THAT(complaint("[1, 2]"), Contains("an object is wanted, not array"));
  CHECK_THAT(complaint("{}"), Contains("\"model\" is missing"));
  CHECK_THAT(complaint(std::string(100000, '[')), Contains("nested deeper than 64 levels"));
  CHECK_THAT(complaint(std::string(5000, '[') + std::string(5000, ']')),
             Contains("nested deeper than 64 levels"));
  CHECK_THAT(complaint("{\"model\": {\"vocab\": {\"\xff\": 1}}}"), Contains("not valid JSON"));

  CHECK_THAT(
      complaint_after([](json& d) { d["model"]["type"] = "WordPiece"; }),
      Contains("model.type: model type \"WordPiece\" is not supported; BPE and Unigram are"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["vocab"] = 3; }),
             Contains("model.vocab: an object is wanted, not number"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["vocab"] = json::object(); }),
             Contains("model.vocab: is empty"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["vocab"]["he"] = "x"; }),
             Contains("model.vocab.he: a whole number is wanted, not string"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["vocab"]["he"] = -1; }),
             Contains("model.vocab.he: -1 is outside 0 to 16777215"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["vocab"]["he"] = 2000000000; }),
             Contains("model.vocab.he: 2000000000 is outside"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["vocab"]["he"] = 18446744073709551615u; }),
             Contains("model.vocab.he: 18446744073709551615 is outside"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["vocab"]["he"] = 97; }),
             Contains("id 97 stands for two tokens") && Contains("\"he\""));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["merges"][1] = "x yz"; }),
             Contains("model.merges[1]: the merge of \"x\" and \"yz\" needs the token \"yz\""));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["merges"][2] = "x y"; }),
             Contains("needs the token \"xy\""));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["merges"][0] = "h e l"; }),
             Contains("model.merges[0]: \"h e l\" is not two tokens"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["merges"][0] = 7; }),
             Contains("a pair of tokens is wanted"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["unk_token"] = "<unk>"; }),
             Contains("model.unk_token: \"<unk>\" is not in the vocabulary"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["dropout"] = 0.1; }),
             Contains("model.dropout: dropout is not"));
  CHECK_THAT(complaint_after([](json& d) { d["model"]["end_of_word_suffix"] = "</w>"; }),
             Contains("model.end_of_word_suffix: is not supported"));
}

TEST_CASE("a broken Unigram model or charsmap is refused by file, key and value",
          "[core][cpu][tokenizer]") {
  const auto with_model = [](const json& model) {
    return complaint(json{{"model", model}}.dump());
  };
  const json vocab = json::array({{"<unk>", 0.0}, {"a", -1.5}});
  CHECK(with_model({{"type", "Unigram"}, {"unk_id", 0}, {"vocab", vocab}}).empty());
  CHECK_THAT(with_model({{"type", "Unigram"}, {"vocab", vocab}}),
             Contains("model: \"unk_id\" is missing"));
  CHECK_THAT(with_model({{"type", "Unigram"}, {"unk_id", 2}, {"vocab", vocab}}),
             Contains("model.unk_id: 2 is outside 0 to 1"));
  CHECK_THAT(with_model({{"type", "Unigram"}, {"unk_id", 0}, {"vocab", json::array()}}),
             Contains("model.vocab: is empty"));
  CHECK_THAT(with_model({{"type", "Unigram"}, {"unk_id", 0}, {"vocab", {{"a", -1}, {"b"}}}}),
             Contains("model.vocab[1]: a token and its score are wanted"));
  CHECK_THAT(with_model({{"type", "Unigram"},
                         {"unk_id", 0},
                         {"vocab", json::array({{"a", -1}, {"b", nullptr}})}}),
             Contains("model.vocab[1]: a token and its score are wanted"));
  CHECK_THAT(
      with_model(
          {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", json::array({{"a", -1}, {"a", -2}})}}),
      Contains("model.vocab[1]: token \"a\" has id 1, but it has id 0 already"));

  const auto with_charsmap = [](const std::string& base64) {
    return complaint_after([&](json& d) {
      d["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", base64}};
    });
  };
  CHECK(with_charsmap("BAAAAAAAAABhAA==").empty());  // a root without children
  CHECK_THAT(with_charsmap("BAAAAAAAAABhA"),
             Contains("normalizer.precompiled_charsmap: is not base64: its length"));
  CHECK_THAT(with_charsmap("BA*A"), Contains("is not base64: \"*\" is no digit of it"));
  CHECK_THAT(with_charsmap("BAAA"), Contains("precompiled_charsmap: is too short"));
  CHECK_THAT(with_charsmap("CAAAAAAAAABhAA=="),
             Contains("a trie of 8 bytes does not fit into its 10 bytes"));
  CHECK_THAT(with_charsmap("BAAAAAAAAAD/AA=="), Contains("its replacements are not UTF-8"));
}

TEST_CASE("parts of a tokenizer.json that are not supported are named", "[core][cpu][tokenizer]") {
  CHECK_THAT(complaint_after([](json& d) {
               d["normalizer"] = {{"type", "BertNormalizer"}};
             }),
             Contains("normalizer.type: normalizer \"BertNormalizer\" is not supported"));
  CHECK_THAT(complaint_after([](json& d) {
               d["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
             }),
             Contains("pre_tokenizer.type: pre-tokenizer \"BertPreTokenizer\" is not supported"));
  CHECK_THAT(complaint_after([](json& d) {
               d["decoder"] = {{"type", "WordPiece"}};
             }),
             Contains("decoder.type: decoder \"WordPiece\" is not supported"));
  CHECK_THAT(
      complaint_after([](json& d) {
        d["post_processor"] = {{"type", "RobertaProcessing"}};
      }),
      Contains("post_processor.type: post-processor \"RobertaProcessing\" is not supported"));
  const auto with_pattern = [](const std::string& pattern) {
    return complaint_after([&](json& d) {
      d["pre_tokenizer"] = {
          {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
    });
  };
  CHECK(with_pattern("\\p{Han}+|[a-z]+").empty());
  CHECK_THAT(with_pattern("(a"),
             Contains("pre_tokenizer.pattern.Regex: \"(a\" is not a regular expression: missing"));
  CHECK_THAT(with_pattern("a*"), Contains("can match nothing"));
  CHECK_THAT(with_pattern("^a"), Contains("uses the anchor ^, which is not supported"));
  CHECK_THAT(with_pattern("[a&&b]"), Contains("an intersection of classes"));
  CHECK_THAT(with_pattern("[a[bc]]"), Contains("a class within a class"));
  CHECK_THAT(with_pattern("\\h"), Contains("uses \\h"));
  CHECK_THAT(with_pattern("(?x: a)"), Contains("the group (?x:"));
  CHECK_THAT(with_pattern("\\p{Klingon}"), Contains("is not a regular expression"));
  CHECK_THAT(complaint_after([](json& d) {
               d["pre_tokenizer"] = {
                   {"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Odd"}};
             }),
             Contains("pre_tokenizer.behavior: behavior \"Odd\" is not known"));
  // Sequences within sequences end at the depth limit, not at the end of the stack.
  CHECK_THAT(complaint_after([](json& d) {
               json inner = {{"type", "NFC"}};
               for (int i = 0; i < 40; ++i)
                 inner = {{"type", "Sequence"}, {"normalizers", {inner}}};
               d["normalizer"] = inner;
             }),
             Contains("nested deeper than 64 levels"));
}

TEST_CASE("added tokens and templates that contradict the vocabulary are refused",
          "[core][cpu][tokenizer]") {
  CHECK_THAT(complaint_after([](json& d) { d["added_tokens"][0]["id"] = 5; }),
             Contains("added_tokens[0]: id 5 stands for two tokens") && Contains("<end>"));
  CHECK_THAT(complaint_after([](json& d) { d["added_tokens"][0]["id"] = -5; }),
             Contains("added_tokens[0].id: -5"));
  CHECK_THAT(complaint_after([](json& d) { d["added_tokens"][0]["content"] = "he"; }),
             Contains("token \"he\" has id 260, but it has id 256 already"));
  CHECK_THAT(complaint_after([](json& d) { d["added_tokens"][0]["content"] = ""; }),
             Contains("content: is empty"));
  CHECK_THAT(complaint_after([](json& d) { d["added_tokens"][0]["lstrip"] = 1; }),
             Contains("added_tokens[0].lstrip: true or false is wanted, not number"));
  CHECK_THAT(complaint_after([](json& d) {
               d["post_processor"] = testing::tiny_llama()["post_processor"];
               d["post_processor"]["special_tokens"]["<s>"]["ids"][0] = 9999;
             }),
             Contains("post_processor.special_tokens.<s>.ids[0]: 9999 is not the id of a token"));
  CHECK_THAT(complaint_after([](json&) {}, R"({"eos_token": "<stop>"})"),
             Contains("tokenizer_config.json: eos_token \"<stop>\" is not a token"));
  CHECK_THAT(complaint_after([](json&) {}, R"({"eos_token": 7})"),
             Contains("tokenizer_config.json: eos_token: a token is wanted"));
  CHECK_THAT(complaint_after([](json&) {}, R"({"added_tokens_decoder": {"x": {"content": "y"}}})"),
             Contains("added_tokens_decoder: \"x\" is not an id"));
  CHECK_THAT(complaint_after([](json&) {}, R"({"added_tokens_decoder": {"3": {"content": "y!"}}})"),
             Contains("id 3 stands for two tokens"));
}

TEST_CASE("a huge id costs no memory", "[core][cpu][tokenizer]") {
  json document = testing::tiny_byte_level({"<end>"});
  document["added_tokens"][0]["id"] = 16777215;
  const auto tokenizer = testing::load_tokenizer(document);
  CHECK(tokenizer->vocab_size() == 16777216);
  CHECK(tokenizer->encode("<end>") == std::vector<int64_t>{16777215});
  CHECK_FALSE(tokenizer->id_to_token(300));
}

TEST_CASE("a missing folder or file is told apart from a broken one", "[core][cpu][tokenizer]") {
  const testing::TempDir dir;
  CHECK_THROWS_AS(Tokenizer::load(dir / "none"), MissingInput);
  CHECK_THROWS_WITH(Tokenizer::load(dir.path()),
                    Contains("neither tokenizer.json nor tokenizer.model"));
  write_file_atomic(dir / "tokenizer.model", "\x0a\x05hello");
  CHECK_THROWS_WITH(Tokenizer::load(dir.path()),
                    Contains("tokenizer.model: not a SentencePiece model"));
  write_file_atomic(dir / "tokenizer.model", "");
  CHECK_THROWS_AS(Tokenizer::load(dir.path()), DataError);
}

TEST_CASE("a torn or foreign tokenizer.model is refused", "[core][cpu][tokenizer]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const std::string whole = read_file(shared / "data" / "stories260K" / "tokenizer.model");
  const testing::TempDir dir;
  write_file_atomic(dir / "tokenizer.model", whole);
  CHECK(Tokenizer::load(dir.path())->vocab_size() == 512);
  for (const size_t kept : {size_t{1}, whole.size() / 2, whole.size() - 1}) {
    write_file_atomic(dir / "tokenizer.model", whole.substr(0, kept));
    CHECK_THROWS_WITH(Tokenizer::load(dir.path()),
                      Contains("tokenizer.model: not a SentencePiece model"));
  }
  write_file_atomic(dir / "tokenizer.model", whole);
  write_file_atomic(dir / "tokenizer_config.json", R"({"tokenizer_class": "XLMRobertaTokenizer"})");
  CHECK_THROWS_WITH(Tokenizer::load(dir.path()),
                    Contains("tokenizer_class \"XLMRobertaTokenizer\" is not supported"));
  write_file_atomic(dir / "tokenizer_config.json", R"({"legacy": false})");
  CHECK_THROWS_WITH(Tokenizer::load(dir.path()), Contains("\"legacy\": false is not supported"));
}

TEST_CASE("text that is not UTF-8 is refused at its byte", "[core][cpu][tokenizer]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level());
  CHECK_THROWS_WITH(tokenizer->encode("ab\xff"), Contains("not UTF-8: byte 2 is wrong"));
  CHECK_THROWS_AS(tokenizer->encode("\xed\xa0\x80"), DataError);  // a surrogate
  CHECK_THROWS_AS(tokenizer->encode("\xe4\xbd"), DataError);      // cut short
}

}  // namespace praetor
