#include "core/base/bounded_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/base/text.h"

namespace praetor {

namespace {

constexpr size_t kLongestPattern = 64 * 1024;
/// One item between two questions to the clock can be as long as the text, so ask often.
constexpr uint32_t kStepsPerClock = 64;

struct Watch {
  const Deadline& deadline;
  uint32_t steps = 0;
};

int watch_the_clock(pcre2_callout_block*, void* data) {
  auto& watch = *static_cast<Watch*>(data);
  if (++watch.steps % kStepsPerClock != 0) return 0;
  return watch.deadline.passed() ? PCRE2_ERROR_CALLOUT : 0;
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;

}  // namespace

struct BoundedRegex::Code {
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> compiled;
  BoundedRegexOptions options;
};

BoundedRegex::BoundedRegex(std::string_view pattern, BoundedRegexOptions options)
    : code_(std::make_unique<Code>()) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  PRAETOR_CHECK(context, "out of memory");
  pcre2_set_max_pattern_length(context.get(), kLongestPattern);
  // A callout before every item is where the deadline is asked.
  uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_AUTO_CALLOUT;
  if (options.ignore_case) flags |= PCRE2_CASELESS;
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->options = options;
  code_->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                                      pattern.size(),
                                      flags,
                                      &error,
                                      &offset,
                                      context.get()));
  if (!code_->compiled) {
    throw InvalidArgument(
        pcre2_message(error), " at byte ", offset, " of \"", printable(pattern), "\"");
  }
}

BoundedRegex::~BoundedRegex() = default;
BoundedRegex::BoundedRegex(BoundedRegex&&) noexcept = default;
BoundedRegex& BoundedRegex::operator=(BoundedRegex&&) noexcept = default;

std::optional<BoundedRegex::Match> BoundedRegex::search(std::string_view text,
                                                        size_t from,
                                                        const Deadline& deadline) const {
  PRAETOR_CHECK(from <= text.size(), from, " is after the text's ", text.size(), " bytes");
  deadline.check();
  const MatchData data(pcre2_match_data_create_from_pattern(code_->compiled.get(), nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  PRAETOR_CHECK(data && context, "out of memory");
  Watch watch{deadline};
  pcre2_set_match_limit(context.get(), code_->options.match_limit);
  pcre2_set_heap_limit(context.get(), code_->options.heap_limit_kib);
  pcre2_set_callout(context.get(), watch_the_clock, &watch);
  // An empty view may hold a null pointer, which PCRE2 refuses.
  const char* bytes = text.data() ? text.data() : "";
  const int found = pcre2_match(code_->compiled.get(),
                                reinterpret_cast<PCRE2_SPTR>(bytes),
                                text.size(),
                                from,
                                0,
                                data.get(),
                                context.get());
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found == PCRE2_ERROR_CALLOUT) throw TimeoutError(deadline.message());
  if (found == PCRE2_ERROR_MATCHLIMIT) {
    throw RegexLimitError(str("match limit of ", code_->options.match_limit, " steps reached"));
  }
  if (found == PCRE2_ERROR_HEAPLIMIT || found == PCRE2_ERROR_DEPTHLIMIT) {
    throw RegexLimitError(
        str("memory limit of ", code_->options.heap_limit_kib, " KiB for a match reached"));
  }
  if (found <= PCRE2_ERROR_UTF8_ERR1 && found >= PCRE2_ERROR_UTF8_ERR21) {
    throw DataError("the text is not valid UTF-8: ", pcre2_message(found));
  }
  if (found < 0) throw DataError("the search failed: ", pcre2_message(found));

  const PCRE2_SIZE* spans = pcre2_get_ovector_pointer(data.get());
  Match match{.begin = spans[0], .end = spans[1], .groups = {}};
  const uint32_t count = pcre2_get_ovector_count(data.get());
  for (uint32_t group = 1; group < count; ++group) {
    const PCRE2_SIZE begin = spans[2 * group];
    const PCRE2_SIZE end = spans[2 * group + 1];
    // With \K in a lookaround a group may end before it begins; that is no text.
    if (begin == PCRE2_UNSET || end < begin) {
      match.groups.emplace_back();
    } else {
      match.groups.emplace_back(text.substr(begin, end - begin));
    }
  }
  return match;
}

std::string BoundedRegex::quote(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || static_cast<unsigned char>(c) >= 0x80;
    if (!plain) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace praetor
