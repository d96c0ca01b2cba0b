#!/usr/bin/env python3
"""Train the cross-modal adapters of the tiny pair: its drafter's states to its verifier's tokens.

Seven kinds, with the published modules' names in the files (examples/models/pair-adapters):

  L1…L5  state i of the drafter → state i of the verifier; through the verifier's lm_head that is
         token i. State 0 is the one that ends the prompt. L4 sees a round's states together, L5
         those before.
  B1     L5 fed with the verifier's own states: state i → state i + 1, and so on from its own
  L5F    the drafter's state i and the verifier's → the verifier's state i + 1

  tools/train_adapter.py --work W     W: as tools/train_pair.py generate left it
  tools/train_adapter.py --work W --only L4
  tools/train_adapter.py --evaluate   the acceptance of what is there

The pair's weights stay as they are. Trained on scenes that neither model of the pair has seen,
scored on the held-out ones. Loss: cross entropy with the token that the verifier says, and a tenth
of the squared distance from its state over that state's own square.
"""
import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pair_files as files  # noqa: E402
import pair_fit as fit  # noqa: E402
import pair_scenes as P  # noqa: E402
import pair_text as T  # noqa: E402
import train_pair as pair  # noqa: E402

D, HEADS, POSITIONS = 128, 8, 512
BOTTLENECK, WIDE, FFN = 32, 64, 64
BATCH, WINDOW, RATE, SEED = 32, 24, 4e-3, 20265
FIRST_CHUNK, CHUNKS = pair.TRAIN_SCENES // pair.CHUNK, pair.ADAPTER_SCENES // pair.CHUNK
GAMMA = 4


# ---- the adapters --------------------------------------------------------------------------

class Bottleneck(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer_norm = nn.LayerNorm(D)
        self.down_proj = nn.Linear(D, BOTTLENECK, bias=False)
        self.up_proj = nn.Linear(BOTTLENECK, D, bias=False)
        self.alpha_param = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return x + self.alpha_param * self.up_proj(F.gelu(self.down_proj(self.layer_norm(x))))


class L1(nn.Module):
    def __init__(self, name="layers", blocks=1):
        super().__init__()
        self.add_module(name, nn.ModuleList(Bottleneck() for _ in range(blocks)))
        self.name, self.final_norm = name, nn.LayerNorm(D)

    def forward(self, x):
        for block in getattr(self, self.name):
            x = block(x)
        return self.final_norm(x)


class L3(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_norm, self.final_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        # Index 3 is the published module's dropout.
        self.blocks = nn.ModuleList(nn.Sequential(
            nn.Linear(D, WIDE, bias=False), nn.LayerNorm(WIDE), nn.GELU(), nn.Identity(),
            nn.Linear(WIDE, D, bias=False)) for _ in range(2))
        self.alphas = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in range(2))

    def forward(self, x):
        x = self.input_norm(x)
        for block, alpha in zip(self.blocks, self.alphas):
            x = x + alpha * block(x)
        return self.final_norm(x)


def layer():
    return nn.ModuleDict(dict(
        attn_norm=nn.LayerNorm(D), attn=nn.MultiheadAttention(D, HEADS, batch_first=True),
        ffn_norm=nn.LayerNorm(D),
        ffn=nn.Sequential(nn.Linear(D, FFN), nn.GELU(), nn.Identity(), nn.Linear(FFN, D))))


def through(layers, x, mask):
    for a in layers:
        h = a["attn_norm"](x)
        x = x + a["attn"](h, h, h, attn_mask=mask, need_weights=False)[0]
        x = x + a["ffn"](a["ffn_norm"](x))
    return x


class L4(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([layer()])
        self.output_proj = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D))
        self.alpha = nn.Parameter(torch.tensor(1.0))

    def forward(self, h):
        return h + self.alpha * (self.output_proj(through(self.layers, h, None)) - h)


