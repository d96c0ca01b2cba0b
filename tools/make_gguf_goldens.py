#!/usr/bin/env python3
"""Makes tests/model/gguf: tiny GGUF models in every type that the engine decodes, with what transformers says about their
dequantised weights, and blocks of every type with what the gguf package says they hold. Everything is seeded; run it again
after changing it and commit what it writes.

    python3 tools/make_gguf_goldens.py [OUT]          needs torch, transformers, gguf, numpy
    python3 tools/make_gguf_goldens.py --quantised     only those of examples/models/small-llama-*.gguf
"""

import json
import os
import shutil
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from transformers import (BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] != "--quantised" else os.path.join(HERE, "..", "tests", "model", "gguf")
MODELS = os.path.join(HERE, "..", "examples", "models")
GREEDY = 16
VOCAB = 97
QUANTS = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]

SMALL = dict(hidden=64, ffn=96, layers=2, heads=4, kv=2, dim=16)
WIDE = dict(hidden=256, ffn=256, layers=2, heads=4, kv=2, dim=16)  # widths that K blocks fit, except o's
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)


def one(t):
    return lambda name: t


def smollm(name):
    return T.Q8_0 if name == "token_embd.weight" else T.Q4_1


def mixed_k(name):
    """Every K type, and Q5_0 where 64 columns are no whole block of 256."""
    if "attn_output" in name:
        return T.Q5_0
    layer = name.startswith("blk.1.")
    for part, types in {"attn_q": (T.Q4_K, T.Q3_K), "attn_k": (T.Q5_K, T.Q2_K), "attn_v": (T.Q6_K, T.Q6_K), "ffn_gate": (T.Q2_K, T.Q4_K),
                        "ffn_up": (T.Q3_K, T.Q5_K), "ffn_down": (T.Q6_K, T.Q4_K)}.items():
        if part in name:
            return types[layer]
    return {"token_embd.weight": T.Q4_K, "output.weight": T.Q6_K}[name]


# name: (architecture, shape, type of a matrix, extras, prompt length)
CASES = {
    "f32": ("llama", dict(SMALL, layers=1, ffn=32), one(T.F32), {}, 9),
    "f16": ("llama", dict(SMALL, layers=1), one(T.F16), dict(factor=2.5), 70),
    "bf16": ("llama", dict(SMALL, layers=1), one(T.BF16), dict(tied=True), 17),
    "q4_0": ("llama", SMALL, one(T.Q4_0), {}, 33),
    "q4_1": ("llama", SMALL, smollm, dict(tied=True), 33),
    "q5_0": ("llama", dict(SMALL, layers=1), one(T.Q5_0), dict(bias=True), 20),
    "q5_1": ("llama", dict(SMALL, layers=1), one(T.Q5_1), dict(llama3=True), 130),
    "q8_0": ("qwen2", SMALL, one(T.Q8_0), dict(bias=True, theta=1e6), 33),
    "mixed_k": ("llama", WIDE, mixed_k, {}, 40),
    "yarn": ("qwen3", dict(SMALL, layers=1), one(T.Q4_0), dict(yarn=True, tied=True), 150),
}

# name: (architecture, layers, hidden, heads, ffn, type of a matrix, prompt length)
OTHERS = {
    "gpt2": ("gpt2", 2, 64, 4, 96, T.Q8_0, 21),
    "bert": ("bert", 2, 64, 4, 96, T.Q5_1, 21),
}

