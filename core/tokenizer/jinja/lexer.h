#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace praetor::jinja {

enum class TokenKind {
  kText,  ///< outside of tags
  kTagBegin,
  kTagEnd,
  kPrintBegin,
  kPrintEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  std::string text;  ///< of a string without its quotes and escapes
  int64_t line;      ///< from 1
};

/// Cuts a template as Jinja does with trim_blocks and lstrip_blocks: the newline after a tag and
/// the blanks before it on its line are left out. @throws DataError "line N: ..."
std::vector<Token> tokenize(std::string source);

}  // namespace praetor::jinja
