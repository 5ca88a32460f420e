#pragma once

#include <string>

namespace praetor {

/// 4 to 64 random bytes as hexadecimal digits, from the kernel. @throws IoError
std::string random_hex(int bytes);

}  // namespace praetor
