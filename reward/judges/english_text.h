#pragma once

#include <cstdint>
#include <string_view>

namespace praetor {

/// Counts of English text by rules that follow two trained or grown tools closely, not exactly.

/// Sentences, by the rules of the Punkt splitter (Kiss and Strunk 2006, Computational Linguistics
/// 32(4)) with short lists of abbreviations and of words that begin sentences in place of its
/// trained tables: "!" and "?" end one; "." does unless it belongs to an abbreviation, an initial,
/// an ordinal number or an ellipsis whose next word does not look like a beginning. What ends with
/// none of them is one sentence, line breaks or not. Blank text has none.
int64_t count_sentences(std::string_view text);

/// Words in capital letters, parted as the Penn Treebank parts them: at white space and
/// punctuation, not at hyphens, and before clitics ("IT'S" and "CANNOT" are two). Digits may stand
/// in them ("A1").
int64_t count_capital_words(std::string_view text);

/// Runs of letters, the marks on them, digits and underscores.
int64_t count_word_runs(std::string_view text);

}  // namespace praetor
