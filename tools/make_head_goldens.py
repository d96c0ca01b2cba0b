#!/usr/bin/env python3
"""Goldens of the EAGLE and Medusa heads: what torch, with transformers' decoder layer, makes of random heads on tiny-llama and of the trained ones on small-llama.

  tools/make_head_goldens.py      → tests/spec_decode/goldens/heads/: {eagle,medusa}.safetensors, and of each CASE
                                    CASE.{states,logits}.f32 (rows of floats), CASE.txt (tokens, and drafts as "id parent" pairs)

and tests/fuzz/corpus/fuzz_heads: each kind of head and adapter for the fuzz target's verifier, behind a byte that names the kind.

Trees are made again from their definition: a node's logits come from the whole path to it, run from its first row, with no cache and no tree attention.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

sys.path.insert(0, str(Path(__file__).resolve().parent))
import make_spec_goldens as S  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "tests/fuzz/corpus/fuzz_heads"
OUT = ROOT / "tests/spec_decode/goldens/heads"
HEADS, KV_HEADS, FFN, MEDUSA = 8, 4, 40, 2  # of the random ones; the verifier has 4 and 2
EAGLE_TREE = ("0 1 2 3 00 01 02 10 11 20 21 30 000 001 002 010 011 020 021 100 0000 0001 0002 00000 00001").split()
DEPTH, TOP, NODES = 5, 4, 20


class Eagle(nn.Module):
    def __init__(self, weights, config):
        super().__init__()
        d = config.hidden_size
        q, kv, ffn = (weights[f"layers.0.{n}.weight"].shape[0] for n in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj"))
        dim = d // config.num_attention_heads
        c = LlamaConfig(**{**config.to_dict(), "num_attention_heads": q // dim, "num_key_value_heads": kv // dim, "head_dim": dim, "intermediate_size": ffn})
        c._attn_implementation = "eager"
        self.fc, self.layers, self.rope = nn.Linear(2 * d, d), nn.ModuleList([LlamaDecoderLayer(c, 0)]), LlamaRotaryEmbedding(c)
        self.layers[0].input_layernorm = nn.Identity()
        self.load_state_dict({k: t.float() for k, t in weights.items()})

    def forward(self, embedded, states):
        """Rows [n, D] each → states [n, D]: row t from the embedding of token t + 1 and state t."""
        x = self.fc(torch.cat([embedded, states], -1))[None]
        n = x.shape[1]
        mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
        y = self.layers[0](x, attention_mask=mask, position_embeddings=self.rope(x, torch.arange(n)[None]))
        return (y[0] if isinstance(y, tuple) else y)[0]


def behind(eagle, llama, ids, states, path):
    """The head's state behind the drafted tokens of `path`, each fed beside the head's own state before it."""
    embed = llama.model.embed_tokens
    e, s = embed(ids[1:]), states[:-1]
    out = eagle(e, s)
    for token in path:
        e, s = torch.cat([e, embed(torch.tensor([token]))]), torch.cat([s, out[-1:]])
        out = eagle(e, s)
    return out[-1]


def dynamic(says, depth, top, nodes):
    """EAGLE-2: (id, parent) of the `nodes` likeliest, in the order in which they came."""
    tree, level = [], []  # (score, path, parent)

    def children(parent):
        path, before = ([], 0.0) if parent < 0 else (tree[parent][1], tree[parent][0])
        p = says(path).double().log_softmax(-1)
        for v in p.topk(top).indices.tolist():
            level.append(len(tree))
            tree.append((before + p[v].item(), path + [v], parent))

    children(-1)
    for _ in range(1, depth):
        best = sorted(sorted(level, key=lambda i: -tree[i][0])[:top])
        level = []
        for i in best:
            children(i)
    kept = sorted(sorted(range(len(tree)), key=lambda i: -tree[i][0])[:nodes])
    return [(tree[i][1][-1], kept.index(tree[i][2]) if tree[i][2] >= 0 else -1) for i in kept]


def fixed(says, words, depth):
    """A published tree: (id, parent), level by level, under each node in the order of its children."""
    words = [w for w in words if len(w) <= depth]
    order = [""]
    for n in range(depth):
        order += [w for p in [v for v in order if len(v) == n] for w in words if len(w) == n + 1 and w[:-1] == p]
    order = order[1:]
    path, out = {"": []}, []
    for w in order:
        best = says(path[w[:-1]]).topk(10).indices.tolist()
        path[w] = path[w[:-1]] + [best[int(w[-1])]]
        out.append((path[w][-1], order.index(w[:-1]) if len(w) > 1 else -1))
    return out


def matrix(n, m):
    return torch.randn(n, m) / m**0.5


def random_heads(d, dim, vocab):
    """Files' worth of an EAGLE head and of Medusa heads."""
    torch.manual_seed(7)
    layer = {"self_attn.q_proj": (HEADS * dim, d), "self_attn.k_proj": (KV_HEADS * dim, d), "self_attn.v_proj": (KV_HEADS * dim, d),
             "self_attn.o_proj": (d, HEADS * dim), "mlp.gate_proj": (FFN, d), "mlp.up_proj": (FFN, d), "mlp.down_proj": (d, FFN)}
    eagle = {f"layers.0.{k}.weight": matrix(*shape) for k, shape in layer.items()}
    eagle |= {"layers.0.post_attention_layernorm.weight": 1 + 0.2 * torch.randn(d), "fc.weight": 2 * matrix(d, 2 * d), "fc.bias": 0.2 * torch.randn(d)}
    medusa = {}
    for k in range(MEDUSA):
        medusa |= {f"{k}.0.linear.weight": matrix(d, d), f"{k}.0.linear.bias": 0.3 * torch.randn(d)}
    medusa["1.1.weight"] = matrix(vocab, d)  # the second has an output head of its own
    return {name: {k: t.half() if t.dim() > 1 else t for k, t in m.items()} for name, m in (("eagle", eagle), ("medusa", medusa))}


