#include "reward/judges/instruction_checks.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

struct Case {
  const char* id;
  const char* arguments;
  std::vector<std::string> followed;
  std::vector<std::string> not_followed;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"keywords:existence",
       R"({"keywords": ["rain", "sun"]})",
       {"Sun and RAIN.", "A brainstorm on Sunday."},  // parts of words count
       {"The rain.", "r ain, sun", "s\nun rain"}},
      {"keywords:existence", R"({"keywords": ["colou?r"]})", {"color", "colour"}, {"col"}},
      {"keywords:frequency",
       R"({"keyword": "rain", "frequency": 2, "relation": "at least"})",
       {"rain Rain", "rain, rain, rain", "brains in trains"},
       {"one rain", "r a i n"}},
      {"keywords:frequency",
       R"({"keyword": "aa", "frequency": 2, "relation": "less than"})",
       {"aaa", "b"},  // one within another is not counted
       {"aaaa", "AA aa"}},
      {"keywords:forbidden_words",
       R"({"forbidden_words": ["rain", "no"]})",
       {"The brain knows.", "Noon", "rain_drops"},
       {"Rain!", "the-rain-falls", "NO", "(no)"}},
      {"keywords:letter_frequency",
       R"({"letter": "E", "let_frequency": 3, "let_relation": "at least"})",
       {"eEe", "There we are"},
       {"ee", "none"}},
      {"keywords:letter_frequency",
       R"({"letter": "#", "let_frequency": 1, "let_relation": "less than"})",
       {"no mark"},
       {"# a title"}},
      {"language:response_language",
       R"({"language": "de"})",
       {"Das ist nicht mein Garten.", "12345", "Hallo!"},  // no letters; a word of any Latin list
       {"This is not my garden.", "Ce n'est pas mon jardin.", "Это не мой сад.", "私の庭"}},
      {"length_constraints:number_sentences",
       R"({"num_sentences": 3, "relation": "at least"})",
       {"One. Two! Three?", "Dr. Who came. He sat. He left."},
       {"One. Two.", "Dr. J. Smith paid 3.50 at St. Mary's vs. Mr. Lee. So.", "a\nb\nc"}},
      {"length_constraints:number_sentences",
       R"({"num_sentences": 2, "relation": "less than"})",
       {"One", "One.", "3.14 is pi."},
       {"One. Two."}},
      {"length_constraints:number_paragraphs",
       R"({"num_paragraphs": 2})",
       {"a *** b", "a\n***\nb", "***\na\n***\nb\n***"},
       {"a", "a *** b *** c", "a *** *** b", "a\n\nb"}},
      {"length_constraints:number_words",
       R"({"num_words": 4, "relation": "at least"})",
       {"one two three four", "it's well-known", "a_b c d e"},  // it, s, well, known
       {"one two three", "a_b c d", "! ? . ;"}},
      {"length_constraints:number_words",
       R"({"num_words": 3, "relation": "less than"})",
       {"one two", "!"},
       {"one two three"}},
      {"length_constraints:nth_paragraph_first_word",
       R"({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Rain"})",
       {"a\n\nrain falls", "a b\n\n\"Rain,\" he said", "a\n\n''\"rain's", "a\n\nRAIN!\n\n"},
       // A blank line more makes the second part blank, though the second paragraph is right.
       {"a\n\n\n\nrain", "rain\n\na", "a\n\nrain\n\nb", "a\n\nrains", "a\nrain", "a\n\n(rain"}},
      {"detectable_content:number_placeholders",
       R"({"num_placeholders": 2})",
       {"[a] [b]", "[] and [c d] and [e]", "[a [b] c] [d]"},
       {"[a]", "[a\n] [b]", "(a) (b)", "[a b", "[[a] ]b]"}},
      {"detectable_content:postscript",
       R"({"postscript_marker": "P.S."})",
       {"Bye.\n\nP.S. More.", "p. s. more", "Bye. P.S.", "p.\ns. x"},
       {"PS more", "P.S", "P.  S. two blanks"}},
      {"detectable_content:postscript",
       R"({"postscript_marker": "P.P.S"})",
       {"P.P.S. x", "p. p. s", "P.P.S"},
       {"P.S. x", "PPS"}},
      {"detectable_content:postscript",
       R"({"postscript_marker": "Finally:"})",
       {"x FINALLY: y"},
       {"finally y"}},
      {"detectable_format:number_bullet_lists",
       R"({"num_bullets": 2})",
       {"* a\n- b\n** c", "  * a\n\t* b", "-\n-", "- a\ntext - b\n-c"},
       {"* a", "* a\n* b\n* c", "** a\n** b", "1. a\n2. b"}},
      {"detectable_format:constrained_response",
       "{}",
       {"My answer is yes.", " Well: My answer is no. ", "My answer is maybe."},
       {"My answer is yes", "my answer is no.", "yes."}},
      {"detectable_format:number_highlighted_sections",
       R"({"num_highlights": 2})",
       {"*x* **y**", "*a* and *b c*", "**a** **b**"},
       {"*x*", "* * *b*", "*a\nb* *c*", "x * y"}},
      {"detectable_format:multiple_sections",
       R"({"section_spliter": "Section", "num_sections": 2})",
       {"Section 1 a Section 2 b", "x Section1\nSection\n2", "Section 1 Section 2 Section 3"},
       {"Section 1", "section 1 section 2", "Section a Section b", "Section  1 Section  2"}},
      {"detectable_format:json_format",
       "{}",
       {"{\"a\": [1, null]}", "```json\n{}\n```", "```JSON 3 ```", "```\n[1]\n```", " \"text\" "},
       {"{a: 1}", "{\"a\": 1,}", "Here: {}", "{} {}", "```yaml\n{}\n```", "NaN"}},
      {"detectable_format:title",
       "{}",
       {"<<Rain>>", "text <<A b>> text", "<<a\n<<b>>"},
       {"<Rain>", "<<>>", "<< >>", "<<a\n>>", "<<<>>>"}},
      {"combination:two_responses",
       "{}",
       {"a ****** b", "******a******b******", "a\n******\nb\n******\n"},
       {"a",
        "a ****** a ",
        "a ****** b ****** c",
        "a ***** b",
        "******a******",
        "a ****** ****** b"}},
      {"combination:repeat_prompt",
       R"({"prompt_to_repeat": "Tell me. "})",
       {"Tell me. Well", "  TELL ME. ", "tell me.x"},
       {"So: Tell me.", "Tell  me.", "Tell me"}},
      {"startend:end_checker",
       R"({"end_phrase": "Any more?"})",
       {"x any more?", "\"Any more?\"", "x ANY MORE? \n"},
       {"Any more? Yes", "any more", "Any more?."}},
      {"change_case:capital_word_frequency",
       R"({"capital_frequency": 3, "capital_relation": "at least"})",
       {"A B C", "IT'S NASA", "WELL-KNOWN, U.S. A1", "CANNOT DO"},  // CAN, NOT
       {"A B", "Word WOrd 123", "WELL-KNOWN-THING", "!!!"}},
      {"change_case:capital_word_frequency",
       R"({"capital_frequency": 1, "capital_relation": "less than"})",
       {"none Here"},
       {"ONE here", "I am"}},
      {"change_case:english_capital",
       "{}",
       {"THE RAIN FELL ON US.", "HELLO 123!"},
       {"The rain.", "123", "DER GARTEN IST NICHT DA.", "ЭТО НЕ МОЙ САД.", "雨が降った"}},
      {"change_case:english_lowercase",
       "{}",
       {"the rain fell on us.", "hello 123!"},
       {"The rain.", "123", "der garten ist nicht da.", "это не мой сад."}},
      {"punctuation:no_comma", "{}", {"a; b.", "a\xef\xbc\x8c b"}, {"a, b", ","}},
      {"startend:quotation",
       "{}",
       {"\"a\"", " \"a b\" \n", "\"\""},
       {"\"", "\"a", "a\"", "'a'", "\"a\"."}},
  };
  return kCases;
}

