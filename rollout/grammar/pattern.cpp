#include "rollout/grammar/pattern.h"

#include <cctype>
#include <optional>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace praetor::grammar {
namespace {

constexpr int64_t kMostRepeats = 100'000;
constexpr int kDeepest = 200;  // nested groups

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

CodePoints digits() {
  return {'0', '9'};
}

CodePoints word() {
  CodePoints out = digits();
  out.add('a', 'z');
  out.add('A', 'Z');
  out.add('_', '_');
  return out;
}

CodePoints space() {
  CodePoints out{'\t', '\r'};  // with \n, \v and \f between
  out.add(' ', ' ');
  return out;
}

/// \d and its kin; nothing for other letters.
std::optional<CodePoints> shorthand(char letter) {
  switch (letter) {
    case 'd':
      return digits();
    case 'D':
      return digits().complement();
    case 'w':
      return word();
    case 'W':
      return word().complement();
    case 's':
      return space();
    case 'S':
      return space().complement();
    default:
      return std::nullopt;
  }
}

/// Recursive descent, one function a rule of the syntax.
class Parser {
 public:
  Parser(std::string_view pattern, Extent extent) : in_(pattern), extent_(extent) {}

  ExpressionPtr run() {
    if (const size_t broken = unicode::find_broken(in_); broken != std::string_view::npos)
      refuse(broken, "the pattern is not UTF-8 here");
    ExpressionPtr out = alternatives(0);
    if (!done()) refuse(at_, "\")\" closes no group");
    return out;
  }

 private:
  template <typename... Args>
  [[noreturn]] static void refuse(size_t at, const Args&... what) {
    throw InvalidArgument("offset ", at, ": ", what...);
  }

  bool done() const { return at_ >= in_.size(); }
  bool follows(std::string_view text) const { return in_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!follows(text)) return false;
    at_ += text.size();
    return true;
  }

  ExpressionPtr alternatives(int depth) {
    if (depth > kDeepest) refuse(at_, "groups are nested more than ", kDeepest, " deep");
    std::vector<ExpressionPtr> parts;
    do {
      parts.push_back(alternative(depth));
    } while (take("|"));
    return parts.size() == 1 ? parts[0] : choice(std::move(parts));
  }

  ExpressionPtr alternative(int depth) {
    std::vector<ExpressionPtr> parts;
    const bool top = depth == 0;
    const bool from_start = top && take("^");
    bool to_end = false;
    while (!done() && !follows("|") && !follows(")")) {
      if (top && follows("$") && (at_ + 1 == in_.size() || in_[at_ + 1] == '|')) {
        ++at_;
        to_end = true;
        break;
      }
      parts.push_back(item(depth));
    }
    if (top && extent_ == Extent::kPart) {
      const ExpressionPtr anything = repeat(character({0, CodePoints::kLast}), 0);
      if (!from_start) parts.insert(parts.begin(), anything);
      if (!to_end) parts.push_back(anything);
    }
    return parts.size() == 1 ? parts[0] : sequence(std::move(parts));
  }

  ExpressionPtr item(int depth) {
    const ExpressionPtr part = atom(depth);
    const size_t at = at_;
    const auto counts = quantifier();
    if (!counts) return part;
    if (follows("+")) refuse(at_, "possessive quantifiers are not supported");
    take("?");  // lazy: which match is found first does not matter here
    const size_t again = at_;
    if (!done() && (follows("*") || follows("+") || follows("?") || follows("{")))
      refuse(again, "a quantifier behind a quantifier");
    if (counts->second != kUnbounded && counts->first > counts->second)
      refuse(at, "the least number of repeats is above the most");
    return repeat(part, counts->first, counts->second);
  }

  std::optional<std::pair<int64_t, int64_t>> quantifier() {
    if (take("*")) return std::pair{int64_t{0}, kUnbounded};
    if (take("+")) return std::pair{int64_t{1}, kUnbounded};
    if (take("?")) return std::pair{int64_t{0}, int64_t{1}};
    if (!follows("{")) return std::nullopt;
    const size_t start = at_++;
    const auto least = number();
    std::optional<int64_t> most = least;
    const bool comma = take(",");
    if (comma) most = number();
    if (!take("}") || (!least && !most))
      refuse(start, "\"{\" begins no quantifier; write \\{ for the character");
    return std::pair{least.value_or(0), most.value_or(kUnbounded)};
  }

  std::optional<int64_t> number() {
    const size_t start = at_;
    int64_t value = 0;
    while (!done() && is_digit(in_[at_])) {
      value = value * 10 + (in_[at_++] - '0');
      if (value > kMostRepeats) refuse(start, "more than ", kMostRepeats, " repeats");
    }
    return at_ == start ? std::nullopt : std::optional(value);
  }

