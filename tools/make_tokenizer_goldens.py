#!/usr/bin/env python3
"""Makes tests/model/tokenizers: a small tokenizer of every kind with what tokenizers, transformers and sentencepiece say about a
nasty list and about random texts. Or compares a runner with them over many random texts.

    python3 tools/make_tokenizer_goldens.py [OUT]
    python3 tools/make_tokenizer_goldens.py --compare RUNNER N [DIR …]     DIRs: tokenizers of one's own; none: the goldens'

Needs tokenizers, transformers, sentencepiece. The random texts come from a generator that tests/model/test_tok_goldens.c
repeats, so that only hashes of their ids are stored. The trainers break ties by chance: each run makes other tokenizers.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as spm_pb
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "tests", "model", "tokenizers")
RANDOM = 2000  # texts a tokenizer
MASK = (1 << 64) - 1

# --- the generator; test_tok_goldens.c holds the same tables ---
RANGES = [(0x61, 0x7A), (0x41, 0x5A), (0x30, 0x39), (0x20, 0x20), (0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E),
          (0x00, 0x1F), (0x7F, 0xA0), (0xA1, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
          (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F),
          (0x2070, 0x218F), (0x2400, 0x24FF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF),
          (0xFB00, 0xFDFF), (0xFE00, 0xFFFD), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1FAFF), (0x1D400, 0x1D7FF), (0x20000, 0x2FA1F),
          (0x01, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
STRINGS = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "'s", "'RE", "'ll", "'\u017f", "n't", " do not", "\u2581", "\u2581\u2581",
           "the ", "it was ", " of ", "times", "age", "wisdom", "world", "ing", "tion", "Call me Ishmael", "123", "4567", "3.14",
           "<s>", "</s>", "<unk>", "<pad>", "<mask>", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "<|endoftext|>", "<|im_start|>",
           "<tool>", "word", "caf\u00e9", "e\u0301", "\u1e9b\u0323", "\u0130", "\ufb01", "\u2168", "\u00bd", "\u4f60\u597d", "\ud55c\uad6d\uc5b4",
           "\u200d", "\ufe0f", "\U0001f469\u200d\U0001f467", "\u00a0", "\u3000", "<0x41>", "...", "?!", " .", " ,", "--", "user_name"]


class Random:
    """splitmix64"""

    def __init__(self, seed):
        self.s = seed

    def next(self):
        self.s = (self.s + 0x9E3779B97F4A7C15) & MASK
        z = self.s
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        return (self.next() >> 32) % n


def random_text(seed):
    """Up to 40 units: half the time a string of the table, else up to four characters of one range."""
    r = Random(seed)
    out = []
    for _ in range(1 + r.below(40)):
        if r.below(2):
            out.append(STRINGS[r.below(len(STRINGS))])
            continue
        lo, hi = RANGES[r.below(len(RANGES))]
        for _ in range(1 + r.below(4)):
            c = lo + r.below(hi - lo + 1)
            out.append(chr(c) if not 0xD800 <= c < 0xE000 else "\ufffd")
    return "".join(out)


def fnv(h, data):
    for b in data:
        h = ((h ^ b) * 0x01000193) & 0xFFFFFFFF
    return h


def hash_of(ids, text):
    return fnv(fnv(0x811C9DC5, b"".join(i.to_bytes(4, "little") for i in ids)), text.encode())


NASTY = [
    "", " ", "  ", "   ", "a", " a", "a ", "  a  b   c ", "\n", "\n\n", "\t", "a\tb\nc\r\nd", "Hello, world!", "the the the",
    "don't stop", "DON'T STOP we'Re I'LL'D'm", "it'\u017f", "3.14159 and 2,718", "1234567890", "<s>", "</s> <unk> <s>", "<0x41>",
    "\u2581", "\u2581\u2581a\u2581b", "a\u2581 b", "日本語のテキスト", "中文 字符", "한국어", "🙂", "👩‍👩‍👧‍👦 family", "🇫🇷🇩🇪", "é", "e\u0301",
    "a\u0300\u0316\u0301x", "a\u0316\u0300\u0301x", "Zażółć gęślą jaźń", "שלום עולם", "مرحبا بالعالم", "नमस्ते", "\u200b\u200d\ufeff", "a\u00a0b",
    "\u3000wide", "\u0001\u007f", "ﬁ ligature", "Ⅷ ½ ²", "x" * 300, "ab" * 200, " " * 100, "word " * 60, "\n" * 50 + "a",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?", "CamelCaseIdentifier_with_underscores", "https://example.org/a/b?c=d&e=f#g",
    "    def f(x):\n        return x\n", "ends with newline\n", "\ud7ff\ue000\U0010ffff", "x  <mask>  y", "<mask><mask>", "a<mask>b",
    " <s> [CLS] [MASK]. [SEP]", "word words sword word.", "xword", " word ", "<tool> <tool>x<tool>", "İstanbul IŞIK ǅ ẞ", "ΑΣ Σ ς",
    "\u1100\u1161\u11a8 \uac01 \u1100\u1161", "\u0344 \u0958 \u2126 \u212b", "a" + "\u0300\u0323" * 40, "カタカナ ｶﾞ ﾊﾟ", "ὕ ᾳ ᾼ", "ﷺ", "\ufffd",
    "a \r b\r\rc", "tab\there\x0b\x0c\x85\u2028\u2029x", "a, b . c ? d ! isn't it 's 've 're", "<|im_start|>user\nhi<|im_end|>",
    "<|endoftext|>", "  <|endoftext|>  x", "Å Å Å", "ｆｕｌｌ　ｗｉｄｔｈ",
    "a<tool>\n\n..1  \nti\n\n--éon's_\n\n\n",  # equal paths behind a user's piece
]

TEXT = """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was
the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness, it was the
spring of hope, it was the winter of despair, we had everything before us, we had nothing before us, we were all going direct
to Heaven, we were all going direct the other way. Call me Ishmael. Some years ago, never mind how long precisely, having
little or no money in my purse, and nothing particular to interest me on shore, I thought I would sail about a little and see
the watery part of the world. It is a truth universally acknowledged, that a single man in possession of a good fortune, must
be in want of a wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood,
this truth is so well fixed in the minds of the surrounding families, that he is considered the rightful property of some one
or other of their daughters. Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing
to do: once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it. In
1984 there were 365 days, 12.5 % of them (46) don't count; we'll see what they've got: user_name@example.org.
    for i in range(10):\n        print(i)\n\n\nDer Fluß läuft über die Brücke, où étaient les élèves? Привет, мир. 你好，世界。 한국어 텍스트. 🙂🙂
