#pragma once

#include "core/tokenizer/json_view.h"
#include "core/tokenizer/regex.h"

namespace praetor {

/// {"String": text} or {"Regex": pattern}, as Replace and Split hold them. @throws DataError
Regex read_pattern(const JsonView& json);

}  // namespace praetor
