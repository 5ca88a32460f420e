#include "core/tokenizer/tokenizer.h"

#include <chrono>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/base/text.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"
#include "tests/core/tokenizer/tiny_tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

using Ids = std::vector<int64_t>;

std::string random_text(RandomStream& random, int64_t characters) {
  std::string text;
  for (int64_t i = 0; i < characters; ++i) {
    static constexpr char32_t kBelow[] = {0x80, 0x80, 0x800, 0x3000, 0x10000, 0x110000};
    char32_t code = 0;
    do {
      code = static_cast<char32_t>(random.below(kBelow[random.below(6)]));
    } while (code >= 0xD800 && code <= 0xDFFF);
    unicode::append(text, code);
  }
  return text;
}

}  // namespace

TEST_CASE("merges go by rank, and by place among equals", "[core][cpu][tokenizer]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level({"<end>"}));
  CHECK(tokenizer->encode("hello") == Ids{259});
  CHECK(tokenizer->encode("hell") == Ids{258});
  CHECK(tokenizer->encode("helo") == Ids{256, 'l', 'o'});
  CHECK(tokenizer->encode("lll") == Ids{257, 'l'});  // the pair on the left first
  CHECK(tokenizer->encode("llll") == Ids{257, 257});
  CHECK(tokenizer->encode(" hello<end>h") == Ids{' ', 259, 260, 'h'});
  CHECK(tokenizer->encode("") == Ids{});
  CHECK(tokenizer->vocab_size() == 261);
  CHECK(tokenizer->token_to_id("hello") == 259);
  CHECK_FALSE(tokenizer->token_to_id("hellooo"));
  CHECK(tokenizer->id_to_token(260) == "<end>");
  CHECK_FALSE(tokenizer->id_to_token(261));
  CHECK_FALSE(tokenizer->id_to_token(-1));
  CHECK(tokenizer->is_special(260));
  CHECK_FALSE(tokenizer->is_special(259));
  CHECK(tokenizer->decode(Ids{259, 260, 'x', 999, -3}) == "hellox");
  CHECK(tokenizer->decode(Ids{259, 260, 'x'}, false) == "hello<end>x");
}

TEST_CASE("any text survives a byte-level tokenizer, and any bytes decode as Unicode says",
          "[core][cpu][tokenizer]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level());
  RandomStream random({.job_seed = 11});
  for (int round = 0; round < 300; ++round) {
    const std::string text = random_text(random, static_cast<int64_t>(random.below(40)));
    const Ids ids = tokenizer->encode(text);
    CHECK(tokenizer->decode(ids) == text);

    Ids bytes;
    for (uint64_t i = random.below(12); i > 0; --i)
      bytes.push_back(static_cast<int64_t>(random.below(256)));
    const std::string decoded = tokenizer->decode(bytes);
    CHECK(is_utf8(decoded));
    // What was decoded is a text of its own, and stays.
    CHECK(tokenizer->decode(tokenizer->encode(decoded)) == decoded);
    StreamDecoder stream(*tokenizer);
    std::string pieces;
    for (const int64_t id : bytes) {
      const std::string piece = stream.push(id);
      CHECK(is_utf8(piece));
      pieces += piece;
    }
    CHECK(pieces + stream.finish() == decoded);
  }
}

TEST_CASE("broken bytes become one U+FFFD for each maximal part", "[core][cpu][tokenizer]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level());
  const std::string mark = "\xEF\xBF\xBD";
  CHECK(tokenizer->decode(Ids{0xE4, 0xBD}) == mark);  // cut short: one
  CHECK(tokenizer->decode(Ids{0xE4, 0xBD, 'a'}) == mark + "a");
  CHECK(tokenizer->decode(Ids{0xF0, 0x80, 0x80}) ==
        mark + mark + mark);  // overlong: F0 may not precede 80
  CHECK(tokenizer->decode(Ids{0xED, 0xA0, 0x80}) == mark + mark + mark);  // surrogate
  CHECK(tokenizer->decode(Ids{0xFF, 0xC3, 0xA9}) == mark + "\xC3\xA9");
  CHECK(tokenizer->decode(Ids{0xE4, 0xE4, 0xBD, 0xA0}) == mark + "\xE4\xBD\xA0");
}

