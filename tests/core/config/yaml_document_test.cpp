#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/config/yaml_reader.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

/// The message of the ConfigError that parsing makes; "" when it makes none.
std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    YamlDocument::parse(text, "job.yaml", overrides);
  } catch (const ConfigError& error) {
    CHECK(error.exit_status() == kExitBadJob);
    return error.what();
  }
  return "";
}

/// Ten levels of ten aliases each: 10^10 values when expanded.
std::string alias_bomb() {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string alias = str("*a", i - 1);
    text += str("a", i, ": &a", i, " [", alias);
    for (int k = 0; k < 9; ++k) text += ", " + alias;
    text += "]\n";
  }
  return text;
}

void read_sections(YamlReader in) {
  in.get("seed", 1);
  in.get("rate", 1e-5);
  YamlReader ppo = in.child("ppo");
  ppo.get("clip_low", 0.2);
  ppo.get("epochs", 4);
  ppo.get("stop", std::vector<std::string>{"\n", "no"});
  ppo.get("empty", std::vector<int64_t>{});
  ppo.get("template", "plain");
  for (YamlReader stage : in.list("stages")) {
    stage.get("name", "x y: z");
    stage.get("clip", 1e300 * 1e10);
    stage.child("nothing");
  }
}

}  // namespace

TEST_CASE("what is not one YAML mapping is refused with its place", "[core][cpu]") {
  CHECK(refusal("") == "job.yaml:1:1: is empty; lines \"key: value\" are wanted");
  CHECK(refusal("# only a comment\n") == "job.yaml:1:1: is empty; lines \"key: value\" are wanted");
  CHECK(refusal("- a\n- b\n") == "job.yaml:1:1: is a list, but lines \"key: value\" are wanted");
  CHECK(refusal("just words\n") ==
        "job.yaml:1:1: is one value, but lines \"key: value\" are wanted");
  CHECK(refusal("a: 1\n---\nb: 2\n") ==
        "job.yaml:2:1: a second document starts here; a job file holds one");
  CHECK(refusal("a: [1, 2\nb: 3\n").find("job.yaml:2:2: not valid YAML: ") == 0);
  CHECK(refusal("a:\n\tb: 1\n") == "job.yaml:2:1: a tab in the indentation; YAML wants spaces");
  CHECK(refusal("a: 1\nb: \xff\xfe\n") == "job.yaml:2:4: not valid UTF-8; save the file as UTF-8");
  CHECK(refusal(std::string("a: 1\nb: x\0y\n", 12)) ==
        "job.yaml:2:5: a control character; YAML text has none");
  CHECK(refusal("a: 1\nb: 2\na: 3\n") ==
        "job.yaml:3:1: duplicate key \"a\", first given in line 1");
  CHECK(refusal("p:\n  x: 1\n  x: {y: 2, y: 3}\nq: [{z: 1, z: 2}]\n") ==
        "job.yaml:3:3: p: duplicate key \"x\", first given in line 2\n"
        "job.yaml:3:13: p.x: duplicate key \"y\", first given in line 3\n"
        "job.yaml:4:12: q[0]: duplicate key \"z\", first given in line 4");
  CHECK(refusal("? [a, b]\n: 1\n") ==
        "job.yaml:1:3: a key must be a word, not a list or mapping (or a bracket is not closed)");
  CHECK(refusal("a: &x {b: 1}\nc:\n  <<: *x\n") ==
        "job.yaml:3:3: merge keys (<<) are not supported; write the keys out");
  CHECK(refusal("a: !!python/object:os.system x\n").find("job.yaml:1:4: the tag \"") == 0);
  CHECK(refusal("a: &x [*x]\n") == "job.yaml:1:8: an alias to a node that contains it");
  CHECK(refusal("a: *none\n").find("job.yaml:1:4: not valid YAML: ") == 0);
  CHECK(refusal(alias_bomb()).find("more than 100000 values once aliases are expanded") !=
        std::string::npos);
  CHECK(refusal(str("a: ", std::string(100, '['), std::string(100, ']')))
            .find("nested more than 64 levels deep") != std::string::npos);
  CHECK(refusal(str(std::string(300, 'k'), ": 1\n")) ==
        "job.yaml:1:1: a key of 300 bytes; at most 200 are allowed");
  CHECK(refusal(str("a: 1\n", std::string(1 << 20, '#'))) ==
        "job.yaml: larger than 1 MiB, too large for a job file");
}

TEST_CASE("a missing job file is missing input, and a large one a bad job", "[core][cpu]") {
  const testing::TempDir dir;
  CHECK_THROWS_AS(YamlDocument::load(dir / "none.yaml"), MissingInput);
  write_file_atomic(dir / "big.yaml", str("a: 1\n", std::string(1 << 20, '#')));
  CHECK_THROWS_AS(YamlDocument::load(dir / "big.yaml"), ConfigError);
  write_file_atomic(dir / "ok.yaml", "a: 1\r\nb: 2\r\n");
  CHECK(YamlDocument::load(dir / "ok.yaml")->root().get("b", 0) == 2);
}