bool follows(const InstructionCheck& check, const std::string& text) {
  return check(text, Deadline::never());
}

std::string refusal(const std::string& id, const char* arguments) {
  try {
    make_instruction_check(id, nlohmann::json::parse(arguments));
  } catch (const DataError& failure) {
    return failure.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("every instruction of IFEval is checked", "[reward][cpu]") {
  std::set<std::string> seen;
  for (const Case& each : cases()) {
    seen.insert(each.id);
    const InstructionCheck check =
        make_instruction_check(each.id, nlohmann::json::parse(each.arguments));
    for (const std::string& text : each.followed) {
      CAPTURE(each.id, each.arguments, text);
      CHECK(follows(check, text));
    }
    for (const std::string& text : each.not_followed) {
      CAPTURE(each.id, each.arguments, text);
      CHECK_FALSE(follows(check, text));
    }
  }
  CHECK(seen.size() == 25);
  CHECK(seen == std::set<std::string>(instruction_ids().begin(), instruction_ids().end()));
}

TEST_CASE("loosely, a response may lose its first line, its last one and its stars",
          "[reward][cpu]") {
  CHECK(loose_variants("a\n*b*\nc") ==
        std::vector<std::string>{
            "a\n*b*\nc", "a\nb\nc", "*b*\nc", "b\nc", "a\n*b*", "a\nb", "*b*", "b"});
  CHECK(loose_variants("one") == std::vector<std::string>{"one", "one"});
  CHECK(loose_variants("a\nb") == std::vector<std::string>{"a\nb", "a\nb", "b", "b", "a", "a"});
  CHECK(loose_variants("***") == std::vector<std::string>{"***"});
  CHECK(loose_variants(" \n ").empty());
  CHECK(loose_variants("").empty());
}

TEST_CASE("wrong arguments are named with their instruction", "[reward][cpu]") {
  CHECK(refusal("keywords:existense", "{}") ==
        "no instruction is called \"keywords:existense\", did you mean \"keywords:existence\"?");
  CHECK(refusal("nonsense", "{}") == "no instruction is called \"nonsense\"");
  CHECK(refusal("keywords:existence", "{}") ==
        "keywords:existence: argument \"keywords\": is missing");
  CHECK(refusal("keywords:existence", R"({"keywords": null})") ==
        "keywords:existence: argument \"keywords\": is missing");
  CHECK(refusal("keywords:existence", R"({"keywords": "rain"})") ==
        "keywords:existence: argument \"keywords\": \"rain\" is not a list of texts");
  CHECK(refusal("keywords:existence", R"({"keywords": ["a", ""]})") ==
        "keywords:existence: argument \"keywords\": \"\" is not a text, or is an empty one");
  CHECK(refusal("keywords:existence", R"({"keywords": ["(a"]})") ==
        "keywords:existence: argument \"keywords\": missing closing parenthesis at byte 2 of "
        "\"(a\"");
  CHECK(refusal("keywords:letter_frequency",
                R"({"letter": "ab", "let_frequency": 1, "let_relation": "at least"})") ==
        "keywords:letter_frequency: argument \"letter\": \"ab\" is not one character");
  CHECK(refusal("length_constraints:number_words", R"({"num_words": 5, "relation": "over"})") ==
        "length_constraints:number_words: argument \"relation\": \"over\" is not \"at least\" or "
        "\"less than\"");
  CHECK(
      refusal("length_constraints:number_words", R"({"num_words": 5.5, "relation": "at least"})") ==
      "length_constraints:number_words: argument \"num_words\": 5.5 is not a whole number >= 0");
  CHECK(
      refusal("length_constraints:number_words", R"({"num_words": -1, "relation": "at least"})") ==
      "length_constraints:number_words: argument \"num_words\": -1 is not a whole number >= 0");
  CHECK(refusal("startend:end_checker", R"({"end_phrase": 3})") ==
        "startend:end_checker: argument \"end_phrase\": 3 is not text");
  CHECK(refusal("startend:end_checker", R"({"end_phrase": ""})") ==
        "startend:end_checker: argument \"end_phrase\": is empty");
  CHECK(refusal("length_constraints:nth_paragraph_first_word",
                R"({"num_paragraphs": 1, "nth_paragraph": 0, "first_word": "a"})") ==
        "length_constraints:nth_paragraph_first_word: argument \"nth_paragraph\": 0 is not >= 1");
  CHECK_THAT(refusal("language:response_language", R"({"language": "tlh"})"),
             Catch::StartsWith("language:response_language: argument \"language\": \"tlh\" is not "
                               "one of ar, bg, "));
  CHECK(refusal("punctuation:no_comma", R"({"num_words": 5})") ==
        "punctuation:no_comma: argument \"num_words\": the instruction has no such argument");
  CHECK(refusal("punctuation:no_comma", "[1]") ==
        "punctuation:no_comma: the arguments are of type array, but an object is wanted");
  // Tables fill what an instruction does not have with null, and whole numbers may come as 5.0.
  CHECK(refusal("punctuation:no_comma", R"({"num_words": null})") == "accepted");
  CHECK(refusal("punctuation:no_comma", "null") == "accepted");
  CHECK(refusal("detectable_format:number_bullet_lists", R"({"num_bullets": 3.0})") == "accepted");
}

TEST_CASE("the arguments of every published prompt can be read", "[reward][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  std::ifstream file(shared / "data" / "ifeval" / "input_data.jsonl");
  std::set<std::string> seen;
  int rows = 0;
  for (std::string line; std::getline(file, line); ++rows) {
    const auto row = nlohmann::json::parse(line);
    for (size_t i = 0; i < row["instruction_id_list"].size(); ++i) {
      const auto id = row["instruction_id_list"][i].get<std::string>();
      CHECK_NOTHROW(make_instruction_check(id, row["kwargs"][i]));
      seen.insert(id);
    }
  }
  CHECK(rows == 541);
  CHECK(seen.size() == 25);
}

}  // namespace praetor
