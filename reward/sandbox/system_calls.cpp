#include "reward/sandbox/system_calls.h"

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "core/base/error.h"

namespace praetor {

namespace {

/// Refused whatever their arguments. Names that a libseccomp or a machine does not know are passed
/// over: such a call cannot be made there.
constexpr const char* kRefused[] = {
    // the network; socketpair stays, which reaches nobody outside
    "socket",
    "socketcall",
    // other namespaces and roots
    "chroot",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "name_to_handle_at",
    "open_tree",
    "pivot_root",
    "setns",
    "umount",
    "umount2",
    "unshare",
    // other processes' memory
    "kcmp",
    "pidfd_getfd",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    // large parts of the kernel that have had holes
    "add_key",
    "bpf",
    "fanotify_init",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "keyctl",
    "lookup_dcookie",
    "perf_event_open",
    "request_key",
    "userfaultfd",
    "vmsplice",
    // the machine
    "acct",
    "adjtimex",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "finit_module",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "personality",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "vhangup",
};

constexpr uint64_t kNamespaces = CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS |
                                 CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWUTS;

void must(int result, const char* what) {
  if (result < 0) throw TemporaryError("seccomp: ", what, ": ", std::strerror(-result));
}

}  // namespace

SystemCallFilter::SystemCallFilter() {
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(SCMP_ACT_ALLOW),
                                                      seccomp_release);
  if (!filter) throw TemporaryError("seccomp: no filter can be made");
  for (const char* name : kRefused) {
    const int call = seccomp_syscall_resolve_name(name);
    if (call == __NR_SCMP_ERROR) continue;
    must(seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 0), name);
  }
  must(seccomp_rule_add(filter.get(),
                        SCMP_ACT_ERRNO(EPERM),
                        SCMP_SYS(ioctl),
                        1,
                        SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffU, TIOCSTI)),
       "ioctl");
  // A new namespace by clone; clone3 hides its flags from filters, and who hears ENOSYS uses clone.
  for (uint64_t flag = 1; flag != 0; flag <<= 1U) {
    if ((kNamespaces & flag) == 0) continue;
    must(seccomp_rule_add(filter.get(),
                          SCMP_ACT_ERRNO(EPERM),
                          SCMP_SYS(clone),
                          1,
                          SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag)),
         "clone");
  }
  const int clone3 = seccomp_syscall_resolve_name("clone3");
  if (clone3 != __NR_SCMP_ERROR)
    must(seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), clone3, 0), "clone3");
  fd_ = ::memfd_create("praetor-seccomp", MFD_CLOEXEC);
  if (fd_ < 0) throw TemporaryError("cannot make a file in memory: ", std::strerror(errno));
  const int exported = seccomp_export_bpf(filter.get(), fd_);
  if (exported < 0) ::close(fd_);
  must(exported, "export");
}

SystemCallFilter::~SystemCallFilter() {
  ::close(fd_);
}

int SystemCallFilter::open() const {
  // Opened anew: a duplicate would share its place in the file with every other sandbox.
  const int fd = ::open(str("/proc/self/fd/", fd_).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw TemporaryError("cannot open the seccomp filter: ", std::strerror(errno));
  return fd;
}

}  // namespace praetor
