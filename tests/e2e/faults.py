"""Runs a job of separate roles and does to it what one signal cannot do; the faults_*.sh call it.

    faults.py hang|poison|memory PRAETOR RUN_DIR COMMAND...

COMMAND is the job, as a child of this program: some kernels let only ancestors trace a process. Ends with the status of
the job, or with 4 when this machine does not let the fault be made.
"""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

WORKER = "rollout-0"
SKIPPED = 4
ROWS = 22  # of metrics, of which the two stages before the rollouts write 20
PATIENCE = 90.0  # seconds for anything that is waited for


class Run:
    def __init__(self, praetor, folder, command, start=lambda: None):
        self.praetor, self.folder = praetor, pathlib.Path(folder)
        self.job = subprocess.Popen(command, preexec_fn=start)

    def wait_for(self, what, ready, pause=0.001):
        """The first true answer of ready(). The job must not end before."""
        end = time.monotonic() + PATIENCE
        while not (answer := ready()):
            if self.job.poll() is not None:
                sys.exit(f"the job ended (status {self.job.returncode}) before: {what}")
            if time.monotonic() > end:
                self.job.terminate()
                self.job.wait()
                sys.exit(f"not within {PATIENCE:.0f} s: {what}")
            time.sleep(pause)
        return answer

    def read(self, name):
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_text()
        return ""

    def rows(self):
        return self.read("metrics.jsonl").count("\n")

    def status(self):
        out = subprocess.run([self.praetor, "status", self.folder, "--json"], capture_output=True, text=True)
        return json.loads(out.stdout or "{}").get("roles", {})

    def worker(self):
        """What `praetor status` says of the worker, while it is not lost."""
        for member in self.status().get("members", []):
            if member["name"] == WORKER and member["state"] != "lost":
                return member
        return None

    def end(self):
        return self.job.wait()


SEIZE, INTERRUPT, CONTINUE = 0x4206, 0x4207, 7  # of sys/ptrace.h
EVERY_THREAD = 0x40000000  # __WALL of sys/wait.h


def ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    if libc.ptrace(request, thread, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def freeze(run, thread):
    """Stops one thread of a process in the middle of what it computes; the others go on."""
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, EVERY_THREAD)
    since = time.monotonic()
    time.sleep(0.6)  # three heartbeats
    asked = time.monotonic()
    member = run.worker()
    # A heartbeat that came since tells that it is at work; its lease has not been done meanwhile.
    heard = member and member["heartbeat_seconds"] < asked - since
    if heard and member["state"] == "busy" and member["leases"] > 0:
        return True
    ptrace(CONTINUE, thread)
    return False


