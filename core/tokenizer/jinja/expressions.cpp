#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/tokenizer/jinja/ast.h"

namespace praetor::jinja {
namespace {

/// An undefined value may be printed and tested, and nothing else.
const Value& defined(const Value& value) {
  if (value.undefined()) throw DataError(value.as_undefined().what, " is undefined");
  return value;
}

int64_t checked(bool overflow, const int64_t& value) {
  if (overflow) throw DataError("the result is no 64-bit integer");
  return value;
}

Value repeated(const Value& value, int64_t times) {
  times = std::max<int64_t>(times, 0);
  if (const std::string* s = value.string()) {
    if (times * static_cast<int64_t>(s->size()) > (1 << 20))
      throw DataError("the text is too long");
    std::string out;
    for (int64_t i = 0; i < times; ++i) out += *s;
    return out;
  }
  const List& list = *value.list();
  if (times * static_cast<int64_t>(list.items.size()) > (1 << 20))
    throw DataError("the list is too long");
  std::vector<Value> out;
  for (int64_t i = 0; i < times; ++i) out.insert(out.end(), list.items.begin(), list.items.end());
  return {std::move(out), list.tuple};
}

Value integers(const std::string& op, int64_t a, int64_t b) {
  int64_t out = 0;
  if (op == "+") return checked(__builtin_add_overflow(a, b, &out), out);
  if (op == "-") return checked(__builtin_sub_overflow(a, b, &out), out);
  if (op == "*") return checked(__builtin_mul_overflow(a, b, &out), out);
  if (op == "**") {
    if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
    out = 1;
    bool overflow = false;
    for (int64_t i = 0; i < b && !overflow; ++i) overflow = __builtin_mul_overflow(out, a, &out);
    return checked(overflow, out);
  }
  if (b == 0) throw DataError("division by zero");
  if (op == "/") return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1) return op == "%" ? Value(int64_t{0}) : integers("-", 0, a);
  const int64_t floor = a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
  return op == "//" ? floor : a - floor * b;
}

Value numbers(const std::string& op, const Value& left, const Value& right) {
  if (left.is_integer() && right.is_integer()) return integers(op, left.integer(), right.integer());
  const double a = left.number(), b = right.number();
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) throw DataError("division by zero");
  if (op == "/") return a / b;
  return op == "//" ? std::floor(a / b) : a - std::floor(a / b) * b;
}

Value arithmetic(const std::string& op, const Value& left, const Value& right) {
  if (op == "~") return left.text() + right.text();
  defined(left);
  defined(right);
  if (left.is_number() && right.is_number()) return numbers(op, left, right);
  if (op == "+" && left.string() && right.string()) return *left.string() + *right.string();
  if (op == "+" && left.list() && right.list() && left.list()->tuple == right.list()->tuple) {
    std::vector<Value> out = left.list()->items;
    out.insert(out.end(), right.list()->items.begin(), right.list()->items.end());
    return {std::move(out), left.list()->tuple};
  }
  if (op == "*" && (left.string() || left.list()) && right.is_integer())
    return repeated(left, right.integer());
  if (op == "*" && left.is_integer() && (right.string() || right.list()))
    return repeated(right, left.integer());
  if (op == "+" && (left.string() || right.string())) {
    throw DataError("cannot put a value of type ",
                    (left.string() ? right : left).type(),
                    " to a text with \"+\"; \"~\" does that");
  }
  throw DataError("\"", op, "\" does not take ", left.type(), " and ", right.type());
}

bool compare(const std::string& op, const Value& left, const Value& right) {
  if (op == "==") return left == right;
  if (op == "!=") return !(left == right);
  if (op == "in") return right.contains(left);
  if (op == "not in") return !right.contains(left);
  defined(left);
  defined(right);
  if (op == "<") return left.less(right);
  if (op == ">") return right.less(left);
  return (op == "<=" ? left.less(right) : right.less(left)) || left == right;
}

struct LiteralNode final : Expression {
  explicit LiteralNode(Value v) : value(std::move(v)) {}
  Value evaluate(Context&) const override { return value; }
  Value value;
};

struct NameNode final : Expression {
  explicit NameNode(std::string n) : name(std::move(n)) {}
  Value evaluate(Context& c) const override { return c.lookup(name); }
  std::string name;
};

struct AttributeNode final : Expression {
  AttributeNode(ExpressionPtr o, std::string n) : of(std::move(o)), name(std::move(n)) {}
  Value evaluate(Context& c) const override { return attribute_of(defined(of->evaluate(c)), name); }
  ExpressionPtr of;
  std::string name;
};

