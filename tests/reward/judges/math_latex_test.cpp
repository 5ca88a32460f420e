#include "reward/judges/math_latex.h"

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("the last box with balanced braces is the answer", "[reward][cpu]") {
  CHECK(last_boxed("so \\boxed{5} or \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}");
  CHECK(last_boxed("\\fbox{7}") == "7");
  CHECK(last_boxed("\\boxed{1} \\fbox{7}") == "1");
  CHECK(last_boxed("\\boxed{\\{1,2\\}}") == "\\{1,2\\}");
  CHECK(last_boxed("\\boxed{a \\} b}") == "a \\} b");
  CHECK_FALSE(last_boxed("\\boxed{1"));
  CHECK_FALSE(last_boxed("\\boxed{1\\"));
  CHECK_FALSE(last_boxed("the box holds 5"));
  CHECK_FALSE(last_boxed(""));
}

TEST_CASE("ways to write one answer become one text", "[reward][cpu]") {
  const auto same = [](const char* a, const char* b) {
    INFO(a << " -> " << normalise_latex(a) << ", " << b << " -> " << normalise_latex(b));
    return normalise_latex(a) == normalise_latex(b);
  };
  CHECK(same("\\frac12", "0.5"));
  CHECK(same("x=5", "5"));
  CHECK(same("x = 5", "5"));
  CHECK(same("\\dfrac{1}{2}", "1/2"));
  CHECK(same("\\tfrac1{72}", "\\frac{1}{72}"));
  CHECK(same("\\left(3, \\frac{\\pi}{2}\\right)", "(3,\\frac{\\pi}{2})"));
  CHECK(same("90^\\circ", "90"));
  CHECK(same("90^{\\circ}", "90"));
  CHECK(same("\\$5", "5"));
  CHECK(same("50\\%", "50"));
  CHECK(same("12\\text{ cm}", "12"));
  CHECK(same("\\sqrt3", "\\sqrt{3}"));
  CHECK(same(".25", "0.25"));
  CHECK(same("1 +\n .5", "1+0.5"));
  CHECK(same("1{,}\\!000", "1{,}000"));
  CHECK(same("-1/2", "\\frac{-1}{2}"));
  CHECK_FALSE(same("\\frac12", "\\frac21"));
  CHECK_FALSE(same("xyz=5", "5"));  // a longer left side is part of the answer
  CHECK_FALSE(same("a/b", "\\frac{a}{b}"));
  CHECK_FALSE(same("1,2", "12"));
}

TEST_CASE("broken LaTeX is text like any other", "[reward][cpu]") {
  CHECK(normalise_latex("\\frac") == "\\frac");
  CHECK(normalise_latex("\\frac1") == "\\frac1");
  CHECK(normalise_latex("\\sqrt") == "\\sqrt");
  CHECK(normalise_latex("").empty());
  CHECK(normalise_latex("/") == "/");
  CHECK(normalise_latex("=") == "");
}

}  // namespace praetor
