#pragma once

#include "core/ledger/sqlite.h"

namespace praetor {

/// Makes the tables of an empty database, or checks that the ones there are ours and of this
/// version.
/// @throws DataError
void prepare_schema(Database& database, bool writable);

}  // namespace praetor
