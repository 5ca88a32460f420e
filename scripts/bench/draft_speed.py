#!/usr/bin/env python3
"""What guessing ahead (engine.draft_tokens) gains: the same responses with and without, in turn, one JSON line a setting.

    draft_speed.py PRAETOR MODEL PROMPTS [ROUNDS]

PROMPTS are rows for `praetor generate`. Ratio = median seconds without drafts by median seconds with; the responses must be
the same token for token. Two kinds of text: greedy, which repeats itself, and samples at temperature 1.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile


def run(praetor, model, prompts, batch, temperature, draft, folder):
    stats = folder / "stats.json"
    words = [praetor, "generate", "--model", model, "--prompts", prompts, "--max-new-tokens", "256", "--ignore-eos"]
    words += ["--batch", str(batch), "--temperature", str(temperature), "--draft-tokens", str(draft), "--stats", stats]
    made = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
    return made, json.loads(stats.read_text())


def main():
    praetor, model, prompts = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for temperature in (0, 1):
            for batch in (1, 16):
                for draft in (2, 4, 8):
                    seconds = {0: [], draft: []}
                    stats = {}
                    texts = set()
                    for _ in range(rounds):
                        for each in seconds:
                            text, stats[each] = run(praetor, model, prompts, batch, temperature, each, folder)
                            seconds[each].append(stats[each]["seconds"])
                            texts.add(text)
                    if len(texts) != 1:
                        sys.exit("drafts changed a token")
                    row = {"case": "drafts", "temperature": temperature, "batch": batch, "draft_tokens": draft, "rounds": rounds}
                    row["ratio"] = round(statistics.median(seconds[0]) / statistics.median(seconds[draft]), 3)
                    row["accepted_share"] = round(stats[draft]["accepted"] / max(1, stats[draft]["drafted"]), 3)
                    row["steps_share"] = round(stats[draft]["steps"] / stats[0]["steps"], 3)
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
