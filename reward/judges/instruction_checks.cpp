#include "reward/judges/instruction_checks.h"

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/tokenizer/unicode.h"
#include "reward/judges/english_text.h"
#include "reward/judges/instruction_arguments.h"
#include "reward/judges/language.h"
#include "reward/judges/text_tools.h"

namespace praetor {

namespace {

using Text = std::string_view;

/// A check without arguments.
InstructionCheck plain(bool (*holds)(Text)) {
  return [holds](Text response, const Deadline&) { return holds(response); };
}

/// Patterns are shared, because a std::function wants to be copied.
std::shared_ptr<const BoundedRegex> shared(BoundedRegex pattern) {
  return std::make_shared<const BoundedRegex>(std::move(pattern));
}

int64_t count(Text text, const BoundedRegex& pattern, const Deadline& deadline) {
  return static_cast<int64_t>(find_all(text, pattern, deadline).size());
}

// ---- keywords ----

InstructionCheck existence(InstructionArguments& in) {
  std::vector<std::shared_ptr<const BoundedRegex>> wanted;
  for (const std::string& word : in.texts("keywords"))
    wanted.push_back(shared(in.pattern("keywords", word, false)));
  return [wanted](Text response, const Deadline& deadline) {
    return std::ranges::all_of(
        wanted, [&](const auto& word) { return word->search(response, deadline).has_value(); });
  };
}

InstructionCheck frequency(InstructionArguments& in) {
  const std::string keyword(strip(in.text("keyword")));
  const auto pattern = shared(in.pattern("keyword", keyword, false));
  const Relation relation = in.relation("relation", "frequency");
  return [pattern, relation](Text response, const Deadline& deadline) {
    return relation.holds(count(response, *pattern, deadline));
  };
}

InstructionCheck forbidden_words(InstructionArguments& in) {
  std::vector<std::shared_ptr<const BoundedRegex>> unwanted;
  for (const std::string& word : in.texts("forbidden_words"))
    unwanted.push_back(shared(in.pattern("forbidden_words", word, true)));
  return [unwanted](Text response, const Deadline& deadline) {
    return std::ranges::none_of(
        unwanted, [&](const auto& word) { return word->search(response, deadline).has_value(); });
  };
}

InstructionCheck letter_frequency(InstructionArguments& in) {
  const std::string letter = lower_case(strip(in.text("letter")));
  size_t end = 0;
  if (!letter.empty()) unicode::next(letter, end);
  if (letter.empty() || end != letter.size())
    in.fail("letter", str("\"", printable(letter), "\" is not one character"));
  const Relation relation = in.relation("let_relation", "let_frequency");
  return [letter, relation](Text response, const Deadline&) {
    return relation.holds(static_cast<int64_t>(split(lower_case(response), letter).size()) - 1);
  };
}

// ---- language ----

bool may_be(Text response, const std::string& language) {
  const auto likely = likely_languages(response);
  return !likely || std::ranges::find(*likely, language) != likely->end();
}

InstructionCheck response_language(InstructionArguments& in) {
  std::string language = in.text("language");
  if (language.starts_with("zh-")) language = "zh";
  if (std::ranges::find(known_languages(), language) == known_languages().end()) {
    in.fail("language",
            str("\"", printable(language), "\" is not one of ", join(known_languages(), ", ")));
  }
  return [language](Text response, const Deadline&) { return may_be(response, language); };
}

// ---- length_constraints ----

InstructionCheck number_sentences(InstructionArguments& in) {
  const Relation relation = in.relation("relation", "num_sentences");
  return [relation](Text response, const Deadline&) {
    return relation.holds(count_sentences(response));
  };
}

InstructionCheck number_paragraphs(InstructionArguments& in) {
  static const BoundedRegex kDivider("\\s?\\*\\*\\*\\s?");
  const int64_t wanted = in.integer("num_paragraphs");
  return [wanted](Text response, const Deadline& deadline) {
    const auto parts = split(response, kDivider, deadline);
    int64_t found = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool blank = is_blank(parts[i]);
      if (blank && i != 0 && i + 1 != parts.size()) return false;
      found += !blank;
    }
    return found == wanted;
  };
}

InstructionCheck number_words(InstructionArguments& in) {
  const Relation relation = in.relation("relation", "num_words");
  return [relation](Text response, const Deadline&) {
    return relation.holds(count_word_runs(response));
  };
}

/// The paragraph's first word without the quotation marks before it, up to a punctuation mark.
std::string paragraph_beginning(Text paragraph) {
  Text word = words_of(paragraph)[0];
  while (word.starts_with('\'')) word.remove_prefix(1);
  while (word.starts_with('"')) word.remove_prefix(1);
  return lower_case(word.substr(0, word.find_first_of(".,?!'\"")));
}

InstructionCheck nth_paragraph_first_word(InstructionArguments& in) {
  const int64_t wanted = in.integer("num_paragraphs");
  const int64_t nth = in.integer("nth_paragraph");
  const std::string first = lower_case(in.text("first_word"));
  if (nth < 1) in.fail("nth_paragraph", "0 is not >= 1");
  return [wanted, nth, first](Text response, const Deadline&) {
    const auto parts = split(response, "\n\n");
    const auto found = static_cast<int64_t>(
        std::ranges::count_if(parts, [](Text part) { return !is_blank(part); }));
    if (nth > found) return false;
    const Text part = parts[static_cast<size_t>(nth) - 1];
    return !is_blank(part) && found == wanted && paragraph_beginning(part) == first;
  };
}

// ---- detectable_content ----

InstructionCheck number_placeholders(InstructionArguments& in) {
  static const BoundedRegex kPlaceholder("\\[[^\\n]*?\\]");
  const int64_t least = in.integer("num_placeholders");
  return [least](Text response, const Deadline& deadline) {
    return count(response, kPlaceholder, deadline) >= least;
  };
}

InstructionCheck postscript(InstructionArguments& in) {
  const std::string marker(strip(in.text("postscript_marker")));
  std::string text = lower_case(marker);
  if (marker == "P.P.S") text = "p\\.\\s?p\\.\\s?s";
  if (marker == "P.S.") text = "p\\.\\s?s\\.";
  const auto pattern = shared(in.pattern("postscript_marker", text, false));
  return [pattern](Text response, const Deadline& deadline) {
    return pattern->search(response, deadline).has_value();
  };
}

// ---- detectable_format ----

InstructionCheck number_bullet_lists(InstructionArguments& in) {
  static const BoundedRegex kStars("(*LF)(?m)^\\s*\\*[^*].*$");
  static const BoundedRegex kDashes("(*LF)(?m)^\\s*-.*$");
  const int64_t wanted = in.integer("num_bullets");
  return [wanted](Text response, const Deadline& deadline) {
    return count(response, kStars, deadline) + count(response, kDashes, deadline) == wanted;
  };
}

bool constrained_response(Text response) {
  constexpr auto kAnswers =
      std::to_array<Text>({"My answer is yes.", "My answer is no.", "My answer is maybe."});
  return std::ranges::any_of(kAnswers,
                             [&](Text answer) { return response.find(answer) != Text::npos; });
}

InstructionCheck number_highlighted_sections(InstructionArguments& in) {
  static const BoundedRegex kSingle("\\*[^\\n*]*\\*");
  static const BoundedRegex kDouble("\\*\\*[^\\n*]*\\*\\*");
  const int64_t least = in.integer("num_highlights");
  return [least](Text response, const Deadline& deadline) {
    const auto filled = [](Text match) { return !is_blank(strip(match, "*")); };
    const auto single = find_all(response, kSingle, deadline);
    const auto doubled = find_all(response, kDouble, deadline);
    return std::ranges::count_if(single, filled) + std::ranges::count_if(doubled, filled) >= least;
  };
}

InstructionCheck multiple_sections(InstructionArguments& in) {
  const std::string splitter(strip(in.text("section_spliter")));
  // With case: the other patterns of arguments are without.
  const auto mark =
      shared(in.pattern("section_spliter", "(?-i)\\s?(?:" + splitter + ")\\s?\\d+\\s?", false));
  const int64_t least = in.integer("num_sections");
  return [mark, least](Text response, const Deadline& deadline) {
    return count(response, *mark, deadline) >= least;
  };
}

bool json_format(Text response) {
  Text text = strip(response);
  for (const Text fence : {"```json", "```Json", "```JSON", "```"}) {
    if (text.starts_with(fence)) text.remove_prefix(fence.size());
  }
  if (text.ends_with("```")) text.remove_suffix(3);
  return nlohmann::json::accept(strip(text));
}

InstructionCheck title(InstructionArguments&) {
  static const BoundedRegex kTitle("<<[^\\n]+>>");
  return [](Text response, const Deadline& deadline) {
    return std::ranges::any_of(find_all(response, kTitle, deadline), [](Text match) {
      while (match.starts_with('<')) match.remove_prefix(1);
      while (match.ends_with('>')) match.remove_suffix(1);
      return !is_blank(match);
    });
  };
}

// ---- combination ----

bool two_responses(Text response) {
  const auto parts = split(response, "******");
  std::vector<Text> found;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!is_blank(parts[i])) {
      found.push_back(strip(parts[i]));
    } else if (i != 0 && i + 1 != parts.size()) {
      return false;
    }
  }
  return found.size() == 2 && found[0] != found[1];
}

