#!/usr/bin/env python3
"""Train drafting heads for examples/models/small-llama: an EAGLE-1 head and three Medusa heads.

  eagle.safetensors   published keys: fc [D, 2D] on [embedding of token t + 1; state t], one decoder
                      layer without input norm, then the target's lm_head; the state is the target's
                      last, after the final norm. embed_tokens is the target's and not stored
  medusa.safetensors  published keys {k}.0.linear: head k says token t + 2 + k from state t by
                      x + SiLU(Wx + b), then the target's lm_head

The target's weights stay as they are. Text as for tools/train_lm.py, whose novels these are too:

  tools/train_heads.py --rdb text/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb
  tools/train_heads.py --evaluate     the acceptance of what is there
"""
import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pair_models as M  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
D, FFN, HEADS, KV_HEADS, MEDUSA, VOCAB = 256, 128, 8, 2, 3, 1024
STEPS, BATCH, WINDOW, RATE, SEED = 800, 8, 256, 4e-3, 20266
PROMPTS, PROMPT, TOKENS, GAMMA = 32, 64, 64, 4


class Layer(nn.Module):
    """Llama's decoder layer with grouped heads and no input norm."""

    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        kv = D // HEADS * KV_HEADS
        for name, n in (("q_proj", D), ("k_proj", kv), ("v_proj", kv), ("o_proj", D)):
            self.self_attn.add_module(name, nn.Linear(D, n, bias=False))
        for name, a, b in (("gate_proj", D, FFN), ("up_proj", D, FFN), ("down_proj", FFN, D)):
            self.mlp.add_module(name, nn.Linear(a, b, bias=False))
        self.post_attention_layernorm = M.RMSNorm(D, 1e-5)

    def forward(self, x, rope):
        b, n, _ = x.shape
        a, m = self.self_attn, self.mlp
        q, k, v = (p(x).view(b, n, -1, D // HEADS).transpose(1, 2)
                   for p in (a.q_proj, a.k_proj, a.v_proj))
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (M.turn(k, rope), v))
        y = F.scaled_dot_product_attention(M.turn(q, rope), k, v, is_causal=True)
        x = x + a.o_proj(y.transpose(1, 2).reshape(b, n, D))
        h = self.post_attention_layernorm(x)
        return x + m.down_proj(F.silu(m.gate_proj(h)) * m.up_proj(h))


class Eagle(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2 * D, D)
        self.layers = nn.ModuleList([Layer()])

    def forward(self, embedded, states):
        """Row t: embedding of token t + 1 and state t; gives state t + 1. Positions are t."""
        n = states.shape[1]
        angle = torch.arange(n)[:, None] * 1e4 ** -(torch.arange(0, 32, 2) / 32)
        rope = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
        return self.layers[0](self.fc(torch.cat([embedded, states], -1)), rope)


class Medusa(nn.ModuleList):
    def __init__(self):
        super().__init__()
        for _ in range(MEDUSA):
            block = nn.Module()
            block.linear = nn.Linear(D, D)
            nn.init.zeros_(block.linear.weight)
            nn.init.zeros_(block.linear.bias)
            self.append(nn.ModuleList([block]))

    def forward(self, x):
        return [x + F.silu(h[0].linear(x)) for h in self]


def target():
    from transformers import LlamaForCausalLM
    m = LlamaForCausalLM.from_pretrained(ROOT / "examples/models/small-llama",
                                         dtype=torch.float32)
    return m.eval().requires_grad_(False)