class L5(nn.Module):
    """Also B1, whose h are the verifier's states."""

    def __init__(self):
        super().__init__()
        self.input_norm, self.output_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.pos_embed = nn.Parameter(torch.randn(1, POSITIONS, D) * 0.02)
        self.layers = nn.ModuleList([layer()])
        self.output_proj = nn.Linear(D, D)
        self.alpha = nn.Parameter(torch.tensor(1.0))

    def forward(self, h):
        return self.core(self.input_norm(h), h)

    def core(self, x, residual):
        n = x.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool).triu(1)  # True: not seen
        x = through(self.layers, x + self.pos_embed[:, :n], mask)
        return residual + self.alpha * (self.output_proj(self.output_norm(x)) - residual)


class L5F(L5):
    def __init__(self):
        super().__init__()
        del self.input_norm
        self.fusion_proj, self.fusion_norm = nn.Linear(2 * D, D), nn.LayerNorm(D)
        self.gate = nn.Sequential(nn.Linear(2 * D, D), nn.Sigmoid())

    def forward(self, e, v):
        both = torch.cat([e, v], -1)
        g = self.gate(both)
        return self.core(self.fusion_norm(g * e + (1 - g) * v + self.fusion_proj(both)), v)


KINDS = dict(L1=L1, L2=lambda: L1("blocks", 3), L3=L3, L4=L4, L5=L5, B1=L5, L5F=L5F)
TYPES = dict(L1="L1_Bottleneck", L2="L2_MultiLayerBottleneck", L3="L3_WideBottleneck",
             L4="L4_Attention", L5="L5_EAGLE", B1="B1_VLM_Only", L5F="L5F_FusedEAGLE")
AHEAD = ("B1", "L5F")  # these say the next state from the verifier's
STEPS = dict(L1=800, L2=800, L3=800, L4=800, L5=800, B1=2400, L5F=2400)


# ---- what the pair says --------------------------------------------------------------------

@torch.no_grad()
def collect(args, models, tok):
    """[(drafter's states [n, D], verifier's, verifier's tokens [n])] of true answers on scenes
    that neither model has seen."""
    out = {}
    for name, model in models.items():
        fitted = fit.Fit.__new__(fit.Fit)  # its batches alone
        fitted.name, fitted.tok, fitted.model = name, tok, model
        fitted.video = name == pair.VERIFIER
        what = "video" if fitted.video else "events"
        for k in range(FIRST_CHUNK, FIRST_CHUNK + CHUNKS):
            with np.load(args.work / "data" / f"train-{k:04d}.npz") as z:
                images, first = z[what], int(z["first"])
            for at in range(0, len(images), 20):
                seeds = first + np.arange(at, at + 20)
                ids, labels, place, mask, part, types, _ = fitted.pack(
                    seeds, np.random.default_rng([SEED, k, at]), len(P.TYPES))
                _, rows = model.see(fitted.pixels(images[at:at + 20]))
                states, _ = model(ids, rows, place, mask)
                for b, kinds in enumerate(types):
                    for s in range(len(kinds)):
                        mine = (part[b] == s + 1) & (labels[b] != fit.IGNORE)
                        out.setdefault(name, []).append(states[b, mine])
    head = models[pair.VERIFIER].lm_head
    return [(e, v, head(v).argmax(-1)) for e, v in zip(out[pair.DRAFTER], out[pair.VERIFIER])]


def windows(data, rng, ahead, whole):
    """Parts of answers: e, v [b, n, D], target tokens and states; −100 beyond a part's end.
    whole: all are as long, without padding."""
    most = int(rng.integers(1, WINDOW + 1)) if whole else WINDOW
    e, v = torch.zeros(BATCH, most, D), torch.zeros(BATCH, most, D)
    goal, token = torch.zeros(BATCH, most, D), torch.full((BATCH, most), fit.IGNORE)
    for b in range(BATCH):
        x, y, said = data[rng.integers(len(data))]
        while whole and len(said) < most:
            x, y, said = data[rng.integers(len(data))]
        start = int(rng.integers(0, max(1, len(said) - (most - 1 if whole else 1 + ahead))))
        n = min(most if whole else int(rng.integers(1, most + 1)), len(said) - ahead - start)
        e[b, :n], v[b, :n] = x[start:start + n], y[start:start + n]
        goal[b, :n] = y[start + ahead:start + ahead + n]
        token[b, :n] = said[start + ahead:start + ahead + n]
    return e, v, goal, token