TO_HF = {"attn_norm": "input_layernorm", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def hf_name(name):
    table = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight", "output_norm.weight": "model.norm.weight"}
    if name in table:
        return table[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{TO_HF[part]}.{kind}"


def paired(w, heads):
    """Rows of the model → rows of a llama file: RoPE's pairs side by side."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpaired(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def halves(rng, n, low, high):
    return rng.uniform(low, high, n).astype(np.float16).view(np.uint8).reshape(n, 2)


def random_blocks(rng, n, t, size):
    """n valid blocks of a K type whose values are about as large as `size`: random bits, but for the scales."""
    block, nbytes = gguf.GGML_QUANT_SIZES[t]
    b = rng.integers(0, 256, (n, nbytes), dtype=np.uint8)
    if t == T.Q2_K:
        b[:, 80:82], b[:, 82:84] = halves(rng, n, size / 40, size / 20), halves(rng, n, size / 40, size / 15)
    elif t == T.Q3_K:
        b[:, 108:110] = halves(rng, n, size / 100, size / 60)
    elif t in (T.Q4_K, T.Q5_K):
        top = 15 if t == T.Q4_K else 31
        b[:, 0:2], b[:, 2:4] = halves(rng, n, size / (50 * top), size / (25 * top)), halves(rng, n, size / 60, size / 30)
    else:
        b[:, 208:210] = halves(rng, n, size / 4000, size / 2000)
    return b


def quantise(rng, w, t):
    """w, or random values where the package cannot quantise to t, as (data of the file, values it decodes to)."""
    if t in (T.F32, T.F16):
        d = w.astype(np.float32 if t == T.F32 else np.float16)
        return d, d.astype(np.float32)
    if t in (T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K):
        block, nbytes = gguf.GGML_QUANT_SIZES[t]
        d = random_blocks(rng, w.size // block, t, 2.5 * w.std()).reshape(w.shape[0], w.shape[1] // block * nbytes)
    else:
        d = gguf.quantize(w, t)
    return d, gguf.dequantize(d, t).astype(np.float32)


def make_model(name, seed):
    arch, s, type_of, extra, n = CASES[name]
    rng = np.random.default_rng(seed)
    theta = extra.get("theta", 10000.0)
    rope = dict(rope_type="default")
    if "factor" in extra:
        rope = dict(rope_type="linear", factor=extra["factor"])
    if extra.get("llama3"):
        rope = LLAMA3
    if extra.get("yarn"):
        rope = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
    conf = dict(vocab_size=VOCAB, hidden_size=s["hidden"], intermediate_size=s["ffn"], num_hidden_layers=s["layers"],
                num_attention_heads=s["heads"], num_key_value_heads=s["kv"], head_dim=s["dim"], max_position_embeddings=512,
                rms_norm_eps=1e-5, tie_word_embeddings=bool(extra.get("tied")), rope_parameters=dict(rope_theta=theta, **rope))
    if arch == "llama":
        model = LlamaForCausalLM(LlamaConfig(attention_bias=bool(extra.get("bias")), **conf)).eval()
    elif arch == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**conf)).eval()
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**conf)).eval()

    h, f, q, kv = s["hidden"], s["ffn"], s["heads"] * s["dim"], s["kv"] * s["dim"]
    shapes = {"token_embd.weight": (VOCAB, h), "output_norm.weight": (h,)}
    if not extra.get("tied"):
        shapes["output.weight"] = (VOCAB, h)
    for i in range(s["layers"]):
        for part, shape in {"attn_norm": (h,), "attn_q": (q, h), "attn_k": (kv, h), "attn_v": (kv, h), "attn_output": (h, q),
                            "ffn_norm": (h,), "ffn_gate": (f, h), "ffn_up": (f, h), "ffn_down": (h, f)}.items():
            shapes[f"blk.{i}.{part}.weight"] = shape
        if arch == "qwen3":
            shapes[f"blk.{i}.attn_q_norm.weight"] = shapes[f"blk.{i}.attn_k_norm.weight"] = (s["dim"],)
        for part, rows in {"attn_q": q, "attn_k": kv, "attn_v": kv, "attn_output": h}.items():
            if extra.get("bias") and (arch == "llama" or part != "attn_output"):
                shapes[f"blk.{i}.{part}.bias"] = (rows,)

    w = gguf.GGUFWriter(os.path.join(OUT, name + ".gguf"), arch)
    w.add_name(name)
    w.add_context_length(512)
    w.add_embedding_length(h)
    w.add_block_count(s["layers"])
    w.add_feed_forward_length(f)
    w.add_head_count(s["heads"])
    w.add_head_count_kv(s["kv"])
    w.add_key_length(s["dim"])
    w.add_value_length(s["dim"])
    w.add_rope_dimension_count(s["dim"])
    w.add_rope_freq_base(theta)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(VOCAB)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    if "factor" in extra:
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(extra["factor"])
    if extra.get("yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(4.0)
        w.add_rope_scaling_orig_ctx_len(64)
    if extra.get("llama3"):  # as convert_hf_to_gguf writes it
        freqs = 1.0 / theta ** (np.arange(0, s["dim"], 2, dtype=np.float64) / s["dim"])
        wave = 2 * np.pi / freqs
        low, high = 64 / LLAMA3["low_freq_factor"], 64 / LLAMA3["high_freq_factor"]
        smooth = (64 / wave - 1.0) / (4.0 - 1.0)
        w.add_tensor("rope_freqs.weight", np.where(wave < high, 1, np.where(wave > low, 8.0, 1 / ((1 - smooth) / 8.0 + smooth))).astype(np.float32))
    state = {}
    for tensor, shape in shapes.items():
        if tensor.endswith("norm.weight"):
            data = value = (1 + 0.3 * rng.standard_normal(shape)).astype(np.float32)
            kind = T.F32
        elif tensor.endswith("bias"):
            data = value = (0.3 * rng.standard_normal(shape)).astype(np.float32)
            kind = T.F32
        else:
            kind = type_of(tensor)
            data, value = quantise(rng, (0.15 * rng.standard_normal(shape)).astype(np.float32), kind)
        w.add_tensor(tensor, data, raw_dtype=kind if kind not in (T.F32, T.F16) else None)
        if arch == "llama" and (".attn_q." in tensor or ".attn_k." in tensor):
            value = unpaired(value, s["heads" if ".attn_q." in tensor else "kv"])
        state[hf_name(tensor)] = torch.from_numpy(np.ascontiguousarray(value))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    if extra.get("tied"):
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    write_llama(name, model, rng.integers(3, VOCAB, n).astype(np.int32))


def write_llama(name, model, ids):
    with torch.no_grad():
        greedy = ids.tolist()
        for _ in range(GREEDY):
            greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
        logits = model(torch.tensor(ids[None].astype(np.int64))).logits[0, -4:].numpy().astype(np.float32)
    np.save(os.path.join(OUT, name + ".ids.npy"), ids)
    np.save(os.path.join(OUT, name + ".greedy.npy"), np.array(greedy[len(ids):], np.int32))
    np.save(os.path.join(OUT, name + ".logits.npy"), logits)  # of the last four places


GPT2 = {"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f", "attn_norm": "ln_1",
        "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
BERT = {"token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings",
        "token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm", "attn_q": "attention.self.query",
        "attn_k": "attention.self.key", "attn_v": "attention.self.value", "attn_output": "attention.output.dense",
        "attn_output_norm": "attention.output.LayerNorm", "ffn_up": "intermediate.dense", "ffn_down": "output.dense",
        "layer_output_norm": "output.LayerNorm"}


def make_other(name, seed):
    """GPT-2, whose matrices GGUF turns round, and BERT: the model's own weights, quantised."""
    arch, layers, h, heads, f, t, n = OTHERS[name]
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    gpt2 = arch == "gpt2"
    if gpt2:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=80, n_embd=h, n_layer=layers, n_head=heads, n_inner=f)).eval()
    else:
        model = BertModel(BertConfig(vocab_size=VOCAB, max_position_embeddings=80, hidden_size=h, num_hidden_layers=layers,
                                     num_attention_heads=heads, intermediate_size=f), add_pooling_layer=False).eval()
    w = gguf.GGUFWriter(os.path.join(OUT, name + ".gguf"), arch)
    w.add_context_length(80)
    w.add_embedding_length(h)
    w.add_block_count(layers)
    w.add_feed_forward_length(f)
    w.add_head_count(heads)
    w.add_layer_norm_eps(1e-5 if gpt2 else 1e-12)
    if not gpt2:
        w.add_causal_attention(False)
    to_gguf = {v: k for k, v in (GPT2 if gpt2 else BERT).items()}
    prefix = "transformer.h." if gpt2 else "encoder.layer."
    state = model.state_dict()
    for key, value in state.items():
        if key == "lm_head.weight" or "position_ids" in key:
            continue
        stem, kind = key.rsplit(".", 1)
        if stem.startswith(prefix):
            layer, part = stem.removeprefix(prefix).split(".", 1)
            tensor = f"blk.{layer}.{to_gguf[part]}.{kind}"
        else:
            tensor = f"{to_gguf[stem]}.{kind}"
        v = value.numpy().astype(np.float32)
        v = v + (0.1 * rng.standard_normal(v.shape)).astype(np.float32)  # norms and biases that do something
        if v.ndim == 1 or "position" in tensor or "types" in tensor:
            w.add_tensor(tensor, v)
        else:
            turned = gpt2 and "blk." in tensor
            data, v = quantise(rng, np.ascontiguousarray(v.T if turned else v), t)
            w.add_tensor(tensor, data, raw_dtype=t)
            v = v.T if turned else v
        state[key] = torch.from_numpy(np.ascontiguousarray(v))
    if gpt2:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    ids = rng.integers(3, VOCAB, n).astype(np.int32)
    np.save(os.path.join(OUT, name + ".ids.npy"), ids)
    with torch.no_grad():
        if gpt2:
            greedy = ids.tolist()
            for _ in range(GREEDY):
                greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
            np.save(os.path.join(OUT, name + ".greedy.npy"), np.array(greedy[n:], np.int32))
            out = model(torch.tensor(ids[None].astype(np.int64))).logits[0, -4:]
            np.save(os.path.join(OUT, name + ".logits.npy"), out.numpy().astype(np.float32))
        else:
            out = model(torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0]
            np.save(os.path.join(OUT, name + ".hidden.npy"), out.numpy().astype(np.float32))


