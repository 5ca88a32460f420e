#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/tokenizer/jinja/ast.h"
#include "core/tokenizer/jinja/lexer.h"

namespace praetor::jinja {
namespace {

constexpr int kMostNesting = 200;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Body run() {
    Body body = statements({});
    if (now().kind != TokenKind::kEnd) fail(str("\"", now().text, "\" ends nothing here"));
    return body;
  }

 private:
  using Words = std::vector<std::string>;

  /// Counts how deep the parser is, so that no template exhausts the stack.
  struct Nesting {
    explicit Nesting(Parser& of) : parser(of) {
      if (++parser.nesting_ > kMostNesting) parser.fail("this is nested too deeply");
    }
    ~Nesting() { --parser.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    Parser& parser;
  };

  const Token& now(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError("line ", now().line, ": ", what);
  }
  bool is(TokenKind kind, std::string_view text, size_t ahead = 0) const {
    return now(ahead).kind == kind && now(ahead).text == text;
  }
  bool op(std::string_view text) const { return is(TokenKind::kOperator, text); }
  bool word(std::string_view text) const { return is(TokenKind::kName, text); }
  bool take(bool when) {
    if (when) ++at_;
    return when;
  }
  bool take_op(std::string_view text) { return take(op(text)); }
  bool take_word(std::string_view text) { return take(word(text)); }
  void want_op(std::string_view text) {
    if (!take_op(text)) fail(str("wanted \"", text, "\" before \"", now().text, "\""));
  }
  std::string want_name() {
    if (now().kind != TokenKind::kName) fail(str("wanted a name before \"", now().text, "\""));
    return tokens_[at_++].text;
  }
  void want(TokenKind kind) {
    if (!take(now().kind == kind))
      fail(str("\"", now().text, "\" stands where the tag should end"));
  }

  /// Statements up to a tag that begins with one of `ends`, which is left to the caller.
  Body statements(const Words& ends) {
    const Nesting nesting(*this);
    Body body;
    while (now().kind != TokenKind::kEnd) {
      const int64_t line = now().line;
      if (now().kind == TokenKind::kText) {
        body.push_back(std::make_unique<Text>(line, tokens_[at_++].text));
      } else if (take(now().kind == TokenKind::kPrintBegin)) {
        body.push_back(std::make_unique<Print>(line, tuple()));
        want(TokenKind::kPrintEnd);
      } else {
        if (now(1).kind == TokenKind::kName && std::ranges::find(ends, now(1).text) != ends.end()) {
          return body;
        }
        want(TokenKind::kTagBegin);
        body.push_back(statement());
      }
    }
    return body;
  }

  /// A body and the tag that ends it, up to behind that tag's first word, which is returned.
  std::string body_until(Body& body, const Words& ends, const char* of, int64_t line) {
    body = statements(ends);
    if (now().kind == TokenKind::kEnd) {
      throw DataError("line ", line, ": \"", of, "\" has no \"", ends.back(), "\"");
    }
    want(TokenKind::kTagBegin);
    return want_name();
  }

  std::unique_ptr<const Statement> statement() {
    const int64_t line = now().line;
    const std::string name = want_name();
    if (name == "if") return if_tag(line);
    if (name == "for") return for_tag(line);
    if (name == "set") return set_tag(line);
    if (name == "macro") return macro_tag(line);
    if (name == "generation") {
      want(TokenKind::kTagEnd);
      auto out = std::make_unique<Generation>(line);
      body_until(out->body, {"endgeneration"}, "generation", line);
      want(TokenKind::kTagEnd);
      return out;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail(str("\"", name, "\" stands outside of a loop"));
      want(TokenKind::kTagEnd);
      return std::make_unique<Jump>(line, name == "break" ? Flow::kBreak : Flow::kContinue);
    }
    if (name.starts_with("end") || name == "else" || name == "elif")
      fail(str("\"", name, "\" ends nothing here"));
    fail(str("the tag \"",
             name,
             "\" is not supported (if, for, set, macro, generation, break, continue and raw are)"));
  }

