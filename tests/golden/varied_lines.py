"""Lines of many scripts and shapes for comparing tokenizers, made by a fixed rule that
tests/core/tokenizer/varied_lines.cpp follows too; the tables stand in tokenizer_lines.json for it."""
import json

# Ranges of code points, assigned long ago, so that every Unicode table knows them alike.
SCRIPTS = [
    [0x41, 0x5A], [0x61, 0x7A], [0xC0, 0xFF], [0x100, 0x17F], [0x1E00, 0x1E9B], [0x391, 0x3A1], [0x3B1, 0x3CE], [0x410, 0x44F],
    [0x531, 0x556], [0x5D0, 0x5EA], [0x621, 0x63A], [0x905, 0x939], [0x93E, 0x94D], [0x985, 0x98C], [0xB85, 0xB8A], [0xE01, 0xE3A],
    [0xE81, 0xE82], [0x10D0, 0x10F0], [0x1100, 0x1112], [0x1161, 0x1175], [0x11A8, 0x11C2], [0x1200, 0x1206], [0x13A0, 0x13F4],
    [0x1780, 0x17B3], [0x1F00, 0x1F15], [0x2460, 0x24EA], [0x2160, 0x2183], [0x3041, 0x3094], [0x30A1, 0x30FA], [0x3131, 0x318E],
    [0x3200, 0x321C], [0x3300, 0x3376], [0x4E00, 0x9FA5], [0xAC00, 0xD7A3], [0xF900, 0xFA2D], [0xFB00, 0xFB06], [0xFB50, 0xFBB1],
    [0xFF01, 0xFF5E], [0xFF66, 0xFFBE], [0x10300, 0x1031E], [0x1D400, 0x1D454], [0x1D7CE, 0x1D7FF], [0x20000, 0x2A6D6],
    [0x30, 0x39], [0x660, 0x669], [0x966, 0x96F], [0xB2, 0xB3], [0xBC, 0xBE], [0x2070, 0x2070], [0x2080, 0x2089]]
MARKS = [[0x300, 0x345], [0x483, 0x486], [0x591, 0x5A1], [0x64B, 0x655], [0x93C, 0x93C], [0x94D, 0x94D], [0xE47, 0xE4E], [0x20D0, 0x20E3], [0x302A, 0x302F], [0x3099, 0x309A]]
EMOJI = [[0x1F600, 0x1F640], [0x1F466, 0x1F469], [0x1F3FB, 0x1F3FF], [0x1F1E6, 0x1F1FF], [0x200D, 0x200D], [0xFE0F, 0xFE0F], [0x2764, 0x2764], [0x1F680, 0x1F6A0], [0x2600, 0x2613], [0x20E3, 0x20E3], [0x23, 0x39]]
ODD = [[0, 0x20], [0x7F, 0xA0], [0xAD, 0xAD], [0x1680, 0x1680], [0x180E, 0x180E], [0x2000, 0x200F], [0x2028, 0x202F], [0x205F, 0x2064], [0x3000, 0x3000], [0xFEFF, 0xFEFF], [0xFFF9, 0xFFFD], [0xE000, 0xE003], [0xFFFE, 0xFFFF], [0x10FFFE, 0x10FFFF], [0x20, 0x20], [0x61, 0x7A]]
SIGNS = [[0x21, 0x2F], [0x3A, 0x40], [0x5B, 0x60], [0x7B, 0x7E], [0x30, 0x39], [0x30, 0x39], [0x41, 0x5A], [0x61, 0x7A], [0x61, 0x7A], [0x20, 0x20], [0xA1, 0xBF], [0x2010, 0x2027], [0x20A0, 0x20B1], [0x3001, 0x3011]]
WORDS = ["<s>", "</s>", "<unk>", "<pad>", "<b>", "<k>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<0x0A>", "<|", "\u2581", "\u2581\u2581",
         "\u0120", " ", "  ", "\n", "\t", "\r\n", "the", " hello", "world", "'s", "'LL", "k", "a", "12345", "0.5", "caf\u00e9 x", "-", "--", ".", ",", "!"]
# Files of the data folder, and of how many of their strings one is taken.
FILES = [["humaneval/HumanEval.jsonl", 2], ["mbpp/mbpp.jsonl", 6], ["gsm8k/test_first1119.jsonl", 7], ["ifeval/input_data.jsonl", 3], ["llmbar/pairs.jsonl", 8],
         ["story-prompts/train.jsonl", 4], ["dpo-demo/dpo_en_demo.jsonl", 10], ["mt_bench/question.jsonl", 2], ["rotten-tomatoes/rt_polarity.jsonl", 40],
         ["alpaca-seed/seed_tasks.jsonl", 5], ["hh-rlhf-helpful-dove/val_conditional_pref.jsonl", 6]]
TABLES = {"scripts": SCRIPTS, "marks": MARKS, "emoji": EMOJI, "odd": ODD, "signs": SIGNS, "words": WORDS, "files": FILES}
LONGEST = 300  # characters taken of a string
MADE = 3200


class Draws:
    """Numerical Recipes' 64-bit generator; its high bits."""

    def __init__(self):
        self.state = 1

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n

    def of(self, ranges):
        low, high = ranges[self.below(len(ranges))]
        return chr(low + self.below(high - low + 1))


def made_line(draws, kind):
    out = ""
    if kind == 0:  # words of one script
        one = [SCRIPTS[draws.below(len(SCRIPTS))]]
        for _ in range(3 + draws.below(8)):
            for _ in range(1 + draws.below(9)):
                out += draws.of(one)
            out += " "
    elif kind == 1:  # scripts mixed
        for _ in range(5 + draws.below(30)):
            out += draws.of(SCRIPTS)
            if draws.below(6) == 0:
                out += " "
    elif kind == 2:  # combining marks
        for _ in range(4 + draws.below(20)):
            out += draws.of(SCRIPTS)
            for _ in range(draws.below(4)):
                out += draws.of(MARKS)
    elif kind == 5:  # one thing many times
        unit = "".join(draws.of([SCRIPTS, ODD, SIGNS, EMOJI][draws.below(4)]) for _ in range(1 + draws.below(3)))
        out = unit * (2 + draws.below(120))
    elif kind == 6:  # tokens spelled out, and what touches them
        for _ in range(3 + draws.below(15)):
            out += WORDS[draws.below(len(WORDS))]
    else:
        table = {3: EMOJI, 4: ODD, 7: SIGNS}[kind]
        for _ in range(4 + draws.below(40)):
            out += draws.of(table)
    return out


def made_lines():
    draws = Draws()
    return [made_line(draws, i % 8) for i in range(MADE)]


def strings_of(value):
    """Every string within a JSON value, members by name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from strings_of(value[key])
    elif isinstance(value, list):
        for each in value:
            yield from strings_of(each)


def data_lines(data):
    out = []
    for name, step in FILES:
        at = 0
        for line in (data / name).read_text(encoding="utf-8").split("\n"):
            for text in strings_of(json.loads(line)) if line else []:
                if at % step == 0:
                    out.append(text[:LONGEST])
                at += 1
    return out


def fnv(ids, state=0x811C9DC5):
    """FNV-1a, 32 bits, of each id as four bytes."""
    for i in ids:
        for shift in (0, 8, 16, 24):
            state = ((state ^ ((i >> shift) & 0xFF)) * 0x01000193) % 2**32
    return state
