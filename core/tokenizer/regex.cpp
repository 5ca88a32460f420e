#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/tokenizer/regex.h"

#include <pcre2.h>

#include <cctype>
#include <new>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {

constexpr size_t kMaxPattern = 1 << 16;

/// Walks a pattern once, copying what both libraries read alike.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) step();
    return out_;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw DataError(where_,
                    ": the pattern \"",
                    printable(in_, 200),
                    "\" uses ",
                    what,
                    ", which is not supported");
  }

  bool follows(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  void step() {
    const char c = in_[at_];
    if (c == '\\') return escape();
    if (in_class_) {
      if (c == '[') refuse("a class within a class");
      if (follows("&&")) refuse("an intersection of classes (&&)");
      if (c == ']' && at_ > class_start_) in_class_ = false;
    } else if (c == '[') {
      in_class_ = true;
      out_ += c;
      if (++at_ < in_.size() && in_[at_] == '^') out_ += in_[at_++];
      class_start_ = at_;
      return;
    } else if (c == '^' || c == '$') {
      refuse(c == '^' ? "the anchor ^" : "the anchor $");
    } else if (follows("{,")) {
      refuse("the quantifier {,n}");
    } else if (follows("}+")) {
      refuse("the quantifier {n,m}+");
    } else if (c == '(') {
      return group();
    }
    out_ += c;
    ++at_;
  }

  void group() {
    if (follows("(?")) {
      for (const std::string_view known :
           {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:", "(?i)"}) {
        if (follows(known)) {
          out_ += known;
          at_ += known.size();
          return;
        }
      }
      refuse("the group " + std::string(in_.substr(at_, 4)));
    }
    if (follows("(*")) refuse("a verb (*...)");
    out_ += '(';
    ++at_;
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a backslash at its end");
    const char c = in_[at_ + 1];
    at_ += 2;
    // PCRE2's \s counts U+180E, its \w lacks marks: spell both by property.
    static constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    switch (c) {
      case 's':
        out_ += "\\p{White_Space}";
        return;
      case 'S':
        out_ += "\\P{White_Space}";
        return;
      case 'd':
        out_ += "\\p{Nd}";
        return;
      case 'D':
        out_ += "\\P{Nd}";
        return;
      case 'w':
        out_ += in_class_ ? std::string(kWord) : str("[", kWord, "]");
        return;
      case 'W':
        if (in_class_) refuse("\\W within a class");
        out_ += str("[^", kWord, "]");
        return;
      case 'p':
      case 'P':
        return property(c);
      case 'u':
        return code_point(4, false);
      case 'x':
        return code_point(2, true);
      default:
        break;
    }
    if (std::isalnum(static_cast<unsigned char>(c)) &&
        std::string_view("rntfve").find(c) == std::string_view::npos) {
      refuse(str("\\", c));
    }
    // Oniguruma's \v is the vertical tab, PCRE2's every vertical space.
    if (c == 'v') {
      out_ += "\\x0b";
    } else {
      out_ += '\\';
      out_ += c;
    }
  }

  void property(char c) {
    const size_t close = in_.find('}', at_);
    if (at_ >= in_.size() || in_[at_] != '{' || close == std::string_view::npos)
      refuse("\\p without {...}");
    std::string_view name = in_.substr(at_ + 1, close - at_ - 1);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    for (const char letter : name) {
      if (!std::isalnum(static_cast<unsigned char>(letter)) && letter != '_')
        refuse("an odd property name");
    }
    // A script means Script here, where PCRE2's short form means Script_Extensions.
    out_ += str('\\', c, '{', negated ? "^" : "", name.size() > 2 ? "sc:" : "", name, '}');
    at_ = close + 1;
  }

  void code_point(size_t digits, bool braces) {
    size_t begin = at_;
    size_t end = at_ + digits;
    if (braces && follows("{")) {
      begin = at_ + 1;
      end = in_.find('}', begin);
    }
    if (end == std::string_view::npos || end > in_.size() || end - begin > 6 || end == begin)
      refuse("a broken \\x or \\u");
    unsigned code = 0;
    for (const char digit : in_.substr(begin, end - begin)) {
      if (!std::isxdigit(static_cast<unsigned char>(digit))) refuse("a broken \\x or \\u");
      code = code * 16 + static_cast<unsigned>(std::stoi(std::string(1, digit), nullptr, 16));
    }
    if (braces && begin == at_ && code > 0x7F) refuse("a byte above 7f (\\xHH)");
    out_ += str("\\x{", in_.substr(begin, end - begin), '}');
    at_ = begin == at_ ? end : end + 1;
  }

  std::string_view in_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
  size_t class_start_ = 0;
};

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

/// What one thread needs to match; PCRE2's compiled codes are shared, these are not.
struct Scratch {
  Scratch()
      : match(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 * 1024, 8 * 1024 * 1024, nullptr)) {
    if (!match || !context) throw std::bad_alloc();
    pcre2_set_match_limit(context, 50'000'000);
    pcre2_set_heap_limit(context, 256 * 1024);  // KiB
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* code;
};

std::string translate_pattern(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

Regex::Regex(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kMaxPattern)
    throw DataError(where, ": the pattern is longer than ", kMaxPattern, " bytes");
  const std::string translated = translate_pattern(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()),
                                   translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                                   &error,
                                   &offset,
                                   context.get());
  if (!code) {
    throw DataError(where,
                    ": \"",
                    printable(pattern, 200),
                    "\" is not a regular expression: ",
                    pcre2_message(error));
  }
  code_ = std::make_shared<const Code>(code);
  uint32_t can_be_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &can_be_empty);
  if (can_be_empty) {
    throw DataError(where,
                    ": the pattern \"",
                    printable(pattern, 200),
                    "\" can match nothing, which is not supported");
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it the interpreter gives the same answers
}

Regex Regex::literal(std::string_view text, const std::string& where) {
  std::string pattern;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && std::ispunct(static_cast<unsigned char>(c)))
      pattern += '\\';
    pattern += c;
  }
  return Regex(pattern, where);
}

std::vector<Span> Regex::find_all(std::string_view text) const {
  thread_local Scratch scratch;
  std::vector<Span> found;
  size_t at = 0;
  while (at < text.size()) {
    const auto attempt = [&](uint32_t options) {
      return pcre2_match(code_->code,
                         reinterpret_cast<PCRE2_SPTR>(text.data()),
                         text.size(),
                         at,
                         PCRE2_NO_UTF_CHECK | options,
                         scratch.match,
                         scratch.context);
    };
    int got = attempt(0);
    if (got == PCRE2_ERROR_JIT_STACKLIMIT) got = attempt(PCRE2_NO_JIT);
    if (got == PCRE2_ERROR_NOMATCH) break;
    if (got < 0) {
      throw DataError("splitting a text of ",
                      text.size(),
                      " bytes failed at byte ",
                      at,
                      ": ",
                      pcre2_message(got));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(scratch.match);
    if (ends[1] <= at) break;  // cannot happen: the pattern matches at least one byte
    found.emplace_back(ends[0], ends[1]);
    at = ends[1];
  }
  return found;
}

std::string Regex::replace_all(std::string_view text, std::string_view content) const {
  std::string out;
  size_t done = 0;
  for (const auto& [begin, end] : find_all(text)) {
    out += text.substr(done, begin - done);
    out += content;
    done = end;
  }
  out += text.substr(done);
  return out;
}

}  // namespace praetor