  std::unique_ptr<const Statement> if_tag(int64_t line) {
    auto out = std::make_unique<If>(line);
    std::string next = "if";
    while (next != "endif") {
      ExpressionPtr condition = next == "else" ? nullptr : tuple();
      want(TokenKind::kTagEnd);
      Body body;
      const Words ends = next == "else" ? Words{"endif"} : Words{"elif", "else", "endif"};
      next = body_until(body, ends, "if", line);
      out->branches.emplace_back(std::move(condition), std::move(body));
    }
    want(TokenKind::kTagEnd);
    return out;
  }

  std::unique_ptr<const Statement> for_tag(int64_t line) {
    auto out = std::make_unique<For>(line);
    out->target = target(false);
    if (!take_word("in")) fail("wanted \"in\" after the names of \"for\"");
    out->over = tuple(/*conditional=*/false);
    if (take_word("if")) out->filter = expression();
    if (word("recursive")) fail("\"recursive\" loops are not supported");
    want(TokenKind::kTagEnd);
    ++loops_;
    std::string next = body_until(out->body, {"else", "endfor"}, "for", line);
    --loops_;
    if (next == "else") {
      want(TokenKind::kTagEnd);
      body_until(out->otherwise, {"endfor"}, "for", line);
    }
    want(TokenKind::kTagEnd);
    return out;
  }

  std::unique_ptr<const Statement> set_tag(int64_t line) {
    auto out = std::make_unique<Set>(line);
    out->target = target(true);
    if (take_op("=")) {
      out->value = tuple();
    } else {
      if (op("|")) fail("\"set\" with a filter over a block is not supported");
      want(TokenKind::kTagEnd);
      body_until(out->body, {"endset"}, "set", line);
    }
    want(TokenKind::kTagEnd);
    return out;
  }

  std::unique_ptr<const Statement> macro_tag(int64_t line) {
    if (in_macro_) fail("a macro within a macro is not supported");
    auto out = std::make_unique<Macro>(line);
    out->name = want_name();
    want_op("(");
    while (!take_op(")")) {
      if (!out->parameters.empty()) want_op(",");
      Parameter parameter{want_name(), nullptr};
      if (take_op("=")) parameter.fallback = expression();
      out->parameters.push_back(std::move(parameter));
    }
    want(TokenKind::kTagEnd);
    const int outer = std::exchange(loops_, 0);
    in_macro_ = true;
    body_until(out->body, {"endmacro"}, "macro", line);
    loops_ = outer;
    in_macro_ = false;
    take(now().kind == TokenKind::kName && now().text == out->name);
    want(TokenKind::kTagEnd);
    return out;
  }

  Target target(bool attributes) {
    const bool bracket = take_op("(");
    Target out;
    out.names.push_back(want_name());
    if (attributes && take_op(".")) {
      out.attribute = want_name();
      return out;
    }
    while (take_op(",")) out.names.push_back(want_name());
    if (bracket) want_op(")");
    return out;
  }

  /// Expressions with commas between them are a tuple.
  ExpressionPtr tuple(bool conditional = true) {
    const auto one = [&] { return conditional ? expression() : disjunction(); };
    ExpressionPtr first = one();
    if (!op(",")) return first;
    std::vector<ExpressionPtr> items;
    items.push_back(std::move(first));
    while (take_op(",")) {
      if (now().kind == TokenKind::kTagEnd || now().kind == TokenKind::kPrintEnd) break;
      items.push_back(one());
    }
    return make_list(std::move(items), true);
  }

  ExpressionPtr expression() {
    const Nesting nesting(*this);
    ExpressionPtr out = disjunction();
    while (take_word("if")) {
      ExpressionPtr condition = disjunction();
      ExpressionPtr otherwise = take_word("else") ? expression() : nullptr;
      out = make_conditional(std::move(condition), std::move(out), std::move(otherwise));
    }
    return out;
  }

