#pragma once

#include <string>

#include "actors/job/roles_config.h"

namespace praetor {

/// What a server of this process listens on, and what others call it.
struct ServerPlace {
  std::string bind;
  std::string advertise;
};

/// As section `network` says, on this host: the address of `interface`; else `bind`, with this
/// host's name as what others call it where that is every interface and nothing was given.
/// @throws ConfigError when this host has no such interface, naming those that it has
ServerPlace server_place(const NetworkConfig& network);

}  // namespace praetor
