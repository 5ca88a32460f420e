#!/usr/bin/env python3
"""Generation beside Hugging Face generate and llama.cpp: one table of ratios, ours and theirs in turn.

    generate_ratios.py PEERS_SCRIPTS [--model small] [--threads 2] [--rounds 1] [--batch 1 16 32] [--out RESULTS.jsonl]

PEERS_SCRIPTS is the folder of the peers' scripts, run by $PEERS_VENV/bin/python (default ~/peers); MODEL a folder under $PEERS_MODELS
(default $PEERS_VENV/models). Each sample is B prompts of 64 tokens and 128 new ones in float32. A ratio is the peer's median seconds by
ours: above 1 we are faster. `foreign` is the most that other processes used meanwhile, in cores: above 0.15 take no sample for a figure.
llama.cpp takes part where its Python package is installed and MODEL/MODEL-f32.gguf is there (make_gguf.py beside this makes it);
otherwise its column says what is missing. With --out every sample is appended as a JSON line.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import praetor_case

PROMPT, NEW = 64, 128


def python():
    return Path(os.environ.get("PEERS_VENV", os.path.expanduser("~/peers"))) / "bin" / "python"


def ours(options, batch):
    with tempfile.TemporaryDirectory() as scratch:
        return praetor_case.generate(praetor_case.models() / options.model, str(options.threads), Path(scratch), batch, PROMPT, NEW)


def peer(options, script, batch, *more):
    command = [python(), Path(options.scripts) / script, "--model", options.model, "--batch", batch, "--prompt", PROMPT, "--new", NEW,
               "--repeats", 3, "--threads", options.threads, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{script}: status {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def missing_of_llamacpp(options):
    """What keeps llama.cpp from taking part, or nothing."""
    if subprocess.run([python(), "-c", "import llama_cpp"], capture_output=True).returncode != 0:
        return "llama-cpp-python is not installed"
    gguf = praetor_case.models() / options.model / f"{options.model}-f32.gguf"
    return None if gguf.exists() else f"no {gguf.name}"


def timed(sample, dtype):
    seconds = sample["results"][dtype]["s"]
    return seconds["all"], seconds["foreign_cores"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", metavar="PEERS_SCRIPTS")
    parser.add_argument("--model", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--out")
    options = parser.parse_args()
    for need in (praetor_case.PRAETOR, python(), Path(options.scripts) / "peer_generate.py", praetor_case.models() / options.model):
        if not need.exists():
            sys.exit(f"generate_ratios.py: {need} is not there")

    reason = missing_of_llamacpp(options)
    runs = {"praetor": (lambda b: ours(options, b), "float32"),
            "Hugging Face": (lambda b: peer(options, "peer_generate.py", b, "--dtypes", "float32"), "float32")}
    if not reason:
        runs["llama.cpp"] = (lambda b: peer(options, "peer_llamacpp.py", b, "--dtypes", "f32", "--kv", "f32"), "f32")
    seconds, foreign = {}, {batch: 0.0 for batch in options.batch}
    for _ in range(options.rounds):
        for batch in options.batch:
            for who, (run, dtype) in runs.items():
                sample = run(batch)
                took, others = timed(sample, dtype)
                seconds.setdefault((who, batch), []).extend(took)
                foreign[batch] = max([foreign[batch], *others])
                if options.out:
                    with open(options.out, "a") as out:
                        out.write(json.dumps(sample) + "\n")

    print(f"model {options.model}, {options.threads} threads, float32, {PROMPT} + {NEW} tokens, {options.rounds} rounds")
    print("| batch | tokens/s | against Hugging Face | against llama.cpp | foreign |\n| --- | --- | --- | --- | --- |")
    for batch in options.batch:
        median = {who: statistics.median(seconds[who, batch]) for who in runs}
        ratio = lambda who: f"{median[who] / median['praetor']:.2f}" if who in median else "-"
        print(f"| {batch} | {batch * NEW / median['praetor']:.0f} | {ratio('Hugging Face')} | {ratio('llama.cpp')} | {foreign[batch]:.2f} |")
    if reason:
        print(f"llama.cpp took no part: {reason}")


if __name__ == "__main__":
    main()