InstructionCheck repeat_prompt(InstructionArguments& in) {
  const std::string prompt = lower_case(strip(in.text("prompt_to_repeat")));
  return [prompt](Text response, const Deadline&) {
    return lower_case(strip(response)).starts_with(prompt);
  };
}

// ---- startend, change_case, punctuation ----

InstructionCheck end_checker(InstructionArguments& in) {
  const std::string phrase = lower_case(strip(in.text("end_phrase")));
  return [phrase](Text response, const Deadline&) {
    return lower_case(strip(strip(response), "\"")).ends_with(phrase);
  };
}

bool quotation(Text response) {
  const Text text = strip(response);
  return text.size() > 1 && text.starts_with('"') && text.ends_with('"');
}

InstructionCheck capital_word_frequency(InstructionArguments& in) {
  const Relation relation = in.relation("capital_relation", "capital_frequency");
  return [relation](Text response, const Deadline&) {
    return relation.holds(count_capital_words(response));
  };
}

bool english_capital(Text response) {
  return is_upper_case(response) && may_be(response, "en");
}

bool english_lowercase(Text response) {
  return is_lower_case(response) && may_be(response, "en");
}

bool no_comma(Text response) {
  return response.find(',') == Text::npos;
}

template <bool (*kHolds)(Text)>
InstructionCheck without_arguments(InstructionArguments&) {
  return plain(kHolds);
}

