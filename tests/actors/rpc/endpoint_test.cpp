#include "actors/rpc/endpoint.h"

#include "actors/controller/services.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

using namespace praetor;
using praetor::testing::TempDir;

TEST_CASE("an endpoint is read as it was written", "[actors][rpc][cpu]") {
  const TempDir run;
  CHECK_FALSE(read_endpoint(run.path()).has_value());
  write_endpoint(run.path(), {"run-1", "10.0.0.7:4000", 42, 3});
  const auto endpoint = read_endpoint(run.path());
  REQUIRE(endpoint);
  CHECK(endpoint->run_id == "run-1");
  CHECK(endpoint->address == "10.0.0.7:4000");
  CHECK(endpoint->pid == 42);
  CHECK(endpoint->incarnation == 3);
}

TEST_CASE("a resolver follows the file and refuses another run's", "[actors][rpc][cpu]") {
  const TempDir run;
  const auto resolve = endpoint_resolver(run.path(), "run-1");
  CHECK_THROWS_AS(resolve(), MissingInput);
  write_endpoint(run.path(), {"run-1", "host:1", 42, 1});
  CHECK(resolve() == "host:1");
  write_endpoint(run.path(), {"run-1", "host:2", 43, 2});
  CHECK(resolve() == "host:2");
  write_endpoint(run.path(), {"run-2", "host:2", 43, 2});
  CHECK_THROWS_AS(resolve(), RefusedError);
}

TEST_CASE("a damaged endpoint is named", "[actors][rpc][cpu]") {
  const TempDir run;
  for (const char* text : {"{",
                           "{}",
                           R"({"run_id": 1})",
                           "[]",
                           R"({"run_id":"a","address":"","pid":1,"incarnation":1})"}) {
    write_file_atomic(endpoint_file(run.path()), text);
    CHECK_THROWS_AS(read_endpoint(run.path()), DataError);
    CHECK_THROWS_WITH(read_endpoint(run.path()), Catch::Contains("controller.json"));
  }
}

TEST_CASE("run ids differ and sort by time", "[actors][rpc][cpu]") {
  const std::string id = make_run_id();
  CHECK(id.size() == std::string("20260102-150405-1f9c3a7e").size());
  CHECK(id != make_run_id());
}
