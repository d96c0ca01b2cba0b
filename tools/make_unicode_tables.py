#!/usr/bin/env python3
"""Makes model/unicode_tables.c: what the reference tokenizers believe about each code point, asked of them one by one.

    python3 tools/make_unicode_tables.py > model/unicode_tables.c          needs tokenizers, sentencepiece, regex

The `tokenizers` library holds the tables of several Unicode versions (its regular expressions, its normal forms, its BERT
categories, Rust's own), so no single database gives its ids; this asks the library itself. Grapheme classes are the regex
module's where the library joins by them, canonical combining classes Python's where it orders by them.
"""

import functools
import os
import sys
import tempfile
import unicodedata

import regex
import sentencepiece as spm
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as spm_pb
from tokenizers import Regex, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, POINTS))
HANGUL = range(0xAC00, 0xD7A4)

FLAGS = ["L", "N", "S", "SPACE", "NUMERIC", "PUNCT", "CLEANED", "MN", "MARK", "WORD"]
GCB = ["Other", "Control", "Extend", "ZWJ", "Regional_Indicator", "Prepend", "SpacingMark", "L", "V", "T", "CR", "LF"]


def removed(normalizer):
    rest = set(normalizer.normalize_str(TEXT))
    return {c for c in POINTS if chr(c) not in rest}


def in_chunks(pre, frame):
    """Code points that the pre-tokenizer takes out of frame + c + frame."""
    found = set()
    for c in POINTS:
        if chr(c) == frame:
            continue
        pieces = [p for p, _ in pre.pre_tokenize_str(frame + chr(c) + frame)]
        if chr(c) in pieces:
            found.add(c)
    return found


def flag_sets():
    kept = set("".join(p for p, _ in pre_tokenizers.WhitespaceSplit().pre_tokenize_str(TEXT)))
    clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    strip = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    space = {c for c in POINTS if chr(c) not in kept}
    punct = in_chunks(pre_tokenizers.BertPreTokenizer(), "x")
    word = in_chunks(pre_tokenizers.Whitespace(), "!")
    return {
        "L": removed(normalizers.Replace(Regex(r"\p{L}"), "")),
        "N": removed(normalizers.Replace(Regex(r"\p{N}"), "")),
        "S": removed(normalizers.Replace(Regex(r"\s"), "")),
        "SPACE": space,
        "NUMERIC": in_chunks(pre_tokenizers.Digits(individual_digits=True), "x"),
        "PUNCT": punct,
        "CLEANED": {c for c in POINTS if not clean.normalize_str(chr(c))},
        "MN": {c for c in POINTS if not strip.normalize_str(chr(c))},
        "MARK": removed(normalizers.StripAccents()),
        "WORD": word,
    }


def charsmap(rules):
    """A SentencePiece normaliser with these rules, which the library applies to grapheme clusters of less than 6 bytes."""
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "rules.tsv")
        with open(path, "w") as f:
            f.write(rules)
        spm.SentencePieceTrainer.train(sentence_iterator=iter(["abc abd"]), model_prefix=os.path.join(d, "m"), vocab_size=8,
                                       normalization_rule_tsv=path, minloglevel=2, hard_vocab_limit=False)
        with open(os.path.join(d, "m.model"), "rb") as f:
            return normalizers.Precompiled(spm_pb.ModelProto.FromString(f.read()).normalizer_spec.precompiled_charsmap)


@functools.cache
def joiners():
    """What joins the character before it, and what the one behind it: regex may know newer characters than the library."""
    single, pair = charsmap("61\t62\n"), charsmap("61 301\t62\n")
    return ({c for c in POINTS if single.normalize_str("a" + chr(c)) == "b"},
            {c for c in POINTS if not pair.normalize_str(chr(c) + "a\u0301").endswith("b")})


def grapheme_class(c):
    if c in HANGUL:
        return 0
    left, right = joiners()
    known = regex_class(c)
    if GCB[known:known + 1] in (["Extend"], ["ZWJ"], ["SpacingMark"]):
        return known if c in left else 0
    if c in left:
        return GCB.index("Extend")
    if GCB[known:known + 1] == ["Prepend"]:
        return known if c in right else 0
    return GCB.index("Prepend") if c in right else known


