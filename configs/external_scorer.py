"""A scorer for a part of kind `external`: a line of JSON in, a line of JSON out. This one likes responses of few words."""
import json
import sys

for line in sys.stdin:
    sample = json.loads(line)  # id, prompt, response, metadata
    words = len(sample["response"].split())
    answer = {"id": sample["id"], "score": 1 / (1 + words / 100), "satisfied": words <= 100, "reason": f"{words} words"}
    print(json.dumps(answer), flush=True)
