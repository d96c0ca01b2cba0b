#!/usr/bin/env python3
"""Writes the models that bench/peers.sh measures, where they are not in its cache yet.

    peers_models.py DIR gguf     1.1 B Llama shape as F16, Q4_0, Q4_K_M, Q5_K_M, Q6_K, Q8_0 (needs gguf)
    peers_models.py DIR hf       GPT-2 124M, T5-small, BERT-base as Hugging Face directories (needs torch, transformers)

All weights are random: speed does not depend on them, and no hub is needed. Blocks of quantised formats are random bits with
ordinary scales; which tensor has which type follows llama-quantize.
"""

import os
import sys

import numpy as np

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB = 2048, 5632, 22, 32, 4, 32000
# bytes of a block of so many weights, and where its halves stand: d, then m or dmin
BLOCKS = {
    "Q4_0": (32, 18, [(0, 0.01)]), "Q8_0": (32, 34, [(0, 7e-4)]),
    "Q4_K": (256, 144, [(0, 3e-4), (2, 2e-3)]), "Q5_K": (256, 176, [(0, 1.5e-4), (2, 2e-3)]), "Q6_K": (256, 210, [(208, 1e-4)]),
}


def blocks(rng, kind, rows, cols):
    """[rows, bytes of a row]"""
    each, size, halves = BLOCKS[kind]
    out = rng.integers(0, 256, (rows * cols // each, size), np.uint8)
    for at, value in halves:
        out[:, at : at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
    if kind == "Q6_K":
        out[:, 192:208] = out[:, 192:208] % 16 + 8
    return out.reshape(rows, -1)


def kind_of(file_type, name, layer):
    """llama-quantize's choice for a matrix."""
    if file_type in ("F16", "Q8_0", "Q6_K"):
        return file_type
    if name == "output":
        return "Q6_K"
    if file_type == "Q4_0":
        return "Q4_0"
    more = layer is not None and (layer < LAYERS // 8 or layer >= 7 * LAYERS // 8 or (layer - LAYERS // 8) % 3 == 2)
    return "Q6_K" if name in ("attn_v", "ffn_down") and more else file_type[:4]


def write_gguf(path, file_type):
    import gguf

    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path + ".part", "llama")
    w.add_name("random 1.1B")
    w.add_context_length(8192)
    w.add_embedding_length(HIDDEN)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_rope_dimension_count(HIDDEN // HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("no_vocab")

    def matrix(name, rows, cols, layer=None):
        full = (name if layer is None else f"blk.{layer}.{name}") + ".weight"
        kind = kind_of(file_type, name, layer)
        if kind == "F16":
            w.add_tensor(full, (rng.random((rows, cols), np.float32) * 0.1 - 0.05).astype(np.float16))
        else:
            w.add_tensor(full, blocks(rng, kind, rows, cols), raw_dtype=gguf.GGMLQuantizationType[kind])

    def norm(name):
        w.add_tensor(name + ".weight", np.ones(HIDDEN, np.float32))

    kv = HIDDEN // HEADS * KV_HEADS
    matrix("token_embd", VOCAB, HIDDEN)
    for i in range(LAYERS):
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.ffn_norm")
        for name, rows, cols in (("attn_q", HIDDEN, HIDDEN), ("attn_k", kv, HIDDEN), ("attn_v", kv, HIDDEN), ("attn_output", HIDDEN, HIDDEN),
                                 ("ffn_gate", FFN, HIDDEN), ("ffn_up", FFN, HIDDEN), ("ffn_down", HIDDEN, FFN)):
            matrix(name, rows, cols, i)
    norm("output_norm")
    matrix("output", VOCAB, HIDDEN)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.replace(path + ".part", path)


def write_hf(root):
    import torch
    import transformers as t

    torch.manual_seed(1)
    for name, make in {
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config()),
        "t5-small": lambda: t.T5ForConditionalGeneration(t.T5Config(decoder_start_token_id=0)),
        "bert-base": lambda: t.BertModel(t.BertConfig()),
    }.items():
        path = os.path.join(root, name)
        if not os.path.exists(path):
            make().save_pretrained(path + ".part")
            os.replace(path + ".part", path)


def main():
    root, what = sys.argv[1:]
    os.makedirs(root, exist_ok=True)
    if what == "hf":
        write_hf(root)
    for file_type in ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16") if what == "gguf" else ():
        path = os.path.join(root, f"llama-1.1b-{file_type}.gguf")
        if not os.path.exists(path):
            print("writing", path, file=sys.stderr)
            write_gguf(path, file_type)


main()
