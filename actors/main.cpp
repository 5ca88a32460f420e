#include <malloc.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <limits>
#include <new>

#include "actors/cli/commands.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/base/threads.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{
      "Praetor trains language models from preferences: SFT, reward models, PPO, on one machine or "
      "a cluster."};
  app.require_subcommand(1);
  app.set_version_flag("--version", PRAETOR_VERSION);
  int status = praetor::kExitDone;
#define X(name) praetor::cli::add_##name(app, status);
  PRAETOR_COMMANDS(X)
#undef X
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    if (failure.get_exit_code() == 0) return app.exit(failure);
    std::fprintf(stderr, "praetor: %s\n", failure.what());
    if (argc > 1 && argv[1][0] != '-') {
      if (const auto near = praetor::nearest(argv[1], names); near && *near != argv[1]) {
        std::fprintf(stderr, "Did you mean 'praetor %s'?\n", near->c_str());
      }
    }
    std::fprintf(stderr, "Run 'praetor --help', or 'praetor COMMAND --help'.\n");
    return praetor::kExitUsage;
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  praetor::configure_numerics();
  // A training step frees and takes the same large tensors again and again; given back to the
  // kernel each time, their pages would be zeroed anew (a tenth of the step).
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  try {
    return run(argc, argv);
  } catch (const praetor::Error& failure) {
    std::fprintf(stderr, "praetor: %s\n", failure.what());
    return failure.exit_status();
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "praetor: out of memory\n");
    return praetor::kExitTemporary;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "praetor: internal error (please report it): %s\n", failure.what());
    return praetor::kExitBug;
  }
}
