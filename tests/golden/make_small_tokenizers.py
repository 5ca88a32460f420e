"""Writes small_tokenizers.json: hand-made tokenizer.json documents, one feature each, and what the `tokenizers`
package makes of them. usage: make_small_tokenizers.py   (run beside this file)"""
import base64
import json
import pathlib

import tokenizers
import varied_lines
from sentencepiece import sentencepiece_model_pb2

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
RAW = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEXTS = ["", " ", "Hello world", "  hello   world  ", "it's IT'S we'LL 12345 x1y22", "a<b>c <b> d<b>", "x <k> y<k>z k<k> _<k>",
         "naive nai\u0308ve caf\u00e9", "line\n\n  next\tTab \r\n", "\u4f60\u597d \U0001f600!", "<s>hello</s> world", "aab aaab the there \u2581the",
         "<sp>  <sp> hello <sp>", "--a--b-", "\u0e2a\u0e27\u0e31 \u00bd \u2167 \ufb01",
         "\u0130stanbul \u00c9T\u00c9 \u03a3\u03a3 a+b=c, $5 ~x~ (\u00abq\u00bb)!?\u2026 a_b\u3000c"]


def byte_chars():
    keep = list(range(33, 127)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    spare, out = 0x100, []
    for b in range(256):
        if b in keep:
            out.append(chr(b))
        else:
            out.append(chr(spare))
            spare += 1
    return out


def added(content, id, **flags):
    base = dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    base.update(flags)
    return base


def document(vocab, merges, **kw):
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                 fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=vocab, merges=merges)
    model.update(kw.pop("model", {}))
    out = dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=None,
               post_processor=None, decoder=None, model=model)
    out.update(kw)
    return out


def byte_level(**kw):
    vocab = {c: i for i, c in enumerate(byte_chars())}
    merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["\u0120", "w"], ["o", "r"], ["\u0120w", "or"], ["t", "he"], ["a", "a"], ["\u0120", "\u0120"]]
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    model = kw.pop("model", {})
    for extra in kw.pop("extra", []):
        vocab[extra] = len(vocab)
    kw.setdefault("decoder", dict(GPT2))
    return document(vocab, merges, model=model, **kw)


def characters(bytes_too=True, marks=True, **kw):
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    if bytes_too:
        for b in range(256):
            vocab[f"<0x{b:02X}>"] = len(vocab)
    for c in "\u2581abcdehlnorstwxy'-T":
        vocab[c] = len(vocab)
    merges = ["\u2581 h", "\u2581h e", "l l", "\u2581he ll", "\u2581hell o", "\u2581 w", "t h", "th e", "a a", "\u2581 the"]
    for m in merges:
        vocab.setdefault(m.replace(" ", ""), len(vocab))
    model = dict(unk_token="<unk>", fuse_unk=True, byte_fallback=bytes_too)
    model.update(kw.pop("model", {}))
    kw.setdefault("added_tokens", [added("<unk>", 0), added("<s>", 1), added("</s>", 2)])
    kw.setdefault("decoder", LLAMA_DECODER)
    return document(vocab, merges, model=model, **kw)


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


LLAMA_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
LLAMA_NORMALIZER = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}


def template(prefix, suffix, ids):
    items = [{"SpecialToken": {"id": t, "type_id": 0}} for t in prefix] + [{"Sequence": {"id": "A", "type_id": 0}}]
    items += [{"SpecialToken": {"id": t, "type_id": 0}} for t in suffix]
    return {"type": "TemplateProcessing", "single": items,
            "pair": items + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in set(prefix + suffix)}}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


