#pragma once

#include <cstdint>

namespace praetor {

/// A file in memory with the seccomp filter of the sandbox, as bubblewrap wants it: system calls
/// that judged code has no use for (sockets, new namespaces, tracing, keys, kernel modules, clocks,
/// ...) fail with EPERM. It is a list of what is refused, a second wall behind the namespaces.
class SystemCallFilter {
 public:
  SystemCallFilter();  ///< @throws TemporaryError
  ~SystemCallFilter();
  SystemCallFilter(const SystemCallFilter&) = delete;
  SystemCallFilter& operator=(const SystemCallFilter&) = delete;

  /// A new descriptor of the file at its beginning, closed on exec; the caller closes it.
  int open() const;

 private:
  int fd_ = -1;
};

}  // namespace praetor