TEST_CASE("a stream waits for the end of a character", "[core][cpu][tokenizer]") {
  const auto bytes = testing::load_tokenizer(testing::tiny_byte_level({"<end>"}));
  StreamDecoder stream(*bytes);
  CHECK(stream.push(259) == "hello");
  CHECK(stream.push(0xF0).empty());
  CHECK(stream.push(0x9F).empty());
  CHECK(stream.push(260).empty());  // a special token between, left out
  CHECK(stream.push(0x98).empty());
  CHECK(stream.push(0x80) == "\xF0\x9F\x98\x80");
  CHECK(stream.push(0xE4).empty());
  CHECK(stream.finish() == "\xEF\xBF\xBD");

  // Llama: a run of bytes is text or marks as a whole, so it waits for the token behind it.
  const auto llama = testing::load_tokenizer(testing::tiny_llama());
  const auto byte = [](int64_t value) { return 3 + value; };
  StreamDecoder good(*llama);
  CHECK(good.push(263) == "a");  // the dummy prefix goes
  CHECK(good.push(263) == " a");
  CHECK(good.push(byte(0xC3)).empty());
  CHECK(good.push(byte(0xA9)).empty());
  CHECK(good.push(261) ==
        "\xC3\xA9"
        "b");
  CHECK(good.finish().empty());
  const Ids broken = {263, byte(0xC3), byte(0xA9), byte(0xFF), 261};
  StreamDecoder bad(*llama);
  std::string pieces;
  for (const int64_t id : broken) pieces += bad.push(id);
  CHECK(pieces + bad.finish() == llama->decode(broken));
  CHECK(llama->decode(broken) ==
        "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
        "b");
}

TEST_CASE("a word of a megabyte takes moments, not hours", "[core][cpu][tokenizer]") {
  const auto start = std::chrono::steady_clock::now();
  const auto bytes = testing::load_tokenizer(testing::tiny_byte_level());
  const std::string long_word(1 << 20, 'l');
  CHECK(bytes->encode(long_word).size() == (1 << 19));
  const auto llama = testing::load_tokenizer(testing::tiny_llama());
  std::string spaced;
  while (spaced.size() < (1 << 20)) spaced += " a";
  CHECK(llama->encode(spaced).size() == (1 << 19) + 2);  // BOS, the dummy prefix
  CHECK(bytes->encode(std::string(1 << 20, ' ')).size() == 1 << 20);
  CHECK(bytes->encode(std::string(1 << 20, ' ') + "x").size() == (1 << 20) + 1);
  StreamDecoder stream(*bytes);
  size_t streamed = 0;
  for (int i = 0; i < 1 << 19; ++i) streamed += stream.push(257).size();
  CHECK(streamed == 1 << 20);
  // Quadratic work here is 10^12 steps; the bound only has to tell seconds from hours.
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
}

TEST_CASE("roles come from tokenizer_config.json, then special_tokens_map.json",
          "[core][cpu][tokenizer]") {
  const testing::TempDir dir;
  write_file_atomic(dir / "tokenizer.json",
                    testing::tiny_byte_level({"<end>", "<pad>", "<go>"}).dump());
  write_file_atomic(dir / "tokenizer_config.json",
                    R"({"eos_token": {"content": "<end>", "lstrip": false}, "bos_token": null})");
  write_file_atomic(dir / "special_tokens_map.json",
                    R"({"eos_token": "<go>", "pad_token": {"content": "<pad>"}})");
  const auto tokenizer = Tokenizer::load(dir.path());
  CHECK(tokenizer->eos() == 260);
  CHECK(tokenizer->pad() == 261);
  CHECK_FALSE(tokenizer->bos());

  // A role makes its token special, though it stands in the vocabulary alone.
  const auto hello = testing::load_tokenizer(testing::tiny_byte_level(), {{"eos_token", "hello"}});
  CHECK(hello->eos() == 259);
  CHECK(hello->is_special(259));
  CHECK(hello->encode("xhello") == Ids{'x', 259});

  // added_tokens_decoder may bring tokens that tokenizer.json lacks.
  const auto more = testing::load_tokenizer(
      testing::tiny_byte_level(),
      {{"added_tokens_decoder", {{"260", {{"content", "<new>"}, {"special", true}}}}},
       {"pad_token", "<new>"}});
  CHECK(more->pad() == 260);
  CHECK(more->encode("<new>") == Ids{260});
}