  ExpressionPtr disjunction() {
    ExpressionPtr out = conjunction();
    while (take_word("or")) out = make_logic(false, std::move(out), conjunction());
    return out;
  }
  ExpressionPtr conjunction() {
    ExpressionPtr out = negation();
    while (take_word("and")) out = make_logic(true, std::move(out), negation());
    return out;
  }
  ExpressionPtr negation() {
    const Nesting nesting(*this);
    return take_word("not") ? make_not(negation()) : comparison();
  }

  ExpressionPtr comparison() {
    ExpressionPtr first = sum();
    std::vector<std::pair<std::string, ExpressionPtr>> rest;
    while (true) {
      std::string sign;
      for (const char* one : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (sign.empty() && take_op(one)) sign = one;
      }
      if (sign.empty() && take_word("in")) sign = "in";
      if (sign.empty() && word("not") && is(TokenKind::kName, "in", 1)) {
        at_ += 2;
        sign = "not in";
      }
      if (sign.empty()) break;
      rest.emplace_back(sign, sum());
    }
    return rest.empty() ? std::move(first) : make_comparison(std::move(first), std::move(rest));
  }

  /// Left to right, operators of one strength.
  ExpressionPtr chain(const std::vector<const char*>& signs,
                      const std::function<ExpressionPtr()>& part) {
    ExpressionPtr out = part();
    while (true) {
      const auto sign = std::ranges::find_if(signs, [&](const char* one) { return op(one); });
      if (sign == signs.end()) return out;
      ++at_;
      out = make_arithmetic(*sign, std::move(out), part());
    }
  }
  ExpressionPtr sum() {
    return chain({"+", "-"}, [&] { return concatenation(); });
  }
  ExpressionPtr concatenation() {
    return chain({"~"}, [&] { return product(); });
  }
  ExpressionPtr product() {
    return chain({"*", "/", "//", "%"}, [&] { return power(); });
  }
  ExpressionPtr power() {
    return chain({"**"}, [&] { return unary(true); });
  }

  ExpressionPtr unary(bool filters) {
    const Nesting nesting(*this);
    ExpressionPtr out;
    if (op("-") || op("+")) {
      const char sign = tokens_[at_++].text[0];
      out = make_sign(sign, unary(false));
    } else {
      out = postfix(primary());
    }
    return filters ? filtered(std::move(out)) : std::move(out);
  }

  ExpressionPtr primary() {
    const Token token = now();
    ++at_;
    if (token.kind == TokenKind::kName) {
      const std::string& name = token.text;
      if (name == "true" || name == "True") return make_literal(true);
      if (name == "false" || name == "False") return make_literal(false);
      if (name == "none" || name == "None") return make_literal(Value());
      return make_name(name);
    }
    if (token.kind == TokenKind::kString) {
      std::string text = token.text;
      while (now().kind == TokenKind::kString) text += tokens_[at_++].text;
      return make_literal(std::move(text));
    }
    if (token.kind == TokenKind::kInteger) {
      int64_t value = 0;
      const auto* end = token.text.data() + token.text.size();
      if (std::from_chars(token.text.data(), end, value).ec != std::errc())
        fail(str(token.text, " is too large"));
      return make_literal(value);
    }
    if (token.kind == TokenKind::kFloat) return make_literal(std::stod(token.text));
    if (token.kind == TokenKind::kOperator && token.text == "(") {
      if (take_op(")")) return make_list({}, true);
      ExpressionPtr out = expression();
      if (!op(",")) {
        want_op(")");
        return out;
      }
      std::vector<ExpressionPtr> items;
      items.push_back(std::move(out));
      while (take_op(",") && !op(")")) items.push_back(expression());
      want_op(")");
      return make_list(std::move(items), true);
    }
    if (token.kind == TokenKind::kOperator && token.text == "[") {
      std::vector<ExpressionPtr> items;
      while (!take_op("]")) {
        if (!items.empty()) want_op(",");
        if (take_op("]")) break;
        items.push_back(expression());
      }
      return make_list(std::move(items), false);
    }
    if (token.kind == TokenKind::kOperator && token.text == "{") return dict();
    --at_;
    fail(now().text.empty() ? "the tag ends where a value is wanted"
                            : str("\"", now().text, "\" stands where a value is wanted"));
  }