def seeds():
    """For tests/fuzz/fuzz_heads.c: its verifier is 16 wide, with heads of 8 and 32 words."""
    S.D, S.B, S.WIDE, S.FFN, S.P, S.HEADS = 16, 4, 6, 6, 4, 8
    files = random_heads(16, 8, 32)
    for kind, make in S.KINDS.items():
        files[kind] = {k: t.detach().half().clone().contiguous() for k, t in make().state_dict().items()}
    SEEDS.mkdir(exist_ok=True, parents=True)
    for k, (name, weights) in enumerate(files.items()):
        (SEEDS / name).write_bytes(bytes([k]) + save(weights))


def case(name, model, eagle_file, medusa_file, n):
    torch.manual_seed(11)
    llama = LlamaForCausalLM.from_pretrained(ROOT / "examples/models" / model, dtype=torch.float32).eval()
    e = Eagle(load_file(eagle_file), llama.config).eval()
    m = {k: t.float() for k, t in load_file(medusa_file).items()}
    ids = torch.randint(3, llama.config.vocab_size, (n,))
    states = llama.model(ids[None]).last_hidden_state[0]

    def says(path):
        return llama.lm_head(behind(e, llama, ids, states, path))

    logits = [llama.lm_head(behind(e, llama, ids[:k + 2], states[:k + 2], [])) for k in (0, n // 2, n - 2)]
    chain = []
    for _ in range(DEPTH):
        chain.append(int(says(chain).argmax()))
    drafts = {"eagle_chain": [(v, i - 1) for i, v in enumerate(chain)], "eagle_static": fixed(says, EAGLE_TREE, DEPTH),
              "eagle_dynamic": dynamic(says, DEPTH, TOP, NODES)}
    heads = []
    while f"{len(heads)}.0.linear.weight" in m:
        k, x = len(heads), states[-1]
        y = x + nn.functional.silu(m[f"{k}.0.linear.weight"] @ x + m[f"{k}.0.linear.bias"])
        heads.append(m[f"{k}.1.weight"] @ y if f"{k}.1.weight" in m else llama.lm_head(y))
    drafts["medusa_chain"] = [(int(v.argmax()), i - 1) for i, v in enumerate(heads)]
    states.numpy().astype("<f4").tofile(OUT / f"{name}.states.f32")
    torch.stack(logits + heads).numpy().astype("<f4").tofile(OUT / f"{name}.logits.f32")
    with open(OUT / f"{name}.txt", "w") as f:
        print("ids", n, *ids.tolist(), file=f)
        for k, pairs in drafts.items():
            print(k, len(pairs), *(v for p in pairs for v in p), file=f)


def main():
    OUT.mkdir(exist_ok=True)
    with open(ROOT / "examples/models/tiny-llama/config.json") as f:
        c = json.load(f)
    for name, weights in random_heads(c["hidden_size"], c["hidden_size"] // c["num_attention_heads"], c["vocab_size"]).items():
        save_file(weights, OUT / f"{name}.safetensors")
        (OUT / f"{name}.safetensors").chmod(0o644)
    seeds()
    with torch.no_grad():
        case("random", "tiny-llama", OUT / "eagle.safetensors", OUT / "medusa.safetensors", 12)
        heads = ROOT / "examples/models/small-llama-heads"
        case("trained", "small-llama", heads / "eagle.safetensors", heads / "medusa.safetensors", 9)


main()
