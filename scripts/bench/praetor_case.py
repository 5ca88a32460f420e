#!/usr/bin/env python3
"""One benchmark case of Praetor, as a JSON line in the form that the peers' scripts print, so that both can be run in turn.

    praetor_case.py CASE MODEL THREADS      CASE: generate, generate1, ppo1, ppo4

MODEL names a folder under $PEERS_MODELS (default $PEERS_VENV/models, ~/peers/models); MODEL-rm beside it is the reward model.
The work is the peers': B prompts of P random tokens, N new tokens each, end tokens ignored; a PPO step samples, scores with the
reward model, takes reference log-probabilities and values, and makes E passes of one minibatch over policy and separate critic.
Every sample carries foreign_cores: what other processes used of the machine meanwhile.
"""
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRAETOR = ROOT / "build" / "release" / "bin" / "praetor"
STEPS, WARMUP = 5, 1


def models():
    venv = os.environ.get("PEERS_VENV", os.path.expanduser("~/peers"))
    return Path(os.environ.get("PEERS_MODELS", os.path.join(venv, "models")))


def busy_seconds():
    """CPU seconds that all processes of the machine have used."""
    user, nice, system, _, _, irq, soft, *_ = map(int, open("/proc/stat").readline().split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def run(command):
    """Output, and the cores that others used meanwhile."""
    start, busy = time.perf_counter(), busy_seconds()
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    after = os.times()
    own = after.children_user + after.children_system - before.children_user - before.children_system
    foreign = max(0.0, busy_seconds() - busy - own) / (time.perf_counter() - start)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done, round(foreign, 3)


def whole_words(model):
    """Words that are one token each with their leading space, so that n of them are n tokens."""
    vocabulary = json.load(open(model / "tokenizer.json"))["model"]["vocab"]
    return sorted(t[1:] for t in vocabulary if len(t) > 1 and t[0] == "\u0120" and t[1:].isascii() and t[1:].isalpha())


def write_prompts(path, model, count, length):
    words, choose = whole_words(model), random.Random(0)
    with open(path, "w") as out:
        for _ in range(count):
            out.write(json.dumps({"prompt": "".join(" " + choose.choice(words) for _ in range(length))}) + "\n")


def generate(model, threads, folder, batch, prompt, new):
    write_prompts(folder / "prompts.jsonl", model, batch, prompt)
    seconds, foreign = [], []
    for seed in range(3):
        _, others = run([PRAETOR, "generate", "--model", model, "--prompts", folder / "prompts.jsonl", "--max-new-tokens", str(new),
                         "--temperature", "1", "--seed", str(seed), "--batch", str(batch), "--threads", threads, "--ignore-eos",
                         "--stats", folder / "stats.json"])
        stats = json.load(open(folder / "stats.json"))
        assert stats["tokens"] == batch * new, stats
        seconds.append(stats["seconds"])
        foreign.append(others)
    return {"peer": "praetor", "model": model.name, "batch": batch, "prompt": prompt, "new": new, "threads": int(threads),
            "results": {"float32": {"s": {"min": min(seconds), "median": statistics.median(seconds), "all": seconds,
                                          "foreign_cores": foreign},
                                    "tokens_per_s_median": batch * new / statistics.median(seconds)}}}


def ppo(model, threads, folder, epochs, batch=16, prompt=64, new=64):
    write_prompts(folder / "prompts.jsonl", model, batch * (STEPS + WARMUP), prompt)
    job = {"name": "bench", "threads": int(threads), "output": str(folder / "runs"), "checkpoint": {"every": 0},
           "stages": [{"kind": "ppo", "model": {"path": str(model)}, "data": {"train": str(folder / "prompts.jsonl")},
                       "steps": STEPS + WARMUP, "sampling": {"max_new_tokens": new, "ignore_eos": True},
                       "rewards": {"parts": [{"kind": "model", "path": str(model) + "-rm"}]},
                       "ppo": {"prompts_per_step": batch, "epochs": epochs, "minibatches": 1,
                               "critic": {"init": "reward"}}}]}
    (folder / "job.yaml").write_text(json.dumps(job))
    done, foreign = run([PRAETOR, "train", folder / "job.yaml"])
    rows = [json.loads(line) for line in open(Path(json.loads(done.stdout)["run"]) / "metrics.jsonl")][WARMUP:]
    parts = [{k[5:]: row["time/" + k[5:]] for k in row if k.startswith("time/")} for row in rows]
    steps = [sum(p.get(k, 0) for k in ("rollout", "score", "update", "ledger")) for p in parts]
    phases = {k: statistics.median(p.get(k, 0) for p in parts) for k in ("rollout", "score", "update", "ledger")}
    return {"peer": "praetor", "trainer": "ppo", "model": model.name, "dtype": "float32", "threads": int(threads),
            "shapes": {"batch": batch, "prompt": prompt, "new": new, "ppo_epochs": epochs, "mini_batches": 1, "reward": "model"},
            "step_s": {"median": statistics.median(steps), "all": steps, "foreign_cores": [foreign] * len(steps)},
            "phases_s_median": phases, "tokens_per_s": {"new_tokens": batch * new / statistics.median(steps)}}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    case, name, threads = sys.argv[1:]
    model = models() / name
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = {"generate": lambda: generate(model, threads, folder, 16, 64, 128),
                 "generate1": lambda: generate(model, threads, folder, 1, 64, 128),
                 "ppo1": lambda: ppo(model, threads, folder, 1), "ppo4": lambda: ppo(model, threads, folder, 4)}
        if case not in cases:
            sys.exit(f"praetor_case.py: no case {case}; there are {', '.join(cases)}")
        print(json.dumps(cases[case]()), flush=True)


if __name__ == "__main__":
    main()