  ExpressionPtr atom(int depth) {
    const size_t start = at_;
    const char c = in_[at_];
    switch (c) {
      case '(':
        return group(depth);
      case '[':
        return character(bracket());
      case '.':
        ++at_;
        return character(CodePoints('\n', '\n').complement());
      case '\\':
        return character(escape());
      case '^':
      case '$':
        refuse(start, "\"", c, "\" is supported at the ends of the pattern alone");
      case '*':
      case '+':
      case '?':
        refuse(start, "nothing stands before \"", c, "\" to repeat");
      case '{':
        refuse(start, "nothing stands before \"{\" to repeat; write \\{ for the character");
      default:
        break;
    }
    const char32_t code = unicode::next(in_, at_);
    return character({code, code});
  }

  ExpressionPtr group(int depth) {
    const size_t start = at_++;
    if (take("?P<")) {
      const size_t close = in_.find('>', at_);
      if (close == std::string_view::npos) refuse(start, "the name of the group does not end");
      at_ = close + 1;
    } else if (follows("?") && !take("?:")) {
      refuse(start, "only the groups (...), (?:...) and (?P<name>...) are supported");
    }
    ExpressionPtr inside = alternatives(depth + 1);
    if (!take(")")) refuse(start, "the group does not end");
    return inside;
  }

  /// A backslash and what belongs to it.
  CodePoints escape() {
    const size_t start = at_++;
    if (done()) refuse(start, "a backslash at the end");
    const char c = in_[at_];
    if (auto points = shorthand(c)) {
      ++at_;
      return *points;
    }
    const char32_t code = escaped_character(start);
    return {code, code};
  }

  char32_t escaped_character(size_t start) {
    static constexpr std::string_view kLetters = "nrtfva";
    static constexpr std::string_view kMeant = "\n\r\t\f\v\a";
    const char c = in_[at_];
    if (static_cast<unsigned char>(c) >= 0x80) return unicode::next(in_, at_);
    ++at_;
    if (const size_t known = kLetters.find(c); known != std::string_view::npos)
      return static_cast<char32_t>(kMeant[known]);
    if (c == 'x') return hexadecimal(start, 2);
    if (c == 'u') return hexadecimal(start, 4);
    if (c == 'U') return hexadecimal(start, 8);
    if (c == '0' && (done() || !is_digit(in_[at_]))) return 0;
    if (is_digit(c)) refuse(start, "back-references and octal escapes are not supported");
    if (std::isalpha(static_cast<unsigned char>(c))) refuse(start, "\\", c, " is not supported");
    return static_cast<char32_t>(c);
  }

  char32_t hexadecimal(size_t start, int count) {
    char32_t code = 0;
    for (int i = 0; i < count; ++i, ++at_) {
      if (done() || !std::isxdigit(static_cast<unsigned char>(in_[at_])))
        refuse(start, count, " hexadecimal digits are wanted");
      const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(in_[at_])));
      code = code * 16 + static_cast<char32_t>(is_digit(lower) ? lower - '0' : lower - 'a' + 10);
    }
    if (code > CodePoints::kLast || (code >= 0xD800 && code <= 0xDFFF))
      refuse(start, "no character has this number");
    return code;
  }

  CodePoints bracket() {
    const size_t start = at_++;
    const bool negated = take("^");
    CodePoints points;
    for (bool first = true; first || !follows("]"); first = false) {
      if (done()) refuse(start, "the class does not end");
      class_item(points);
    }
    ++at_;
    if (negated) points = points.complement();
    if (points.empty()) refuse(start, "the class holds no character");
    return points;
  }

  /// One character or range of a class.
  void class_item(CodePoints& points) {
    const size_t start = at_;
    const auto low = class_end(points);
    const bool range = follows("-") && at_ + 1 < in_.size() && in_[at_ + 1] != ']';
    if (!range) {
      if (low) points.add(*low, *low);
      return;
    }
    ++at_;
    const auto high = class_end(points);
    if (!low || !high) refuse(start, "a range ends in a set of characters");
    if (*low > *high) refuse(start, "the range begins behind its end");
    points.add(*low, *high);
  }

  /// A single character, or nothing when it was a set, which is then in `points`.
  std::optional<char32_t> class_end(CodePoints& points) {
    if (!follows("\\")) return unicode::next(in_, at_);
    const size_t start = at_++;
    if (done()) refuse(start, "a backslash at the end");
    if (const auto set = shorthand(in_[at_])) {
      ++at_;
      points.add(*set);
      return std::nullopt;
    }
    if (in_[at_] == 'b') {  // within a class, the backspace
      ++at_;
      return U'\b';
    }
    return escaped_character(start);
  }

  std::string_view in_;
  Extent extent_;
  size_t at_ = 0;
};

}  // namespace

ExpressionPtr parse_pattern(std::string_view pattern, Extent extent) {
  return Parser(pattern, extent).run();
}

}  // namespace praetor::grammar