struct ItemNode final : Expression {
  ItemNode(ExpressionPtr o, ExpressionPtr i) : of(std::move(o)), index(std::move(i)) {}
  Value evaluate(Context& c) const override {
    const Value value = of->evaluate(c);
    return item_of(defined(value), index->evaluate(c));
  }
  ExpressionPtr of, index;
};

struct SliceNode final : Expression {
  Value evaluate(Context& c) const override {
    const Value value = defined(of->evaluate(c));
    if (!value.string() && !value.list())
      throw DataError("a value of type ", value.type(), " has no slices");
    std::array<std::optional<int64_t>, 3> bound;
    for (size_t i = 0; i < 3; ++i) {
      if (!part[i]) continue;
      const Value given = part[i]->evaluate(c);
      if (given.none()) continue;
      if (!given.is_integer()) throw DataError("the bounds of a slice are integers");
      bound[i] = given.integer();
    }
    const std::vector<Value> all = value.elements();
    std::vector<Value> out;
    for (const int64_t i : indices(static_cast<int64_t>(all.size()), bound))
      out.push_back(all[static_cast<size_t>(i)]);
    if (value.list()) return {std::move(out), value.list()->tuple};
    std::string text;
    for (const Value& one : out) text += *one.string();
    return text;
  }
  /// Python's rules: negative bounds count from the end, and all are cut to the length.
  static std::vector<int64_t> indices(int64_t length,
                                      const std::array<std::optional<int64_t>, 3>& bound) {
    const int64_t step = bound[2].value_or(1);
    if (step == 0) throw DataError("a slice cannot step by 0");
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
    const auto cut = [&](int64_t at) { return std::clamp(at < 0 ? at + length : at, low, high); };
    const int64_t from = bound[0] ? cut(*bound[0]) : (step > 0 ? low : high);
    const int64_t to = bound[1] ? cut(*bound[1]) : (step > 0 ? high : low);
    std::vector<int64_t> out;
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
      out.push_back(i);
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return out;
  }
  ExpressionPtr of;
  std::array<ExpressionPtr, 3> part;
};

struct CallNode final : Expression {
  CallNode(ExpressionPtr c, ArgumentList a) : callee(std::move(c)), arguments(std::move(a)) {}
  Value evaluate(Context& c) const override {
    const Value value = defined(callee->evaluate(c));
    if (!value.function()) throw DataError("a value of type ", value.type(), " cannot be called");
    return value.function()->call(arguments.evaluate(c));
  }
  ExpressionPtr callee;
  ArgumentList arguments;
};

/// A filter, or a test.
template <typename Function>
struct AppliedNode final : Expression {
  AppliedNode(ExpressionPtr o, Function f, ArgumentList a)
      : of(std::move(o)), function(f), arguments(std::move(a)) {}
  Value evaluate(Context& c) const override {
    return function(of->evaluate(c), arguments.evaluate(c));
  }
  ExpressionPtr of;
  Function function;
  ArgumentList arguments;
};

template <typename Function>
ExpressionPtr make_applied(
    const char* what, const std::string& name, Function f, ExpressionPtr of, ArgumentList a) {
  if (!f) throw DataError("the ", what, " \"", name, "\" is not known");
  return std::make_unique<AppliedNode<Function>>(std::move(of), f, std::move(a));
}

struct NotNode final : Expression {
  explicit NotNode(ExpressionPtr o) : of(std::move(o)) {}
  Value evaluate(Context& c) const override { return !of->evaluate(c).truth(); }
  ExpressionPtr of;
};

struct SignNode final : Expression {
  SignNode(char s, ExpressionPtr o) : sign(s), of(std::move(o)) {}
  Value evaluate(Context& c) const override {
    const Value value = defined(of->evaluate(c));
    if (!value.is_number()) throw DataError("a value of type ", value.type(), " has no sign");
    return numbers(sign == '-' ? "-" : "+", int64_t{0}, value);
  }
  char sign;
  ExpressionPtr of;
};

struct ArithmeticNode final : Expression {
  Value evaluate(Context& c) const override {
    const Value first = left->evaluate(c);
    return arithmetic(op, first, right->evaluate(c));
  }
  std::string op;
  ExpressionPtr left, right;
};

struct LogicNode final : Expression {
  Value evaluate(Context& c) const override {
    Value first = left->evaluate(c);
    return first.truth() == conjunction ? right->evaluate(c) : first;
  }
  bool conjunction = false;
  ExpressionPtr left, right;
};

struct ComparisonNode final : Expression {
  Value evaluate(Context& c) const override {
    Value left = first->evaluate(c);
    for (const auto& [op, next] : rest) {
      Value right = next->evaluate(c);
      if (!compare(op, left, right)) return false;
      left = std::move(right);
    }
    return true;
  }
  ExpressionPtr first;
  std::vector<std::pair<std::string, ExpressionPtr>> rest;
};

