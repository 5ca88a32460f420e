#include "core/config/yaml_reader.h"

#include <cmath>
#include <optional>
#include <set>
#include <string>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

/// The errors that `read` makes of `text`, a line each.
template <typename Read>
std::string errors_of(const std::string& text, const Read& read) {
  const auto document = YamlDocument::parse(text);
  read(document->root());
  return join(document->errors(), "\n");
}

}  // namespace

TEST_CASE("values are read as their types and absent keys take the default", "[core][cpu]") {
  const auto document = YamlDocument::parse(
      "int: -7\nplus: +3\nnumber: 1e-3\nwhole: 2\non: true\ntext: hello world\nyear: 2024\n"
      "quoted: \"5\"\nblock: |\n  two\n  lines\ntexts: [a, \"b c\"]\nints: [1, 2]\nnumbers: [1, "
      ".5]\n");
  YamlReader in = document->root();
  CHECK(in.get("int", 0) == -7);
  CHECK(in.get("plus", int64_t{0}) == 3);
  CHECK(in.get("number", 0.0) == 1e-3);
  CHECK(in.get("whole", 0.0) == 2.0);
  CHECK(in.get("on", false));
  CHECK(in.get("text", "x") == "hello world");
  CHECK(in.get("year", "x") == "2024");
  CHECK(in.get("quoted", "x") == "5");
  CHECK(in.get("block", "x") == "two\nlines\n");
  CHECK(in.get("texts", std::vector<std::string>{}) == std::vector<std::string>{"a", "b c"});
  CHECK(in.get("ints", std::vector<int64_t>{}) == std::vector<int64_t>{1, 2});
  CHECK(in.get("numbers", std::vector<double>{}) == std::vector<double>{1.0, 0.5});
  CHECK(in.get("absent", 0.25) == 0.25);
  CHECK(in.get("clip", INFINITY) == INFINITY);
  CHECK_FALSE(in.get_optional_number("none"));
  CHECK(in.get_optional_integer("int") == -7);
  CHECK(in.get_optional_string("text") == "hello world");
  in.reject_unknown_keys();
  CHECK(document->errors().empty());
}

TEST_CASE("a wrong type is told with its place, what it is and what is wanted", "[core][cpu]") {
  const std::string text =
      "a: 1.5\nb: \"5\"\nc: true\nd: 1\ne:\nf: [1]\ng: {x: 1}\nh: yes\ni: 99999999999999999999\nj: "
      "1e999\n"
      "k: .nan\nl: .inf\nm: [1, two, 3.5]\nn: false\no: 3\n";
  const auto found = errors_of(text, [](YamlReader in) {
    CHECK(in.get("a", 3) == 3);
    in.get("b", 3);
    in.get("c", 3);
    in.get("d", true);
    in.get("e", 1.0);
    in.get("f", 1);
    in.get("g", "x");
    in.get("h", true);
    in.get("i", 1);
    in.get("j", 1.0);
    in.get("k", 1.0);
    in.get("l", 1.0);
    CHECK(in.get("m", std::vector<int64_t>{}) == std::vector<int64_t>{1});
    in.get("n", "x");
    in.get("o", std::vector<double>{});
  });
  CHECK(found ==
        "job.yaml:1:4: a: 1.5 is a fraction, but a whole number is wanted\n"
        "job.yaml:2:4: b: \"5\" is text, but a whole number is wanted\n"
        "job.yaml:3:4: c: true is a boolean, but a whole number is wanted\n"
        "job.yaml:4:4: d: 1 is a number, but true or false is wanted\n"
        "job.yaml:5:1: e: has no value, but a number is wanted\n"
        "job.yaml:6:4: f: is a list, but a whole number is wanted\n"
        "job.yaml:7:4: g: is a mapping, but text is wanted\n"
        "job.yaml:8:4: h: \"yes\" is text, but true or false is wanted\n"
        "job.yaml:9:4: i: 99999999999999999999 does not fit into 64 bits\n"
        "job.yaml:10:4: j: 1e999 is beyond the range of a double\n"
        "job.yaml:11:4: k: not a number (.nan), but a number is wanted\n"
        "job.yaml:12:4: l: infinite, but a finite number is wanted\n"
        "job.yaml:13:8: m[1]: \"two\" is text, but a whole number is wanted\n"
        "job.yaml:13:13: m[2]: 3.5 is a fraction, but a whole number is wanted\n"
        "job.yaml:14:4: n: false is a boolean, but text is wanted\n"
        "job.yaml:15:4: o: 3 is a number, but a list of numbers is wanted");
}

TEST_CASE("ranges include exactly the ends they say", "[core][cpu]") {
  CHECK_FALSE(open(0, 1).holds(0));
  CHECK_FALSE(open(0, 1).holds(1));
  CHECK(left_open(0, 1).holds(1));
  CHECK_FALSE(left_open(0, 1).holds(0));
  CHECK(closed(0, 1).holds(0));
  CHECK(at_least(1).holds(1));
  CHECK_FALSE(greater_than(1).holds(1));
  CHECK_FALSE(at_least(0).holds(std::nan("")));
  const auto found =
      errors_of("ppo:\n  clip_low: 1.7\n  epochs: 0\n  rate: 0\n", [](YamlReader in) {
        YamlReader ppo = in.child("ppo");
        ppo.get("clip_low", 0.2, open(0, 1));
        ppo.get("epochs", 4, at_least(1));
        ppo.get("rate", 1e-5, greater_than(0));
      });
  CHECK(found ==
        "job.yaml:2:13: ppo.clip_low: 1.7 is outside (0, 1)\n"
        "job.yaml:3:11: ppo.epochs: 0 is not >= 1\n"
        "job.yaml:4:9: ppo.rate: 0 is not > 0");
}

