#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/tokenizer/json_view.h"

namespace praetor {

/// A step that rewrites text before it is cut (`normalizer` of a tokenizer.json). Immutable; any
/// thread.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string_view text) const = 0;
};

/// NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Precompiled, Prepend, Replace, Strip and
/// Sequence; null for a null. @throws DataError naming any other.
std::unique_ptr<Normalizer> make_normalizer(const JsonView& json);

}  // namespace praetor
