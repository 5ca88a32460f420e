#include "reward/judges/math_numbers.h"

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("what stands around a number is removed", "[reward][cpu]") {
  CHECK(normalise_number("1,234.", "####") == "1234");
  CHECK(normalise_number("$18.00", "####") == "18.00");
  CHECK(normalise_number("-$5", "####") == "-5");
  CHECK(normalise_number("He pays 3.\n#### 1,000\n", "####") == "1000");
  CHECK(normalise_number("9 * 2 = 18\nA: 18", "A:") == "18");
  CHECK(normalise_number("#### 1 #### 2", "####") == "2");
  CHECK(normalise_number("18..", "####") == "18.");  // one point, no more
  CHECK(normalise_number("", "####").empty());
  CHECK(normalise_number(".", "####").empty());
}

TEST_CASE("numbers are compared by value", "[reward][cpu]") {
  for (const auto& [a, b] :
       {std::pair{"18.0", "18"},
        {"18.", "18"},
        {"018", "18"},
        {".5", "0.5"},
        {"-0", "0"},
        {"1/2", "0.5"},
        {"2/4", "1/2"},
        {"-1/2", "-0.5"},
        {"6/3", "2"},
        {"0.1/0.2", "0.5"},
        {"1/-2", "-0.5"},
        {"abc", "abc"},
        {"0.3333333", "1/3"},
        {"3.1415926", "3.14159265"},
        {"123456789012345678901234567890.0", "123456789012345678901234567890"}}) {
    INFO(a << " and " << b);
    CHECK(same_number(a, b));
    CHECK(same_number(b, a));
  }
  for (const auto& [a, b] : {std::pair{"18", "19"},
                             {"5", "-5"},
                             {"1/2", "1"},
                             {"1/2", "2"},
                             {"0.333", "1/3"},
                             {"1/0", "1"},
                             {"1e3", "1000"},
                             {"0x10", "16"},
                             {"inf", "1e999"},
                             {"nan", "NaN"},
                             {"", "0"},
                             {"-", "0"},
                             {".", "0"},
                             {"18a", "18"},
                             {"1.2.3", "1.2"},
                             {" 18", "18"},
                             {"1000001", "1000000"},
                             {"100000000000000000000000000001", "100000000000000000000000000000"},
                             {"18.01", "18"}}) {
    INFO(a << " and " << b);
    CHECK_FALSE(same_number(a, b));
    CHECK_FALSE(same_number(b, a));
  }
}

TEST_CASE("the tolerance is a millionth, relative above 1", "[reward][cpu]") {
  CHECK(same_number("0.5000009", "0.5"));
  CHECK_FALSE(same_number("0.5000011", "0.5"));
  CHECK(same_number("1000.0009", "1000"));
  CHECK_FALSE(same_number("1000.0011", "1000"));
}

}  // namespace praetor
