#pragma once

#include <span>
#include <string_view>

namespace praetor {

enum class Script {
  kLatin,
  kCyrillic,
  kArabic,
  kDevanagari,
  kHan,
  kKana,
  kHangul,
  kThai,
  kHebrew,
  kGreek,
  kBengali,
  kGurmukhi,
  kGujarati,
  kTamil,
  kTelugu,
  kKannada,
  kMalayalam,
  kOther,
};

/// What tells one language from the others of its script. Lower case, composed (NFC).
struct LanguageProfile {
  std::string_view code;  ///< ISO 639-1
  Script script;
  std::string_view words;    ///< its commonest words, parted by blanks
  std::string_view letters;  ///< letters that few others of the script use
};

std::span<const LanguageProfile> language_profiles();

}  // namespace praetor
