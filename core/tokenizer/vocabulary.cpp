#include "core/tokenizer/vocabulary.h"

#include <cstdio>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

void Vocabulary::add(const std::string& token, int64_t id, const std::string& where) {
  const auto [place, fresh] = ids_.emplace(token, id);
  if (!fresh) {
    if (place->second == id) return;
    throw DataError(where,
                    ": token \"",
                    printable(token),
                    "\" has id ",
                    id,
                    ", but it has id ",
                    place->second,
                    " already");
  }
  const auto [owner, free] = tokens_.emplace(id, &place->first);
  if (!free) {
    throw DataError(where,
                    ": id ",
                    id,
                    " stands for two tokens, \"",
                    printable(*owner->second),
                    "\" and \"",
                    printable(token),
                    "\"");
  }
  if (id > highest_) highest_ = id;
}

std::array<int32_t, 256> byte_token_ids(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> out{};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    out[static_cast<size_t>(byte)] = static_cast<int32_t>(vocabulary.id(name).value_or(-1));
  }
  return out;
}

}  // namespace praetor