def train(name, data, head, log):
    torch.manual_seed(SEED)
    adapter, ahead = KINDS[name](), int(name in AHEAD)
    opt = torch.optim.AdamW(adapter.parameters(), lr=RATE, weight_decay=0.01)
    sums, steps = [], STEPS[name]
    for step in range(steps):
        rng = np.random.default_rng([SEED, step])
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, (step + 1) / 50, 2 * (1 - step / steps) + 0.01)
        # L4 sees all of its input, so a batch of its has no padding.
        e, v, goal, token = windows(data, rng, ahead, name == "L4")
        ok, loss, fed = token != fit.IGNORE, 0.0, v
        for _ in range(1 + ahead):  # ahead: once more from its own states
            out = adapter(e, fed) if name == "L5F" else adapter(fed if ahead else e)
            loss = loss + F.cross_entropy(head(out[ok]), token[ok])
            loss = loss + 0.1 * (out[ok] - goal[ok]).square().sum() / goal[ok].square().sum()
            fed = torch.cat([v[:, :1], out[:, :-1].detach()], 1) if ahead else fed
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        opt.step()
        sums.append(float(loss.detach()) / (1 + ahead))
        if (step + 1) % 100 == 0:
            log.append((name, step + 1, f"{np.mean(sums):.4f}"))
            print(*log[-1], flush=True)
            sums = []
    return adapter


# ---- acceptance ----------------------------------------------------------------------------

class Rounds:
    """Drafting rounds on one question, as the engine does them: the verifier's first token, then
    rounds of GAMMA drafts from the accepted text."""

    def __init__(self, drafter, verifier, k, q):
        self.ids, self.v = verifier.say(k, q)
        self.drafter, self.k, self.q = drafter, k, q

    @torch.no_grad()
    def states(self, begin):
        """The drafter's states for tokens begin … begin + GAMMA − 1, after the accepted text,
        and going on with its own tokens."""
        d, out = self.drafter, []
        caches, h, at = d.start(self.k, self.q)
        ids = self.ids[:begin]
        if ids:
            n = len(ids)
            mask = torch.cat([torch.ones(n, at, dtype=torch.bool),
                              torch.ones(n, n, dtype=torch.bool).tril()], 1)[None, None]
            h, _ = d.model(torch.tensor([ids]), None, at + torch.arange(n)[None], mask, caches)
            at, h = at + n, h[:, -1:]
        for _ in range(GAMMA):
            out.append(h[0, 0])
            token = d.model.lm_head(h).argmax(-1)
            h, _ = d.model(token, None, torch.tensor([[at]]), None, caches)
            at += 1
        return torch.stack(out)[None]

    @torch.no_grad()
    def draft(self, name, adapter, begin, head, cached):
        if begin not in cached and name != "B1":
            cached[begin] = self.states(begin)
        if name == "none":
            return self.drafter.model.lm_head(cached[begin])[0].argmax(-1).tolist()
        if name not in AHEAD:
            return head(adapter(cached[begin]))[0].argmax(-1).tolist()
        # The verifier's state begin − 1 chose the last accepted token; the next follow from it.
        v = self.v[begin - 1:begin][None]
        e = None
        if name == "L5F":
            if begin - 1 not in cached:
                cached[begin - 1] = self.states(begin - 1)
            e = torch.cat([cached[begin - 1][:, :1], cached[begin][:, :-1]], 1)
        for n in range(1, GAMMA + 1):
            out = adapter(e[:, :n], v) if e is not None else adapter(v)
            v = torch.cat([v, out[:, -1:]], 1)
        return head(v[0, 1:]).argmax(-1).tolist()

    def run(self, name, adapter, head, content, cached):
        """drafted, accepted, rounds, then of content tokens: offered, accepted."""
        begin, n = 1, np.zeros(5)
        while begin < len(self.ids):
            want = self.ids[begin:begin + GAMMA]
            drafts = self.draft(name, adapter, begin, head, cached)[:len(want)]
            good = next((i for i, (a, b) in enumerate(zip(drafts, want)) if a != b), len(want))
            n += (len(want), good, 1, 0, 0)
            for i, w in enumerate(want[:good + 1]):  # those that were looked at
                if w in content:
                    n[3:] += (1, i < good)
            begin += good + 1
        return n


