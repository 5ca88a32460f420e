#define CATCH_CONFIG_RUNNER
#include "core/base/threads.h"
#include "tests/support/catch.h"

int main(int argc, char** argv) {
  praetor::configure_numerics();
  return Catch::Session().run(argc, argv);
}