def computes(thread):
    """True while the thread has a core, or waits for one."""
    return pathlib.Path(f"/proc/{thread}/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()[0] == "R"


def hang(praetor, folder, command):
    """The thread that generates stands still; the heartbeats go on."""
    run = Run(praetor, folder, command)
    thread = run.wait_for("a worker", run.worker)["pid"]  # a process's first thread does its work
    run.wait_for("rollouts", lambda: run.rows() >= ROWS)
    try:
        ptrace(SEIZE, thread)
    except PermissionError as failure:
        print(f"SKIPPED: a process may not be traced here: {failure}")
        run.job.terminate()
        run.end()
        return SKIPPED
    run.wait_for("a worker caught at work", lambda: computes(thread) and freeze(run, thread))
    # Whoever traces a process hears of its end first, and must take note of it.
    run.wait_for("the end of the worker", lambda: os.waitpid(thread, EVERY_THREAD | os.WNOHANG)[0], pause=0.05)
    return run.end()


def poison(praetor, folder, command):
    """Whoever has the first prompt of a step in hand is killed, until it is set aside."""
    run = Run(praetor, folder, command)
    run.wait_for("rollouts", lambda: run.rows() >= ROWS)
    log = "logs/controller.log"
    joins = re.compile(rf"{WORKER} joined \(.*process (\d+)\)")
    victims, kills = [], 0

    def next_victim():
        """The process that has joined since the last one; True once a prompt is set aside."""
        text = run.read(log)
        pids = [int(pid) for pid in joins.findall(text)]
        return "is set aside" in text or next((pid for pid in pids[-1:] if pid not in victims), None)

    while (pid := run.wait_for("another worker", next_victim)) is not True:
        victims.append(pid)

        def holds():
            """Looks while it stands still; else lets it go on for a moment."""
            os.kill(pid, signal.SIGSTOP)
            member = run.worker()
            if member and member["pid"] == pid and member["leases"] > 0:
                return True
            os.kill(pid, signal.SIGCONT)
            return False

        run.wait_for("a lease of the worker", holds, pause=0.004)
        os.kill(pid, signal.SIGKILL)
        kills += 1
    print(json.dumps({"kills": kills, "set_aside": run.status()["set_aside"]}))
    return run.end()


class Cgroup:
    """A memory cgroup below our own."""

    def __init__(self):
        self.folder = None
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = pathlib.Path("/sys/fs/cgroup") / ("memory" if controllers else "")
            with contextlib.suppress(OSError):
                folder = pathlib.Path(tempfile.mkdtemp(prefix="praetor-test-", dir=top / path.lstrip("/")))
                for limit, usage, events in (
                    ("memory.max", "memory.current", "memory.events"),
                    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
                ):
                    if (folder / limit).exists() and "oom_kill " in (folder / events).read_text():
                        self.folder, self.limit, self.usage = folder, folder / limit, folder / usage
                        self.events = folder / events
                        return
                folder.rmdir()

    def enter(self):
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self):
        return int(re.search(r"oom_kill (\d+)", self.events.read_text())[1])

    def run_short(self, victim):
        """Takes memory within the group until the kernel has killed the victim."""
        pathlib.Path(f"/proc/{victim}/oom_score_adj").write_text("1000")
        self.limit.write_text(str(int(self.usage.read_text()) + (64 << 20)))
        eater = os.fork()
        if eater == 0:
            self.enter()
            eaten = []
            while not self.kills():
                eaten.append(b"x" * (4 << 20))
            os._exit(0)
        os.waitpid(eater, 0)
        self.limit.write_text(str(1 << 40))

    def remove(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                return self.folder.rmdir()
            time.sleep(0.1)


def private_mounts():
    """How to start a program with mounts of its own; None where that is not allowed."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        if shutil.which("unshare") and subprocess.run(words + ["true"], stderr=subprocess.DEVNULL).returncode == 0:
            return words
    return None


def memory(praetor, folder, command):
    """The kernel kills the worker for want of memory. Where no cgroup can be made it is a kill, and a file that counts
    it in the place of the kernel's."""
    group = Cgroup()
    try:
        if group.folder:
            run = Run(praetor, folder, command, start=group.enter)
        else:
            words = private_mounts()
            if not words:
                print("SKIPPED: neither a memory cgroup nor a mount can be made here")
                return SKIPPED
            print("no memory cgroup can be made here: its files are made up")
            counts = pathlib.Path(folder).parent / "cgroup"
            counts.mkdir(parents=True)
            script = f'mount --bind "{counts}" /sys/fs/cgroup && exec "$@"'
            (counts / "memory.events").write_text("oom_kill 0\n")
            (counts / "memory").mkdir()
            (counts / "memory/memory.oom_control").write_text("oom_kill 0\n")
            run = Run(praetor, folder, words + ["sh", "-c", script, "sh"] + command)
        pid = run.wait_for("a worker", run.worker)["pid"]
        run.wait_for("rollouts", lambda: run.rows() >= ROWS)
        if group.folder:
            group.run_short(pid)
        else:
            for file in ("memory.events", "memory/memory.oom_control"):
                (counts / file).write_text("oom_kill 1\n")
            os.kill(pid, signal.SIGKILL)
        return run.end()
    finally:
        if group.folder:
            group.remove()


if __name__ == "__main__":
    fault = {"hang": hang, "poison": poison, "memory": memory}[sys.argv[1]]
    sys.exit(fault(sys.argv[2], sys.argv[3], sys.argv[4:]))