def evaluate(args, models):
    """Acceptance on the held-out scenes, with their own events and with another scene's."""
    head = models[pair.VERIFIER].lm_head
    asked = files.read_questions(args.data)
    count = 1 + max(k for k, _, _ in asked)
    verifier = pair.Speaker(pair.VERIFIER, args.models, args.data, count, False)
    drafters = [pair.Speaker(pair.DRAFTER, args.models, args.data, count, b)
                for b in (False, True)]
    content = verifier.tok.content_ids()
    adapters = {"none": None}
    for name in KINDS:
        adapters[name] = KINDS[name]()
        stored = load_file(args.out / f"{name}.safetensors")
        adapters[name].load_state_dict({k: v.float() for k, v in stored.items()})
        adapters[name].eval()
    sums = {name: np.zeros((2, 5)) for name in adapters}
    for k, q, _ in asked:
        for b, drafter in enumerate(drafters):
            rounds, cached = Rounds(drafter, verifier, k, q), {}
            for name, adapter in adapters.items():
                sums[name][b] += rounds.run(name, adapter, head, content, cached)
    with open(args.out / "results.csv", "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["adapter", "parameters", "gamma", "rounds", "drafted", "acceptance_rate",
                    "mean_length", "content_acceptance", "shuffled_acceptance_rate",
                    "shuffled_content_acceptance"])
        for name, (own, other) in sums.items():
            size = sum(p.numel() for p in adapters[name].parameters()) if adapters[name] else 0
            w.writerow([name, size, GAMMA, int(own[2]), int(own[0])] + [f"{v:.4f}" for v in (
                own[1] / own[0], 1 + own[1] / own[2], own[4] / own[3], other[1] / other[0],
                other[4] / other[3])])
    print((args.out / "results.csv").read_text())


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--work", type=Path)
    p.add_argument("--evaluate", action="store_true")
    p.add_argument("--only", choices=list(KINDS))
    p.add_argument("--models", type=Path, default=pair.ROOT / "examples/models")
    p.add_argument("--data", type=Path, default=pair.ROOT / "examples/data/pair")
    p.add_argument("--out", type=Path, default=pair.ROOT / "examples/models/pair-adapters")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    models = {n: files.read_model(n, args.models / n) for n in pair.TRAIN}
    for m in models.values():
        m.requires_grad_(False)
    if not args.evaluate:
        if not args.work:
            p.error("--work is needed to train")
        args.out.mkdir(parents=True, exist_ok=True)
        tok = T.Tokenizer(args.models / pair.DRAFTER / "tokenizer.json")
        data, log = collect(args, models, tok), []
        kept = args.out / "losses.csv"
        if args.only and kept.exists():
            rows = list(csv.reader(kept.open()))[1:]
            log = [tuple(r) for r in rows if r[0] != args.only]
        print(f"{len(data)} answers, {sum(len(t) for _, _, t in data)} tokens", flush=True)
        for name in [args.only] if args.only else KINDS:
            adapter = train(name, data, models[pair.VERIFIER].lm_head, log)
            tensors = {k: v.detach().to(torch.bfloat16).contiguous()
                       for k, v in adapter.state_dict().items()}
            save_file(tensors, args.out / f"{name}.safetensors",
                      metadata={"format": "pt", "adapter_type": TYPES[name],
                                "hidden_dim": str(D), "num_heads": str(HEADS)})
            (args.out / f"{name}.safetensors").chmod(0o644)
        log.sort(key=lambda r: (list(KINDS).index(r[0]), int(r[1])))
        with open(kept, "w", newline="") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(["adapter", "step", "loss"])
            w.writerows(log)
    if not args.only:
        evaluate(args, models)


if __name__ == "__main__":
    main()
