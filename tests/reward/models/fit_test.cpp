#include "reward/models/fit.h"

#include "core/base/error.h"
#include "tests/reward/language_model.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE(
    "a tokenizer with more tokens than the model knows is refused, and so is a length beyond "
    "its positions",
    "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  ModelConfig model = ModelConfig::load(folder.path());
  CHECK(fitting_tokenizer(folder.path(), model, 0) != nullptr);
  CHECK(fitting_tokenizer(folder.path(), model, model.max_positions) != nullptr);
  CHECK_THROWS_WITH(fitting_tokenizer(folder.path(), model, model.max_positions + 1),
                    str(folder.path().string(),
                        ": max_length ",
                        model.max_positions + 1,
                        " is more than the model's ",
                        model.max_positions,
                        " positions"));
  model.vocab_size = 2;
  CHECK_THROWS_WITH(fitting_tokenizer(folder.path(), model, 0),
                    Catch::EndsWith(" tokens, the model's embedding 2"));
}

TEST_CASE("what cannot be read says how long it is", "[reward][cpu]") {
  CHECK(length_error(0, 4, "the question is empty") == "the question is empty");
  CHECK(length_error(1, 4, "none").empty());
  CHECK(length_error(4, 4, "none").empty());
  CHECK(length_error(5, 4, "none") == "5 tokens, more than max_length 4");
}

}  // namespace praetor
