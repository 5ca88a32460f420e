#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/random.h"
#include "core/tokenizer/jinja/template.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

using Catch::Matchers::Contains;
using Json = nlohmann::ordered_json;

std::string render(const std::string& source, const Json& variables = Json::object()) {
  return jinja::Template::parse(source, "t").render(variables).text;
}

Json golden_chat() {
  return Json::parse(read_file(testing::golden("chat.json")));
}

}  // namespace

TEST_CASE("templates give the text that transformers gives", "[core][cpu][tokenizer]") {
  int64_t refused = 0;
  const Json golden = golden_chat();
  for (const Json& one : golden["cases"]) {
    const auto source = one["template"].get<std::string>();
    INFO(source);
    if (one["text"].is_null()) {
      ++refused;
      CHECK_THROWS_AS(render(source, one["variables"]), DataError);
    } else {
      CHECK(render(source, one["variables"]) == one["text"].get<std::string>());
    }
  }
  CHECK(refused > 8);
}

TEST_CASE("what a template marks as generated is found", "[core][cpu][tokenizer]") {
  const auto out =
      jinja::Template::parse(
          "{% for m in m %}a{% generation %}{{ m }}{% endgeneration %}{% endfor %}", "t")
          .render({{"m", {"xy", "", "z"}}});
  CHECK(out.text == "axyaaz");
  CHECK(out.generation == std::vector<std::pair<size_t, size_t>>{{1, 3}, {4, 4}, {5, 6}});
}

TEST_CASE("what a template cannot do is refused with its line", "[core][cpu][tokenizer]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\nb\n{% include 'x' %}", "t: line 3: the tag \"include\" is not supported"},
      {"{{ x | frobnicate }}", "t: line 1: the filter \"frobnicate\" is not known"},
      {"\n{{ x is frobnicated }}", "t: line 2: the test \"frobnicated\" is not known"},
      {"{% for x in y recursive %}{% endfor %}", "\"recursive\" loops are not supported"},
      {"{% if x %}", "t: line 1: \"if\" has no \"endif\""},
      {"\n\n{{ x", "t: line 3: this tag has no end"},
      {"{{ 'x }}", "this string has no end"},
      {"{{ f(*x) }}", "not supported"},
      {"{% macro f() %}{% macro g() %}{% endmacro %}{% endmacro %}", "a macro within a macro"},
      {"{% break %}", "outside of a loop"},
      {"{{ 3 $ 4 }}", "'$' means nothing here"}};
  for (const auto& [source, message] : cases) {
    INFO(source);
    CHECK_THROWS_WITH(jinja::Template::parse(source, "t"), Contains(message));
  }
  CHECK_THROWS_WITH(render("a\n{{ raise_exception('no such role') }}"),
                    Contains("t: line 2: no such role"));
  CHECK_THROWS_WITH(render("{{ x.y }}"), Contains("t: line 1: 'x' is undefined"));
  CHECK_THROWS_WITH(render("{{ 'a' + 1 }}"), Contains("\"~\" does that"));
  CHECK_THROWS_WITH(render("{% for i in range(100001) %}{% endfor %}"), Contains("100000"));
  CHECK_THROWS_WITH(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
                    Contains("too often"));
  CHECK_THROWS_WITH(render("{{ 'x' * 2000000 }}"), Contains("too long"));
  CHECK_THROWS_WITH(render(str("{{ ", std::string(5000, '('), " }}")),
                    Contains("nested too deeply"));
  CHECK_THROWS_WITH(render("{{ 9223372036854775807 + 1 }}"), Contains("64-bit"));
}

TEST_CASE("a namespace that holds itself is no trouble", "[core][cpu][tokenizer]") {
  const std::string knot =
      "{% set a = namespace() %}{% set b = namespace() %}{% set a.x = b %}{% set b.x = a %}";
  CHECK(render(knot + "{{ a }} {{ a == b }} {{ [a] == [a] }}") == "<Namespace> False True");
  CHECK_THROWS_WITH(render(knot + "{{ a | tojson }}"), Contains("cannot be written as JSON"));
}

TEST_CASE("a template tells the time only where it is given", "[core][cpu][tokenizer]") {
  const std::string source =
      "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif "
      "%}";
  CHECK(render(source) == "26 Jul 2024");
  std::tm day{};
  day.tm_mday = 3;
  day.tm_mon = 1;
  day.tm_year = 125;
  CHECK(jinja::Template::parse(source, "t").render(Json::object(), day).text == "03 Feb 2025");
}

TEST_CASE("broken templates are refused or rendered, and nothing else", "[core][cpu][tokenizer]") {
  const Json cases = golden_chat()["cases"];
  for (uint64_t seed = 0; seed < 400; ++seed) {
    RandomStream stream({.job_seed = seed});
    const Json& one = cases[stream.below(cases.size())];
    auto source = one["template"].get<std::string>();
    for (uint64_t change = 0; change <= stream.below(4) && !source.empty(); ++change) {
      const size_t at = stream.below(source.size());
      constexpr std::string_view kSigns = "{}%#()[]|.'\"-+*/ =:,ifx0\n";
      switch (stream.below(3)) {
        case 0:
          source.erase(at, 1 + stream.below(5));
          break;
        case 1:
          source.insert(at, 1, kSigns[stream.below(kSigns.size())]);
          break;
        default:
          source.insert(at, source.substr(stream.below(source.size()), stream.below(20)));
      }
    }
    INFO(source);
    try {
      render(source, one["variables"]);
    } catch (const DataError& e) {
      CHECK_THAT(e.what(), Contains("t: line "));
    }
  }
}

}  // namespace praetor
