#!/usr/bin/env python3
"""What weights in bfloat16 and int8 (--weights) gain: the same prompts in each kind, in turn, one JSON line a setting.

    weight_kinds.py [--models small mid] [--batch 1 4 16] [--threads 2] [--rounds 3] [--new 128] [--peer PEERS_SCRIPTS]

MODELs are folders under $PEERS_MODELS (default ~/peers/models). Ratios are the medians over rounds of float32's seconds by the
kind's in the same round: above 1 the kind is faster. `foreign` is the most that other processes used meanwhile, in cores: above
0.15 take no figure for exact. With --peer, which takes the folder of the peers' scripts, llama.cpp runs at batch 1 as well: in those of
f32, f16 and q8_0 for which MODEL-KIND.gguf lies in the model's folder (`make_gguf.py MODEL_DIR KIND` makes one; f16 stands beside our
bfloat16, q8_0 beside our int8). `ratio` of such a row is its median seconds by ours in the like kind.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import praetor_case

KINDS = {"float32": "f32", "bfloat16": "f16", "int8": "q8_0"}
PROMPT = 64


def seconds_of(model, prompts, kind, options, batch, seed):
    stats = prompts.parent / "stats.json"
    command = [praetor_case.PRAETOR, "generate", "--model", model, "--prompts", prompts, "--max-new-tokens", options.new, "--ignore-eos",
               "--seed", seed, "--batch", batch, "--threads", options.threads, "--weights", kind, "--stats", stats]
    _, foreign = praetor_case.run(list(map(str, command)))
    return json.loads(stats.read_text())["seconds"], foreign


def compare(name, batch, options):
    model = praetor_case.models() / name
    seconds, foreign = {kind: [] for kind in KINDS}, 0
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch) / "prompts.jsonl"
        praetor_case.write_prompts(prompts, model, batch, PROMPT)
        for seed in range(options.rounds):
            for kind in random.Random(seed).sample(list(KINDS), len(KINDS)):
                took, others = seconds_of(model, prompts, kind, options, batch, seed)
                seconds[kind].append(took)
                foreign = max(foreign, others)
    row = {"case": "weight_kinds", "model": name, "batch": batch, "threads": options.threads, "prompt": PROMPT, "new": options.new,
           "rounds": options.rounds, "foreign": foreign}
    for kind, each in seconds.items():
        row[kind] = {"tokens_per_s": round(batch * options.new / statistics.median(each)), "s": [round(x, 4) for x in each]}
        row[kind]["ratio"] = round(statistics.median(a / b for a, b in zip(seconds["float32"], each)), 2)
    return row


def peer(name, options, ours):
    folder = praetor_case.models() / name
    kinds = [kind for kind in KINDS.values() if (folder / f"{name}-{kind}.gguf").exists()]
    if not kinds:
        sys.exit(f"weight_kinds.py: --peer: no {name}-KIND.gguf in {folder}: make_gguf.py {folder} KIND makes one")
    python = Path(os.environ.get("PEERS_VENV", os.path.expanduser("~/peers"))) / "bin" / "python"
    command = [python, Path(options.peer) / "peer_llamacpp.py", "--model", name, "--batch", 1, "--prompt", PROMPT, "--new", options.new,
               "--repeats", 3, "--threads", options.threads, "--kv", "f32", "--dtypes", *kinds]
    results = json.loads(subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout)["results"]
    row = {"case": "weight_kinds", "peer": "llama.cpp", "model": name, "batch": 1}
    for kind, theirs in KINDS.items():
        if theirs not in results:
            continue
        seconds = results[theirs]["s"]
        row[theirs] = {"tokens_per_s": round(options.new / seconds["median"]), "foreign": max(seconds["foreign_cores"]),
                       "ratio": round(seconds["median"] / statistics.median(ours[kind]["s"]), 2)}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small", "mid"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--peer", metavar="PEERS_SCRIPTS")
    options = parser.parse_args()
    for name in options.models:
        for batch in options.batch:
            row = compare(name, batch, options)
            print(json.dumps(row), flush=True)
            if options.peer and batch == 1:
                print(json.dumps(peer(name, options, row)), flush=True)


if __name__ == "__main__":
    main()
