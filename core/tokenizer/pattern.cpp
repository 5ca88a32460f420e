#include "core/tokenizer/pattern.h"

namespace praetor {

Regex read_pattern(const JsonView& json) {
  if (json.has("Regex")) {
    const JsonView pattern = json.at("Regex");
    return Regex(pattern.string(), pattern.place());
  }
  if (json.has("String")) {
    const JsonView text = json.at("String");
    return Regex::literal(text.string(), text.place());
  }
  json.fail("{\"String\": ...} or {\"Regex\": ...} is wanted");
}

}  // namespace praetor