"""
LINES = [s + "." for s in TEXT.split(".")]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def special(*names):
    return [AddedToken(n, special=True, normalized=False) for n in names]


def bytelevel(pre, vocab=600, specials=(), normalizer=None, **kw):
    t = Tokenizer(models.BPE(**kw))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=vocab, show_progress=False, special_tokens=special(*specials),
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def gpt2():
    return bytelevel(pre_tokenizers.ByteLevel(add_prefix_space=False), specials=["<|endoftext|>"])


def llama3():
    t = bytelevel(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                           pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), vocab=500)
    t = Tokenizer.from_str(t.to_str().replace('"ignore_merges":false', '"ignore_merges":true').replace('"ignore_merges": false', '"ignore_merges": true'))
    t.add_special_tokens(special("<|begin_of_text|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
        special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))])])
    return t


def qwen2():
    t = bytelevel(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                           pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
                  normalizer=normalizers.NFC())
    t.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    t.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("café", normalized=True), AddedToken("times", normalized=True, single_word=True)])
    return t


def smollm():
    return bytelevel(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                              pre_tokenizers.ByteLevel(add_prefix_space=False)]),
                     specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def roberta(space=True):
    t = bytelevel(pre_tokenizers.ByteLevel(add_prefix_space=space), specials=["<s>", "<pad>", "</s>", "<unk>"])
    t.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True, normalized=False)])
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")))
    return t


def llama2():
    """The Hub's llama: no splitter, byte fallback."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    train = Tokenizer(models.BPE(unk_token="<unk>"))
    train.pre_tokenizer = pre_tokenizers.Metaspace()
    names = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
    train.train_from_iterator(LINES[:12], trainers.BpeTrainer(vocab_size=600, show_progress=False, special_tokens=names))
    model = json.loads(train.to_str())["model"]
    j = json.loads(t.to_str())
    j["model"].update(vocab=model["vocab"], merges=model["merges"])
    t = Tokenizer.from_str(json.dumps(j))
    t.add_special_tokens(special("<unk>", "<s>", "</s>"))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return t


