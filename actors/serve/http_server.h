#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "actors/serve/api.h"
#include "actors/serve/engine_loop.h"

namespace praetor::serve {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8000;                                  ///< 0: any free one
  std::string api_key;                              ///< empty: nobody is asked for one
  int connections = 256;                            ///< served at once; each holds a thread
  int64_t body_bytes = 8 << 20;                     ///< largest body
  std::chrono::milliseconds request_limit{600000};  ///< a request's responses end there
};

/// OpenAI's API over HTTP/1.1: POST /v1/completions, POST /v1/chat/completions, GET /v1/models, GET
/// /health, GET /metrics. A caller that hangs up has its responses cancelled. The loop and what
/// `model` holds are borrowed.
class HttpServer {
 public:
  HttpServer(HttpOptions options, ServedModel model, EngineLoop& loop);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Takes the address; returns the port. @throws IoError when it cannot be had
  int bind();
  /// Serves until stop is called, and until the requests then open are answered. Needs bind.
  void run();
  /// From any thread. New connections are refused from now on.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace praetor::serve
