#!/usr/bin/env python3
"""What sampling ahead of training gains in time, and whether it costs reward.

    staleness.py PRAETOR JOB.yaml [--seeds 5] [--bound 1] [--threads 1] [--sync-threads 2] [--set KEY=VALUE]...

The job's last stage must be online; the stages before it run once a seed. Then that stage runs, over the same result, with
max_staleness 0 and BOUND, in turn and in one invocation, as separate roles of this machine: one rollout worker, one reward worker, one
learner, THREADS each. Where roles take turns each may have all cores, so the synchronous run is also timed with SYNC_THREADS.

Prints a JSON line a run and one with the comparison: the ratio of the steps' seconds (without evaluation and checkpoints) of pairs of runs
of one seed, and one-sided tests of non-inferiority on the final `eval/score`: H0 is that the asynchronous mean lies below the
synchronous one by a margin or more. The margin is a tenth of the synchronous runs' mean rise from before the first step. Welch's takes
the runs as independent; the paired one takes differences within a seed.
"""
import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def cut_last_stage(job):
    """The job without its last stage, relative paths made absolute, and that stage's name (or kind)."""
    text = re.sub(r"(?<=[ \"])(\.\./)+[^\s,}\"]*", lambda path: str((job.parent / path.group()).resolve()), job.read_text())
    lines = text.splitlines()
    at = max(i for i, line in enumerate(lines) if line.startswith("  - kind:"))
    kind = lines[at].split(":", 1)[1].strip()
    names = [line.split(":", 1)[1].strip() for line in lines[at:] if line.startswith("    name:")]
    return "\n".join(lines[:at]) + "\n", names[0] if names else kind


def train(praetor, job, settings, resume=None):
    command = [praetor, "train", str(job)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    if resume:
        command += ["--resume", str(resume)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command)}\nstatus {done.returncode}\n{done.stderr[-3000:]}")
    return Path(json.loads(done.stdout.splitlines()[-1])["run"])


def figures(run, stage):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["stage"] == stage]
    steps = [row for row in rows if row["step"] > 0]
    # The first step has nothing to overlap with, and starts the processes.
    seconds = [row["time/step"] - row.get("time/evaluate", 0) - row.get("time/checkpoint", 0) for row in steps[1:]]
    scores = [row["eval/score"] for row in rows if "eval/score" in row]

    def mean(name):
        return round(statistics.mean(row.get(name, 0.0) for row in steps[1:]), 4)

    return {"steps": len(steps), "seconds": round(sum(seconds), 3), "median_step": round(statistics.median(seconds), 4),
            "before": scores[0], "after": scores[-1], "staleness_mean": mean("staleness/mean"),
            "idle_learner": mean("idle/learner"), "idle_rollout": mean("idle/rollout"), "idle_reward": mean("idle/reward"),
            "update": mean("time/update")}


def beta_fraction(x, a, b):
    """Regularised incomplete beta function, by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_fraction(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny, c, d, f = 1e-300, 1.0, 0.0, 1.0
    for i in range(400):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + term * d) or tiny)
        c = (1 + term / c) or tiny
        f *= c * d
        if abs(1 - c * d) < 1e-12:
            break
    return front * (f - 1)


def upper_tail(t, degrees):
    """P(T > t) of Student's distribution."""
    tail = 0.5 * beta_fraction(degrees / (degrees + t * t), degrees / 2, 0.5)
    return tail if t >= 0 else 1 - tail


def non_inferior(ours, theirs, margin):
    """Welch's t of mean(ours) - mean(theirs) + margin, its degrees of freedom, and p under H0: the difference is <= -margin."""
    a, b = statistics.variance(ours) / len(ours), statistics.variance(theirs) / len(theirs)
    difference = statistics.mean(ours) - statistics.mean(theirs)
    if a + b == 0:
        return {"difference": difference, "t": None, "p": float(difference <= -margin)}
    t = (difference + margin) / math.sqrt(a + b)
    degrees = (a + b) ** 2 / (a * a / (len(ours) - 1) + b * b / (len(theirs) - 1))
    return {"difference": round(difference, 4), "t": round(t, 3), "degrees": round(degrees, 2), "p": round(upper_tail(t, degrees), 5)}


def paired(ours, theirs, margin):
    """The same of the differences of runs of one seed, which share their data and reward model: Student's t."""
    each = [a - b for a, b in zip(ours, theirs)]
    spread = statistics.stdev(each) / math.sqrt(len(each))
    if spread == 0:
        return {"t": None, "p": float(statistics.mean(each) <= -margin)}
    t = (statistics.mean(each) + margin) / spread
    return {"t": round(t, 3), "degrees": len(each) - 1, "p": round(upper_tail(t, len(each) - 1), 5)}


def compare(runs):
    def ratios(name):
        return [round(a["median_step"] / b["median_step"], 3) for a, b in zip(runs[name], runs["async"])]

    after = {name: [run["after"] for run in some] for name, some in runs.items()}
    rise = statistics.mean(run["after"] - run["before"] for run in runs["sync"])
    first = runs["async"][0]
    result = {"job": first["job"], "seeds": len(after["sync"]), "bound": first["max_staleness"]}
    for name, key in (("sync", "speed_same_threads"), ("sync_all_cores", "speed_all_cores")):
        if name in runs:
            result[key] = {"each": ratios(name), "median": statistics.median(ratios(name))}
    result["reward"] = {"sync_mean": round(statistics.mean(after["sync"]), 4), "async_mean": round(statistics.mean(after["async"]), 4),
                        "sync_rise": round(rise, 4), "margin": round(0.1 * rise, 4)}
    if len(after["sync"]) > 1:
        result["reward"]["welch"] = non_inferior(after["async"], after["sync"], 0.1 * rise)
        result["reward"]["paired"] = paired(after["async"], after["sync"], 0.1 * rise)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("praetor")
    parser.add_argument("job", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bound", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sync-threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"
    before_text, stage = cut_last_stage(options.job)
    given = dict(one.split("=", 1) for one in options.set)
    earlier = {key: value for key, value in given.items() if not key.startswith(f"stages.{stage}.")}
    kinds = [("sync", 0, options.threads), ("async", options.bound, options.threads)]
    if options.sync_threads != options.threads:
        kinds.append(("sync_all_cores", 0, options.sync_threads))
    runs = {name: [] for name, _, _ in kinds}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        first = work / "before.yaml"
        first.write_text(before_text)
        for seed in range(1, options.seeds + 1):
            base = train(options.praetor, first, {**earlier, "seed": seed, "output": work / "base"})
            # Who goes first changes with the seed.
            for name, bound, threads in kinds if seed % 2 else kinds[::-1]:
                run = work / name / base.name
                shutil.copytree(base, run, symlinks=True)
                train(options.praetor, options.job,
                      {"seed": seed, "output": run.parent, "placement": "separate", "roles.rollout.threads": threads,
                       "roles.reward.threads": 1, "roles.learner.threads": threads, f"stages.{stage}.eval.every": 0,
                       f"stages.{stage}.checkpoint.every": 0, **given, f"stages.{stage}.max_staleness": bound}, run)
                out = {"job": options.job.stem, "run": name, "max_staleness": bound, "threads": threads, "seed": seed,
                       **figures(run, stage), "load": round(os.getloadavg()[0], 2)}
                runs[name].append(out)
                print(json.dumps(out), flush=True)
                shutil.rmtree(run)
            shutil.rmtree(base)

    print(json.dumps(compare(runs)), flush=True)


if __name__ == "__main__":
    main()
