#pragma once

#include <vector>

#include "core/model/kernels/table.h"

namespace praetor::ops::kernels {

enum class Isa { kScalar, kAvx2, kAvx512 };

/// What this processor can run, best first; kScalar is always last.
std::vector<Isa> available_isas();

/// The loops in use: the best available until `use_isa` says otherwise.
const Table& table();

/// For tests and the self-check: all results are the same whichever is chosen. @throws
/// InvalidArgument when the processor lacks it.
void use_isa(Isa isa);
Isa isa_in_use();

}  // namespace praetor::ops::kernels
