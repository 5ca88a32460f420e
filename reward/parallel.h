#pragma once

#include <cstddef>
#include <functional>

namespace praetor {

/// Calls work(i) for i in 0..count-1 on up to `threads` threads, this one included. `work` does not
/// throw.
void for_each_index(size_t count, int threads, const std::function<void(size_t)>& work);

}  // namespace praetor