TEST_CASE("unknown keys and words name their nearest neighbour", "[core][cpu]") {
  const auto found =
      errors_of("kind: pp\nother: zebra\nppo:\n  clip_hgih: 1\n  zebra: 2\nstages:\n  - nme: x\n",
                [](YamlReader in) {
                  in.get("kind", "sft", {"sft", "ppo"});
                  in.get("other", "sft", {"sft", "ppo"});
                  YamlReader ppo = in.child("ppo");
                  ppo.get("clip_low", 0.2);
                  ppo.get("clip_high", 0.2);
                  ppo.reject_unknown_keys();
                  for (YamlReader stage : in.list("stages")) {
                    stage.require_string("name");
                    stage.reject_unknown_keys();
                  }
                  in.reject_unknown_keys();
                });
  CHECK(found ==
        "job.yaml:1:7: kind: unknown value \"pp\", did you mean \"ppo\"? (one of sft, ppo)\n"
        "job.yaml:2:8: other: unknown value \"zebra\"; one of sft, ppo is wanted\n"
        "job.yaml:4:3: ppo: unknown key \"clip_hgih\", did you mean \"clip_high\"?\n"
        "job.yaml:5:3: ppo: unknown key \"zebra\"; known here: clip_low, clip_high\n"
        "job.yaml:7:5: stages[0]: missing key \"name\"; text is wanted\n"
        "job.yaml:7:5: stages[0]: unknown key \"nme\", did you mean \"name\"?");
}

TEST_CASE("sections of the wrong shape are told, and read as their defaults", "[core][cpu]") {
  const auto found =
      errors_of("ppo: 5\nlist: {a: 1}\nitems: [1, {a: 2}]\nempty:\n", [](YamlReader in) {
        CHECK(in.child("ppo").get("epochs", 4) == 4);
        CHECK(in.list("list").empty());
        const auto items = in.list("items");
        REQUIRE(items.size() == 1);
        CHECK(items[0].path() == "items[1]");
        CHECK(in.child("empty").get("x", 1) == 1);
        CHECK_FALSE(in.optional_child("none"));
        CHECK(in.keys() == std::vector<std::string>{"ppo", "list", "items", "empty"});
        in.error_at("none", "is sorely missed");
        in.child("absent").error_at("", "has no place of its own");
      });
  CHECK(found ==
        "job.yaml:1:1: none: is sorely missed\n"
        "job.yaml:1:1: absent: has no place of its own\n"
        "job.yaml:1:6: ppo: 5 is a number, but a mapping is wanted\n"
        "job.yaml:2:7: list: is a mapping, but a list is wanted\n"
        "job.yaml:3:9: items[0]: 1 is a number, but a mapping is wanted");
}

TEST_CASE("a value of any shape is read as JSON", "[core][cpu]") {
  const auto document = YamlDocument::parse(
      "a: {z: [1, -2, +3, 1.50, .5, 1e3, true, null, ~, text, '1', \"q\\n\"], a: {}, 'b c': []}\n"
      "n:\nt: 5\n");
  YamlReader root = document->root();
  CHECK(root.get_optional_json("a") ==
        R"({"z":[1,-2,3,1.5,0.5,1000.0,true,null,null,"text","1","q\n"],"a":{},"b c":[]})");
  CHECK(root.get_optional_json("n") == "null");
  CHECK(root.get_optional_json("t") == "5");
  CHECK(root.get_optional_json("absent") == std::nullopt);
  root.reject_unknown_keys();
  CHECK(document->errors().empty());
  CHECK(document->asked_keys() ==
        std::set<std::string>{"a", "a.z", "a.a", "a.b c", "n", "t", "absent"});
  const auto broken = YamlDocument::parse("a: [1, .inf]\n");
  CHECK(broken->root().get_optional_json("a") == std::nullopt);
  CHECK(broken->errors().size() == 1);
}

TEST_CASE("paths are taken from the folder of the job file", "[core][cpu]") {
  const auto document =
      YamlDocument::parse("a: data/../x.jsonl\nb: /abs/y\nc: \"\"\n", "/jobs/deep/job.yaml");
  YamlReader in = document->root();
  CHECK(in.get_path("a") == "/jobs/deep/x.jsonl");
  CHECK(in.require_path("b") == "/abs/y");
  CHECK(in.get_path("none").empty());
  CHECK(document->errors().empty());
  CHECK(in.get_path("c").empty());
  CHECK(in.require_path("d").empty());
  CHECK(join(document->errors(), "\n") ==
        "/jobs/deep/job.yaml:1:1: missing key \"d\"; a path is wanted\n"
        "/jobs/deep/job.yaml:3:4: c: empty, but a path is wanted");
  CHECK(document->resolved() == "a: /jobs/deep/x.jsonl\nb: /abs/y\nc: \"\"\n");
  CHECK(in.label("a") == "/jobs/deep/job.yaml:1:4: a");
}

}  // namespace praetor
