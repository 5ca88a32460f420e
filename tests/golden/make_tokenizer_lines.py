"""Writes tokenizer_lines.json: for the tokenizers of the data folder a hash of the `tokenizers` package's ids of each
line of varied_lines.py. usage: make_tokenizer_lines.py SHARED_FOLDER   (the folder that holds data/; run beside this file)"""
import json
import pathlib
import sys

import tokenizers
import varied_lines


def main():
    data = pathlib.Path(sys.argv[1]) / "data"
    lines = varied_lines.made_lines() + varied_lines.data_lines(data)
    out = {"made_by": f"tests/golden/make_tokenizer_lines.py, tokenizers {tokenizers.__version__}", "tables": varied_lines.TABLES,
           "lines": len(lines), "cases": {}}
    for name in ["stories260K", "tokenizer-gpt2", "tokenizer-llama2", "tokenizer-qwen3"]:
        tok = tokenizers.Tokenizer.from_file(str(data / name / "tokenizer.json"))
        hashes = [varied_lines.fnv(tok.encode(line).ids) for line in lines]
        out["cases"][name] = "".join(f"{(h >> 16) ^ (h & 0xFFFF):04x}" for h in hashes)
    path = pathlib.Path(__file__).with_name("tokenizer_lines.json")
    path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(len(lines), "lines", path.stat().st_size, "bytes")


main()
