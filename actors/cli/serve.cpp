#include <pthread.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "actors/cli/commands.h"
#include "actors/cli/options.h"
#include "actors/rpc/tls.h"
#include "actors/serve/http_server.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/threads.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"
#include "rollout/engine.h"
#include "rollout/session.h"

namespace praetor::cli {
namespace {

struct ServeOptions {
  std::filesystem::path model;
  std::string name;
  std::string chat_template;
  std::string dtype = "float32";
  std::filesystem::path api_key_file;
  bool anyone = false;
  serve::HttpOptions http;
  int64_t request_seconds = 600;
  int64_t grace_seconds = 30;
  int64_t most_open = 1024;
  EngineConfig engine;
  int threads = 0;
};

std::string key_in(const std::filesystem::path& file) {
  std::string key = read_file(file);
  while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
  if (key.empty() || key.find_first_of(" \t\r\n") != std::string::npos) {
    throw InvalidArgument(file.string(), ": an API key is one word on one line");
  }
  return key;
}

void check_access(ServeOptions& options) {
  if (!options.api_key_file.empty()) options.http.api_key = key_in(options.api_key_file);
  if (is_loopback(options.http.host) || !options.http.api_key.empty() || options.anyone) return;
  throw InvalidArgument(
      "--host ",
      options.http.host,
      " lets other machines in: give --api-key-file FILE, or --anyone if all may");
}

// The template of the model's folder, if there is one; none: chats are refused.
std::string template_of(const ServeOptions& options, const Tokenizer& tokenizer) {
  if (!options.chat_template.empty()) return options.chat_template;
  return tokenizer.chat() ? "model" : "";
}

/// Waits for SIGINT or SIGTERM beside the server, and ends it: at once for new requests, after the
/// grace for those that are open.
class StopOnSignal {
 public:
  StopOnSignal(serve::HttpServer& server, serve::EngineLoop& loop, int64_t grace_seconds)
      : thread_([&server, &loop, grace_seconds, this] {
          int signal = 0;
          sigwait(&signals(), &signal);
          if (over_) return;
          log::info("stopping: open requests are answered first");
          server.stop();
          std::unique_lock lock(mutex_);
          if (!ended_.wait_for(
                  lock, std::chrono::seconds(grace_seconds), [this] { return over_.load(); })) {
            loop.stop();
          }
        }) {}
  ~StopOnSignal() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    ended_.notify_one();
    pthread_kill(thread_.native_handle(), SIGTERM);  // it may still wait for one
    thread_.join();
  }
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;

  /// In all threads started from now on the signals wait to be taken.
  static void hold_signals() { pthread_sigmask(SIG_BLOCK, &signals(), nullptr); }

 private:
  static const sigset_t& signals() {
    static const sigset_t set = [] {
      sigset_t both;
      sigemptyset(&both);
      sigaddset(&both, SIGINT);
      sigaddset(&both, SIGTERM);
      return both;
    }();
    return set;
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  std::atomic<bool> over_ = false;
  std::thread thread_;
};

void run_serve(ServeOptions options) {
  check_access(options);
  StopOnSignal::hold_signals();
  set_threads(options.threads);
  const Transformer model = load_for_engine(options.model, options.dtype, options.engine);
  const auto tokenizer = Tokenizer::load(options.model);
  options.engine.max_step_tokens =
      std::max(options.engine.max_step_tokens, options.engine.max_sequences);
  Engine engine(model, *tokenizer, options.engine);
  { const Session fits(engine); }  // the cache is there before anybody asks, or an error is
  serve::EngineLoop loop(engine, options.most_open);
  const std::string name = options.name.empty()
                               ? std::filesystem::canonical(options.model).filename().string()
                               : options.name;
  options.http.request_limit = std::chrono::seconds(options.request_seconds);
  serve::HttpServer server(
      options.http, {model.config(), *tokenizer, name, template_of(options, *tokenizer)}, loop);
  const int port = server.bind();
  const StopOnSignal stop(server, loop, options.grace_seconds);
  log::info(str("serving ", name, " on http://", options.http.host, ':', port, "/v1"));
  server.run();
}

}  // namespace

void add_serve(CLI::App& app, int&) {
  auto* command =
      app.add_subcommand("serve", "Answer requests over HTTP in the form of OpenAI's API");
  command->footer(
      "POST /v1/completions, POST /v1/chat/completions, GET /v1/models, /health and /metrics.\n"
      "The same seed gives the same answer, whatever else is being answered.");
  const auto options = std::make_shared<ServeOptions>();
  command->add_option("--model", options->model, "Hugging Face folder")->required();
  command->add_option("--name", options->name, "of the model in requests (default: the folder's)");
  command->add_option("--host", options->http.host, "address to listen on")->capture_default_str();
  command->add_option("--port", options->http.port, "0: any free one, named in the log")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--api-key-file", options->api_key_file, "callers must send what it holds");
  command->add_flag("--anyone", options->anyone, "let other machines in without a key");
  command
      ->add_option("--template", options->chat_template, "for chats (default: the model folder's)")
      ->check(CLI::IsMember(chat_template_names()));
  add_dtype(*command, options->dtype);
  command->add_option("--batch", options->engine.max_sequences, "responses that grow at once")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  add_engine(*command, options->engine);
  add_draft_tokens(*command, options->engine.draft_tokens);
  command->add_option("--max-open", options->most_open, "requests at once; beyond, status 429")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--connections", options->http.connections, "served at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--request-seconds", options->request_seconds, "an answer ends there")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  command->add_option("--grace-seconds", options->grace_seconds, "for open requests at the end")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->callback([options, command] {
    settle_engine(*command, options->engine);
    run_serve(*options);
  });
}

}  // namespace praetor::cli
