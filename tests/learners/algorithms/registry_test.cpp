#include "core/base/error.h"
#include "learners/algorithm.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("every registered algorithm is made from an empty section and knows its name",
          "[learners][cpu]") {
  for (const std::string& name : algorithm_names()) {
    auto document = YamlDocument::parse("stages: []");
    const auto algorithm = make_algorithm(name, {document->root().child(name)});
    CHECK(document->errors().empty());
    CHECK(algorithm->name() == name);
    CHECK_NOTHROW(algorithm->load_state_json(algorithm->state_json()));
    CHECK_FALSE(algorithm->accept({}).has_value());
  }
  CHECK(algorithm_names().size() >= 3);
}

TEST_CASE("an unknown algorithm is answered with the nearest one", "[learners][cpu]") {
  auto document = YamlDocument::parse("a: 1");
  CHECK_THROWS_WITH(make_algorithm("reward_modle", {document->root()}),
                    Catch::Contains("reward_model"));
  CHECK_THROWS_AS(make_algorithm("zzz", {document->root()}), InvalidArgument);
}

TEST_CASE("optimizer settings are read with their bounds", "[learners][cpu]") {
  auto document =
      YamlDocument::parse("learning_rate: 0\nschedule: cosin\nmin_ratio: 1\nbeta2: 0.95\n");
  const OptimizerConfig c = OptimizerConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 3);
  CHECK(c.beta2 == 0.95);
}

}  // namespace praetor
