#!/usr/bin/env python3
"""Writes a Llama directory (config.json, safetensors, tokenizer.model) as one GGUF file for each type named.

    python3 tools/quantize.py MODEL OUT-PREFIX TYPE[,TYPE…] [--context N]     needs gguf, safetensors, sentencepiece, numpy, torch
    python3 tools/quantize.py --check                                        the encoders against the gguf package's decoders

TYPE: f32 q4_0 q4_k q5_k q6_k q8_0. OUT-PREFIX-TYPE.gguf holds every matrix in that type, norms in f32, and of a tied
embedding, which is the output head too, Q6_K where the type has fewer bits (as llama-quantize does). A matrix whose rows are
no multiple of 256 cannot have a K type: it gets Q5_0 (Q4_K), Q5_1 (Q5_K) or Q8_0 (Q6_K), and is named.

--context: llama.context_length of the file, which only bounds how far it may be run; config.json's max_position_embeddings
unless given. The weights and their positions stay as they are.

gguf has decoders for all types and encoders for Q4_0 and Q8_0; those of the K types are here. For each sub-block they
try several scales, solve for the scale (and minimum) that fits the rounded values best, keep the best, and round again
under the scales that the block can hold.
"""

import argparse
import json
import os
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

TYPES = {"f32": T.F32, "q4_0": T.Q4_0, "q4_k": T.Q4_K, "q5_k": T.Q5_K, "q6_k": T.Q6_K, "q8_0": T.Q8_0}
FALLBACK = {T.Q4_K: T.Q5_0, T.Q5_K: T.Q5_1, T.Q6_K: T.Q8_0}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0, "q4_k": gguf.LlamaFileType.MOSTLY_Q4_K_S,
              "q5_k": gguf.LlamaFileType.MOSTLY_Q5_K_S, "q6_k": gguf.LlamaFileType.MOSTLY_Q6_K, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


