#include "rollout/grammar/expression.h"

#include <algorithm>
#include <utility>

namespace praetor::grammar {
namespace {

constexpr char32_t kFirstSurrogate = 0xD800;
constexpr char32_t kLastSurrogate = 0xDFFF;

std::shared_ptr<Expression> made(Expression::Kind kind, std::vector<ExpressionPtr> parts = {}) {
  auto e = std::make_shared<Expression>();
  e->kind = kind;
  e->parts = std::move(parts);
  return e;
}

}  // namespace

void CodePoints::add(char32_t low, char32_t high) {
  if (low < kFirstSurrogate && high > kLastSurrogate) {
    add(low, kFirstSurrogate - 1);
    add(kLastSurrogate + 1, high);
    return;
  }
  if (low >= kFirstSurrogate && low <= kLastSurrogate) low = kLastSurrogate + 1;
  if (high >= kFirstSurrogate && high <= kLastSurrogate) high = kFirstSurrogate - 1;
  if (low > high) return;
  // Ranges that touch become one.
  std::vector<Range> merged;
  for (const Range& r : ranges_) {
    if (r.high + 1 < low || high + 1 < r.low) {
      merged.push_back(r);
    } else {
      low = std::min(low, r.low);
      high = std::max(high, r.high);
    }
  }
  merged.push_back({low, high});
  std::sort(
      merged.begin(), merged.end(), [](const Range& a, const Range& b) { return a.low < b.low; });
  ranges_ = std::move(merged);
}

void CodePoints::add(const CodePoints& other) {
  for (const Range& r : other.ranges_) add(r.low, r.high);
}

bool CodePoints::contains(char32_t code) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& r) {
    return r.low <= code && code <= r.high;
  });
}

CodePoints CodePoints::complement() const {
  CodePoints out;
  char32_t next = 0;
  for (const Range& r : ranges_) {
    if (r.low > next) out.add(next, r.low - 1);
    next = r.high + 1;
  }
  if (next <= kLast) out.add(next, kLast);
  return out;
}

ExpressionPtr literal(std::string bytes) {
  auto e = made(Expression::Kind::kBytes);
  e->bytes = std::move(bytes);
  return e;
}

ExpressionPtr character(CodePoints points) {
  auto e = made(Expression::Kind::kClass);
  e->points = std::move(points);
  return e;
}

ExpressionPtr sequence(std::vector<ExpressionPtr> parts) {
  return made(Expression::Kind::kSequence, std::move(parts));
}

ExpressionPtr choice(std::vector<ExpressionPtr> parts) {
  return made(Expression::Kind::kChoice, std::move(parts));
}

ExpressionPtr repeat(ExpressionPtr part, int64_t least, int64_t most) {
  auto e = made(Expression::Kind::kRepeat, {std::move(part)});
  e->least = least;
  e->most = most;
  return e;
}

ExpressionPtr list(ExpressionPtr item, ExpressionPtr between, int64_t least, int64_t most) {
  auto e = made(Expression::Kind::kList, {std::move(item), std::move(between)});
  e->least = least;
  e->most = most;
  return e;
}

ExpressionPtr fields(ExpressionPtr between,
                     const std::vector<ExpressionPtr>& items,
                     std::vector<bool> required) {
  auto e = made(Expression::Kind::kFields, {std::move(between)});
  e->parts.insert(e->parts.end(), items.begin(), items.end());
  e->required = std::move(required);
  return e;
}

ExpressionPtr all_of(std::vector<ExpressionPtr> parts) {
  return made(Expression::Kind::kAll, std::move(parts));
}

ExpressionPtr multiples(int64_t divisor) {
  auto e = made(Expression::Kind::kMultiple);
  e->least = divisor;
  return e;
}

}  // namespace praetor::grammar
