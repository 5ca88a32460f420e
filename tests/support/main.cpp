#define CATCH_CONFIG_RUNNER
#include "tests/support/catch.h"

#include "core/base/threads.h"

int main(int argc, char** argv) {
  praetor::configure_numerics();
  return Catch::Session().run(argc, argv);
}