  ExpressionPtr dict() {
    std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
    while (!take_op("}")) {
      if (!items.empty()) want_op(",");
      if (take_op("}")) break;
      ExpressionPtr key = expression();
      want_op(":");
      items.emplace_back(std::move(key), expression());
    }
    return make_dict(std::move(items));
  }

  ExpressionPtr postfix(ExpressionPtr out) {
    while (true) {
      if (take_op(".")) {
        if (now().kind == TokenKind::kInteger) {
          out = make_item(std::move(out),
                          make_literal(static_cast<int64_t>(std::stoll(tokens_[at_++].text))));
        } else {
          out = make_attribute(std::move(out), want_name());
        }
      } else if (take_op("[")) {
        out = subscript(std::move(out));
      } else if (take_op("(")) {
        out = make_call(std::move(out), arguments());
      } else {
        return out;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr of) {
    ExpressionPtr parts[3];
    int colons = 0;
    while (!op("]")) {
      if (take_op(":")) {
        if (++colons > 2) fail("a slice has at most two colons");
      } else {
        parts[colons] = expression();
        if (!op(":") && !op("]")) want_op("]");
      }
    }
    want_op("]");
    if (colons == 0 && !parts[0]) fail("\"[]\" names nothing");
    if (colons == 0) return make_item(std::move(of), std::move(parts[0]));
    return make_slice(std::move(of), std::move(parts[0]), std::move(parts[1]), std::move(parts[2]));
  }

  /// Behind "(" up to behind ")".
  ArgumentList arguments() {
    ArgumentList out;
    bool first = true;
    while (!take_op(")")) {
      if (!first) want_op(",");
      first = false;
      if (take_op(")")) break;
      if (op("*") || op("**")) fail("arguments from a list or dictionary are not supported");
      if (now().kind == TokenKind::kName && is(TokenKind::kOperator, "=", 1)) {
        const std::string name = want_name();
        ++at_;
        out.named.emplace_back(name, expression());
      } else {
        if (!out.named.empty()) fail("an argument without a name stands behind one with a name");
        out.positional.push_back(expression());
      }
    }
    return out;
  }

  ExpressionPtr filtered(ExpressionPtr out) {
    while (true) {
      if (take_op("|")) {
        const std::string name = want_name();
        out = placed([&] {
          return make_filter(std::move(out), name, take_op("(") ? arguments() : ArgumentList{});
        });
      } else if (take_word("is")) {
        out = test(std::move(out));
      } else if (op(".") || op("[") || op("(")) {
        out = postfix(std::move(out));
      } else {
        return out;
      }
    }
  }

  ExpressionPtr test(ExpressionPtr of) {
    const bool negated = take_word("not");
    const std::string name = want_name();
    ArgumentList given;
    const bool value = now().kind == TokenKind::kName
                           ? !word("else") && !word("or") && !word("and") && !word("is") &&
                                 !word("if") && !word("not") && !word("in")
                           : now().kind == TokenKind::kString ||
                                 now().kind == TokenKind::kInteger ||
                                 now().kind == TokenKind::kFloat || op("[") || op("{");
    if (take_op("(")) {
      given = arguments();
    } else if (value) {
      given.positional.push_back(postfix(primary()));
    }
    ExpressionPtr out = placed([&] { return make_test(std::move(of), name, std::move(given)); });
    return negated ? make_not(std::move(out)) : std::move(out);
  }

  /// Adds the line to what a maker says.
  template <typename Make>
  ExpressionPtr placed(Make make) {
    const int64_t line = now().line;
    try {
      return make();
    } catch (const DataError& e) {
      const std::string what = e.what();
      if (what.starts_with("line ")) throw;
      throw DataError("line ", line, ": ", what);
    }
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace

Body parse(const std::string& source) {
  return Parser(tokenize(source)).run();
}

}  // namespace praetor::jinja
