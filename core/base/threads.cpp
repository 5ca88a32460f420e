#include "core/base/threads.h"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <thread>

namespace praetor {

void configure_numerics() {
  // Backward products go through MKL: strict mode makes their bits independent of the row count and
  // of alignment.
  ::setenv("MKL_CBWR", "AUTO,STRICT", 0);
}

void set_threads(int count) {
  if (count <= 0) count = static_cast<int>(std::thread::hardware_concurrency());
  at::set_num_threads(count < 1 ? 1 : count);
}

int threads() {
  return at::get_num_threads();
}

}  // namespace praetor
