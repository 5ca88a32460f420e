#pragma once

namespace CLI {
class App;
}

namespace praetor::cli {

/// Every subcommand: one source actors/cli/NAME.cpp with add_NAME, one line here.
/// add_NAME registers it on `app`; its callback writes what main returns into `status` (0 when it
/// is not touched) and throws praetor::Error for what goes wrong. JSON goes to stdout, words to
/// stderr.
#define PRAETOR_COMMANDS(X) \
  X(train)                  \
  X(validate)               \
  X(submit)                 \
  X(cancel)                 \
  X(status)                 \
  X(generate)               \
  X(serve)                  \
  X(logprobs)               \
  X(tokenize)               \
  X(score)                  \
  X(export)                 \
  X(replay)                 \
  X(verify)                 \
  X(doctor)                 \
  X(controller)             \
  X(worker)                 \
  X(relay)                  \
  X(learner)

#define X(name) void add_##name(CLI::App& app, int& status);
PRAETOR_COMMANDS(X)
#undef X

}  // namespace praetor::cli