def clip():
    """Characters with a suffix at a word's end and unknowns."""
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_previous")])
    t.decoder = decoders.BPEDecoder(suffix="</w>")
    t.train_from_iterator(LINES[:8], trainers.BpeTrainer(vocab_size=300, show_progress=False, end_of_word_suffix="</w>",
                                                         special_tokens=["<unk>", "<pad>"]))
    return t


def prefixed():
    """BPE with WordPiece's ##, unknowns fused, odd splitters and normalisers, added tokens of every flag."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Replace("`", "'"),
                                         normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False),
                                               pre_tokenizers.Split("th", "merged_with_next"), pre_tokenizers.Split("_", "removed"),
                                               pre_tokenizers.Punctuation("contiguous")])
    t.train_from_iterator(LINES[:8], trainers.BpeTrainer(vocab_size=300, show_progress=False, continuing_subword_prefix="##",
                                                         special_tokens=["[UNK]"]))
    t.add_tokens([AddedToken("word", single_word=True, lstrip=True), AddedToken("<tool>", rstrip=True, normalized=False),
                  AddedToken("caf\u00e9", normalized=True, rstrip=True), AddedToken("the ", normalized=False),
                  AddedToken("<mask>", special=True, lstrip=True, rstrip=True, normalized=True)])
    return t


RULES = """41 30A\t41
C5\tE5
E9\t65
65 301\t65
FB01\t66 69
2168\t56 49 49 49
3000\t20
A0\t20
9\t20
A\t20
D\t
200B\t
FF21\t41
4F60\t20 4F60 20
AC00\t1100 1161
1F642\t3A 29
"""


def train_spm(name, lines=None, **kw):
    """A SentencePiece model's bytes."""
    with tempfile.TemporaryDirectory() as d:
        args = dict(vocab_size=300, model_type="unigram", minloglevel=2, num_threads=1, hard_vocab_limit=False,
                    normalization_rule_name="identity")
        if "rules" in kw:
            path = os.path.join(d, "rules.tsv")
            with open(path, "w") as f:
                f.write(kw.pop("rules"))
            args["normalization_rule_tsv"] = path
            args.pop("normalization_rule_name")
        args.update(kw)
        it = [s.strip() for s in (lines or LINES) if s.strip()]
        spm.SentencePieceTrainer.train(sentence_iterator=iter(it), model_prefix=os.path.join(d, "m"), **args)
        with open(os.path.join(d, "m.model"), "rb") as f:
            return f.read()


def unigram_json(data, **kw):
    """A model's pieces and rules as tokenizer.json has them."""
    m = spm_pb.ModelProto.FromString(data)
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in m.pieces], unk_id=m.trainer_spec.unk_id, **kw))
    return t, m.normalizer_spec.precompiled_charsmap


def t5():
    t, rules = unigram_json(train_spm("t5", rules=RULES, bos_id=-1, eos_id=1, unk_id=2, pad_id=0))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(rules), normalizers.Strip(left=False, right=True),
                                         normalizers.Replace(Regex(" {2,}"), "\u2581")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    t.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    t.add_special_tokens(special("<pad>", "</s>", "<unk>") + [AddedToken("<extra_id_0>", special=True, lstrip=True, rstrip=True, normalized=False)])
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", t.token_to_id("</s>"))])
    return t


def xlmr():
    t, rules = unigram_json(train_spm("xlmr", byte_fallback=True, vocab_size=500), byte_fallback=True)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                               pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")])
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="\u2581", prepend_scheme="first")])
    t.add_special_tokens(special("<s>", "</s>", "<unk>") + [AddedToken("<mask>", special=True, lstrip=True, normalized=True)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def bert(lower, **kw):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(lowercase=lower, **kw)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=400, show_progress=False,
                                                           special_tokens=special("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")))
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
                                                     special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return t


