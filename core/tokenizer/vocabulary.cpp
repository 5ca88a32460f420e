#include "core/tokenizer/vocabulary.h"

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

}  // namespace praetor
