#include "actors/roles/server_place.h"

#include "actors/roles/member.h"
#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("a server listens where the job says, on each host by its own address", "[actors][cpu]") {
  NetworkConfig network;
  CHECK(server_place(network).bind == "127.0.0.1");
  CHECK(server_place(network).advertise.empty());
  network.bind = "0.0.0.0";
  CHECK(server_place(network).advertise == host_name());
  network.advertise = "login";
  CHECK(server_place(network).advertise == "login");
  network.interface = "lo";
  CHECK(server_place(network).bind == "127.0.0.1");
  CHECK(server_place(network).advertise == "127.0.0.1");
  network.interface = "praetor0";
  CHECK_THROWS_WITH(
      server_place(network),
      Catch::Matchers::Contains("no interface \"praetor0\" with an address; it has") &&
          Catch::Matchers::Contains("lo"));
}

}  // namespace praetor
