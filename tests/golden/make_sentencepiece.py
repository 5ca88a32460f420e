"""Writes sentencepiece/unigram.model and sentencepiece/unigram_bytes.model, small SentencePiece models of the unigram kind
(the second with byte fallback), and sentencepiece/ids.json: what the `sentencepiece` package makes of texts.
usage: make_sentencepiece.py SHARED_FOLDER   (the folder that holds data/; run beside this file)"""
import io
import json
import os
import pathlib
import sys
import unicodedata

import sentencepiece

TEXTS = ["", " ", "Once upon a time, there was a little girl named Lily.", "  two  spaces  ", "tabs\tand\nlines", "\uff2c\uff49\uff4c\uff59 \ufb01nds \u00bd", "cafe\u0301 caf\u00e9 \uff43a\u0301",
         "\u65e5\u672c\u8a9e \U0001f600 \u041f\u0440\u0438", "zzz\u200bzzz\u00adq\u2122", "\u2581mark \u2581\u2581", "<s>hello</s> <unk>", "a" * 40, "\u3314\u30b9\u309a \uff76\uff9e", "Tim's dog. \"Stop!\" 123"]


def rules():
    """Part of NFKC, and what SentencePiece's own tables do besides: white space to a space, invisible signs to nothing."""
    table = {}
    wanted = [*range(0xFF01, 0xFF5F), *range(0xFF66, 0xFF9E), *range(0xFB00, 0xFB07), 0xBC, 0xBD, 0xBE, 0x2122, 0x3314, 0x3316, 0x2460, 0x2461]
    for code in wanted:
        table[chr(code)] = unicodedata.normalize("NFKC", chr(code))
    for base in "aeiouAEIOU\u30b9\u30ab\uff76":
        for mark in "\u0300\u0301\u0302\u0308\u3099\u309a\uff9e":
            both = unicodedata.normalize("NFKC", base + mark)
            if len(both) == 1:
                table[base + mark] = both
    for code in [9, 10, 13, 0xA0, 0x2003, 0x3000]:
        table[chr(code)] = " "
    for code in [0xAD, 0x200B, 0x200C, 1, 2]:
        table[chr(code)] = ""
    spell = lambda text: " ".join(f"{ord(c):X}" for c in text)
    return "".join(f"{spell(a)}\t{spell(b)}\n" for a, b in sorted(table.items()))


def main():
    data, here = pathlib.Path(sys.argv[1]).resolve() / "data", pathlib.Path(__file__).resolve().parent / "sentencepiece"
    prompts = [json.loads(line) for line in (data / "story-prompts/train.jsonl").read_text().splitlines()]
    texts = [next(v for v in p.values() if isinstance(v, str)) for p in prompts] + ["caf\u00e9 na\u00efve r\u00e9sum\u00e9", "\u30b9\u30da\u30fc\u30b9 \u30ab\u30ac"] * 20
    (here / "rules.tsv").write_text(rules())
    os.chdir(here)  # a model keeps the path of its rules
    out = {"made_by": f"tests/golden/make_sentencepiece.py, sentencepiece {sentencepiece.__version__}", "texts": TEXTS, "cases": {}}
    for name, bytes_too in {"unigram": False, "unigram_bytes": True}.items():
        made = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=made, model_type="unigram", vocab_size=560 if bytes_too else 300, byte_fallback=bytes_too,
            character_coverage=1.0, normalization_rule_tsv="rules.tsv", pad_id=3, num_threads=1, minloglevel=2)
        (here / f"{name}.model").write_bytes(made.getvalue())
        model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
        ids = [model.encode(t) for t in TEXTS]
        out["cases"][name] = {"ids": ids, "text": [model.decode(i) for i in ids]}
    (here / "rules.tsv").unlink()
    (here / "ids.json").write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")


main()
