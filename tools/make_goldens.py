#!/usr/bin/env python3
"""Makes tests/model/goldens: tiny random models of odd shapes with what transformers says about them, and a tokenizer with
what sentencepiece says about nasty texts. Everything is seeded; run it again after changing it and commit what it writes.

    python3 tools/make_goldens.py [OUT]          needs torch, transformers, safetensors, sentencepiece, numpy

The families beside Llama stand in golden_families.py, which can be run for some of them alone.
"""

import json
import os
import shutil
import sys

import golden_families
import numpy as np
import sentencepiece as spm
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "tests", "model", "goldens")
GREEDY = 24
VOCAB = 97  # a multiple of nothing

BASE = dict(vocab_size=VOCAB, hidden_size=40, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=False,
            bos_token_id=1, eos_token_id=2, initializer_range=0.2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)

# name: (class, config, dtype on disk, layout, prompt length, shards)
CASES = {
    "plain": (LlamaForCausalLM, {}, torch.float32, "hub", 19, 1),
    # head_dim is not hidden / heads, and no multiple of a vector
    "head_dim": (LlamaForCausalLM, dict(head_dim=14, rope_theta=5000.0), torch.float32, "v5", 33, 1),
    # one KV head, sharded, more keys than an attention chunk
    "mqa_sharded": (LlamaForCausalLM, dict(num_key_value_heads=1, num_attention_heads=5, hidden_size=60, num_hidden_layers=2), torch.float32, "hub", 150, 3),
    # tied head, bf16 on disk, one token, EOS list
    "tied_bf16": (LlamaForCausalLM, dict(tie_word_embeddings=True, eos_token_id=[2, 5]), torch.bfloat16, "hub", 1, 1),
    "llama3_f16": (LlamaForCausalLM, dict(rope_scaling=LLAMA3, rope_theta=10000.0, num_key_value_heads=4), torch.float16, "v5", 200, 1),
    "llama3_hub": (LlamaForCausalLM, dict(rope_scaling=LLAMA3, rope_theta=10000.0), torch.float32, "hub", 130, 1),
    # linear scaling, biases, another activation, no prefix on the names, extra tensors
    "linear_bias": (LlamaForCausalLM, dict(rope_scaling=dict(rope_type="linear", factor=2.5), attention_bias=True, mlp_bias=True,
                                           hidden_act="gelu_pytorch_tanh", num_hidden_layers=2), torch.float32, "bare", 65, 1),
    "mistral": (MistralForCausalLM, dict(sliding_window=None, head_dim=16), torch.bfloat16, "hub", 64, 1),
}


def rope_dict(cfg):
    p = getattr(cfg, "rope_parameters", None)
    if p:
        return dict(p)
    return dict(rope_theta=cfg.rope_theta, **(cfg.rope_scaling or dict(rope_type="default")))


def config_json(cfg, cls, overrides, dtype, layout):
    """The two ways in which config.json is written in the wild."""
    name = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}[dtype]
    keys = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "hidden_act", "initializer_range"]
    c = {"architectures": [cls.__name__], "model_type": cfg.model_type}
    c.update({k: getattr(cfg, k) for k in keys})
    c["eos_token_id"] = overrides.get("eos_token_id", 2)
    for k in ("attention_bias", "mlp_bias"):
        if getattr(cfg, k, False):
            c[k] = True
    if "head_dim" in overrides:
        c["head_dim"] = overrides["head_dim"]
    if "sliding_window" in overrides:
        c["sliding_window"] = overrides["sliding_window"]
    rope = rope_dict(cfg)
    if layout == "v5":
        c["dtype"] = name
        c["rope_parameters"] = rope
        c["transformers_version"] = "5.0.0"
    else:
        theta = rope.pop("rope_theta", 10000.0)
        kind = rope.pop("rope_type", "default")
        c["torch_dtype"] = name
        c["rope_theta"] = theta
        c["rope_scaling"] = None
        if kind != "default":  # old files say "type" for linear
            c["rope_scaling"] = {("type" if kind == "linear" else "rope_type"): kind, **rope}
    return c


