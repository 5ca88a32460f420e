#pragma once

#include <filesystem>
#include <string>

namespace praetor {

/// What starts this program: PRAETOR_PROGRAM, which the script of a bundle sets to itself, or the
/// program's own file.
std::filesystem::path own_program();

/// The file that PATH has for a program's name; a name with a slash stays as it is.
/// @throws MissingInput
std::string find_program(const std::string& name);

}  // namespace praetor