def unigram(name, normalizers=(), precompiled=True, **kw):
    """The pieces and the charsmap of a model of make_sentencepiece.py in a tokenizer.json."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(pathlib.Path(__file__).with_name("sentencepiece").joinpath(name + ".model").read_bytes())
    charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    parts = [{"type": "Precompiled", "precompiled_charsmap": charsmap}] * precompiled + list(normalizers)
    kw.setdefault("added_tokens", [added("<unk>", 0), added("<s>", 1), added("</s>", 2), added("<pad>", 3), added("<k>", len(model.pieces), lstrip=True)])
    kw.setdefault("decoder", metaspace("always", True))
    out = document([[p.piece, p.score] for p in model.pieces], [], normalizer={"type": "Sequence", "normalizers": parts}, **kw)
    out["model"] = {"type": "Unigram", "unk_id": model.trainer_spec.unk_id, "vocab": out["model"]["vocab"], "byte_fallback": model.trainer_spec.byte_fallback}
    return out


def equal_scores():
    """Ways to spell a word that cost the same, or add up to the same but for rounding."""
    vocab = [["<unk>", 0.0], ["a", -1.1], ["b", -2.2], ["aa", -2.2], ["ab", -3.3], ["ba", -3.3], ["aab", -4.4], ["aaa", -3.3000000000000003],
             ["hello", -0.1], ["hel", -0.05], ["lo", -0.05], ["\u00e9", -1.0], ["e\u0301", -1.0], ["k<", -2.0], ["\u2581", -2.0], ["\u2581a", -3.1], ["\u2581\u2581", -4.0]]
    out = document(vocab, [], pre_tokenizer=metaspace("first", False), decoder=None)
    out["model"] = {"type": "Unigram", "unk_id": 0, "vocab": vocab}
    return out


def cases():
    yield "gpt2", byte_level(pre_tokenizer=GPT2)
    yield "gpt2 with a prefix space", byte_level(pre_tokenizer={**GPT2, "add_prefix_space": True}, added_tokens=[added("<b>", 266)])
    yield "llama3 pattern, ignore_merges, template in a sequence", byte_level(
        pre_tokenizer=sequence(split({"Regex": LLAMA3}), RAW), extra=["\u0120world", "123"], model={"ignore_merges": True},
        added_tokens=[added("<s>", 268), added("</s>", 269)],
        post_processor={"type": "Sequence", "processors": [GPT2, template(["<s>"], ["</s>"], {"<s>": 268, "</s>": 269})]})
    yield "the same words without ignore_merges", byte_level(pre_tokenizer=sequence(split({"Regex": LLAMA3}), RAW), extra=["\u0120world", "123"])
    yield "qwen2 pattern and NFC", byte_level(normalizer={"type": "NFC"}, pre_tokenizer=sequence(split({"Regex": QWEN2}), RAW))
    for form in ["NFD", "NFKC", "NFKD"]:
        yield form, byte_level(normalizer={"type": form}, pre_tokenizer=GPT2)
    yield "single digits", byte_level(pre_tokenizer=sequence({"type": "Digits", "individual_digits": True}, GPT2))
    yield "runs of digits", byte_level(pre_tokenizer=sequence({"type": "Digits", "individual_digits": False}, GPT2))
    for name, flags in {"plain": {}, "lstrip": {"lstrip": True}, "rstrip": {"rstrip": True}, "both": {"lstrip": True, "rstrip": True},
                        "single_word": {"single_word": True}, "normalized": {"normalized": True}, "not special": {"special": False},
                        "single_word lstrip normalized": {"single_word": True, "lstrip": True, "normalized": True}}.items():
        yield f"added tokens: {name}", byte_level(pre_tokenizer=GPT2, normalizer={"type": "NFC"}, added_tokens=[
            added("<b>", 266, **flags), added("<k>", 267, **flags), added("k", 107, **flags), added("<sp>", 268, **flags), added("caf\u00e9 x", 269, **flags)])
    yield "overlapping added tokens", byte_level(pre_tokenizer=GPT2, added_tokens=[added("a", 97), added("aa", 264), added("aab", 266), added("b>c", 267), added("  ", 268)])
    yield "normalized tokens meet the prefix", characters(normalizer=LLAMA_NORMALIZER, added_tokens=[
        added("<unk>", 0), added("<s>", 1), added("</s>", 2), added("<b>", 288, normalized=True), added("<k>", 289, normalized=True, special=False)])
    yield "llama", characters(normalizer=LLAMA_NORMALIZER, post_processor=template(["<s>"], [], {"<s>": 1}))
    yield "llama with the end", characters(normalizer=LLAMA_NORMALIZER, post_processor=template(["<s>"], ["</s>"], {"<s>": 1, "</s>": 2}))
    yield "strip and collapse", characters(normalizer={"type": "Sequence", "normalizers": [
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}] + LLAMA_NORMALIZER["normalizers"]})
    for scheme in ["always", "first", "never"]:
        for cut in [True, False]:
            yield f"metaspace {scheme} {cut}", characters(pre_tokenizer=metaspace(scheme, cut), decoder=metaspace(scheme, cut))
    yield "unknown fused", characters(bytes_too=False, normalizer=LLAMA_NORMALIZER)
    yield "unknown one by one", characters(bytes_too=False, normalizer=LLAMA_NORMALIZER, model={"fuse_unk": False})
    yield "unknown dropped", characters(bytes_too=False, normalizer=LLAMA_NORMALIZER, model={"unk_token": None}, decoder=None)
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            yield f"split {behavior} {invert}", byte_level(pre_tokenizer=sequence(split({"String": "-"}, behavior, invert), RAW),
                                                           extra=["--", "-a", "a-", "b-", "-b", "--a"], model={"ignore_merges": True})
    yield "split by words", byte_level(pre_tokenizer=sequence(split({"Regex": r"\w+|[^\w\s]+"}, "Isolated"), split({"Regex": r"\s+"}, "Removed"), RAW))
    yield "words and signs", byte_level(pre_tokenizer=sequence({"type": "Whitespace"}, RAW))
    yield "split at white space", byte_level(pre_tokenizer=sequence({"type": "WhitespaceSplit"}, RAW))
    for behavior in ["Isolated", "Contiguous", "MergedWithPrevious"]:
        yield f"punctuation {behavior}", byte_level(pre_tokenizer=sequence({"type": "Punctuation", "behavior": behavior}, RAW))
    yield "lower case without accents", byte_level(pre_tokenizer=GPT2, normalizer={"type": "Sequence", "normalizers": [
        {"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]})
    yield "lower case", byte_level(pre_tokenizer=GPT2, normalizer={"type": "Lowercase"})
    yield "strip decoder", characters(normalizer=LLAMA_NORMALIZER, decoder={"type": "Sequence", "decoders": [
        {"type": "ByteFallback"}, {"type": "Strip", "content": "\u2581", "start": 1, "stop": 0}]})
    frame = template(["<s>"], ["</s>"], {"<s>": 1, "</s>": 2})
    yield "unigram, T5", unigram("unigram", pre_tokenizer=sequence({"type": "WhitespaceSplit"}, metaspace("always", True)), post_processor=template([], ["</s>"], {"</s>": 2}))
    yield "unigram, XLM-R", unigram("unigram", [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}], pre_tokenizer=metaspace("always", True), post_processor=frame)
    yield "unigram, stripped on the right", unigram("unigram", [{"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}], pre_tokenizer=metaspace("first", True), post_processor=frame)
    yield "unigram, ALBERT", unigram("unigram", [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}], pre_tokenizer=sequence({"type": "WhitespaceSplit"}, metaspace("always", True)))
    yield "unigram with byte fallback", unigram("unigram_bytes", LLAMA_NORMALIZER["normalizers"], decoder=LLAMA_DECODER)
    yield "unigram without a charsmap", unigram("unigram_bytes", precompiled=False, pre_tokenizer=metaspace("never", False), decoder=metaspace("never", False))
    yield "unigram, equal scores", equal_scores()
    yield "charsmap before BPE", byte_level(normalizer=unigram("unigram")["normalizer"], pre_tokenizer=GPT2)
    yield "gemma", characters(normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, decoder={"type": "Sequence", "decoders": LLAMA_DECODER["decoders"][:3]},
                              pre_tokenizer=split({"String": " "}, "MergedWithPrevious"), post_processor=template(["<s>"], [], {"<s>": 1}))
    yield "phi-3", characters(normalizer=LLAMA_NORMALIZER, added_tokens=[added("<unk>", 0), added("<s>", 1), added("</s>", 2, rstrip=True, special=False),
                              added("<b>", 288, rstrip=True), added("<k>", 289, rstrip=True)])
    yield "strip on the left", byte_level(pre_tokenizer=GPT2, normalizer={"type": "Strip", "strip_left": True, "strip_right": False})
    yield "digits, punctuation, white space", byte_level(pre_tokenizer=sequence({"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": True}, {"type": "Punctuation"}, RAW))


def line_hash(tok, lines):
    state = varied_lines.fnv([])
    for line in lines:
        state = varied_lines.fnv(tok.encode(line).ids + [2**32 - 1], state)
    return state


def main():
    lines = varied_lines.made_lines()
    vocabularies, decoders = [], []
    out = {"made_by": f"tests/golden/make_small_tokenizers.py, tokenizers {tokenizers.__version__}", "texts": TEXTS, "vocabularies": vocabularies, "cases": []}
    for name, doc in cases():
        tok = tokenizers.Tokenizer.from_str(json.dumps(doc))
        ids = [tok.encode(t).ids for t in TEXTS]
        runs = []
        if doc["decoder"] not in decoders:  # every token once for each decoder
            decoders.append(doc["decoder"])
            runs = [list(range(k, min(k + 23, tok.get_vocab_size()))) for k in range(0, tok.get_vocab_size(), 23)]
        # To keep the file small a vocabulary is its index in "vocabularies", and a decode equal to the text is null.
        if doc["model"]["vocab"] not in vocabularies:
            vocabularies.append(doc["model"]["vocab"])
        doc["model"]["vocab"] = vocabularies.index(doc["model"]["vocab"])
        plain = [tok.encode(t, add_special_tokens=False).ids for t in TEXTS]
        skipped = [tok.decode(i) for i in ids]
        shown = [tok.decode(i, skip_special_tokens=False) for i in ids]
        out["cases"].append({
            "name": name, "tokenizer": doc, "ids": ids, "ids_plain": [None if a == b else b for a, b in zip(ids, plain)],
            "text": [None if a == t else a for a, t in zip(skipped, TEXTS)],
            "text_special": [None if a == t else a for a, t in zip(shown, TEXTS)],
            # One hash for every 80 lines of varied_lines.py.
            "lines": "".join(f"{line_hash(tok, lines[k:k + 80]):08x}" for k in range(0, len(lines), 80)),
            "runs": runs, "run_text": [tok.decode(i) for i in runs]})
    path = pathlib.Path(__file__).with_name("small_tokenizers.json")
    path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(len(out["cases"]), "cases", path.stat().st_size)


main()
