#include "tests/core/tokenizer/varied_lines.h"

#include <sstream>

#include "core/base/fs.h"
#include "core/tokenizer/unicode.h"

namespace praetor::testing {

namespace {

using nlohmann::json;

constexpr int kMade = 3200;
constexpr int kLongest = 300;  // characters taken of a string

class Draws {
 public:
  uint64_t below(uint64_t n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % n;
  }
  void append_of(const json& ranges, std::string& out) {
    const json& range = ranges[below(ranges.size())];
    const auto low = range[0].get<uint32_t>();
    unicode::append(out, low + static_cast<char32_t>(below(range[1].get<uint32_t>() - low + 1)));
  }

 private:
  uint64_t state_ = 1;
};

std::string words_of_one_script(Draws& draws, const json& tables) {
  std::string out;
  const json one = json::array({tables["scripts"][draws.below(tables["scripts"].size())]});
  for (uint64_t words = 3 + draws.below(8); words > 0; --words) {
    for (uint64_t letters = 1 + draws.below(9); letters > 0; --letters) draws.append_of(one, out);
    out += ' ';
  }
  return out;
}

std::string scripts_mixed(Draws& draws, const json& tables) {
  std::string out;
  for (uint64_t count = 5 + draws.below(30); count > 0; --count) {
    draws.append_of(tables["scripts"], out);
    if (draws.below(6) == 0) out += ' ';
  }
  return out;
}

std::string combining_marks(Draws& draws, const json& tables) {
  std::string out;
  for (uint64_t count = 4 + draws.below(20); count > 0; --count) {
    draws.append_of(tables["scripts"], out);
    for (uint64_t marks = draws.below(4); marks > 0; --marks) draws.append_of(tables["marks"], out);
  }
  return out;
}

std::string one_thing_many_times(Draws& draws, const json& tables) {
  std::string unit, out;
  for (uint64_t count = 1 + draws.below(3); count > 0; --count) {
    const char* names[] = {"scripts", "odd", "signs", "emoji"};
    draws.append_of(tables[names[draws.below(4)]], unit);
  }
  for (uint64_t count = 2 + draws.below(120); count > 0; --count) out += unit;
  return out;
}

std::string tokens_spelled_out(Draws& draws, const json& words) {
  std::string out;
  for (uint64_t count = 3 + draws.below(15); count > 0; --count)
    out += words[draws.below(words.size())].get<std::string>();
  return out;
}

std::string characters_of(Draws& draws, const json& table) {
  std::string out;
  for (uint64_t count = 4 + draws.below(40); count > 0; --count) draws.append_of(table, out);
  return out;
}

std::string made_line(Draws& draws, int kind, const json& tables) {
  switch (kind) {
    case 0:
      return words_of_one_script(draws, tables);
    case 1:
      return scripts_mixed(draws, tables);
    case 2:
      return combining_marks(draws, tables);
    case 3:
      return characters_of(draws, tables["emoji"]);
    case 4:
      return characters_of(draws, tables["odd"]);
    case 5:
      return one_thing_many_times(draws, tables);
    case 6:
      return tokens_spelled_out(draws, tables["words"]);
    default:
      return characters_of(draws, tables["signs"]);
  }
}

void collect_strings(const json& value, std::vector<std::string>& out) {
  if (value.is_string()) {
    out.push_back(value.get<std::string>());
  } else if (value.is_structured()) {
    for (const json& each : value) collect_strings(each, out);  // members by name
  }
}

std::string beginning(const std::string& text) {
  size_t at = 0;
  for (int i = 0; i < kLongest && at < text.size(); ++i) unicode::next(text, at);
  return text.substr(0, at);
}

}  // namespace

std::vector<std::string> made_lines(const json& tables) {
  Draws draws;
  std::vector<std::string> out;
  for (int i = 0; i < kMade; ++i) out.push_back(made_line(draws, i % 8, tables));
  return out;
}

std::vector<std::string> data_lines(const json& tables, const std::filesystem::path& data) {
  std::vector<std::string> out;
  for (const json& entry : tables["files"]) {
    std::vector<std::string> strings;
    std::istringstream lines(read_file(data / entry[0].get<std::string>()));
    for (std::string line; std::getline(lines, line);) collect_strings(json::parse(line), strings);
    for (size_t i = 0; i < strings.size(); i += entry[1].get<size_t>())
      out.push_back(beginning(strings[i]));
  }
  return out;
}

uint32_t hash_ids(const std::vector<int64_t>& ids, uint32_t state) {
  for (const int64_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8)
      state = (state ^ ((static_cast<uint32_t>(id) >> shift) & 0xFF)) * 0x01000193u;
  }
  return state;
}

}  // namespace praetor::testing