def make_blocks():
    """For each type a row of blocks and the floats they decode to: some from the package's quantiser, some of random bits."""
    rng = np.random.default_rng(5)
    for t in QUANTS:
        block, nbytes = gguf.GGML_QUANT_SIZES[t]
        n = 512 // block
        raw = rng.integers(0, 256, (n, nbytes), dtype=np.uint8)
        if block == 256:
            raw = random_blocks(rng, n, t, 0.4)
        else:  # scales that are finite; the last block has a negative and a subnormal one
            for at in (0, 2) if t in (T.Q4_1, T.Q5_1) else (0,):
                raw[:, at:at + 2] = halves(rng, n, -0.1, 0.1)
                raw[-1, at:at + 2] = np.array([-3e-6], np.float16).view(np.uint8)
            q = gguf.quantize(rng.standard_normal((1, 256)).astype(np.float32), t).reshape(-1, nbytes)
            raw = np.concatenate([raw[q.shape[0]:], q])
        values = gguf.dequantize(raw.reshape(1, -1), t).astype(np.float32).reshape(-1)
        name = os.path.join(OUT, "blocks_" + t.name.lower())
        raw.tofile(name + ".bin")
        values.tofile(name + ".f32")


TESTS = os.path.join(os.path.dirname(__file__), "..", "tests", "model")


