#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "reward/judges/instruction_checks.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

/// The published checks guess the language of a few words at random; of a sentence they do not.
bool comparable(const std::string& id, const std::string& text) {
  const bool language = id.starts_with("language:") || id.starts_with("change_case:english");
  return !language || text.size() >= 48;
}

bool follows(const InstructionCheck& check, const std::vector<std::string>& texts) {
  return std::ranges::any_of(
      texts, [&](const std::string& text) { return check(text, Deadline::never()); });
}

}  // namespace

TEST_CASE("verdicts are those of the published checks on texts of our own", "[reward][cpu]") {
  const auto golden =
      nlohmann::json::parse(std::ifstream(testing::golden("instruction_following.json")));
  const auto responses = golden["responses"].get<std::vector<std::string>>();
  std::set<std::string> seen;
  size_t verdicts = 0, differ = 0;
  for (const auto& row : golden["instructions"]) {
    const auto id = row["id"].get<std::string>();
    const InstructionCheck check = make_instruction_check(id, row["arguments"]);
    seen.insert(id);
    for (size_t i = 0; i < responses.size(); ++i) {
      const std::string& text = responses[i];
      if (!comparable(id, text)) continue;
      const bool whole = !id.starts_with("language:");  // variants of a few lines are few words
      const bool blank = text.find_first_not_of(" \n") == std::string::npos;
      const bool strict = !blank && check(text, Deadline::never());
      const bool loose = follows(check, loose_variants(text));
      const bool same = strict == (row["strict"].get<std::string>()[i] == '1') &&
                        (!whole || loose == (row["loose"].get<std::string>()[i] == '1'));
      CAPTURE(id, row["arguments"].dump(), text, strict, loose);
      CHECK(same);
      ++verdicts;
      differ += !same;
    }
  }
  CHECK(seen.size() == instruction_ids().size());
  CHECK(verdicts > 7000);
  CHECK(differ == 0);
}

}  // namespace praetor
