// Any bytes as a job file: parsing and reading either succeed or throw a ConfigError, in bounded
// time and memory, and what resolved() writes parses to itself. The first line, when it starts with
// '!', holds an override.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/config/yaml_reader.h"

namespace {

void read_section(praetor::YamlReader in, int depth) {
  using praetor::closed;
  in.get("number", 0.5, closed(0, 1));
  in.get("integer", 3, praetor::at_least(1));
  in.get("flag", true);
  in.get("text", "plain", {"plain", "chatml"});
  in.get("texts", std::vector<std::string>{"a"});
  in.get("integers", std::vector<int64_t>{});
  in.get("numbers", std::vector<double>{1e-5});
  in.get_optional_number("maybe");
  in.get_path("path");
  in.require_string("name");
  if (depth < 3) {
    read_section(in.child("child"), depth + 1);
    if (auto other = in.optional_child("other")) read_section(*other, depth + 1);
    for (const praetor::YamlReader& item : in.list("list")) read_section(item, depth + 1);
  }
  in.reject_unknown_keys();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  if (!text.empty() && text[0] == '!') {
    const size_t end = std::min(text.find('\n'), text.size());
    overrides.push_back(text.substr(1, end - 1));
    text.erase(0, end);
  }
  try {
    const auto document = praetor::YamlDocument::parse(text, "job.yaml", overrides);
    read_section(document->root(), 0);
    if (!document->errors().empty()) return 0;
    const std::string resolved = document->resolved();
    const auto again = praetor::YamlDocument::parse(resolved);
    read_section(again->root(), 0);
    if (!again->errors().empty() || again->resolved() != resolved) std::abort();
  } catch (const praetor::ConfigError&) {
  }
  return 0;
}
