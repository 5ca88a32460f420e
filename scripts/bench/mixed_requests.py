#!/usr/bin/env python3
"""Requests of many lengths: 64 of 8 to 256 new tokens, all there at once, answered by `praetor serve` and by Hugging Face generate in
static batches of 16, in turn; one JSON line.

    mixed_requests.py [--model small] [--threads 2] [--rounds 3] [--batch 16 64] [--count 64] [--prompt 64]

A static batch runs until its longest request ends; what the shorter ones would have said beyond their end is thrown away, as a user
of static batches does. The batches are in the order of arrival, or (`sorted`) of the lengths, which a server does not know before.
Ours takes each request over HTTP with max_tokens of its own, at most --batch at once. Both sample at temperature 1 in float32, end
tokens ignored. Ratio = medians over rounds of the peer's seconds by ours; `foreign` as in generate_ratios.py.
"""
import argparse
import concurrent.futures
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import praetor_case

STATIC_BATCH = 16


def requests_of(options, vocab):
    choose = random.Random(1)
    return [{"prompt": [choose.randrange(10, vocab) for _ in range(options.prompt)], "max_tokens": choose.randint(8, 256)}
            for _ in range(options.count)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(port, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["usage"]["completion_tokens"]


class Server:
    """praetor serve, as long as the block."""

    def __init__(self, options, batch):
        self.port, self.model = free_port(), options.model
        command = [praetor_case.PRAETOR, "serve", "--model", praetor_case.models() / options.model, "--port", self.port, "--batch", batch,
                   "--threads", options.threads, "--connections", options.count]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("mixed_requests.py: praetor serve does not answer")
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def answer(self, requests, seed):
        bodies = [{"model": self.model, "temperature": 1, "ignore_eos": True, "seed": seed, **request} for request in requests]
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
            start, busy, before = time.perf_counter(), praetor_case.busy_seconds(), self.own_seconds()
            made = list(pool.map(lambda body: post(self.port, body), bodies))
            took = time.perf_counter() - start
            foreign = (praetor_case.busy_seconds() - busy - (self.own_seconds() - before)) / took
        assert made == [request["max_tokens"] for request in requests], made
        return took, round(max(0.0, foreign), 3)

    def own_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        times = os.times()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + times.user + times.system


def peer(options):
    """Runs in the peers' environment: a JSON line {"arrival": [seconds...], "sorted": [...], "foreign": ...} a round."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(praetor_case.models() / options.model, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig()
    requests = requests_of(options, model.config.vocab_size)

    def run(batch, most):
        ids = torch.tensor([request["prompt"] for request in batch])
        config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=most, eos_token_id=None,
                                  pad_token_id=0, use_cache=True)
        with torch.inference_mode():
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)

    run(requests[:STATIC_BATCH], 8)
    print("ready", flush=True)
    for _ in sys.stdin:
        row = {}
        for order in ("arrival", "sorted"):
            queue = requests if order == "arrival" else sorted(requests, key=lambda request: request["max_tokens"])
            start, busy, before = time.perf_counter(), praetor_case.busy_seconds(), sum(os.times()[:2])
            for i in range(0, len(queue), STATIC_BATCH):
                batch = queue[i:i + STATIC_BATCH]
                run(batch, max(request["max_tokens"] for request in batch))
            row[order] = time.perf_counter() - start
            own = sum(os.times()[:2]) - before
            row["foreign"] = round(max(row.get("foreign", 0.0), (praetor_case.busy_seconds() - busy - own) / row[order]), 3)
        print(json.dumps(row), flush=True)


def compare(options):
    vocab = json.loads((praetor_case.models() / options.model / "config.json").read_text())["vocab_size"]
    requests = requests_of(options, vocab)
    python = Path(os.environ.get("PEERS_VENV", os.path.expanduser("~/peers"))) / "bin" / "python"
    other = subprocess.Popen([str(python), __file__, "--as-peer", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
    if other.stdout.readline() != "ready\n":
        sys.exit("mixed_requests.py: the peers' environment does not work")
    seconds, foreign = {}, 0.0
    for seed in range(options.rounds):
        for batch in options.batch:
            with Server(options, batch) as server:
                server.answer(requests[:2], seed)
                took, others = server.answer(requests, seed)
            seconds.setdefault(f"batch {batch}", []).append(took)
            foreign = max(foreign, others)
        other.stdin.write("round\n")
        other.stdin.flush()
        row = json.loads(other.stdout.readline())
        foreign = max(foreign, row.pop("foreign"))
        for order, took in row.items():
            seconds.setdefault(order, []).append(took)
    other.stdin.close()
    other.wait()
    tokens = sum(request["max_tokens"] for request in requests)
    out = {"case": "mixed_requests", "model": options.model, "requests": options.count, "prompt": options.prompt, "new_tokens": tokens,
           "threads": options.threads, "rounds": options.rounds, "foreign": foreign,
           "tokens_per_s": {who: round(tokens / statistics.median(each)) for who, each in seconds.items()}, "ratio": {}}
    for batch in options.batch:
        ours = seconds[f"batch {batch}"]
        for order in ("arrival", "sorted"):
            ratios = [theirs / own for theirs, own in zip(seconds[order], ours)]
            out["ratio"][f"batch {batch} against {order}"] = round(statistics.median(ratios), 2)
    print(json.dumps(out), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    peer(options) if options.as_peer else compare(options)


if __name__ == "__main__":
    main()