class Sentencepiece:
    """sentencepiece by the interface that is used here of tokenizers."""

    def __init__(self, path, prefix=(), suffix=()):
        self.sp = spm.SentencePieceProcessor(model_file=path)
        self.prefix, self.suffix = list(prefix), list(suffix)

    def ids(self, text):
        return self.prefix + self.sp.encode(text) + self.suffix

    def text(self, ids):
        return self.sp.decode(ids)

    def all_ids(self, texts):
        return [self.prefix + ids + self.suffix for ids in self.sp.encode(texts)]

    def all_texts(self, ids):
        return self.sp.decode(ids)

    def size(self):
        return self.sp.get_piece_size()


class Fast:
    def __init__(self, t):
        t.no_padding()
        t.no_truncation()
        self.t = t

    def ids(self, text):
        return self.t.encode(text).ids

    def text(self, ids):
        return self.t.decode(ids)

    def all_ids(self, texts):
        return [e.ids for e in self.t.encode_batch_fast(texts)]

    def all_texts(self, ids):
        return self.t.decode_batch(ids)

    def size(self):
        return max(self.t.get_vocab(with_added_tokens=True).values()) + 1


def from_transformers(d, cls):
    import transformers
    t = getattr(transformers, cls).from_pretrained(d)
    return Fast(Tokenizer.from_str(t.backend_tokenizer.to_str()))


def reference(d):
    """The library whose ids the files of d stand for."""
    config = {}
    path = os.path.join(d, "tokenizer_config.json")
    if os.path.exists(path):
        with open(path) as f:
            config = json.load(f)
    for name in ("tokenizer.model", "tokenizer.json", "spiece.model"):
        path = os.path.join(d, name)
        if not os.path.exists(path):
            continue
        if name == "tokenizer.json":
            return Fast(Tokenizer.from_file(path))
        sp = spm.SentencePieceProcessor(model_file=path)
        eos = config.get("add_eos_token", name == "spiece.model" and sp.bos_id() < 0)
        return Sentencepiece(path, [sp.bos_id()] if sp.bos_id() >= 0 and config.get("add_bos_token", True) else [],
                             [sp.eos_id()] if sp.eos_id() >= 0 and eos else [])
    return from_transformers(d, config.get("tokenizer_class", "BertTokenizerFast").removesuffix("Fast") + "Fast")


def write_json(d, t):
    j = json.loads(t.to_str())
    with open(os.path.join(d, "tokenizer.json"), "w") as f:
        json.dump(j, f, ensure_ascii=False, separators=(",", ":"))