TEST_CASE("an alias stands for a copy of what its anchor names", "[core][cpu]") {
  const auto document =
      YamlDocument::parse("a: &x {rate: 1.5}\nb: *x\n", "job.yaml", {"a.rate=2.5"});
  CHECK(document->root().child("a").get("rate", 0.0) == 2.5);
  CHECK(document->root().child("b").get("rate", 0.0) == 1.5);
  document->root().child("b").get("rate", 1);
  CHECK(document->errors()[0] ==
        "job.yaml:1:14: b.rate: 1.5 is a fraction, but a whole number is wanted");
}

TEST_CASE("an override reaches keys, items by index and items by name", "[core][cpu]") {
  const std::string text =
      "seed: 1\nstages:\n  - kind: sft\n  - kind: ppo\n    sampling:\n      temperature: 1.0\n  - "
      "{kind: ppo, name: second}\n";
  const auto document = YamlDocument::parse(text,
                                            "job.yaml",
                                            {"seed=7",
                                             "stages[0].steps=5",
                                             "stages.ppo.sampling.temperature=0.7",
                                             "stages.second.deep.new=[1, 2]",
                                             "seed=8"});
  YamlReader in = document->root();
  CHECK(in.get("seed", 0) == 8);
  const auto stages = in.list("stages");
  CHECK(YamlReader(stages[0]).get("steps", 0) == 5);
  CHECK(YamlReader(stages[1]).child("sampling").get("temperature", 0.0) == 0.7);
  CHECK(YamlReader(stages[2]).child("deep").get("new", std::vector<int64_t>{}) ==
        std::vector<int64_t>{1, 2});
  in.get("seed", 0, at_least(100));
  CHECK(document->errors()[0] == "--set seed=8: seed: 8 is not >= 100");
}

TEST_CASE("overrides that cannot be applied are all named", "[core][cpu]") {
  const std::string text = "seed: 1\nstages: [{name: sft}, {kind: ppo}]\n";
  CHECK(refusal(text,
                {"seed",
                 "a..b=1",
                 "=1",
                 "[0]=1",
                 "a[x]=1",
                 "a.=1",
                 "stages[2].x=1",
                 "stages.dpo.x=1",
                 "seed.x=1",
                 "seed[0]=1",
                 "seed=[1",
                 "seed={a: 1, a: 2}"}) ==
        "--set seed: no \"=\"; an override is written key=value\n"
        "--set a..b=1: \"a..b\" is not a path of keys like a.b[2].c\n"
        "--set =1: \"\" is not a path of keys like a.b[2].c\n"
        "--set [0]=1: \"[0]\" is not a path of keys like a.b[2].c\n"
        "--set a[x]=1: \"a[x]\" is not a path of keys like a.b[2].c\n"
        "--set a.=1: \"a.\" is not a path of keys like a.b[2].c\n"
        "--set stages[2].x=1: stages has 2 items; the first is [0]\n"
        "--set stages.dpo.x=1: stages has no item named \"dpo\"; its items: sft, ppo\n"
        "--set seed.x=1: seed is 1, not a mapping that could hold \"x\"\n"
        "--set seed[0]=1: seed is not a list\n"
        "--set seed=[1: a key must be a word, not a list or mapping (or a bracket is not closed)\n"
        "--set seed={a: 1, a: 2}: duplicate key \"a\", first given in line 1");
}

TEST_CASE("the resolved document holds every default and parses to itself", "[core][cpu]") {
  const std::string text =
      "stages:\n  - {}\n  - {name: \"7\", note: [a, {b: null}]}\nppo: {epochs: 2}\nrate: 3e-4\n";
  const auto first = YamlDocument::parse(text);
  read_sections(first->root());
  CHECK(first->errors().empty());
  CHECK(first->resolved() ==
        "seed: 1\n"
        "rate: 3e-4\n"
        "ppo:\n"
        "  clip_low: 0.2\n"
        "  epochs: 2\n"
        "  stop: [\"\\n\", \"no\"]\n"
        "  empty: []\n"
        "  template: plain\n"
        "stages:\n"
        "  - name: \"x y: z\"\n"
        "    clip: .inf\n"
        "    nothing: {}\n"
        "  - name: \"7\"\n"
        "    clip: .inf\n"
        "    nothing: {}\n"
        "    note:\n"
        "      - a\n"
        "      - b: null\n");
  const auto second = YamlDocument::parse(first->resolved());
  read_sections(second->root());
  CHECK(second->errors().empty());
  CHECK(second->resolved() == first->resolved());
  CHECK(YamlReader(second->root().list("stages")[1]).get("name", "") == "7");
}

TEST_CASE("all errors of a document are thrown together, in the order of the file", "[core][cpu]") {
  const auto document = YamlDocument::parse("a: x\nb: y\n");
  YamlReader in = document->root();
  in.get("b", 1);
  in.get("a", 1);
  in.get("a", 1);
  CHECK_THROWS_WITH(document->throw_if_errors(),
                    "job.yaml:1:4: a: \"x\" is text, but a whole number is wanted\n"
                    "job.yaml:2:4: b: \"y\" is text, but a whole number is wanted");
  CHECK(document->asked_keys() == std::set<std::string>{"a", "b"});
  CHECK(document->given_keys() == std::set<std::string>{"a", "b"});
}

}  // namespace praetor
