#include "actors/roles/server_place.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>

#include "actors/roles/member.h"
#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {

/// The interface's address, IPv4 before IPv6; link-local ones of the latter mean nothing elsewhere.
std::string address_of(const std::string& interface) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0)
    throw TemporaryError("cannot list the network interfaces: ", std::strerror(errno));
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
  std::set<std::string> names;
  std::string found;
  for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || (at->ifa_flags & IFF_UP) == 0) continue;
    char text[INET6_ADDRSTRLEN] = {};
    const int family = at->ifa_addr->sa_family;
    if (family == AF_INET) {
      ::inet_ntop(family,
                  &reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr,
                  text,
                  sizeof(text));
    } else if (family == AF_INET6) {
      const auto& address = reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr;
      if (IN6_IS_ADDR_LINKLOCAL(&address)) continue;
      ::inet_ntop(family, &address, text, sizeof(text));
    } else {
      continue;
    }
    names.insert(at->ifa_name);
    if (at->ifa_name == interface && (found.empty() || family == AF_INET)) found = text;
  }
  if (found.empty()) {
    throw ConfigError("network.interface: host ",
                      host_name(),
                      " has no interface \"",
                      printable(interface),
                      "\" with an address; it has ",
                      join({names.begin(), names.end()}, ", "));
  }
  return found;
}

}  // namespace

ServerPlace server_place(const NetworkConfig& network) {
  if (!network.interface.empty()) {
    const std::string address = address_of(network.interface);
    return {.bind = address, .advertise = address};
  }
  const bool everywhere =
      network.bind == "0.0.0.0" || network.bind == "::" || network.bind == "[::]";
  if (everywhere && network.advertise.empty())
    return {.bind = network.bind, .advertise = host_name()};
  return {.bind = network.bind, .advertise = network.advertise};
}

}  // namespace praetor