def write_pair(d, t, cls, **config):
    j = json.loads(t.to_str())["model"]
    with open(os.path.join(d, "vocab.json"), "w") as f:
        json.dump(j["vocab"], f, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(d, "merges.txt"), "w") as f:
        f.write("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in j["merges"]))
    with open(os.path.join(d, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": cls, **config}, f)


def write_vocab(d, t, **config):
    vocab = sorted(t.get_vocab().items(), key=lambda p: p[1])
    with open(os.path.join(d, "vocab.txt"), "w") as f:
        f.write("".join(k + "\n" for k, _ in vocab))
    with open(os.path.join(d, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "BertTokenizer", **config}, f)


def write_bytes(d, name, data):
    with open(os.path.join(d, name), "wb") as f:
        f.write(data)


KINDS = {
    "gpt2": lambda d: write_pair(d, gpt2(), "GPT2Tokenizer"),
    "roberta_files": lambda d: write_pair(d, roberta(False), "RobertaTokenizer",
                                          mask_token=dict(content="<mask>", lstrip=True, rstrip=False, normalized=False, single_word=False,
                                                          special=True, __type="AddedToken")),
    "qwen2_files": lambda d: write_pair(d, qwen2(), "Qwen2Tokenizer"),
    "gpt2_json": lambda d: write_json(d, gpt2()),
    "llama3": lambda d: write_json(d, llama3()),
    "qwen2": lambda d: write_json(d, qwen2()),
    "smollm": lambda d: write_json(d, smollm()),
    "roberta": lambda d: write_json(d, roberta()),
    "llama2_json": lambda d: write_json(d, llama2()),
    "clip": lambda d: write_json(d, clip()),
    "prefixed": lambda d: write_json(d, prefixed()),
    "t5_json": lambda d: write_json(d, t5()),
    "xlmr": lambda d: write_json(d, xlmr()),
    "bert_uncased": lambda d: write_json(d, bert(True)),
    "bert_cased": lambda d: write_vocab(d, bert(False), do_lower_case=False),
    "bert_vocab": lambda d: write_vocab(d, bert(True), do_lower_case=True),
    "bert_accents": lambda d: write_json(d, bert(True, strip_accents=False, handle_chinese_chars=False, clean_text=False)),
    "spm_t5": lambda d: write_bytes(d, "spiece.model", train_spm("t5", rules=RULES, bos_id=-1, eos_id=1, unk_id=2, pad_id=0)),
    "spm_nmt_nfkc": lambda d: write_bytes(d, "tokenizer.model", train_spm("nmt", normalization_rule_name="nmt_nfkc", byte_fallback=True, vocab_size=500)),
    "spm_unigram": lambda d: write_bytes(d, "tokenizer.model", train_spm("u", remove_extra_whitespaces=False, user_defined_symbols=["<tool>", "times", " of "])),
    "spm_bpe_rules": lambda d: write_bytes(d, "tokenizer.model", train_spm("b", model_type="bpe", rules=RULES, byte_fallback=True, vocab_size=500)),
}


def write_cases(d):
    """cases.jsonl: [text, ids, what they decode to] a line; random.txt: a hash a line; text null: ids that no text gives."""
    ref = reference(d)
    with open(os.path.join(d, "cases.jsonl"), "w") as f:
        for t in NASTY + [TEXT]:
            ids = ref.ids(t)
            f.write(json.dumps([t, ids, ref.text(ids)]) + "\n")
        r = Random(7)
        for _ in range(60):
            ids = [r.below(ref.size()) for _ in range(1 + r.below(20))]
            f.write(json.dumps([None, ids, ref.text(ids)]) + "\n")
    with open(os.path.join(d, "random.txt"), "w") as f:
        for i in range(RANDOM):
            ids = ref.ids(random_text(i))
            f.write("%08x\n" % hash_of(ids, ref.text(ids)))


def make(out):
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    for name, write in KINDS.items():
        d = os.path.join(out, name)
        os.makedirs(d)
        write(d)
        write_cases(d)
        print(name, file=sys.stderr)
    h = 0x811C9DC5
    for i in range(RANDOM):
        h = fnv(h, random_text(i).encode())
    with open(os.path.join(out, "generator.txt"), "w") as f:
        f.write("%08x\n" % h)


def ask(runner, d, lines, *more):
    p = subprocess.run([runner, "tokenize", d, *more], input="".join(json.dumps(x) + "\n" for x in lines), capture_output=True, text=True)
    if p.returncode:
        sys.exit(p.stderr)
    return [json.loads(x) for x in p.stdout.split("\n")[:-1]]


def differs(x):
    text, want, want_text, got, got_text = x
    return want != got or want_text != got_text


def compare(runner, n, dirs):
    dirs = dirs or [os.path.join(OUT, k) for k in sorted(KINDS)]
    refs = {d: reference(d) for d in dirs}
    wrong = dict.fromkeys(dirs, 0)
    for at in range(0, n, 20000):
        texts = [random_text((1 << 40) + i) for i in range(at, min(n, at + 20000))]
        for d, ref in refs.items():
            want = ref.all_ids(texts)
            for x in filter(differs, zip(texts, want, ref.all_texts(want), ask(runner, d, texts), ask(runner, d, want, "--decode"))):
                wrong[d] += 1
                if wrong[d] <= 3:
                    print(json.dumps(dict(zip(("text", "want", "want_text", "got", "got_text"), x))))
        print("%d texts: %s" % (at + len(texts), ", ".join("%s %d" % (os.path.basename(os.path.normpath(d)), wrong[d]) for d in dirs)
                                if any(wrong.values()) else "none differs"), flush=True)
    for d in dirs:
        print("%-16s %d texts, %d differ" % (os.path.basename(os.path.normpath(d)), n, wrong[d]))
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] == "--compare":
        sys.exit(compare(sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
    make(sys.argv[1] if len(sys.argv) > 1 else OUT)
