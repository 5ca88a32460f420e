#include "core/data/text_template.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

TextTemplate TextTemplate::from_yaml(YamlReader& in,
                                     const std::string& key,
                                     const std::vector<std::string>& known) {
  TextTemplate out = parse(in.require_string(key));
  for (const auto& [plain, name] : out.pieces_) {
    if (name.empty() || std::ranges::find(known, name) != known.end()) continue;
    in.error_at(
        key, str("there is no {", printable(name), "}; known here: {", join(known, "}, {"), "}"));
  }
  return out;
}

TextTemplate TextTemplate::parse(const std::string& text) {
  TextTemplate out;
  std::string plain;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text[at] == '{'
                           ? text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", at + 1)
                           : std::string::npos;
    if (end == std::string::npos || text[end] != '}' || end == at + 1) {
      plain += text[at++];
      continue;
    }
    std::string name = text.substr(at + 1, end - at - 1);
    out.pieces_.emplace_back(std::move(plain), std::move(name));
    plain.clear();
    at = end + 1;
  }
  out.pieces_.emplace_back(std::move(plain), "");
  return out;
}

bool TextTemplate::holds(const std::string& name) const {
  return std::ranges::any_of(pieces_, [&](const auto& piece) { return piece.second == name; });
}

std::string TextTemplate::fill(const std::map<std::string, std::string>& values) const {
  std::string out;
  for (const auto& [plain, name] : pieces_) {
    out += plain;
    if (name.empty()) continue;
    const auto found = values.find(name);
    PRAETOR_CHECK(found != values.end(), "a template's {", name, "} has no value");
    out += found->second;
  }
  return out;
}

}  // namespace praetor
