#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "actors/rpc/client.h"
#include "actors/rpc/server.h"
#include "tests/actors/rpc/fake_services.h"

namespace praetor::testing {

inline const std::string kSecret(64, 'a');

/// The fake behind a server on loopback, and how to reach it. Short times; no patience.
struct Loopback {
  FakeServices fake;
  ServeOptions serve;
  std::unique_ptr<RpcServer> server;

  explicit Loopback(ServeOptions options = {}) : serve(std::move(options)) {
    serve.run_id = "run";
    serve.secret = kSecret;
    start();
  }
  ~Loopback() {
    fake.end_waits();
    server.reset();
  }
  void start() {
    server = std::make_unique<RpcServer>(RpcServices{&fake, &fake, &fake, &fake}, serve);
  }
  RpcClientOptions client(std::chrono::milliseconds patience = std::chrono::milliseconds(0)) const {
    RpcClientOptions options;
    options.run_id = "run";
    options.secret = kSecret;
    options.resolve = [this] { return server ? server->address() : std::string("127.0.0.1:1"); };
    options.patience = patience;
    options.first_backoff = std::chrono::milliseconds(20);
    options.max_backoff = std::chrono::milliseconds(100);
    return options;
  }
};

}  // namespace praetor::testing
