"""Runs a job of separate roles again and again while it kills, stops, restarts and slows its processes at random, and
checks each time that nothing came of it.

    chaos.py PRAETOR FOLDER FIRST COUNT

FOLDER has job.yaml, a job of separate roles without its section `roles`, and calm-1 and calm-2, the runs that it gives
with one and with two learner ranks when nobody disturbs it. Each seed from FIRST on decides one run: how many processes
there are, who is hit, when and how. The run must end by itself (when the supervisor itself was killed: after it was
started again), its account must hold, its models must be those of the calm run, and no process may be left. Prints a
JSON line for each run; its status is 1 when one of them failed.
"""
import ctypes
import filecmp
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

LONGEST = 240.0  # seconds for one run, faults included
HITS = {"kill": 4, "stop": 3, "slow": 2, "restart": 1}


def command_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def members(run):
    """Processes of the run by name; a name may have several at once (the ranks, an old and a new one)."""
    found = []
    for entry in os.listdir("/proc"):
        words = command_of(entry) if entry.isdigit() else []
        if len(words) < 2 or not words[0].endswith("praetor") or not any(str(run) in word for word in words):
            continue
        name = words[words.index("--name") + 1] if "--name" in words else words[1]
        found.append((name, int(entry)))
    return sorted(found)


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Run:
    def __init__(self, praetor, folder, seed):
        self.rng = random.Random(seed)
        self.praetor, self.folder = praetor, folder
        self.out = folder / f"run-{seed}"
        self.run = self.out / "tiny"
        self.ranks = self.rng.choice([1, 1, 1, 2])
        self.workers = (self.rng.randint(1, 3), self.rng.randint(0, 2))
        self.faults, self.starts = [], 0

    def start(self):
        rollout, reward = self.workers
        roles = f"{{rollout: {{workers: {rollout}, threads: 1}}, reward: {{workers: {reward}, threads: 1}}, learner: {{ranks: {self.ranks}}}}}"
        job = self.folder / f"{self.out.name}.yaml"
        job.write_text((self.folder / "job.yaml").read_text() + f"roles: {roles}\noutput: {self.out}\n")
        self.starts += 1
        log = open(self.folder / f"{self.out.name}.log", "ab")
        command = [self.praetor, "train", job, "--resume", "auto"]
        self.job = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)

    def strike(self):
        """Does one thing to one process. @return what it was, or None when there was nobody to hit"""
        everyone = members(self.run)
        if len(everyone) < 3:
            return None
        # The supervisor is one of many: its end is the end of all.
        name, pid = self.rng.choice([m for m in everyone if m[0] != "train"])
        if self.rng.random() < 0.08:
            name, pid = "train", self.job.pid
        how = self.rng.choices(list(HITS), HITS.values())[0]
        if name == "train" and how == "restart":
            how = "kill"
        length = self.rng.uniform(0.1, 5.0)
        if how in ("kill", "restart"):
            send(pid, signal.SIGKILL if how == "kill" else signal.SIGTERM)
        elif how == "stop":
            if send(pid, signal.SIGSTOP):
                time.sleep(length)
                send(pid, signal.SIGCONT)
        else:
            for _ in range(self.rng.randint(3, 20)):
                if not send(pid, signal.SIGSTOP):
                    break
                time.sleep(0.05)
                send(pid, signal.SIGCONT)
                time.sleep(0.02)
        return f"{how} {name}"

    def rough(self):
        """The run, from start to end, under its faults. @return what is wrong, or an empty text"""
        begin = time.monotonic()
        self.start()
        left = self.rng.randint(3, 7)
        while True:
            wait = self.rng.uniform(0.1, 1.0) if left else 1.0
            try:
                status = self.job.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                if time.monotonic() - begin > LONGEST:
                    self.job.kill()
                    self.job.wait()
                    return f"no end after {LONGEST:.0f} s"
                if left and (what := self.strike()):
                    self.faults.append(what)
                    left -= 1
                continue
            if status == -signal.SIGKILL:  # ours, to the supervisor
                time.sleep(0.5)
                if members(self.run):
                    return f"the supervisor was killed, and left {members(self.run)}"
                self.start()
                continue
            return "" if status == 0 else f"status {status}"

    def wrong(self):
        """What is wrong after the run; an empty text when nothing is."""
        calm = self.folder / f"calm-{self.ranks}" / "tiny"
        if left := members(self.run):
            return f"processes are left: {left}"
        check = subprocess.run([self.praetor, "verify", self.run], capture_output=True, text=True)
        if check.returncode != 0:
            return f"verify: {check.stdout[-500:]}"
        for weights in sorted(calm.glob("stages/*/model.safetensors")):
            mine = self.run / weights.relative_to(calm)
            if not mine.exists() or not filecmp.cmp(weights, mine, shallow=False):
                return f"{weights.parent.name}: other weights"
        return ""


def main():
    praetor, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    first, count = int(sys.argv[3]), int(sys.argv[4])
    good = 0
    for seed in range(first, first + count):
        run = Run(praetor, folder, seed)
        begin = time.monotonic()
        wrong = run.rough() or run.wrong()
        row = {"seed": seed, "ok": not wrong, "ranks": run.ranks, "rollout": run.workers[0], "reward": run.workers[1]}
        row |= {"starts": run.starts, "faults": run.faults, "seconds": round(time.monotonic() - begin, 1), "wrong": wrong}
        print(json.dumps(row), flush=True)
        if wrong:
            print((folder / f"{run.out.name}.log").read_text()[-3000:], file=sys.stderr)
        else:
            good += 1
            shutil.rmtree(run.out)
    print(json.dumps({"runs": count, "good": good}))
    sys.exit(good != count)


if __name__ == "__main__":
    main()