struct Instruction {
  const char* id;
  InstructionCheck (*make)(InstructionArguments& in);
};

constexpr auto kInstructions = std::to_array<Instruction>({
    {"keywords:existence", existence},
    {"keywords:frequency", frequency},
    {"keywords:forbidden_words", forbidden_words},
    {"keywords:letter_frequency", letter_frequency},
    {"language:response_language", response_language},
    {"length_constraints:number_sentences", number_sentences},
    {"length_constraints:number_paragraphs", number_paragraphs},
    {"length_constraints:number_words", number_words},
    {"length_constraints:nth_paragraph_first_word", nth_paragraph_first_word},
    {"detectable_content:number_placeholders", number_placeholders},
    {"detectable_content:postscript", postscript},
    {"detectable_format:number_bullet_lists", number_bullet_lists},
    {"detectable_format:constrained_response", without_arguments<constrained_response>},
    {"detectable_format:number_highlighted_sections", number_highlighted_sections},
    {"detectable_format:multiple_sections", multiple_sections},
    {"detectable_format:json_format", without_arguments<json_format>},
    {"detectable_format:title", title},
    {"combination:two_responses", without_arguments<two_responses>},
    {"combination:repeat_prompt", repeat_prompt},
    {"startend:end_checker", end_checker},
    {"change_case:capital_word_frequency", capital_word_frequency},
    {"change_case:english_capital", without_arguments<english_capital>},
    {"change_case:english_lowercase", without_arguments<english_lowercase>},
    {"punctuation:no_comma", without_arguments<no_comma>},
    {"startend:quotation", without_arguments<quotation>},
});

}  // namespace

InstructionCheck make_instruction_check(const std::string& id, const nlohmann::json& arguments) {
  const auto found = std::ranges::find(kInstructions, std::string_view(id), &Instruction::id);
  if (found == kInstructions.end()) {
    const auto near = nearest(id, instruction_ids());
    throw DataError("no instruction is called \"",
                    printable(id),
                    "\"",
                    near ? str(", did you mean \"", *near, "\"?") : "");
  }
  InstructionArguments in(id, arguments);
  InstructionCheck check = found->make(in);
  in.reject_others();
  return check;
}

const std::vector<std::string>& instruction_ids() {
  static const std::vector<std::string> kIds = [] {
    std::vector<std::string> out;
    for (const Instruction& instruction : kInstructions) out.emplace_back(instruction.id);
    return out;
  }();
  return kIds;
}

std::vector<std::string> loose_variants(std::string_view response) {
  const size_t first = response.find('\n');
  const size_t last = response.rfind('\n');
  const Text no_first = first == Text::npos ? "" : response.substr(first + 1);
  const Text no_last = last == Text::npos ? "" : response.substr(0, last);
  const Text neither = first == last ? "" : response.substr(first + 1, last - first - 1);
  std::vector<std::string> out;
  for (const Text text : {response, strip(no_first), strip(no_last), strip(neither)}) {
    std::string plain_text(text);
    std::erase(plain_text, '*');
    if (!is_blank(text)) out.emplace_back(text);
    if (!is_blank(plain_text)) out.push_back(std::move(plain_text));
  }
  return out;
}

}  // namespace praetor
