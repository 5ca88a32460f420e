#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "actors/cli/commands.h"
#include "actors/roles/worker_process.h"
#include "actors/rpc/secret.h"
#include "core/base/error.h"

namespace praetor::cli {

namespace {

struct Options {
  std::string join, relay, run_id, name;
  std::filesystem::path secret_folder, scratch;
  std::vector<std::string> serve = {"generate"};
  int threads = 0;
};

RunAddress address_of(const Options& options) {
  if (std::filesystem::is_directory(options.join)) {
    return options.relay.empty() ? RunAddress::of(options.join)
                                 : RunAddress::over_relay(options.join, options.relay);
  }
  if (!options.relay.empty()) {
    throw InvalidArgument("--relay ",
                          options.relay,
                          " is found in a run directory; with --join HOST:PORT give the address of "
                          "the relay there");
  }
  if (options.run_id.empty() || options.secret_folder.empty()) {
    throw InvalidArgument("--join ",
                          options.join,
                          ": not a run directory on this host; to join by HOST:PORT, --run-id and "
                          "--secret-folder are needed too (praetor status RUN_DIR says the id, "
                          "RUN_DIR/secret is the secret)");
  }
  return {.run_id = options.run_id,
          .secret = read_secret(options.secret_folder),
          .resolve = [address = options.join] { return address; },
          .tls = std::filesystem::exists(options.secret_folder / "tls")
                     ? read_identity(run_certificates(options.secret_folder))
                     : nullptr};
}

}  // namespace

void add_worker(CLI::App& app, int& status) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "worker", "Generate or score for a running job; workers may join and leave at any time");
  command->add_option("--join", options->join, "The run: its directory, or HOST:PORT")
      ->required()
      ->type_name("RUN_DIR|HOST:PORT");
  command
      ->add_option(
          "--relay", options->relay, "A relay of the run, to ask in place of its controller")
      ->type_name("NAME");
  command->add_option("--run-id", options->run_id, "With HOST:PORT: the run's id");
  command
      ->add_option(
          "--secret-folder",
          options->secret_folder,
          "With HOST:PORT: a folder with copies of the run's file \"secret\" and, of a run "
          "with TLS, of tls/member.pem, tls/member.key and tls/ca.pem")
      ->type_name("DIR");
  command->add_option("--serve", options->serve, "generate, score, or generate,score")
      ->delimiter(',')
      ->check(CLI::IsMember({"generate", "score"}));
  command->add_option("--name", options->name, "Unique in the run (default: host and process)");
  command->add_option("--threads", options->threads, "Of tensor work; 0: all cores")
      ->check(CLI::Range(0, 4096));
  command
      ->add_option("--scratch", options->scratch, "Folder for weights that come over the network")
      ->type_name("DIR");
  command->footer("Ctrl-C or SIGTERM: hands in what is finished, gives the rest back and leaves.");
  command->callback([options, &status] {
    WorkerOptions worker{.address = address_of(*options),
                         .name = options->name,
                         .threads = options->threads,
                         .scratch = options->scratch};
    for (const std::string& kind : options->serve) {
      worker.serves.push_back(kind == "score" ? LeaseKind::kScore : LeaseKind::kGenerate);
    }
    status = run_worker(worker);
  });
}

}  // namespace praetor::cli