def train(args, llama):
    import train_lm
    novels = train_lm.read_rdb(args.rdb)
    sp = spm.SentencePieceProcessor(model_file=str(
        ROOT / "examples/models/small-llama/tokenizer.model"))
    ids = torch.tensor([i for title, lines in sorted(novels.items())
                        if title != train_lm.HELDOUT
                        for i in sp.encode(train_lm.plain_text(lines))])
    print(f"{len(ids)} training tokens", flush=True)
    torch.manual_seed(SEED)
    eagle, medusa = Eagle(), Medusa()
    params = [*eagle.parameters(), *medusa.parameters()]
    opt = torch.optim.AdamW(params, lr=RATE, weight_decay=0.01, betas=(0.9, 0.95))
    embed, head, log, sums = llama.model.embed_tokens, llama.lm_head, [], []
    for step in range(STEPS):
        rng = np.random.default_rng([SEED, step])
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, (step + 1) / 50, 2 * (1 - step / STEPS) + 0.01)
        at = rng.integers(0, len(ids) - WINDOW, BATCH)
        x = torch.stack([ids[a:a + WINDOW] for a in at])
        x[:, 0] = 1
        with torch.no_grad():
            states = llama.model(x).last_hidden_state
            soft = head(states).softmax(-1)
        noise = torch.from_numpy(rng.uniform(-0.1, 0.1, states[:, :-1].shape)).float()
        out = eagle(embed(x[:, 1:]), states[:, :-1] + noise)
        loss_e = -(soft[:, 1:] * head(out).log_softmax(-1)).sum(-1).mean()
        near = F.smooth_l1_loss(out, states[:, 1:])
        loss_m = [-(soft[:, k + 1:] * head(h[:, :-k - 1]).log_softmax(-1)).sum(-1).mean()
                  for k, h in enumerate(medusa(states))]
        opt.zero_grad()
        (loss_e + near + sum(loss_m)).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        sums.append([float(v.detach()) for v in [loss_e, *loss_m]])
        if (step + 1) % 50 == 0:
            log.append([step + 1] + [f"{v:.4f}" for v in np.mean(sums, 0)])
            print(*log[-1], flush=True)
            sums = []
    args.out.mkdir(parents=True, exist_ok=True)
    for name, m in (("eagle", eagle), ("medusa", medusa)):
        tensors = {k: v.detach().to(torch.bfloat16).contiguous()
                   for k, v in m.state_dict().items()}
        save_file(tensors, args.out / f"{name}.safetensors", metadata={"format": "pt"})
        (args.out / f"{name}.safetensors").chmod(0o644)
    with open(args.out / "losses.csv", "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["step", "eagle"] + [f"medusa_{k}" for k in range(MEDUSA)])
        w.writerows(log)


@torch.no_grad()
def evaluate(args, llama):
    """Chains on the held-out novel: 32 prompts of 64 tokens, 64 greedy tokens after each; the
    target's first token, then rounds of drafts from the accepted text."""
    eagle, medusa = Eagle(), Medusa()
    for name, m in (("eagle", eagle), ("medusa", medusa)):
        stored = load_file(args.out / f"{name}.safetensors")
        m.load_state_dict({k: v.float() for k, v in stored.items()})
    sp = spm.SentencePieceProcessor(model_file=str(
        ROOT / "examples/models/small-llama/tokenizer.model"))
    ids = torch.tensor(sp.encode((ROOT / "examples/data/heldout.txt").read_text()))
    x = torch.stack([torch.cat([torch.tensor([1]), ids[a:a + PROMPT - 1]])
                     for a in np.linspace(0, len(ids) - PROMPT, PROMPTS).astype(int)])
    cache, new, all_states = None, x, []
    for _ in range(TOKENS):
        out = llama.model(new, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        all_states.append(out.last_hidden_state)
        new = llama.lm_head(out.last_hidden_state[:, -1:]).argmax(-1)
        x = torch.cat([x, new], 1)
    states = torch.cat(all_states, 1)  # state t chose token t + 1
    sums = {"eagle": np.zeros(3 + GAMMA), "medusa": np.zeros(3 + GAMMA)}
    for p in range(PROMPTS):
        for name, n in sums.items():
            begin = PROMPT + 1  # the next token to be drafted; its verifier state is begin − 1
            while begin < PROMPT + TOKENS:
                want = x[p, begin:begin + (GAMMA if name == "eagle" else MEDUSA)].tolist()
                known = states[p, :begin - 1]  # state begin − 1 comes with the verify pass
                if name == "medusa":
                    drafts = [int(llama.lm_head(h).argmax()) for h in medusa(known[-1])]
                else:
                    text, f, drafts = x[p, :begin].clone(), known[None], []
                    for _ in want:
                        f = torch.cat([known[None], eagle(
                            llama.model.embed_tokens(text[1:])[None], f)[:, begin - 2:]], 1)
                        drafts.append(int(llama.lm_head(f[0, -1]).argmax()))
                        text = torch.cat([text, torch.tensor(drafts[-1:])])
                good = next((i for i, (a, b) in enumerate(zip(drafts, want)) if a != b),
                            len(want))
                n[:3] += (1, len(want), good)
                n[3:3 + good] += 1
                begin += good + 1
    with open(args.out / "results.csv", "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["head", "drafts_a_round", "rounds", "drafted", "acceptance_rate",
                    "mean_length", "per_position"])
        for name, n in sums.items():
            most = GAMMA if name == "eagle" else MEDUSA
            w.writerow([name, most, int(n[0]), int(n[1]), f"{n[2] / n[1]:.4f}",
                        f"{1 + n[2] / n[0]:.4f}",
                        " ".join(f"{v / n[0]:.4f}" for v in n[3:3 + most])])
    print((args.out / "results.csv").read_text())


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rdb", type=Path)
    p.add_argument("--evaluate", action="store_true")
    p.add_argument("--out", type=Path, default=ROOT / "examples/models/small-llama-heads")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    if not args.evaluate and not args.rdb:
        p.error("--rdb is needed to train")
    torch.set_num_threads(args.threads)
    llama = target()
    if not args.evaluate:
        train(args, llama)
    evaluate(args, llama)


if __name__ == "__main__":
    main()
