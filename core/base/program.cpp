#include "core/base/program.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;

fs::path own_program() {
  const char* given = ::getenv("PRAETOR_PROGRAM");
  return given ? fs::path(given) : fs::read_symlink("/proc/self/exe");
}

std::string find_program(const std::string& name) {
  if (name.find('/') != name.npos) return name;
  const char* path = ::getenv("PATH");
  std::string rest = path ? path : "/usr/local/bin:/usr/bin:/bin";
  rest += ':';
  for (size_t begin = 0, end; (end = rest.find(':', begin)) != rest.npos; begin = end + 1) {
    const fs::path candidate =
        fs::path(end == begin ? "." : rest.substr(begin, end - begin)) / name;
    struct stat info {};
    if (::access(candidate.c_str(), X_OK) == 0 && ::stat(candidate.c_str(), &info) == 0 &&
        S_ISREG(info.st_mode)) {
      return candidate.string();
    }
  }
  throw MissingInput("cannot start \"", printable(name), "\": no such program in PATH");
}

}  // namespace praetor
