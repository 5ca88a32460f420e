#include <algorithm>

#include "core/base/error.h"
#include "core/tokenizer/jinja/ast.h"

namespace praetor::jinja {
namespace {

constexpr int kMostCalls = 100;
constexpr size_t kMostOutput = size_t{64} << 20;

/// One more call within calls, for as long as it lives.
struct Call {
  explicit Call(Context& of) : context(of) { ++context.depth; }
  ~Call() { --context.depth; }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  Context& context;
};

/// Runs `work`; an error of it gets the statement's line, unless an inner one has given its own.
template <typename Work>
auto at_line(int64_t line, Work work) {
  try {
    return work();
  } catch (const DataError& e) {
    const std::string what = e.what();
    if (what.starts_with("line ")) throw;
    throw DataError("line ", line, ": ", what);
  }
}

void write(Context& context, std::string_view text) {
  if (context.out->size() + text.size() > kMostOutput) throw DataError("the text is too long");
  context.out->append(text);
}

/// What a body writes, by itself.
std::string text_of(const Body& body, Context& context) {
  std::string text;
  std::string* const outer = std::exchange(context.out, &text);
  std::vector<Span>* const spans = std::exchange(context.spans, nullptr);
  run_body(body, context);
  context.out = outer;
  context.spans = spans;
  return text;
}

/// What a loop's body sees as "loop".
Value loop_variable(const std::vector<Value>& items, size_t i) {
  const auto index = static_cast<int64_t>(i);
  const auto length = static_cast<int64_t>(items.size());
  const auto neighbour = [&](bool there, size_t at, const char* what) {
    return there ? items[at] : Value(Undefined{what});
  };
  Dict loop;
  loop.set("index", index + 1);
  loop.set("index0", index);
  loop.set("first", i == 0);
  loop.set("last", i + 1 == items.size());
  loop.set("length", length);
  loop.set("revindex", length - index);
  loop.set("revindex0", length - index - 1);
  loop.set("previtem", neighbour(i > 0, i - 1, "loop.previtem of the first"));
  loop.set("nextitem", neighbour(i + 1 < items.size(), i + 1, "loop.nextitem of the last"));
  loop.set("cycle",
           Function{"cycle", [index](const Arguments& a) {
                      if (a.positional.empty()) throw DataError("\"loop.cycle\" wants values");
                      return a.positional[static_cast<size_t>(index) % a.positional.size()];
                    }});
  return loop;
}

}  // namespace

Value Context::lookup(const std::string& name) const {
  for (auto scope = scopes.rbegin(); scope != scopes.rend(); ++scope) {
    if (const auto at = scope->find(name); at != scope->end()) return at->second;
  }
  return Undefined{"'" + name + "'"};
}

void Target::assign(Context& context, const Value& value) const {
  auto& scope = context.scopes.back();
  if (!attribute.empty()) {
    const Value of = context.lookup(names[0]);
    if (!of.dict() || !of.dict()->is_namespace) {
      throw DataError(
          "\"", names[0], "\" is no namespace, so its \"", attribute, "\" cannot be set");
    }
    of.dict()->set(attribute, value);
  } else if (names.size() == 1) {
    scope[names[0]] = value;
  } else {
    const std::vector<Value> parts = value.elements();
    if (parts.size() != names.size())
      throw DataError(parts.size(), " values are there for ", names.size(), " names");
    for (size_t i = 0; i < names.size(); ++i) scope[names[i]] = parts[i];
  }
}

Flow run_body(const Body& body, Context& context) {
  for (const auto& statement : body) {
    if (const Flow flow = statement->run(context); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Flow Text::run(Context& context) const {
  write(context, text);
  return Flow::kOn;
}

Flow Print::run(Context& context) const {
  at_line(line, [&] { write(context, value->evaluate(context).text()); });
  return Flow::kOn;
}

Flow If::run(Context& context) const {
  for (const auto& [condition, body] : branches) {
    if (condition && !at_line(line, [&] { return condition->evaluate(context).truth(); })) continue;
    return run_body(body, context);
  }
  return Flow::kOn;
}

Flow For::run(Context& context) const {
  std::vector<Value> items = at_line(line, [&] { return over->evaluate(context).elements(); });
  context.scopes.emplace_back();
  const auto bind = [&](const Value& item) {
    context.scopes.back().clear();
    at_line(line, [&] { target.assign(context, item); });
  };
  if (filter) {
    std::erase_if(items, [&](const Value& item) {
      bind(item);
      return !at_line(line, [&] { return filter->evaluate(context).truth(); });
    });
  }
  for (size_t i = 0; i < items.size(); ++i) {
    bind(items[i]);
    context.scopes.back()["loop"] = loop_variable(items, i);
    if (run_body(body, context) == Flow::kBreak) break;
  }
  context.scopes.pop_back();
  return items.empty() ? run_body(otherwise, context) : Flow::kOn;
}

Flow Set::run(Context& context) const {
  at_line(line, [&] {
    target.assign(context, value ? value->evaluate(context) : Value(text_of(body, context)));
  });
  return Flow::kOn;
}

Flow Macro::run(Context& context) const {
  // It sees what stands at the top of the template when it is called, and its arguments.
  Context* const root = &context;  // the template's own: the parser takes no macro within another
  context.scopes.back()[name] = Function{
      name, [this, root](const Arguments& given) -> Value {
        const Call call(*root);
        if (root->depth > kMostCalls) throw DataError("\"", name, "\" calls itself too often");
        if (given.positional.size() > parameters.size())
          throw DataError("\"", name, "\" takes ", parameters.size(), " arguments");
        for (const auto& argument : given.named) {
          if (std::ranges::find(parameters, argument.first, &Parameter::name) == parameters.end())
            throw DataError("\"", name, "\" has no argument \"", argument.first, "\"");
        }
        Context inner{.scopes = {root->scopes.front(), {}}};
        for (size_t i = 0; i < parameters.size(); ++i) {
          const Parameter& one = parameters[i];
          const Value* value = given.get(i, one.name);
          Value bound = value          ? *value
                        : one.fallback ? one.fallback->evaluate(inner)
                                       : Value(Undefined{"argument '" + one.name + "'"});
          inner.scopes.back()[one.name] = std::move(bound);
        }
        return text_of(body, inner);
      }};
  return Flow::kOn;
}

Flow Generation::run(Context& context) const {
  const size_t begin = context.out->size();
  const Flow flow = run_body(body, context);
  if (context.spans) context.spans->push_back({begin, context.out->size()});
  return flow;
}

}  // namespace praetor::jinja
