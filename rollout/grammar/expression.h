#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace praetor::grammar {

/// A set of Unicode characters: sorted, disjoint, closed ranges. Surrogates are no characters.
class CodePoints {
 public:
  struct Range {
    char32_t low;
    char32_t high;
  };
  static constexpr char32_t kLast = 0x10FFFF;

  CodePoints() = default;
  CodePoints(char32_t low, char32_t high) { add(low, high); }
  void add(char32_t low, char32_t high);
  void add(const CodePoints& other);
  bool contains(char32_t code) const;
  CodePoints complement() const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

struct Expression;
/// Parts are shared, so that an expression may be much smaller than what it stands for.
using ExpressionPtr = std::shared_ptr<const Expression>;

constexpr int64_t kUnbounded = -1;

/// A regular language, as the tree of how it is put together. Immutable.
struct Expression {
  enum class Kind : uint8_t {
    kBytes,     ///< `bytes`, exactly
    kClass,     ///< one character of `points`, in UTF-8
    kSequence,  ///< `parts`, one after the other
    kChoice,    ///< one of `parts`
    kRepeat,    ///< parts[0], `least` to `most` times
    kList,      ///< parts[0], `least` to `most` times, with parts[1] between
    kFields,    ///< a choice of parts[1..] in order, with parts[0] between; required[i] says which
                ///< may not be left out
    kAll,       ///< what every one of `parts` describes, each of which describes something
    kMultiple,  ///< decimal digits, one and more, of a number that `least` divides
  };
  Kind kind = Kind::kSequence;
  std::string bytes;
  CodePoints points;
  std::vector<ExpressionPtr> parts;
  int64_t least = 0;
  int64_t most = kUnbounded;
  std::vector<bool> required;
};

ExpressionPtr literal(std::string bytes);
ExpressionPtr character(CodePoints points);
ExpressionPtr sequence(std::vector<ExpressionPtr> parts);
ExpressionPtr choice(std::vector<ExpressionPtr> parts);
ExpressionPtr repeat(ExpressionPtr part, int64_t least, int64_t most = kUnbounded);
ExpressionPtr list(ExpressionPtr item, ExpressionPtr between, int64_t least, int64_t most);
ExpressionPtr fields(ExpressionPtr between,
                     const std::vector<ExpressionPtr>& items,
                     std::vector<bool> required);
ExpressionPtr all_of(std::vector<ExpressionPtr> parts);
ExpressionPtr multiples(int64_t divisor);

}  // namespace praetor::grammar
