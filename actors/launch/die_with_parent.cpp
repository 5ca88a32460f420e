#include "actors/launch/die_with_parent.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/base/error.h"

namespace praetor {

void die_with_parent(std::optional<pid_t> parent) {
  const pid_t before = ::getppid();
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
    throw InternalError("prctl(PR_SET_PDEATHSIG): ", std::strerror(errno));
  // A parent that died before the call sends nothing any more; whoever inherited us shows it.
  if (::getppid() != parent.value_or(before)) ::kill(::getpid(), SIGKILL);
}

bool started_by_launcher() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("SLURM_STEP_ID") != nullptr;
}

}  // namespace praetor
