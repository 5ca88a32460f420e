#!/usr/bin/env python3
"""One benchmark case of Praetor, as a JSON line in the form that the peers' scripts print, so that both can be run in turn.

    praetor_case.py CASE MODEL THREADS      CASE: generate, generate1, ppo1, ppo4, grpo, nash_md, dpo, reward

MODEL names a folder under $PEERS_MODELS (default $PEERS_VENV/models, ~/peers/models); MODEL-rm beside it is the reward model.
The work is the peers': B prompts of P random tokens, N new tokens each, end tokens ignored; a PPO step samples, scores with the
reward model, takes reference log-probabilities and values, and makes E passes of one minibatch over policy and separate critic;
GRPO samples 4 responses to each of 8 prompts, Nash-MD one of the policy and one of the mixture to each of 8, and both update once;
DPO (its reference forward in every step) and the reward model take 16 pairs of sequences of 128 tokens.
Every sample carries foreign_cores: what other processes used of the machine meanwhile. peak_rss_mib is the most memory that the
process had.
"""
import json
import os
import random
import resource
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


def train(trainer, model, threads, folder, stage, shapes, tokens, parts=("rollout", "score", "update", "ledger")):
    """Runs STEPS steps of one stage after the warm-up; `tokens` of a step by name, the peers' name for them first."""
    job = {"name": "bench", "threads": int(threads), "output": str(folder / "runs"), "checkpoint": {"every": 0},
           "stages": [{"model": {"path": str(model)}, "steps": STEPS + WARMUP, **stage}]}
    (folder / "job.yaml").write_text(json.dumps(job))
    done, foreign = run([PRAETOR, "train", folder / "job.yaml"])
    rows = [json.loads(line) for line in open(Path(json.loads(done.stdout)["run"]) / "metrics.jsonl")][WARMUP:]
    assert len(rows) == STEPS, rows
    seconds = [[row.get("time/" + part, 0) for part in parts] for row in rows]
    steps = [sum(row) for row in seconds]
    median = statistics.median(steps)
    return {"peer": "praetor", "trainer": trainer, "model": model.name, "dtype": "float32", "threads": int(threads),
            "shapes": shapes, "step_s": {"median": median, "all": steps, "foreign_cores": [foreign] * len(steps)},
            "phases_s_median": dict(zip(parts, map(statistics.median, zip(*seconds)))),
            "tokens_per_s": {name: count / median for name, count in tokens.items()}}


def online(trainer, model, threads, folder, prompts, section, rewards, shapes, responses, prompt=64, new=64):
    """`responses` of `new` tokens are sampled in a step, to `prompts` prompts of `prompt` tokens."""
    write_prompts(folder / "prompts.jsonl", model, prompts * (STEPS + WARMUP), prompt)
    stage = {"kind": trainer, "data": {"train": str(folder / "prompts.jsonl")},
             "sampling": {"max_new_tokens": new, "ignore_eos": True}, "rewards": {"parts": [rewards]},
             trainer: {"prompts_per_step": prompts, **section}}
    return train(trainer, model, threads, folder, stage, {**shapes, "prompt": prompt, "new": new},
                 {"new_tokens": responses * new, "sequence_tokens": responses * (prompt + new)})


def reward_model(model):
    return {"kind": "model", "path": str(model) + "-rm"}


def ppo(model, threads, folder, epochs, batch=16):
    section = {"epochs": epochs, "minibatches": 1, "critic": {"init": "reward"}}
    shapes = {"batch": batch, "ppo_epochs": epochs, "mini_batches": 1, "reward": "model"}
    return online("ppo", model, threads, folder, batch, section, reward_model(model), shapes, batch)


def grpo(model, threads, folder, prompts=8, samples=4):
    """The score is a rule that costs next to nothing, as the peer's is; that it differs between samples is all that matters."""
    rule = {"kind": "length", "unit": "characters", "min": 1000, "soft": 1000}
    section = {"samples_per_prompt": samples, "epochs": 1, "minibatches": 1, "kl": {"coefficient": 0.04}}
    shapes = {"prompts": prompts, "samples": samples, "beta": 0.04, "iterations": 1, "reward": "func", "loss": "grpo"}
    return online("grpo", model, threads, folder, prompts, section, rule, shapes, prompts * samples)


def nash_md(model, threads, folder, batch=8):
    section = {"mixture": 0.5, "kl_coefficient": 0.1, "kl_form": "token"}
    shapes = {"batch": batch, "mixture_coef": 0.5, "reward": "model"}
    return online("nash_md", model, threads, folder, batch, section, reward_model(model), shapes, 2 * batch)


def pairs(trainer, model, threads, folder, section, batch=16, tokens=128):
    """Pairs of sequences of `tokens` tokens: half prompt, half answer, the end token among it."""
    words, choose = whole_words(model), random.Random(0)
    text = lambda length: "".join(" " + choose.choice(words) for _ in range(length))
    with open(folder / "pairs.jsonl", "w") as out:
        for _ in range(batch * (STEPS + WARMUP)):
            answers = {kind: text(tokens - tokens // 2 - 1) for kind in ("chosen", "rejected")}
            out.write(json.dumps({"prompt": text(tokens // 2), **answers}) + "\n")
    stage = {"kind": trainer, "data": {"train": str(folder / "pairs.jsonl"), "max_length": tokens},
             trainer: {"batch_size": batch, **section}}
    return train({"reward_model": "reward"}.get(trainer, trainer), model, threads, folder, stage,
                 {"batch_pairs": batch, "tokens": tokens}, {"sequence_tokens": 2 * batch * tokens}, ("update", "ledger"))


def reward(model, threads, folder):
    out = pairs("reward_model", Path(str(model) + "-rm"), threads, folder, {"centring": 0})
    return {**out, "model": model.name}


def cases(model, threads, folder):
    return {"generate": lambda: generate(model, threads, folder, 16, 64, 128),
            "generate1": lambda: generate(model, threads, folder, 1, 64, 128),
            "ppo1": lambda: ppo(model, threads, folder, 1), "ppo4": lambda: ppo(model, threads, folder, 4),
            "grpo": lambda: grpo(model, threads, folder), "nash_md": lambda: nash_md(model, threads, folder),
            "dpo": lambda: pairs("dpo", model, threads, folder, {"beta": 0.1}), "reward": lambda: reward(model, threads, folder)}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    case, name, threads = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        known = cases(models() / name, threads, Path(scratch))
        if case not in known:
            sys.exit(f"praetor_case.py: no case {case}; there are {', '.join(known)}")
        out = known[case]()
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(json.dumps({**out, "peak_rss_mib": round(most / 1024, 1)}), flush=True)


if __name__ == "__main__":
    main()