struct ConditionalNode final : Expression {
  Value evaluate(Context& c) const override {
    if (condition->evaluate(c).truth()) return then->evaluate(c);
    return otherwise ? otherwise->evaluate(c)
                     : Value(Undefined{"the value of an \"if\" without \"else\""});
  }
  ExpressionPtr condition, then, otherwise;
};

struct ListNode final : Expression {
  Value evaluate(Context& c) const override {
    std::vector<Value> out;
    for (const ExpressionPtr& item : items) out.push_back(item->evaluate(c));
    return {std::move(out), tuple};
  }
  std::vector<ExpressionPtr> items;
  bool tuple = false;
};

struct DictNode final : Expression {
  Value evaluate(Context& c) const override {
    Dict out;
    for (const auto& [key, item] : items) {
      const Value name = key->evaluate(c);
      if (!name.string()) throw DataError("keys that are no texts are not supported");
      out.set(*name.string(), item->evaluate(c));
    }
    return out;
  }
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};

}  // namespace

Arguments ArgumentList::evaluate(Context& context) const {
  Arguments out;
  for (const ExpressionPtr& one : positional) out.positional.push_back(one->evaluate(context));
  for (const auto& [name, one] : named) out.named.emplace_back(name, one->evaluate(context));
  return out;
}

ExpressionPtr make_literal(Value value) {
  return std::make_unique<LiteralNode>(std::move(value));
}
ExpressionPtr make_name(std::string name) {
  return std::make_unique<NameNode>(std::move(name));
}
ExpressionPtr make_attribute(ExpressionPtr of, std::string name) {
  return std::make_unique<AttributeNode>(std::move(of), std::move(name));
}
ExpressionPtr make_item(ExpressionPtr of, ExpressionPtr index) {
  return std::make_unique<ItemNode>(std::move(of), std::move(index));
}
ExpressionPtr make_slice(ExpressionPtr of,
                         ExpressionPtr from,
                         ExpressionPtr to,
                         ExpressionPtr step) {
  auto out = std::make_unique<SliceNode>();
  out->of = std::move(of);
  out->part = {std::move(from), std::move(to), std::move(step)};
  return out;
}
ExpressionPtr make_call(ExpressionPtr callee, ArgumentList arguments) {
  return std::make_unique<CallNode>(std::move(callee), std::move(arguments));
}
ExpressionPtr make_filter(ExpressionPtr of, const std::string& name, ArgumentList arguments) {
  return make_applied("filter", name, find_filter(name), std::move(of), std::move(arguments));
}
ExpressionPtr make_test(ExpressionPtr of, const std::string& name, ArgumentList arguments) {
  return make_applied("test", name, find_test(name), std::move(of), std::move(arguments));
}
ExpressionPtr make_not(ExpressionPtr of) {
  return std::make_unique<NotNode>(std::move(of));
}
ExpressionPtr make_sign(char sign, ExpressionPtr of) {
  return std::make_unique<SignNode>(sign, std::move(of));
}
ExpressionPtr make_arithmetic(std::string op, ExpressionPtr left, ExpressionPtr right) {
  auto out = std::make_unique<ArithmeticNode>();
  out->op = std::move(op);
  out->left = std::move(left);
  out->right = std::move(right);
  return out;
}
ExpressionPtr make_logic(bool conjunction, ExpressionPtr left, ExpressionPtr right) {
  auto out = std::make_unique<LogicNode>();
  out->conjunction = conjunction;
  out->left = std::move(left);
  out->right = std::move(right);
  return out;
}
ExpressionPtr make_comparison(ExpressionPtr first,
                              std::vector<std::pair<std::string, ExpressionPtr>> rest) {
  auto out = std::make_unique<ComparisonNode>();
  out->first = std::move(first);
  out->rest = std::move(rest);
  return out;
}
ExpressionPtr make_conditional(ExpressionPtr condition,
                               ExpressionPtr then,
                               ExpressionPtr otherwise) {
  auto out = std::make_unique<ConditionalNode>();
  out->condition = std::move(condition);
  out->then = std::move(then);
  out->otherwise = std::move(otherwise);
  return out;
}
ExpressionPtr make_list(std::vector<ExpressionPtr> items, bool tuple) {
  auto out = std::make_unique<ListNode>();
  out->items = std::move(items);
  out->tuple = tuple;
  return out;
}
ExpressionPtr make_dict(std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items) {
  auto out = std::make_unique<DictNode>();
  out->items = std::move(items);
  return out;
}

}  // namespace praetor::jinja