def divide(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def halves(v):
    return v.astype(np.float16).view(np.uint8).reshape(len(v), 2)


def fit_affine(x, top):
    """x [n, 32] ≈ scale·q − low, q in 0…top, low ≥ 0: (scale, low), each [n, 1]."""
    w = np.abs(x) + np.sqrt(np.mean(x * x, axis=1, keepdims=True)) + 1e-12  # large values matter more
    floor = np.minimum(x.min(axis=1, keepdims=True), 0)
    span = x.max(axis=1, keepdims=True) - floor
    best = np.full((len(x), 1), np.inf)
    scale, low = np.zeros_like(best), np.zeros_like(best)
    for slack in np.linspace(-1.2, 0.8, 21):
        q = np.clip(np.rint(divide(x - floor, span) * (top + slack)), 0, top)
        sw, sq, sqq = w.sum(1, keepdims=True), (w * q).sum(1, keepdims=True), (w * q * q).sum(1, keepdims=True)
        sx, sxq = (w * x).sum(1, keepdims=True), (w * x * q).sum(1, keepdims=True)
        s = divide(sw * sxq - sx * sq, sw * sqq - sq * sq)
        m = divide(s * sq - sx, sw)
        alone = divide(sxq, sqq)  # the best scale where the minimum may not be below nothing
        s, m = np.where(m < 0, alone, s), np.maximum(m, 0)
        error = (w * (s * q - m - x) ** 2).sum(1, keepdims=True)
        better = (error < best) & (s >= 0)
        best, scale, low = np.where(better, error, best), np.where(better, s, scale), np.where(better, m, low)
    return scale, low


def encode_affine(x, bits):
    """Q4_K and Q5_K: x [n, 256] → bytes [n, 144 or 176]. Eight sub-blocks of 32, a 6-bit scale and minimum each."""
    n, top = len(x), (1 << bits) - 1
    scale, low = (v.reshape(n, 8) for v in fit_affine(x.reshape(n * 8, 32), top))
    d, dmin = (np.float16(v.max(1) / 63).astype(np.float64) for v in (scale, low))
    sc, mn = (np.clip(np.rint(divide(v, u[:, None])), 0, 63).astype(np.uint8) for v, u in ((scale, d), (low, dmin)))
    step, base = (d[:, None] * sc)[:, :, None], (dmin[:, None] * mn)[:, :, None]
    q = np.clip(np.rint(divide(x.reshape(n, 8, 32) + base, step)), 0, top).astype(np.uint8)
    packed = np.concatenate([sc[:, :4] | (sc[:, 4:] >> 4) << 6, mn[:, :4] | (mn[:, 4:] >> 4) << 6,
                             (sc[:, 4:] & 15) | (mn[:, 4:] & 15) << 4], axis=1)
    pairs = q.reshape(n, 4, 2, 32)
    low4 = ((pairs[:, :, 0] & 15) | (pairs[:, :, 1] & 15) << 4).reshape(n, 128)
    high = [np.bitwise_or.reduce(np.stack([(q[:, j] >> 4) << j for j in range(8)]), axis=0)] if bits == 5 else []
    return np.concatenate([halves(d), halves(dmin), packed, *high, low4], axis=1)


def encode_q6_k(x):
    """x [n, 256] → bytes [n, 210]. Sixteen sub-blocks of 16 with a signed 8-bit scale each; values −32…31."""
    n = len(x)
    v = x.reshape(n * 16, 16)
    w = v * v + 1e-12
    largest = np.take_along_axis(v, np.abs(v).argmax(1)[:, None], 1)
    best = np.full((len(v), 1), np.inf)
    scale = np.zeros_like(best)
    for span in np.linspace(-33.5, -29.5, 17):  # the largest value goes to the longer, negative side
        q = np.clip(np.rint(divide(v, largest) * span), -32, 31)
        s = divide((w * v * q).sum(1, keepdims=True), (w * q * q).sum(1, keepdims=True))
        error = (w * (s * q - v) ** 2).sum(1, keepdims=True)
        scale, best = np.where(error < best, s, scale), np.minimum(error, best)
    scale = scale.reshape(n, 16)
    widest = np.take_along_axis(scale, np.abs(scale).argmax(1)[:, None], 1)[:, 0]
    d = np.float16(widest / -128).astype(np.float64)
    sc = np.clip(np.rint(divide(scale, d[:, None])), -128, 127)
    q = np.clip(np.rint(divide(x.reshape(n, 16, 16), (d[:, None] * sc)[:, :, None])), -32, 31)
    q = (q + 32).astype(np.uint8).reshape(n, 2, 4, 32)  # half, quarter of it, place
    ql = np.stack([(q[:, :, 0] & 15) | (q[:, :, 2] & 15) << 4, (q[:, :, 1] & 15) | (q[:, :, 3] & 15) << 4], axis=2)
    qh = sum((q[:, :, j] >> 4) << (2 * j) for j in range(4))
    return np.concatenate([ql.reshape(n, 128), qh.reshape(n, 64), sc.astype(np.int8).view(np.uint8), halves(d)], axis=1)


def encode(w, t):
    """w [rows, columns], f32 → what the file holds."""
    if t == T.F32:
        return w
    if t in FALLBACK:
        blocks = w.reshape(-1, 256).astype(np.float64)
        data = encode_q6_k(blocks) if t == T.Q6_K else encode_affine(blocks, 4 if t == T.Q4_K else 5)
        return data.reshape(w.shape[0], -1)
    return gguf.quantize(w, t)


def check():
    """Errors relative to the values' standard deviation; and scales that are zero, negative, alone."""
    rng = np.random.default_rng(1)
    for name, most in (("q4_k", 0.085), ("q5_k", 0.042), ("q6_k", 0.021)):
        t = TYPES[name]
        w = rng.standard_normal((64, 1024)).astype(np.float32)
        e = gguf.dequantize(encode(w, t), t).reshape(w.shape) - w
        odd = np.stack([np.zeros(256), np.full(256, 3.0), np.full(256, -3.0), np.arange(256) % 2, -np.abs(rng.standard_normal(256)),
                        np.eye(256)[7] * 1e-3]).astype(np.float32)
        o = gguf.dequantize(encode(odd, t), t).reshape(odd.shape) - odd
        print("%s: rms error %.4f of the deviation (at most %.3f); odd rows %.4f of their largest" %
              (name, e.std() / w.std(), most, (np.abs(o).max(1) / np.maximum(np.abs(odd).max(1), 1e-9)).max()))
        assert e.std() < most * w.std() and np.isfinite(o).all()
        assert (np.abs(o).max(1) <= 0.08 * np.abs(odd).max(1)).all(), np.abs(o).max(1)


def paired(w, heads):
    """Rows as transformers has them → RoPE's pairs side by side, as `llama` files do."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


PARTS = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight", "model.norm.weight": "output_norm.weight"}


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def read_tensors(model):
    from safetensors import safe_open
    with safe_open(os.path.join(model, "model.safetensors"), "pt") as f:
        return {k: f.get_tensor(k).float().numpy() for k in f.keys()}


def add_tokenizer(w, model):
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(model, "tokenizer.model"))
    ids = range(sp.get_piece_size())
    kind = lambda i: (gguf.TokenType.UNKNOWN if sp.is_unknown(i) else gguf.TokenType.CONTROL if sp.is_control(i) else
                      gguf.TokenType.BYTE if sp.is_byte(i) else gguf.TokenType.UNUSED if sp.is_unused(i) else gguf.TokenType.NORMAL)
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([sp.id_to_piece(i).encode() for i in ids])
    w.add_token_scores([sp.get_score(i) for i in ids])
    w.add_token_types([kind(i) for i in ids])
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(True)


def write(model, name, path, context):
    with open(os.path.join(model, "config.json")) as f:
        c = json.load(f)
    if c["model_type"] != "llama" or c.get("rope_scaling"):
        sys.exit(f"{model}: {c['model_type']} with rope_scaling {c.get('rope_scaling')}, expected a llama without scaling")
    heads, kv = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
    dim = c.get("head_dim") or c["hidden_size"] // heads
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(os.path.basename(os.path.normpath(model)))
    w.add_file_type(FILE_TYPES[name])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_context_length(context or c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_key_length(dim)
    w.add_value_length(dim)
    w.add_rope_dimension_count(dim)
    w.add_rope_freq_base(c.get("rope_theta", 10000.0))
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_vocab_size(c["vocab_size"])
    add_tokenizer(w, model)
    tensors = read_tensors(model)
    tied = "lm_head.weight" not in tensors
    for key, v in tensors.items():
        tensor, t = gguf_name(key), TYPES[name]
        if ".attn_q." in tensor or ".attn_k." in tensor:
            v = paired(v, heads if ".attn_q." in tensor else kv)
        if v.ndim == 1:
            t = T.F32
        elif tensor == ("token_embd.weight" if tied else "output.weight") and t in (T.Q4_0, T.Q4_K, T.Q5_K):
            t = T.Q6_K
        if t in FALLBACK and v.shape[-1] % 256:
            print(f"{path}: {tensor} has rows of {v.shape[-1]}: {FALLBACK[t].name}", file=sys.stderr)
            t = FALLBACK[t]
        w.add_tensor(tensor, encode(np.ascontiguousarray(v), t), raw_dtype=None if t == T.F32 else t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="?")
    p.add_argument("prefix", nargs="?")
    p.add_argument("types", nargs="?", default="")
    p.add_argument("--context", type=int, default=0)
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    if a.check:
        return check()
    names = a.types.split(",")
    if not a.model or not a.prefix or not set(names) <= set(TYPES):
        p.error("MODEL OUT-PREFIX TYPE[,TYPE…]; types: " + " ".join(TYPES))
    for name in names:
        write(a.model, name, f"{a.prefix}-{name}.gguf", a.context)


if __name__ == "__main__":
    main()
