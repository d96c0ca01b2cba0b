#!/usr/bin/env python3
"""gpu_gguf.py OUT Q4_K|Q8_0 7b|small: a Llama of eight blocks (small: two) whose quantised blocks are random bits with ordinary scales, in
standard Python: the machine that wants it may have no package that writes GGUF. Speed does not depend on the numbers."""
import random
import struct
import sys

# type number, weights a block, bytes a block, where its f16 scales stand and what they are
KINDS = {"Q4_K": (12, 256, 144, ((0, 3e-4), (2, 2e-3))), "Q8_0": (8, 32, 34, ((0, 7e-4),))}
SHAPES = {"7b": dict(hidden=4096, ffn=11008, layers=8, heads=32, vocab=32000), "small": dict(hidden=256, ffn=512, layers=2, heads=4, vocab=1024)}


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def main():
    path, kind, shape = sys.argv[1:4]
    number, each, size, scales = KINDS[kind]
    c = SHAPES[shape]
    h, f = c["hidden"], c["ffn"]
    tensors = [("token_embd.weight", [h, c["vocab"]], number), ("output_norm.weight", [h], 0), ("output.weight", [h, c["vocab"]], number)]
    for i in range(c["layers"]):
        tensors += [(f"blk.{i}.attn_norm.weight", [h], 0), (f"blk.{i}.ffn_norm.weight", [h], 0)]
        tensors += [(f"blk.{i}.attn_{n}.weight", [h, h], number) for n in ("q", "k", "v", "output")]
        tensors += [(f"blk.{i}.ffn_gate.weight", [h, f], number), (f"blk.{i}.ffn_up.weight", [h, f], number), (f"blk.{i}.ffn_down.weight", [f, h], number)]
    meta = [("general.architecture", "llama"), ("general.name", f"random {kind}"), ("llama.context_length", 40960), ("llama.embedding_length", h),
            ("llama.block_count", c["layers"]), ("llama.feed_forward_length", f), ("llama.attention.head_count", c["heads"]),
            ("llama.attention.head_count_kv", c["heads"]), ("llama.rope.dimension_count", h // c["heads"]),
            ("llama.attention.layer_norm_rms_epsilon", 1e-5), ("llama.vocab_size", c["vocab"]), ("tokenizer.ggml.model", "no_vocab")]
    head, at = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta)), 0
    for key, v in meta:
        head += text(key)
        head += struct.pack("<I", 8) + text(v) if isinstance(v, str) else struct.pack("<If", 6, v) if isinstance(v, float) else struct.pack("<II", 4, v)
    bytes_of = lambda dims, t: dims[0] * (dims[1] if len(dims) > 1 else 1) // each * size if t else dims[0] * 4
    for name, dims, t in tensors:
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", t, at)
        at += -(-bytes_of(dims, t) // 32) * 32
    draw = random.Random(1)
    block = bytearray(draw.randbytes(size * 4096))
    for start in range(0, len(block), size):
        for where, value in scales:
            block[start + where:start + where + 2] = struct.pack("<e", value)
    block = bytes(block)
    with open(path, "wb") as out:
        out.write(head + bytes(-len(head) % 32))
        for name, dims, t in tensors:
            n = bytes_of(dims, t)
            source = block if t else struct.pack("<f", 1.0) * 4096
            for k in range(0, n, len(source)):
                out.write(source[:min(len(source), n - k)])
            out.write(bytes(-n % 32))


main()
