#include "core/base/threads.h"

int main() {
  praetor::configure_numerics();
  return 0;
}
