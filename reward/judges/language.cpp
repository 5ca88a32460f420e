#include "reward/judges/language.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "core/tokenizer/unicode.h"
#include "reward/judges/language_profiles.h"
#include "reward/judges/text_tools.h"

namespace praetor {

namespace {

constexpr double kLetterWeight = 0.2;
/// Japanese mixes its syllables with Chinese signs; a Chinese text has next to none of them.
constexpr double kKanaShare = 0.1;

struct Block {
  char32_t first;
  char32_t last;
  Script script;
};

constexpr auto kBlocks = std::to_array<Block>({
    {0x0041, 0x024F, Script::kLatin},     {0x0370, 0x03FF, Script::kGreek},
    {0x0400, 0x052F, Script::kCyrillic},  {0x0590, 0x05FF, Script::kHebrew},
    {0x0600, 0x077F, Script::kArabic},    {0x0900, 0x097F, Script::kDevanagari},
    {0x0980, 0x09FF, Script::kBengali},   {0x0A00, 0x0A7F, Script::kGurmukhi},
    {0x0A80, 0x0AFF, Script::kGujarati},  {0x0B80, 0x0BFF, Script::kTamil},
    {0x0C00, 0x0C7F, Script::kTelugu},    {0x0C80, 0x0CFF, Script::kKannada},
    {0x0D00, 0x0D7F, Script::kMalayalam}, {0x0E00, 0x0E7F, Script::kThai},
    {0x1100, 0x11FF, Script::kHangul},    {0x1E00, 0x1EFF, Script::kLatin},
    {0x1F00, 0x1FFF, Script::kGreek},     {0x3040, 0x30FF, Script::kKana},
    {0x3400, 0x4DBF, Script::kHan},       {0x4E00, 0x9FFF, Script::kHan},
    {0xAC00, 0xD7AF, Script::kHangul},    {0xFB1D, 0xFB4F, Script::kHebrew},
    {0xFB50, 0xFDFF, Script::kArabic},    {0xFE70, 0xFEFF, Script::kArabic},
    {0xFF66, 0xFF9F, Script::kKana},      {0x20000, 0x2FFFF, Script::kHan},
});

Script script_of(char32_t code) {
  for (const Block& block : kBlocks) {
    if (code >= block.first && code <= block.last) return block.script;
  }
  return Script::kOther;
}

/// The script of most letters, and nothing for a text without any.
std::optional<Script> script_of(std::string_view text) {
  std::map<Script, int64_t> letters;
  for (size_t at = 0; at < text.size();) {
    const char32_t code = unicode::next(text, at);
    if (unicode::is_letter(code)) ++letters[script_of(code)];
  }
  if (letters.empty()) return std::nullopt;
  const auto kana = static_cast<double>(letters[Script::kKana]);
  const auto han = static_cast<double>(letters[Script::kHan]);
  if (kana > 0 && kana >= kKanaShare * (kana + han)) {
    letters[Script::kKana] += std::exchange(letters[Script::kHan], 0);
  }
  return std::ranges::max_element(letters, {}, [](const auto& entry) { return entry.second; })
      ->first;
}

using Indices = std::vector<size_t>;  // of profiles

/// What the profiles' words and letters say, by word and by letter.
struct Evidence {
  std::unordered_map<std::string, Indices> words;
  std::unordered_map<char32_t, Indices> letters;

  Evidence() {
    const auto profiles = language_profiles();
    for (size_t p = 0; p < profiles.size(); ++p) {
      for (const std::string_view word : words_of(profiles[p].words))
        add(words[std::string(word)], p);
      for (size_t at = 0; at < profiles[p].letters.size();)
        add(letters[unicode::next(profiles[p].letters, at)], p);
    }
  }
  static void add(Indices& indices, size_t profile) {
    if (indices.empty() || indices.back() != profile) indices.push_back(profile);
  }
};

class Scores {
 public:
  explicit Scores(Script script) : script_(script), scores_(language_profiles().size()) {}

  void add(const Indices& indices, double weight) {
    for (const size_t p : indices) scores_[p] += weight / static_cast<double>(indices.size());
  }

  double highest() const { return *std::ranges::max_element(scores_); }

  std::vector<std::string> best() const {
    const auto profiles = language_profiles();
    std::vector<std::string> out;
    double highest = 0.0;
    for (size_t p = 0; p < profiles.size(); ++p) {
      if (profiles[p].script != script_ || scores_[p] < highest) continue;
      if (scores_[p] > highest) out.clear();
      highest = scores_[p];
      out.emplace_back(profiles[p].code);
    }
    return out;
  }

 private:
  Script script_;
  std::vector<double> scores_;  ///< one a profile
};

bool in_word(char32_t code) {
  // An apostrophe is part of a word, and so are the marks of Indian vowels.
  return code == '\'' || code == 0x2019 || unicode::is_word(code);
}

}  // namespace

const std::vector<std::string>& known_languages() {
  static const std::vector<std::string> kCodes = [] {
    std::vector<std::string> out;
    for (const LanguageProfile& profile : language_profiles()) out.emplace_back(profile.code);
    return out;
  }();
  return kCodes;
}

std::optional<std::vector<std::string>> likely_languages(std::string_view text) {
  static const Evidence kEvidence;
  const auto script = script_of(text);
  if (!script) return std::nullopt;
  const std::string lower = lower_case(unicode::normalize(text, unicode::Form::kNfc));
  Scores scores(*script);
  std::string word;
  int64_t words = 0;
  const auto finish = [&] {
    const auto found = kEvidence.words.find(word);
    if (found != kEvidence.words.end()) scores.add(found->second, 1.0);
    words += !word.empty();
    word.clear();
  };
  for (size_t at = 0; at < lower.size();) {
    char32_t code = unicode::next(lower, at);
    const auto found = kEvidence.letters.find(code);
    if (found != kEvidence.letters.end()) scores.add(found->second, kLetterWeight);
    if (code == 0x2019) code = '\'';
    if (in_word(code)) {
      unicode::append(word, code);
    } else {
      finish();
    }
  }
  finish();
  std::vector<std::string> best = scores.best();
  if (best.size() > 1 && scores.highest() == 0.0 && words >= kTellingWords) best.clear();
  return best;
}

}  // namespace praetor
