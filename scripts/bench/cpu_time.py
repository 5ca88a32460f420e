#!/usr/bin/env python3
"""CPU seconds of a step of ours and of the peer's, one thread each, in turn: for machines that are not quiet.

    cpu_time.py PEERS_SCRIPTS CASE...      CASE: grpo, nash_md, dpo, reward, ppo1

PEERS_SCRIPTS is the folder of the peers' scripts, run by $PEERS_VENV/bin/python (default ~/peers). Ours is the difference between a run
of LONG steps and one of SHORT; the peer's script is given the process's CPU clock in place of its wall clock.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import praetor_case

PEERS = {"grpo": "peer_grpo.py --prompts 8 --samples 4 --prompt 64 --new 64",
         "nash_md": "peer_nash_md.py --batch 8 --prompt 64 --new 64",
         "dpo": "peer_dpo.py --batch 16 --tokens 128", "reward": "peer_reward.py --batch 16 --tokens 128",
         "ppo1": "peer_ppo.py --batch 16 --prompt 64 --new 64 --epochs 1"}
CPU_CLOCK = ("import runpy, sys, time; time.perf_counter = time.process_time; sys.argv = sys.argv[1:]; "
             "sys.path.insert(0, sys.argv[0].rsplit('/', 1)[0]); runpy.run_path(sys.argv[0], run_name='__main__')")
MODEL, SHORT, LONG = "small", 1, 4


def children_seconds():
    times = os.times()
    return times.children_user + times.children_system


def ours(case):
    model, used = praetor_case.models() / MODEL, []
    for steps in (SHORT, LONG):
        praetor_case.STEPS = steps
        with tempfile.TemporaryDirectory() as scratch:
            before = children_seconds()
            line = praetor_case.cases(model, "1", Path(scratch))[case]()
            used.append(children_seconds() - before)
    return (used[1] - used[0]) / (LONG - SHORT), line


def peer(scripts, case):
    python = Path(os.environ.get("PEERS_VENV", os.path.expanduser("~/peers"))) / "bin" / "python"
    script, *options = PEERS[case].split()
    done = subprocess.run([python, "-c", CPU_CLOCK, f"{scripts}/{script}", *options, "--model", MODEL, "--steps", "3", "--warmup", "1",
                           "--threads", "1"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{script}: status {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main():
    if len(sys.argv) < 3 or not set(sys.argv[2:]) <= set(PEERS):
        sys.exit(__doc__)
    os.environ["OMP_WAIT_POLICY"] = "passive"  # no CPU time for waiting
    for case in sys.argv[2:]:
        mine, line = ours(case)
        its = peer(sys.argv[1], case)
        print(json.dumps({"model": MODEL, "dtype": "float32", "clock": "cpu", "case": case, "threads": 1, "ours_cpu_s": round(mine, 3),
                          "peer_cpu_s": its["step_s"]["all"], "ratio": round(its["step_s"]["median"] / mine, 2),
                          "foreign_cores": line["step_s"]["foreign_cores"][0], "ours_phases_wall_s": line["phases_s_median"],
                          "peer_phases_cpu_s": its["phases_s_median"]}), flush=True)


if __name__ == "__main__":
    main()
