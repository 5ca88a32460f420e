#pragma once

#include <string>

namespace praetor {

/// The file that PATH has for a program's name; a name with a slash stays as it is.
/// @throws MissingInput
std::string find_program(const std::string& name);

}  // namespace praetor