def write_tokenizer(name, model, tokens, types, scores=None, merges=None, pre=None, ids=None, **flags):
    w = gguf.GGUFWriter(os.path.join(OUT, name + ".gguf"), "llama")
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if scores is not None:
        w.add_token_scores(scores)
    if merges is not None:
        w.add_token_merges(merges)
    if pre:
        w.add_tokenizer_pre(pre)
    for key, value in (ids or {}).items():
        w.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
    for key, value in flags.items():
        w.add_bool(f"tokenizer.ggml.{key}", value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def make_tokenizers():
    """Tokenizers of the other goldens as GGUF holds them (convert_hf_to_gguf)."""
    import sentencepiece as spm
    sp = spm.SentencePieceProcessor(model_file=os.path.join(TESTS, "goldens", "spm_bytes", "tokenizer.model"))
    kind = lambda i: 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1
    n = sp.get_piece_size()
    write_tokenizer("tokenizer_spm", "llama", [sp.id_to_piece(i).encode() for i in range(n)], [kind(i) for i in range(n)],
                    scores=[sp.get_score(i) for i in range(n)], ids=dict(bos=1, eos=2, unknown=0), add_bos_token=True)
    j = json.load(open(os.path.join(TESTS, "tokenizers", "qwen2", "tokenizer.json")))
    added = {t["id"]: t for t in j["added_tokens"]}
    vocab = {i: t for t, i in j["model"]["vocab"].items()}
    n = max(list(vocab) + list(added)) + 1
    tokens = [added[i]["content"] if i in added else vocab.get(i, f"[PAD{i}]") for i in range(n)]
    types = [(3 if added[i]["special"] else 4) if i in added else 1 if i in vocab else 5 for i in range(n)]
    merges = [m if isinstance(m, str) else " ".join(m) for m in j["model"]["merges"]]
    write_tokenizer("tokenizer_bpe", "gpt2", tokens, types, merges=merges, pre="qwen2")
    j = json.load(open(os.path.join(TESTS, "tokenizers", "bert_uncased", "tokenizer.json")))
    vocab = {i: t for t, i in j["model"]["vocab"].items()}
    special = {t["id"] for t in j["added_tokens"]}
    mark = lambda i, t: t if i in special else t[2:] if t.startswith("##") else "\u2581" + t
    tokens = [mark(i, vocab[i]) for i in range(len(vocab))]
    of = lambda t: j["model"]["vocab"][t]
    write_tokenizer("tokenizer_bert", "bert", tokens, [3 if i in special else 1 for i in range(len(tokens))],
                    ids=dict(cls=of("[CLS]"), seperator=of("[SEP]"), unknown=of("[UNK]"), padding=of("[PAD]")))


def make_quantised():
    """What transformers says about the weights that examples/models/small-llama-TYPE.gguf decode to."""
    config = LlamaConfig.from_pretrained(os.path.join(MODELS, "small-llama"))
    for file in sorted(f for f in os.listdir(MODELS) if f.endswith(".gguf")):
        state = {}
        for t in gguf.GGUFReader(os.path.join(MODELS, file)).tensors:
            v = gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(tuple(reversed(t.shape.tolist())))
            if ".attn_q." in t.name or ".attn_k." in t.name:
                v = unpaired(v, config.num_attention_heads if ".attn_q." in t.name else config.num_key_value_heads)
            state[hf_name(t.name)] = torch.from_numpy(np.ascontiguousarray(v))
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model = LlamaForCausalLM(config).float().eval()
        model.load_state_dict(state, strict=True)
        write_llama(file.removesuffix(".gguf"), model, np.random.default_rng(500).integers(3, config.vocab_size, 65).astype(np.int32))


def main():
    if sys.argv[1:] == ["--quantised"]:
        return make_quantised()
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    torch.set_num_threads(1)
    for i, name in enumerate(CASES):
        make_model(name, 300 + i)
    for i, name in enumerate(OTHERS):
        make_other(name, 400 + i)
    make_blocks()
    make_tokenizers()
    make_quantised()
    with open(os.path.join(OUT, "README.md"), "w") as f:
        f.write("Made by tools/make_gguf_goldens.py (gguf 0.19.0, torch %s): random weights; expected values from the gguf package's\n"
                "dequantisation and transformers.\n" % torch.__version__.split("+")[0])


if __name__ == "__main__":
    main()