TEST_CASE("Llama's class sets the frame by add_bos_token and add_eos_token",
          "[core][cpu][tokenizer]") {
  const nlohmann::json llama = testing::tiny_llama();
  const nlohmann::json roles = {
      {"tokenizer_class", "LlamaTokenizerFast"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
  const auto with = [&](const nlohmann::json& more) {
    nlohmann::json config = roles;
    config.update(more);
    return testing::load_tokenizer(llama, config)->encode("a");
  };
  CHECK(with(nlohmann::json::object()) == Ids{1, 263});  // the file's own template
  CHECK(with({{"add_bos_token", false}}) == Ids{263});
  CHECK(with({{"add_bos_token", true}, {"add_eos_token", true}}) == Ids{1, 263, 2});
  CHECK(with({{"add_bos_token", false}, {"tokenizer_class", "PreTrainedTokenizerFast"}}) ==
        Ids{1, 263});
  CHECK(testing::load_tokenizer(llama, roles)->encode("a", false) == Ids{263});
}

TEST_CASE("Oniguruma's patterns keep their meaning in PCRE2", "[core][cpu][tokenizer]") {
  CHECK(translate_pattern("[^\\s\\p{L}]\\S", "p") == "[^\\p{White_Space}\\p{L}]\\P{White_Space}");
  CHECK(translate_pattern("\\p{Han}\\p{^Lu}\\u00e9\\x{e9}", "p") ==
        "\\p{sc:Han}\\p{^Lu}\\x{00e9}\\x{e9}");
  CHECK(translate_pattern("[]a](?i:b)", "p") == "[]a](?i:b)");
  // U+180E is no white space since Unicode 6.3, whatever Perl thought.
  CHECK(Regex("\\s", "p").find_all("\xE1\xA0\x8E").empty());
  CHECK(Regex("\\s+", "p")
            .find_all("a \xC2\xA0\xE3\x80\x80"
                      "b") == std::vector<Span>{{1, 7}});
  CHECK(Regex("(?i:'s)", "p").find_all("'S 's '\xC5\xBF").size() == 3);
  CHECK(Regex::literal("a.b*", "p").replace_all("a.b* axb", "-") == "- axb");
  CHECK(Regex("x", "p").replace_all("axbx", "$1\\") == "a$1\\b$1\\");
}

TEST_CASE("a tokenizer without a stream of its own still decodes one", "[core][cpu][tokenizer]") {
  class Letters final : public Tokenizer {
   public:
    Ids encode(std::string_view, bool) const override { return {}; }
    std::string decode(std::span<const int64_t> tokens, bool) const override {
      std::string out;
      for (const int64_t token : tokens) out += static_cast<char>('a' + token);
      return out;
    }
    int64_t vocab_size() const override { return 26; }
    std::optional<int64_t> token_to_id(std::string_view) const override { return std::nullopt; }
    std::optional<std::string> id_to_token(int64_t) const override { return std::nullopt; }
    bool is_special(int64_t) const override { return false; }
  };
  const Letters letters;
  StreamDecoder stream(letters);
  std::string out = stream.push(1);
  out += stream.push(2);
  CHECK(out + stream.finish() == "bc");
}

}  // namespace praetor