def regex_class(c):
    for i, name in enumerate(GCB):
        if i and regex.match(r"\p{GCB=%s}" % name, chr(c)):
            return i
    if regex.match(r"\p{Extended_Pictographic}", chr(c)):
        return len(GCB)
    return 0


def classes():
    sets = flag_sets()
    bits = [0] * 0x110000
    for i, name in enumerate(FLAGS):
        for c in sets[name]:
            bits[c] |= 1 << i
    special = set()
    for name in GCB[1:]:
        special |= {ord(x) for x in regex.findall(r"\p{GCB=%s}" % name, TEXT)}
    special |= {ord(x) for x in regex.findall(r"\p{Extended_Pictographic}", TEXT)}
    for c in special | joiners()[0] | joiners()[1]:
        bits[c] |= grapheme_class(c) << 10
    kinds = sorted(set(bits))
    runs = [(c, kinds.index(bits[c])) for c in range(0x110000) if not c or bits[c] != bits[c - 1]]
    return kinds, runs


def combining():
    nfd = normalizers.NFD()
    out = []
    for c in POINTS:
        k = unicodedata.combining(chr(c))
        if not k:
            continue
        # Does the library know? It moves a lower class in front of a higher one.
        pair = chr(c) + "\u0334" if k > 1 else "\u0345" + chr(c)
        if nfd.normalize_str("x" + pair) != "x" + pair:
            out.append((c, k))
    runs = []
    for c, k in out:
        if runs and runs[-1][1] == c and runs[-1][2] == k:
            runs[-1][1] += 1
        else:
            runs.append([c, c + 1, k])
    return runs


def decompositions():
    nfd, nfkd, nfc = normalizers.NFD(), normalizers.NFKD(), normalizers.NFC()
    words = []
    for c in POINTS:
        if c in HANGUL:
            continue
        d = nfd.normalize_str(chr(c))
        if d != chr(c):
            primary = len(d) > 1 and nfc.normalize_str(d) == chr(c)
            words += [c | len(d) << 21 | primary << 30] + list(map(ord, d))
        k = nfkd.normalize_str(chr(c))
        if k != d:
            words += [c | len(k) << 21 | 1 << 31] + list(map(ord, k))
    return words


def lowercase():
    low = normalizers.Lowercase()
    runs = []  # first, last, step, delta
    for c in POINTS:
        l = low.normalize_str(chr(c))
        if len(l) != 1:
            assert c == 0x130, hex(c)
            continue
        d = ord(l) - c
        if not d:
            continue
        for r in runs[-2:]:
            if r[3] == d and c - r[1] in (1, 2) and (r[2] in (0, c - r[1])):
                r[1], r[2] = c, c - r[1]
                break
        else:
            runs.append([c, c, 0, d])
    return [[a, b, s or 1, d] for a, b, s, d in runs]


def table(name, words, kind="uint32_t"):
    print(f"const {kind} {name}[] = {{")
    line = "   "
    for w in words:
        item = " %s," % (w if w < 10 else "%#x" % w if kind[0] == "u" else w)
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line)
    print("};")
    print(f"const size_t {name}_n = sizeof({name}) / sizeof({name}[0]);\n")


def main():
    print("/* Made by tools/make_unicode_tables.py from tokenizers %s and regex %s; layouts: unicode_tables.h. */"
          % (tokenizers.__version__, regex.__version__))
    print('#include "model/unicode_tables.h"\n\n/* clang-format off */')
    kinds, runs = classes()
    assert len(kinds) < 256
    table("pl_uni_kinds", kinds)
    table("pl_uni_runs", [c << 8 | k for c, k in runs])
    table("pl_uni_combining", [w for a, b, k in combining() for w in (a, (b - a) << 8 | k)])
    table("pl_uni_decomposed", decompositions())
    table("pl_uni_lower", [w for r in lowercase() for w in r], "int32_t")
    print("classes %d, runs %d" % (len(kinds), len(runs)), file=sys.stderr)


if __name__ == "__main__":
    main()
