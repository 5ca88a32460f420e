#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace praetor {

/// Guesses how a sequence goes on: as it did the last time its last 2 to 4 tokens stood in it
/// (prompt lookup decoding). Guesses cost rows of a step, never a token: each is drawn as if there
/// had been no guess, and what does not meet its guess ends the row of them.
/// @param most   tokens guessed
/// @param draft  emptied, then filled; empty when nothing like it stood there
void guess_next(std::span<const int64_t> tokens, int64_t most, std::vector<int64_t>& draft);

}  // namespace praetor
