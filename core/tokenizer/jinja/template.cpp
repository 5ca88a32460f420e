#include "core/tokenizer/jinja/template.h"

#include <array>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/tokenizer/jinja/ast.h"

namespace praetor::jinja {
namespace {

constexpr int64_t kMostRange = 100000;  // as Jinja's sandbox

Value make_namespace(const Arguments& a) {
  Dict out;
  if (!a.positional.empty() && a.positional[0].dict()) out.items = a.positional[0].dict()->items;
  for (const auto& [name, value] : a.named) out.set(name, value);
  out.is_namespace = true;
  return out;
}

Value make_dictionary(const Arguments& a) {
  Dict out;
  for (const auto& [name, value] : a.named) out.set(name, value);
  return out;
}

Value range(const Arguments& a) {
  std::array<int64_t, 3> part{0, 0, 1};
  if (a.positional.empty() || a.positional.size() > 3)
    throw DataError("\"range\" takes 1 to 3 integers");
  for (size_t i = 0; i < a.positional.size(); ++i) {
    if (!a.positional[i].is_integer()) throw DataError("\"range\" takes integers");
    part[i] = a.positional[i].integer();
  }
  if (a.positional.size() == 1) part = {0, part[0], 1};
  if (part[2] == 0) throw DataError("\"range\" cannot step by 0");
  std::vector<Value> out;
  for (int64_t i = part[0]; part[2] > 0 ? i < part[1] : i > part[1];) {
    if (static_cast<int64_t>(out.size()) == kMostRange)
      throw DataError("\"range\" has more than ", kMostRange, " numbers");
    out.emplace_back(i);
    if (__builtin_add_overflow(i, part[2], &i)) break;
  }
  return out;
}

Value raise(const Arguments& a) {
  throw DataError(a.positional.empty() ? "the template raised an exception"
                                       : a.positional[0].text());
}

Value time_text(const std::tm& now, const Arguments& a) {
  if (a.positional.size() != 1 || !a.positional[0].string())
    throw DataError("\"strftime_now\" takes a format");
  std::array<char, 256> buffer{};
  const size_t length =
      std::strftime(buffer.data(), buffer.size(), a.positional[0].string()->c_str(), &now);
  return std::string(buffer.data(), length);
}

}  // namespace

struct Template::Impl {
  std::string name;
  Body body;
};

Template::Template(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

Template Template::parse(const std::string& source, std::string name) {
  try {
    return Template(std::make_unique<Impl>(name, jinja::parse(source)));
  } catch (const DataError& e) {
    throw DataError(name, ": ", e.what());
  }
}

Template::Rendered Template::render(const nlohmann::ordered_json& variables,
                                    std::optional<std::tm> now) const {
  Rendered out;
  std::vector<Span> spans;
  Context context{.scopes = {{}}, .out = &out.text, .spans = &spans};
  auto& names = context.scopes[0];
  const auto function = [&](const char* name, std::function<Value(const Arguments&)> call) {
    names[name] = Function{name, std::move(call)};
  };
  function("namespace", make_namespace);
  function("dict", make_dictionary);
  function("range", range);
  function("raise_exception", raise);
  if (now) {
    function("strftime_now", [at = *now](const Arguments& a) { return time_text(at, a); });
  }
  for (const auto& [name, value] : variables.items()) names[name] = Value::from_json(value);
  try {
    run_body(impl_->body, context);
  } catch (const DataError& e) {
    throw DataError(impl_->name, ": ", e.what());
  }
  for (const Span& span : spans) out.generation.emplace_back(span.begin, span.end);
  return out;
}

}  // namespace praetor::jinja
