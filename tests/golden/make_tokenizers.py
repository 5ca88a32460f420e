"""Writes tokenizers.json: ids and decodes of the `tokenizers` package for the tokenizers of the data folder.

usage: make_tokenizers.py SHARED_FOLDER   (the folder that holds data/; run beside this file)
"""
import json
import pathlib
import sys

import tokenizers

TEXTS = [
    "", " ", "  ", "\n", "\t", "a", "Hello world", " Hello world", "Hello  world", "Hello   world ",
    "Once upon a time, there was a little girl named Lily.",
    "I'm you're he'll we've they'd it's can't", "I'M YOU'RE HE'LL WE'VE THEY'D IT'S CAN'T", "'s 'S 'ſ 'T x's",
    "The\u2019s quick \u201cbrown\u201d fox\u2014jumps\u2026 over",
    "tabs\tand\t\ttabs", "lines\nand\n\nlines\n\n\n", "windows\r\nlines\r\n\r\n", "\r\r\n\n\r", " \n \n  x", "x   \n\n   y",
    "trailing   ", "   leading", "mixed \t \n \r\n spaces \u00a0 \u2003\u3000x \u180e y\u200b z \u0085 w \u2028 v",
    "def f(x):\n    if x > 0:\n        return x ** 2  # square\n    return -x\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }\t// ok", "{\"key\": [1, 2.5, null], \"k2\": \"v\\n\"}",
    "https://example.org/a/b?c=d&e=%20f#g user@mail.example", "a_b_c snake_case CamelCase HTTPServer x86_64",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 1e-10 0xFF", "½ ² ³ Ⅷ ٣٤٥ १२३ 𝟙𝟚", "$100 €5 £3 ¥9 100% #1 @2",
    "!!! ??? ... --- === *** ~~~ ((())) [[]] {{}}", "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> <|im_start|>user\nhi<|im_end|>\n",
    "<s>", "</s>", "a<s>b</s> c", "<unk> <s><s> x", "<|im_start|>assistant\n<think>\n\n</think>\n\nHi<|im_end|>",
    "<|endoftext", "<|im_start|", "<0x0A> <0xE4>", "\u2581 \u2581\u2581under\u2581score", "Ġ Ċ Âł",
    "naïve café résumé", "nai\u0308ve cafe\u0301 re\u0301sume\u0301", "a\u0301\u0302\u0303 \u0301 o\u0308\u0304 \u1e9b\u0323",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "한국어 텍스트입니다", "안녕하세요", "日本語のテキスト、漢字とかな。", "你好,世界!这是一个测试。", "ﬁ ﬂ ㎏ ① Å Å Ω",
    "Привет, как дела? ЁЖИК", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم ١٢٣", "\u202bmixed عربي and English\u202c",
    "สวัสดีชาวโลก ภาษาไทย", "नमस्ते दुनिया", "வணக்கம் உலகம்", "გამარჯობა", "Xin chào thế giới", "Türkçe İstanbul ıI",
    "😀", "😀😃😄", "👨‍👩‍👧‍👦 family", "👍🏽 🇩🇪🇫🇷 ❤️ 1️⃣", "a😀b 😀", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎",
    "\x00", "a\x00b", "\x01\x02\x1b[0m\x7f", "\ufeffbom", "\ufffd \ufffe \U0010ffff", "\u0300", "\u200d\u200c",
    "x" * 300, "ab" * 200, " " * 257, "\n" * 100, "a b " * 100, "é" * 150, "👩‍🚀" * 40, "antidisestablishmentarianism" * 10,
    "1" * 100, "word" + " " * 50 + "word", "- " * 60, "The quick brown fox jumps over the lazy dog. " * 8,
    "Lily said, \"I want to play!\" Then she ran\u2014fast\u2014to the park.\n\nThe End.\n",
]


def main() -> None:
    shared = pathlib.Path(sys.argv[1])
    assert len(set(TEXTS)) == len(TEXTS)
    out = {"made_by": f"tests/golden/make_tokenizers.py, tokenizers {tokenizers.__version__}", "texts": TEXTS, "cases": {}}
    for name in ["stories260K", "tokenizer-gpt2", "tokenizer-llama2", "tokenizer-qwen3"]:
        tok = tokenizers.Tokenizer.from_file(str(shared / "data" / name / "tokenizer.json"))
        ids = [tok.encode(t).ids for t in TEXTS]
        # Runs of tokens that no text gives: every 7th piece of the vocabulary, bytes in odd orders, unknown ids.
        size = tok.get_vocab_size()
        odd, state = [], 12345
        for length in list(range(1, 20)) * 3:
            run = []
            for _ in range(length):
                state = (state * 1103515245 + 12345) % 2**31
                # Low ids are bytes in all four vocabularies.
                run.append((state >> 8) % (260 if state & 64 else size + 5))
            odd.append(run)
        out["cases"][name] = {
            "ids": ids,
            "ids_plain": [tok.encode(t, add_special_tokens=False).ids for t in TEXTS],
            "text": [tok.decode(i) for i in ids],
            "text_special": [tok.decode(i, skip_special_tokens=False) for i in ids],
            "odd_ids": odd,
            "odd_text": [tok.decode(i) for i in odd],
            "odd_text_special": [tok.decode(i, skip_special_tokens=False) for i in odd],
        }
        # What equals the text is left out, to keep the file small.
        case = out["cases"][name]
        case["ids_plain"] = [None if a == b else b for a, b in zip(ids, case["ids_plain"])]
        for key in ["text", "text_special"]:
            case[key] = [None if a == t else a for a, t in zip(case[key], TEXTS)]
    path = pathlib.Path(__file__).with_name("tokenizers.json")
    path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")


main()
