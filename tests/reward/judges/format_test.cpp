#include "core/base/error.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;

TEST_CASE("a response is JSON or it is not", "[reward][cpu]") {
  const auto judge = make("format", "{}");
  for (const char* text : {"{}", " [1, 2.5e3, \"a\"]\n", "null", "3"}) {
    CAPTURE(text);
    CHECK(judged(*judge, response(text)).score == 1.0);
    CHECK(judged(*judge, response(text)).passed == true);
    CHECK(judged(*judge, response(text)).reason == "JSON");
  }
  for (const char* text :
       {"", " ", "{a: 1}", "{\"a\": 1,}", "[1] [2]", "NaN", "```\n{}\n```", "'a'"}) {
    CAPTURE(text);
    CHECK(judged(*judge, response(text)).score == 0.0);
    CHECK(judged(*judge, response(text)).passed == false);
  }
  CHECK_THAT(judged(*judge, response("{a: 1}")).reason,
             Catch::StartsWith("not JSON: parse error at line 1, column 2: "));
  CHECK(judged(*judge, response(std::string(100'000, '['))).passed == false);
}

TEST_CASE("the JSON may stand in a code fence", "[reward][cpu]") {
  const auto fence = make("format", "{part: fence}");
  const auto either = make("format", "{part: either}");
  const std::string fenced = "Here it is:\n```json\n{\"a\":\n 1}\n```\nDone.";
  CHECK(judged(*fence, response(fenced)).passed == true);
  CHECK(judged(*either, response(fenced)).passed == true);
  CHECK(judged(*make("format", "{}"), response(fenced)).passed == false);
  CHECK(judged(*fence, response("```\n1\n```\n```\nx\n```")).passed == true);  // the first one
  CHECK(judged(*fence, response("```\nx\n```\n```\n1\n```")).passed == false);
  CHECK(judged(*fence, response("  ```\n 1\n  ```  ")).passed == true);
  CHECK(judged(*fence, response("```\n```")).passed == false);  // nothing in it
  CHECK(judged(*fence, response("{}")).reason == "there is no code fence");
  CHECK(judged(*fence, response("```json\n{}")).reason == "there is no code fence");
  CHECK(judged(*either, response("{}")).passed == true);
}

TEST_CASE("a schema of the job is satisfied or what is wrong is named", "[reward][cpu]") {
  const auto judge = make("format",
                          "schema: '{\"type\": \"object\", \"required\": [\"name\"], "
                          "\"properties\": {\"age\": {\"minimum\": 0}}}'");
  CHECK(judged(*judge, response(R"({"name": "A", "age": 3})")).reason == "satisfies the schema");
  CHECK(judged(*judge, response(R"({"age": 3})")).reason == "/: \"name\" is missing");
  CHECK(judged(*judge, response(R"({"name": "A", "age": -3})")).reason == "/age: -3 is not >= 0");
  CHECK(judged(*judge, response("[]")).passed == false);
  CHECK(judged(*judge, response("nothing")).passed == false);
}

TEST_CASE("a schema of the row is JSON, or JSON in a text", "[reward][cpu]") {
  const auto judge = make("format", "{schema_field: metadata.form}");
  CHECK(judged(*judge, response("3", R"({"form": {"type": "integer"}})")).passed == true);
  CHECK(judged(*judge, response("\"3\"", R"({"form": {"type": "integer"}})")).passed == false);
  CHECK(judged(*judge, response("3", R"({"form": "{\"type\": \"integer\"}"})")).passed == true);
  CHECK_THROWS_WITH(judged(*judge, response("3", R"({"form": {"anyOf": []}})")),
                    "metadata.form: schema /: unknown keyword \"anyOf\"");
  CHECK_THROWS_WITH(judged(*judge, response("3", R"({"form": "{"})")),
                    Catch::StartsWith("metadata.form: not JSON: parse error"));
  CHECK_THROWS_WITH(judged(*judge, response("3")), "the row has no field metadata.form");
  CHECK(judged(*make("format", "{schema_field: metadata.form, missing: skip}"), response("3"))
            .not_applicable);
}

}  // namespace praetor
