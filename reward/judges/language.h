#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace praetor {

/// So many words hold a common one in every language.
constexpr int64_t kTellingWords = 12;

/// Languages that `likely_languages` can tell, as ISO 639-1 codes, sorted.
const std::vector<std::string>& known_languages();

/// The languages that a text is most likely in: several when nothing in a short text tells them
/// apart; none when it is of a script that we do not know, or of `kTellingWords` words or more
/// without one of the commonest of any language. Nothing for a text without letters.
///
/// Most letters decide on the script. Where several languages share one, the text's words are
/// looked up in short lists of each language's commonest words (a word of n lists counts 1/n), and
/// letters that few of them use count a fifth of a word. Upper and lower case are alike. A sentence
/// is usually enough; names alone, or a text of two languages, may be misjudged.
std::optional<std::vector<std::string>> likely_languages(std::string_view text);

}  // namespace praetor
