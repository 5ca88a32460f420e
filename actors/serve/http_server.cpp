#include "actors/serve/http_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <ctime>
#include <string>
#include <utility>

#include "actors/rpc/secret.h"
#include "actors/serve/answer.h"
#include "actors/serve/metrics.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random_hex.h"
#include "core/base/text.h"

namespace praetor::serve {
namespace {

using Clock = std::chrono::steady_clock;
// How often a connection on which nothing happens is asked whether it still stands.
constexpr std::chrono::milliseconds kPulse{100};
constexpr const char* kJson = "application/json";

uint64_t random_seed() {
  return std::stoull(random_hex(8), nullptr, 16);
}

ApiError error_of(const Failed& failed) {
  return {.status = 500, .message = failed.message, .type = "server_error"};
}

/// One request whose answer is on its way.
class Exchange {
 public:
  Exchange(ApiRequest request, const ServedModel& model, Metrics& metrics)
      : request_(std::move(request)),
        answer_(request_,
                model,
                str(request_.endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-", random_hex(16)),
                static_cast<int64_t>(std::time(nullptr))),
        metrics_(metrics) {}

  /// Hands the request to the engine. @throws ApiError
  void begin(EngineLoop& loop, std::chrono::milliseconds limit) {
    call_ = loop.submit(request_.generation_requests(), request_.stream, start_ + limit);
    if (!call_) {
      throw ApiError{.status = 429,
                     .message = "too many requests are open: try again later",
                     .code = "rate_limit_exceeded",
                     .type = "rate_limit_error"};
    }
    std::optional<Event> event;
    while (!event) event = call_->next(kPulse);
    if (const auto* refused = std::get_if<Refused>(&*event)) {
      throw ApiError{.message = refused->message};
    }
    if (const auto* failed = std::get_if<Failed>(&*event)) throw error_of(*failed);
  }

  bool streamed() const { return request_.stream; }

  /// Writes what the next event asks for. False: the connection is to be broken.
  bool pump(httplib::DataSink& sink) {
    if (!opened_) {
      opened_ = true;
      if (request_.stream && !write(sink, answer_.opening())) return false;
    }
    std::optional<Event> event = call_->next(kPulse);
    if (!event) return sink.is_writable();
    if (const auto* piece = std::get_if<TokenPiece>(&*event)) {
      if (!std::exchange(spoken_, true)) metrics_.first_token(Clock::now() - start_);
      return write(sink, answer_.chunk(*piece));
    }
    if (auto* made = std::get_if<Generation>(&*event)) return take(sink, std::move(*made));
    // The status has gone out already: a stream says what happened, a whole answer never comes.
    const auto& failed = std::get<Failed>(*event);
    log::error(str("serve: an answer was broken off: ", failed.message));
    if (request_.stream) write(sink, "data: " + error_of(failed).body() + "\n\n");
    return false;
  }

  void end() { call_->leave(); }

 private:
  static bool write(httplib::DataSink& sink, const std::string& text) {
    return text.empty() || sink.write(text.data(), text.size());
  }

  bool take(httplib::DataSink& sink, Generation made) {
    if (request_.stream && !write(sink, answer_.last_chunk(made))) return false;
    answer_.add(std::move(made));
    if (!answer_.complete()) return true;
    metrics_.tokens(request_.prompt_tokens(), answer_.completion_tokens());
    metrics_.whole_answer(Clock::now() - start_);
    if (!write(sink, request_.stream ? answer_.closing() : answer_.whole())) return false;
    sink.done();
    return true;
  }

  const ApiRequest request_;
  Answer answer_;
  Metrics& metrics_;
  const Clock::time_point start_ = Clock::now();
  std::shared_ptr<Call> call_;
  bool opened_ = false;
  bool spoken_ = false;
};

void answer_with(const ApiError& error, httplib::Response& out) {
  out.status = error.status;
  out.set_content(error.body(), kJson);
  if (error.status == 401) {
    out.set_header("WWW-Authenticate", "Bearer");
    out.set_header("Connection", "close");  // the body was not read
  }
  if (error.status == 429) out.set_header("Retry-After", "1");
}

}  // namespace

struct HttpServer::Impl {
  Impl(HttpOptions given, ServedModel served, EngineLoop& engine_loop)
      : options(std::move(given)), model(std::move(served)), loop(engine_loop) {
    const int connections = options.connections;
    server.new_task_queue = [connections] {
      return new httplib::ThreadPool(static_cast<size_t>(connections));
    };
    server.set_payload_max_length(static_cast<size_t>(options.body_bytes));
    server.set_keep_alive_max_count(10000);
    server.set_tcp_nodelay(true);
    // The library's own choice would let a second server listen on the same port.
    server.set_socket_options([this](socket_t socket) {
      listening = socket;
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server.set_pre_routing_handler(
        [this](const httplib::Request& in, httplib::Response& out) { return let_in(in, out); });
    server.set_error_handler([](const httplib::Request& in, httplib::Response& out) {
      if (out.body.empty()) answer_with(error_of_status(in, out.status), out);
    });
    server.set_logger([this](const httplib::Request& in, const httplib::Response& out) {
      metrics.answered(known(in.path) ? in.path : "other", out.status);
    });
    route();
  }

  static bool known(const std::string& path) {
    return path == "/v1/completions" || path == "/v1/chat/completions" || path == "/v1/models" ||
           path == "/health" || path == "/metrics";
  }

  static ApiError error_of_status(const httplib::Request& in, int status) {
    const std::string what = str(in.method, ' ', printable(in.path));
    if (status == 404) {
      return {
          .status = 404, .message = str(what, ": there is no such endpoint"), .code = "not_found"};
    }
    if (status == 413) return {.status = 413, .message = str(what, ": the body is too large")};
    if (status >= 500) {
      return {.status = status, .message = str(what, " failed"), .type = "server_error"};
    }
    return {.status = status, .message = str(what, ": the request cannot be read")};
  }

  httplib::Server::HandlerResponse let_in(const httplib::Request& in, httplib::Response& out) {
    using Response = httplib::Server::HandlerResponse;
    if (options.api_key.empty() || in.path == "/health") return Response::Unhandled;
    if (same_secret(in.get_header_value("Authorization"), "Bearer " + options.api_key)) {
      return Response::Unhandled;
    }
    answer_with(
        {.status = 401,
         .message = "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'",
         .code = "invalid_api_key"},
        out);
    return Response::Handled;
  }

  void route() {
    server.Get("/health", [this](const auto&, httplib::Response& out) {
      const bool lost = loop.stats().lost;
      out.status = lost ? 503 : 200;
      out.set_content(lost ? R"({"status":"the GPU is lost"})" : R"({"status":"ok"})", kJson);
    });
    server.Get("/metrics", [this](const auto&, httplib::Response& out) {
      out.set_content(metrics.text(loop.stats()), "text/plain; version=0.0.4");
    });
    server.Get("/v1/models", [this](const auto&, httplib::Response& out) {
      const nlohmann::ordered_json one = {{"id", model.name},
                                          {"object", "model"},
                                          {"created", started},
                                          {"owned_by", "praetor"},
                                          {"max_model_len", model.config.max_positions}};
      out.set_content(nlohmann::ordered_json{{"object", "list"}, {"data", {one}}}.dump(), kJson);
    });
    server.Post("/v1/completions", [this](const httplib::Request& in, httplib::Response& out) {
      generate(Endpoint::kCompletions, in, out);
    });
    server.Post("/v1/chat/completions", [this](const httplib::Request& in, httplib::Response& out) {
      generate(Endpoint::kChat, in, out);
    });
  }

  void generate(Endpoint endpoint, const httplib::Request& in, httplib::Response& out) {
    try {
      const auto exchange = std::make_shared<Exchange>(
          read_request(endpoint, in.body, model, random_seed()), model, metrics);
      exchange->begin(loop, options.request_limit);
      // A whole answer is written like this too: only so is a caller seen who hangs up.
      out.set_chunked_content_provider(
          exchange->streamed() ? "text/event-stream" : kJson,
          [exchange](size_t, httplib::DataSink& sink) { return exchange->pump(sink); },
          [exchange](bool) { exchange->end(); });
      out.status = 200;
    } catch (const ApiError& error) {
      answer_with(error, out);
    } catch (const std::exception& failure) {
      log::error(str("serve: ", failure.what()));
      answer_with({.status = 500, .message = "internal error", .type = "server_error"}, out);
    }
  }

  const HttpOptions options;
  const ServedModel model;
  EngineLoop& loop;
  const int64_t started = static_cast<int64_t>(std::time(nullptr));
  Metrics metrics;
  socket_t listening = INVALID_SOCKET;
  httplib::Server server;
};

HttpServer::HttpServer(HttpOptions options, ServedModel model, EngineLoop& loop)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(model), loop)) {}

HttpServer::~HttpServer() = default;

int HttpServer::bind() {
  const HttpOptions& o = impl_->options;
  const bool any = o.port == 0;
  const int port = any ? impl_->server.bind_to_any_port(o.host) : o.port;
  if (port <= 0 || (!any && !impl_->server.bind_to_port(o.host, o.port))) {
    throw IoError("cannot listen on ", o.host, ':', o.port, ": is the address right, and free?");
  }
  // The library lets five callers wait to be taken in; of a crowd that comes at once some would be
  // turned away.
  ::listen(impl_->listening, SOMAXCONN);
  return port;
}

void HttpServer::run() {
  if (!impl_->server.listen_after_bind()) throw IoError("the server's socket failed");
}

void HttpServer::stop() {
  impl_->server.stop();
}

}  // namespace praetor::serve
