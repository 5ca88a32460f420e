#include "reward/judges/english_text.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "core/tokenizer/unicode.h"
#include "reward/judges/text_tools.h"

namespace praetor {

namespace {

constexpr auto kAbbreviations = std::to_array<std::string_view>(
    {"adm",  "ala", "apr",  "ariz", "aug", "ave", "bros", "calif", "capt", "co",   "col",    "conn",
     "corp", "dec", "dept", "dr",   "feb", "fig", "fla",  "fri",   "ft",   "gen",  "gov",    "hon",
     "ill",  "inc", "jan",  "jr",   "kan", "ky",  "lt",   "ltd",   "maj",  "mass", "messrs", "mich",
     "minn", "mr",  "mrs",  "ms",   "mt",  "nev", "nov",  "oct",   "okla", "ore",  "pa",     "ph.d",
     "prof", "rep", "reps", "rev",  "sen", "sep", "sept", "sgt",   "sr",   "st",   "tenn",   "tues",
     "va",   "vs",  "vt",   "wash", "wed", "wis", "yr"});

/// Words that begin sentences, and rarely are names: behind an abbreviation they begin one.
constexpr auto kBeginnings = std::to_array<std::string_view>(
    {"a",        "after",  "all",     "also",    "although", "and",   "another",   "any",
     "are",      "as",     "at",      "because", "before",   "but",   "by",        "can",
     "despite",  "did",    "do",      "does",    "during",   "each",  "even",      "every",
     "finally",  "first",  "for",     "from",    "have",     "he",    "her",       "here",
     "his",      "how",    "however", "i",       "if",       "in",    "indeed",    "instead",
     "is",       "it",     "its",     "let",     "many",     "maybe", "meanwhile", "more",
     "moreover", "most",   "my",      "never",   "no",       "nor",   "not",       "now",
     "of",       "on",     "once",    "one",     "only",     "or",    "other",     "our",
     "perhaps",  "please", "she",     "since",   "so",       "some",  "still",     "such",
     "that",     "the",    "their",   "then",    "there",    "these", "they",      "this",
     "those",    "though", "thus",    "to",      "today",    "under", "until",     "was",
     "we",       "well",   "were",    "what",    "when",     "where", "which",     "while",
     "who",      "why",    "will",    "with",    "yes",      "yet",   "you",       "your"});

template <size_t N>
bool holds(const std::array<std::string_view, N>& sorted, std::string_view word) {
  return std::ranges::binary_search(sorted, word);
}
static_assert(std::ranges::is_sorted(kAbbreviations));
static_assert(std::ranges::is_sorted(kBeginnings));

bool ends_sentences(char32_t code) {
  return code == '.' || code == '?' || code == '!';
}

/// Quotation marks and brackets that close; they belong to the sentence before them.
bool closes(char32_t code) {
  return code == '"' || code == '\'' || code == ')' || code == ']' || code == '}' ||
         (code >= 0x2018 && code <= 0x2019) || (code >= 0x201C && code <= 0x201D) || code == 0xAB ||
         code == 0xBB;
}

/// Characters that never stand within a word, so that an end of a sentence may stand before them.
bool parts_words(char32_t code) {
  return closes(code) || code == ';' || code == '*' || code == ':' || code == '@' || code == '(' ||
         code == '{' || code == '[' || code == '!' || code == '?';
}

char32_t first_code(std::string_view text) {
  size_t at = 0;
  return text.empty() ? 0 : unicode::next(text, at);
}

/// The word in which `text` ends, without the marks around it.
std::string_view last_word(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    const size_t start = unicode::previous(text, begin);
    const char32_t code = first_code(text.substr(start));
    if (parts_words(code) || code == '`' || code == '#' || code == '&') break;
    begin = start;
  }
  return text.substr(begin);
}

/// The letters with which `text` begins, lower-cased.
std::string first_word(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t code = unicode::next(text, at);
    if (!unicode::is_letter(code)) break;
    unicode::append(out, unicode::lower(code));
  }
  return out;
}

bool is_number_word(std::string_view word) {
  const size_t digit = word.find_first_of("0123456789");
  return digit != std::string_view::npos && digit <= 2 &&
         word.find_first_not_of("0123456789,.-") == std::string_view::npos;
}

/// One letter.
bool is_initial(std::string_view word) {
  size_t at = 0;
  return !word.empty() && unicode::is_letter(unicode::next(word, at)) && at == word.size();
}

/// "mr", "u.s", "p.m": `word` stands before a point, lower-cased.
bool is_abbreviation(std::string_view word) {
  if (const size_t hyphen = word.rfind('-'); hyphen != std::string_view::npos)
    word.remove_prefix(hyphen + 1);
  if (holds(kAbbreviations, word)) return true;
  if (word == "e.g" || word == "i.e") return false;  // Punkt's English model does not know them
  const auto parts = split(word, ".");
  return parts.size() > 1 && std::ranges::all_of(parts, is_initial);
}