def write_weights(d, state, shards, layout):
    if layout == "bare":
        state = {k.removeprefix("model."): v for k, v in state.items()}
        state["rotary_emb.inv_freq"] = torch.arange(5, dtype=torch.float32)
        state["position_ids"] = torch.arange(7, dtype=torch.int64)
    names = sorted(state)
    if shards == 1:
        save_file(state, os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
        return
    index = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i::shards]
        save_file({k: state[k] for k in part}, os.path.join(d, file), metadata={"format": "pt"})
        index.update({k: file for k in part})
    total = sum(v.numel() * v.element_size() for v in state.values())
    with open(os.path.join(d, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": index}, f, indent=1)


def greedy(model, ids):
    ids = list(ids)
    for _ in range(GREEDY):
        logits = model(torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
    return ids[-GREEDY:]


def make_model(name, seed):
    cls, overrides, dtype, layout, n, shards = CASES[name]
    d = os.path.join(OUT, name)
    os.makedirs(d, exist_ok=True)
    torch.manual_seed(seed)
    conf = (MistralConfig if cls is MistralForCausalLM else LlamaConfig)(**{**BASE, **overrides})
    model = cls(conf).eval()
    with torch.no_grad():
        for k, p in model.named_parameters():  # norms and biases that do something
            if "norm" in k:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif k.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            p.copy_(p.to(dtype).float())
    state = {k: v.to(dtype).contiguous().clone() for k, v in model.state_dict().items()}
    if conf.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    write_weights(d, state, shards, layout)
    with open(os.path.join(d, "config.json"), "w") as f:
        json.dump(config_json(conf, cls, overrides, dtype, layout), f, indent=1)
    ids = np.random.default_rng(seed).integers(3, VOCAB, n).astype(np.int32)
    ids[0] = 1
    with torch.no_grad():
        out = model(torch.tensor(ids[None].astype(np.int64)), output_hidden_states=True)
        np.save(os.path.join(d, "logits.npy"), out.logits[0].numpy().astype(np.float32))
        np.save(os.path.join(d, "hidden1.npy"), out.hidden_states[1][0].numpy().astype(np.float32))
        np.save(os.path.join(d, "ids.npy"), ids)
        np.save(os.path.join(d, "greedy.npy"), np.array(greedy(model, ids.tolist()), np.int32))


NASTY = [
    "", " ", "  ", "   ", "a", " a", "a ", "  a  b   c ", "\n", "\n\n", "\t", "a\tb\nc\r\nd", "Hello, world!", "the the the",
    "don't stop", "3.14159 and 2,718", "<s>", "</s> <unk> <s>", "<0x41>", "▁", "▁▁a▁b", "a▁ b", "日本語のテキスト", "中文 字符",
    "한국어", "🙂", "👩‍👩‍👧‍👦 family", "🇫🇷🇩🇪", "é", "é", "à̖́x", "Zażółć gęślą jaźń", "שלום עולם", "مرحبا بالعالم",
    "नमस्ते", "\u200b\u200d\ufeff", "a\u00a0b", "\u3000wide", "\u0001\u007f", "ﬁ ligature", "Ⅷ ½ ²", "x" * 300,
    "ab" * 200, " " * 100, "word " * 60, "!@#$%^&*()_+-=[]{}|;':\",./<>?", "CamelCaseIdentifier_with_underscores",
    "https://example.org/a/b?c=d&e=f#g", "    def f(x):\n        return x\n", "ends with newline\n", "\ud7ff\ue000\U0010ffff",
]
BAD_UTF8 = [b"\xff", b"a\xffb", b"\xc3", b"ab\xe2\x82", b"\xf0\x9f\x99", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
            b"\x80\x80", b"ok \xe2\x28\xa1 ok"]

TEXT = """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was
the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness, it was the
spring of hope, it was the winter of despair, we had everything before us, we had nothing before us, we were all going direct
to Heaven, we were all going direct the other way. Call me Ishmael. Some years ago, never mind how long precisely, having
little or no money in my purse, and nothing particular to interest me on shore, I thought I would sail about a little and see
the watery part of the world. It is a truth universally acknowledged, that a single man in possession of a good fortune, must
be in want of a wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood,
this truth is so well fixed in the minds of the surrounding families, that he is considered the rightful property of some one
or other of their daughters. Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing
to do: once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it."""


def train_spm(d, name, **kw):
    os.makedirs(d, exist_ok=True)
    args = dict(vocab_size=400, model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False,
                byte_fallback=True, minloglevel=2, num_threads=1, hard_vocab_limit=False)
    args.update(kw)
    sentences = [s.strip() for s in TEXT.replace("\n", " ").split(".") if s.strip()]
    spm.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_prefix=os.path.relpath(os.path.join(d, "tokenizer")), **args)
    os.remove(os.path.join(d, "tokenizer.vocab"))
    os.rename(os.path.join(d, "tokenizer.model"), os.path.join(d, name))
    return spm.SentencePieceProcessor(model_file=os.path.join(d, name))


def write_cases(d, sp):
    """One case a line: {"hex": bytes of the text, "ids": […], "text": what the ids decode to}."""
    with open(os.path.join(d, "cases.jsonl"), "w") as f:
        for t in [s.encode("utf-8", "surrogatepass") for s in NASTY] + BAD_UTF8 + [TEXT.encode()]:
            ids = sp.encode(t)
            json.dump({"hex": t.hex(), "ids": ids, "text": sp.decode(ids)}, f)
            f.write("\n")
        rng = np.random.default_rng(7)
        for _ in range(40):  # ids that no text would give
            ids = [int(i) for i in rng.integers(0, sp.get_piece_size(), rng.integers(1, 20))]
            json.dump({"ids": ids, "text": sp.decode(ids)}, f)
            f.write("\n")


def make_tokenizers():
    d = os.path.join(OUT, "spm_bytes")
    write_cases(d, train_spm(d, "tokenizer.model"))
    d = os.path.join(OUT, "spm_plain")  # unknowns, squeezed whitespace, user-defined pieces
    write_cases(d, train_spm(d, "tokenizer.model", byte_fallback=False, remove_extra_whitespaces=True, vocab_size=200,
                             user_defined_symbols=["<sep>", "best of", "don't"]))
    d = os.path.join(OUT, "spm_cross")  # pieces that run over spaces, no dummy prefix
    write_cases(d, train_spm(d, "tokenizer.model", split_by_whitespace=False, add_dummy_prefix=False, vocab_size=450))
    d = os.path.join(OUT, "spm_unigram")
    train_spm(d, "tokenizer.model", model_type="unigram", byte_fallback=False, vocab_size=120)
    d = os.path.join(OUT, "spm_nfkc")
    train_spm(d, "tokenizer.model", normalization_rule_name="nfkc", byte_fallback=False, vocab_size=100)
    # rules are large: only that there are some matters here
    path = os.path.join(d, "tokenizer.model")
    from sentencepiece import sentencepiece_model_pb2 as pb
    m = pb.ModelProto.FromString(open(path, "rb").read())
    m.normalizer_spec.precompiled_charsmap = m.normalizer_spec.precompiled_charsmap[:64]
    with open(path, "wb") as f:
        f.write(m.SerializeToString(deterministic=True))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    torch.set_num_threads(1)
    for i, name in enumerate(CASES):
        make_model(name, 100 + i)
    make_tokenizers()
    golden_families.make_all(os.path.join(OUT, "families"))
    with open(os.path.join(OUT, "README.md"), "w") as f:
        f.write("Made by tools/make_goldens.py (torch %s): random weights, expected values from transformers and sentencepiece.\n"
                % torch.__version__.split("+")[0])


if __name__ == "__main__":
    main()
