#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/tokenizer/jinja/value.h"

namespace praetor::jinja {

/// Part of the output that stood between {% generation %} and {% endgeneration %}, in bytes.
struct Span {
  size_t begin = 0, end = 0;
};

/// What a template sees and writes while it is rendered.
struct Context {
  std::vector<std::map<std::string, Value, std::less<>>> scopes;  ///< the innermost last
  std::string* out = nullptr;
  std::vector<Span>* spans = nullptr;  ///< null within macros and blocks that are kept
  int depth = 0;                       ///< of macro calls within macro calls

  Value lookup(const std::string& name) const;
};

/// Errors are DataError, without a place; the statement they happen in adds its line.
struct Expression {
  virtual ~Expression() = default;
  virtual Value evaluate(Context& context) const = 0;
};
using ExpressionPtr = std::unique_ptr<const Expression>;

enum class Flow { kOn, kBreak, kContinue };

struct Statement {
  explicit Statement(int64_t at) : line(at) {}
  virtual ~Statement() = default;
  /// @throws DataError "line N: ..."
  virtual Flow run(Context& context) const = 0;
  const int64_t line;
};
using Body = std::vector<std::unique_ptr<const Statement>>;

/// Positional, then named arguments of a call, filter or test.
struct ArgumentList {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  Arguments evaluate(Context& context) const;
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  ///< or null
};

// Makers of the nodes, for the parser; all take what they are made of.
ExpressionPtr make_literal(Value value);
ExpressionPtr make_name(std::string name);
ExpressionPtr make_attribute(ExpressionPtr of, std::string name);
ExpressionPtr make_item(ExpressionPtr of, ExpressionPtr index);
ExpressionPtr make_slice(ExpressionPtr of,
                         ExpressionPtr from,
                         ExpressionPtr to,
                         ExpressionPtr step);
ExpressionPtr make_call(ExpressionPtr callee, ArgumentList arguments);
/// @throws DataError when there is no such filter, or test
ExpressionPtr make_filter(ExpressionPtr of, const std::string& name, ArgumentList arguments);
ExpressionPtr make_test(ExpressionPtr of, const std::string& name, ArgumentList arguments);
ExpressionPtr make_not(ExpressionPtr of);
ExpressionPtr make_sign(char sign, ExpressionPtr of);
ExpressionPtr make_arithmetic(std::string op, ExpressionPtr left, ExpressionPtr right);
ExpressionPtr make_logic(bool conjunction, ExpressionPtr left, ExpressionPtr right);
ExpressionPtr make_comparison(ExpressionPtr first,
                              std::vector<std::pair<std::string, ExpressionPtr>> rest);
ExpressionPtr make_conditional(ExpressionPtr condition,
                               ExpressionPtr then,
                               ExpressionPtr otherwise);
ExpressionPtr make_list(std::vector<ExpressionPtr> items, bool tuple);
ExpressionPtr make_dict(std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items);

/// What a name of "set" or "for" takes: one name, several, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  std::string attribute;  ///< of names[0]; empty: none
  void assign(Context& context, const Value& value) const;
};

struct Text final : Statement {
  Text(int64_t at, std::string what) : Statement(at), text(std::move(what)) {}
  Flow run(Context& context) const override;
  std::string text;
};
struct Print final : Statement {
  Print(int64_t at, ExpressionPtr what) : Statement(at), value(std::move(what)) {}
  Flow run(Context& context) const override;
  ExpressionPtr value;
};
struct If final : Statement {
  using Statement::Statement;
  Flow run(Context& context) const override;
  std::vector<std::pair<ExpressionPtr, Body>> branches;  ///< "else" without a condition
};
struct For final : Statement {
  using Statement::Statement;
  Flow run(Context& context) const override;
  Target target;
  ExpressionPtr over, filter;  ///< filter may be null
  Body body, otherwise;
};
struct Set final : Statement {
  using Statement::Statement;
  Flow run(Context& context) const override;
  Target target;
  ExpressionPtr value;  ///< or null: the text of `body`
  Body body;
};
struct Macro final : Statement {
  using Statement::Statement;
  Flow run(Context& context) const override;
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
};
struct Generation final : Statement {
  using Statement::Statement;
  Flow run(Context& context) const override;
  Body body;
};
struct Jump final : Statement {
  Jump(int64_t at, Flow where) : Statement(at), flow(where) {}
  Flow run(Context&) const override { return flow; }
  Flow flow;
};

Flow run_body(const Body& body, Context& context);

/// @throws DataError "line N: ..." for what is not the language, or a part of it that is not here
Body parse(const std::string& source);

/// `name`(value, arguments), or null when there is no such filter, or test.
using FilterFunction = Value (*)(const Value& value, const Arguments& arguments);
FilterFunction find_filter(std::string_view name);
using TestFunction = bool (*)(const Value& value, const Arguments& arguments);
TestFunction find_test(std::string_view name);
/// value.name: methods of strings and dictionaries; undefined when there is none.
Value find_method(const Value& value, const std::string& name);
/// value[index]. Undefined when it is not there.
Value item_of(const Value& value, const Value& index);
/// value.name: a method first, then the item of that name.
Value attribute_of(const Value& value, const std::string& name);

}  // namespace praetor::jinja
