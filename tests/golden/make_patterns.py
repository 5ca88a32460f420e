"""Writes patterns.json: which texts Python's re.fullmatch takes, under re.ASCII.

    make_patterns.py

Run with Python 3.11. "cases": a pattern, texts that match it, texts that do not. Half of the patterns are written by hand for one piece of the
syntax each, the others are random.
"""
import json
import pathlib
import random
import re

HAND = [
    "", "a", "abc", "a|b", "ab|cd|", "(a|b)*", "(?:ab)+c", "(?P<name>x)y?", "a*b+c?", "a{3}", "a{2,}", "a{1,3}", "a{,2}", "(ab){2}",
    "a*?", "a+?b", "(a?){3}", "(a*)*", "(a*|b)*c", ".", ".*", "a.c", "[abc]", "[^abc]", "[a-c]+", "[]a]", "[^]a]", "[a-]", "[-a]", "[a\\-c]",
    "[\\d_]+", "[^\\d]", "[\\w.]+", "[\\s\\S]", "\\d+", "\\D", "\\w+", "\\W", "\\s", "\\S", "\\.", "\\\\", "\\n", "\\t\\r\\f\\v\\a", "\\x41",
    "\\u00e9", "\\U0001F600", "é+", "[à-ÿ]", "[^é]", "日本|語", "[😀-😂]", "\\(\\)\\[\\]\\{\\}\\*\\+\\?\\|\\^\\$", "^ab", "ab$", "^a|b$", "^$",
    "-?(0|[1-9]\\d*)(\\.\\d+)?", "\\d{4}-\\d{2}-\\d{2}", "(yes|no|maybe)[.!]?", "[^\\n]*", "}", "]", "a-b", "#", " ", "\\ ", "[[a]", "[\\]]",
    "[\\x30-\\x35]", "[\\b]", "\\0", "(|a)b", "((a))", "(a|ab)(c|bcd)", "(a+)+b", "[^\\W\\d]", "[.]", "[\\^a]",
]
ALPHABET = ["a", "b", "c", "0", "7", "_", " ", "\n", ".", "-", "é", "日", "😀", "A"]


def random_pattern(rng, depth):
    kind = rng.randrange(10)
    if depth == 0 or kind < 4:
        return rng.choice(["a", "b", "c", "0", "é", "日", "\\d", "\\w", "\\s", ".", "[ab]", "[^a]", "[b-c0-7]", "\\W", "[é😀]"])
    if kind < 6:
        return random_pattern(rng, depth - 1) + random_pattern(rng, depth - 1)
    if kind < 8:
        return "(" + random_pattern(rng, depth - 1) + "|" + random_pattern(rng, depth - 1) + ")"
    return "(?:" + random_pattern(rng, depth - 1) + ")" + rng.choice(["*", "+", "?", "{2}", "{1,3}", "{2,}"])


def random_text(rng):
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(7)))


def near_texts(rng, pattern):
    """Texts that have a chance: the pattern's own characters, and random ones."""
    own = [c for c in pattern if c not in "\\()[]{}*+?|^$"] or ["a"]
    texts = {"", pattern}
    for _ in range(60):
        texts.add("".join(rng.choice(own + ALPHABET) for _ in range(rng.randrange(6))))
        texts.add("".join(rng.choice(own) for _ in range(rng.randrange(8))))
    return sorted(texts)


def case(rng, pattern):
    compiled = re.compile(pattern, re.ASCII)
    yes, no = [], []
    for text in near_texts(rng, pattern):
        (yes if compiled.fullmatch(text) else no).append(text)
    rng.shuffle(yes)
    rng.shuffle(no)
    return {"pattern": pattern, "matches": yes[:12], "others": no[:12]}


def main():
    rng = random.Random(7)
    cases = [case(rng, p) for p in HAND] + [case(rng, random_pattern(rng, 4)) for _ in range(120)]
    out = pathlib.Path(__file__).with_name("patterns.json")
    out.write_text(json.dumps({"cases": cases}, ensure_ascii=True, indent=0) + "\n")


main()