/// True when the point that ends `word` (without it) ends a sentence, where `next` follows behind
/// white space.
bool point_ends(std::string_view word, std::string_view next) {
  const char32_t begin = first_code(next);
  const bool capital = unicode::is_upper(begin);
  const std::string lower = lower_case(word);
  if (word.ends_with('.')) return capital;  // an ellipsis
  if (word.empty()) return true;
  if (is_initial(word)) return capital && holds(kBeginnings, first_word(next));
  if (is_number_word(word)) return !unicode::is_lower(begin);
  if (is_abbreviation(lower)) return capital && holds(kBeginnings, first_word(next));
  return true;
}

}  // namespace

int64_t count_sentences(std::string_view text) {
  text = strip(text);
  if (text.empty()) return 0;
  int64_t breaks = 0;
  std::string_view rest = text;  // behind the last end of a sentence
  const std::vector<std::string_view> words = words_of(text);
  for (size_t w = 0; w < words.size(); ++w) {
    const std::string_view word = words[w];
    // The last place within the word where a sentence may end decides.
    size_t end = word.size();
    if (w + 1 == words.size() || !ends_sentences(word.back())) {
      while (end > 0 && !(end < word.size() && ends_sentences(word[end - 1]) &&
                          parts_words(first_code(word.substr(end)))))
        --end;
    }
    if (end == 0) continue;
    const std::string_view next = end < word.size() ? word.substr(end) : words[w + 1];
    const bool ends = word[end - 1] != '.' || point_ends(last_word(word.substr(0, end - 1)), next);
    if (!ends) continue;
    ++breaks;
    rest = text.substr(static_cast<size_t>(word.data() - text.data()) + end);
  }
  // Closing marks at the end are no sentence of their own.
  bool only_closing = true;
  for (size_t at = 0; at < rest.size() && only_closing;)
    only_closing = closes(unicode::next(rest, at));
  return breaks + (breaks > 0 && only_closing ? 0 : 1);
}

namespace {

constexpr auto kClitics = std::to_array<std::string_view>({"'ll", "'re", "'ve", "n't"});

/// How many capital words a word makes whose marks are gone, clitics parted: "IT'S" two, "JOHN's"
/// one.
int64_t capital_parts(std::string_view word) {
  static const std::vector<std::pair<std::string_view, size_t>> kJoined = {{"cannot", 3},
                                                                           {"gimme", 3},
                                                                           {"gonna", 3},
                                                                           {"gotta", 3},
                                                                           {"lemme", 3},
                                                                           {"wanna", 3},
                                                                           {"d'ye", 1},
                                                                           {"more'n", 4}};
  const std::string lower = lower_case(word);
  if (lower.size() != word.size()) return is_upper_case(word) ? 1 : 0;
  size_t cut = word.size();
  for (const auto& [joined, at] : kJoined) {
    if (lower == joined) cut = at;
  }
  for (const std::string_view clitic : kClitics) {
    const std::string_view tail =
        word.size() > clitic.size() ? word.substr(word.size() - clitic.size()) : "";
    if (lower_case(tail) == clitic && (is_upper_case(tail) || is_lower_case(tail)))
      cut = word.size() - clitic.size();
  }
  if (word.size() > 2 && word[word.size() - 2] == '\'' &&
      std::string_view("sSmMdD").find(word.back()) != std::string_view::npos)
    cut = word.size() - 2;
  return int64_t{is_upper_case(word.substr(0, cut))} + int64_t{is_upper_case(word.substr(cut))};
}

/// Marks that stand for themselves in the Treebank's way of parting words.
bool is_mark(char32_t code) {
  return parts_words(code) || code == '#' || code == '$' || code == '%' || code == '&' ||
         code == '<' || code == '>' || code == '`' || code == 0x201E ||
         (code >= 0x2012 && code <= 0x2015);
}

}  // namespace

int64_t count_capital_words(std::string_view text) {
  int64_t count = 0;
  for (const std::string_view word : words_of(text)) {
    size_t begin = 0;
    const auto close = [&](size_t end, size_t next) {
      if (end > begin) count += capital_parts(word.substr(begin, end - begin));
      begin = next;
    };
    for (size_t at = 0; at < word.size();) {
      const size_t start = at;
      const char32_t code = unicode::next(word, at);
      const char following = at < word.size() ? word[at] : ' ';
      const bool digit_next = following >= '0' && following <= '9';
      const bool doubled =
          (code == '-' || code == '.' || code == '\'') && following == static_cast<char>(code);
      // An apostrophe within a word, or before the rest of a clitic, stays.
      const bool apostrophe = code == '\'' && start > begin && at < word.size();
      const bool comma = (code == ',' || code == ':') && !digit_next;
      const bool colon_in_number = code == ':' && digit_next;
      if (doubled) {
        size_t next = at;
        while (next < word.size() && word[next] == static_cast<char>(code)) ++next;
        close(start, next);
        at = next;
      } else if (comma || (is_mark(code) && !apostrophe && !colon_in_number)) {
        close(start, at);
      }
    }
    close(word.size(), word.size());
  }
  return count;
}

int64_t count_word_runs(std::string_view text) {
  int64_t count = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t code = unicode::next(text, at);
    const bool word = unicode::is_word(code);
    count += word && !inside;
    inside = word;
  }
  return count;
}

}  // namespace praetor
