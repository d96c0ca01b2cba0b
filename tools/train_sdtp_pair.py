#!/usr/bin/env python3
"""Train SDTP's token scorers (arXiv 2504.04514v2) for the picture of the tiny Video-LLaVA, which stays as it is.

  pip install torch safetensors tokenizers numpy pillow            (and ffmpeg, for the scenes)
  tools/train_sdtp_pair.py -o examples/models/tiny-video-llava-sdtp.safetensors

As tools/train_sdtp.py does it for text; only visual tokens may go (`tokens: visual`), so each stage keeps the part `keep` of the
clip's rows that are left. Scenes are the pair's, with seeds that none of its models was trained on; a step is a batch of questions of
any kind with their true answers. Written beside OUT: OUT.losses.csv. What they are worth is measured with the engine
(bench/pair_scorers.sh).
"""
import argparse
import csv
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pair_files as files  # noqa: E402
import pair_fit as fit  # noqa: E402
import pair_scenes as P  # noqa: E402
import pair_text as T  # noqa: E402
from train_sdtp import Scorer  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
NAME = "tiny-video-llava"
FIRST = 500_000  # seeds of these scenes: the pair's own begin at 0, 1,000,000 and 2,000,000


@torch.no_grad()
def see(model, seeds):
    """Visual rows [n, rows, d] of scenes, as the pair's training renders them."""
    out = []
    for at in range(0, len(seeds), 20):
        scenes = [P.scene(int(k)) for k in seeds[at:at + 20]]
        seen = P.encode(np.concatenate([P.clip(s) for s in scenes])).reshape(len(scenes), P.FRAMES, P.SIZE, P.SIZE, 3)
        images = np.stack([[P.shrink(c[i]) for i in P.VIDEO_FRAMES] for c in seen])
        out.append(model.see(fit.Fit.pixels(images))[1])
    return torch.cat(out)


class Prompts:
    def __init__(self, model, tok, count, seed):
        self.model, self.tok, self.rng = model, tok, np.random.default_rng(seed)
        self.seeds = FIRST + np.arange(count)
        self.rows = see(model, self.seeds)

    def batch(self, n):
        """x [n, l, d], labels [n, l], the place of the first visual row. Padding stands behind, so nobody sees it."""
        which, lines = self.rng.integers(0, len(self.seeds), n), []
        for k in which:
            s = P.scene(int(self.seeds[k]))
            q = P.ask(s, self.rng, P.TYPES[self.rng.integers(len(P.TYPES))])
            head, tail, said = self.tok.parts(NAME, q, P.answer(s, q)[1], self.rows.shape[1])
            lines.append((head + tail + said, [fit.IGNORE] * (len(head) + len(tail)) + said))
        most = max(len(ids) for ids, _ in lines)
        ids = torch.tensor([i + [0] * (most - len(i)) for i, _ in lines])
        labels = torch.tensor([t + [fit.IGNORE] * (most - len(t)) for _, t in lines])
        at = ids == T.VISUAL
        x = self.model.llama.embed_tokens(ids.clamp(min=0)).masked_scatter(at[..., None], self.rows[which].flatten(0, 1))
        return x.detach(), labels, int(at[0].int().argmax())


def forward(model, x, labels, each):
    """Mean cross entropy of the answers; each(layer, x, bias) → bias [n, l], added to the scores of keys in later blocks."""
    llama, (n, length) = model.llama, x.shape[:2]
    f = llama.theta ** -(torch.arange(0, llama.width, 2) / llama.width)
    angle = torch.arange(length)[None, None, :, None] * f
    rope = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    causal, bias = torch.full((length, length), -1e9).triu(1)[None, None], torch.zeros(n, length)
    for i, layer in enumerate(llama.layers):
        x = layer(x, causal + bias[:, None, None, :], rope, None)
        bias = each(i, x, bias)
    logits = model.lm_head(llama.norm(x)[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=fit.IGNORE)


def saliency(model, x, labels, first, rows, layers):
    """Targets and inputs of each stage: log |Σ (∂ loss / ∂ x) · x| over the visual rows, standardised."""
    seen = {}

    def each(i, h, bias):
        if i in layers:
            h.retain_grad()
            seen[i] = h
        return bias
    forward(model, x.requires_grad_(True), labels, each).backward()
    targets, inputs = [], []
    for i in layers:
        s = (seen[i].grad * seen[i]).sum(-1)[:, first:first + rows].detach().abs().clamp_min(1e-30).log()
        targets.append((s - s.mean(1, keepdim=True)) / s.std(1, keepdim=True).clamp_min(1e-3))
        inputs.append(seen[i][:, first:first + rows].detach())
    return targets, inputs


class Stages:
    """Pruning of one pass by masking: hard going forward, a smooth step at the last score that stays going back."""

    def __init__(self, scorers, layers, first, rows, keep):
        self.scorers, self.layers, self.first, self.rows, self.keep = scorers, layers, first, rows, keep
        self.alive = None

    def __call__(self, i, x, bias):
        if i not in self.layers:
            return bias
        here = slice(self.first, self.first + self.rows)
        s = self.scorers[self.layers.index(i)](x[:, here])
        if self.alive is None:
            self.alive = torch.ones(s.shape, dtype=torch.bool)
        rank = s.detach().masked_fill(~self.alive, -math.inf)
        at = rank.topk(max(1, math.floor(self.keep * int(self.alive[0].sum()))), 1).indices
        alive = torch.zeros_like(self.alive).scatter_(1, at, True)
        edge = torch.where(alive, s.detach(), torch.inf).min(1, keepdim=True).values
        smooth = F.logsigmoid((s - edge) / 0.5)
        hard = torch.where(alive, 0.0, -1e9) + torch.where(self.alive, smooth - smooth.detach(), 0.0)
        self.alive, bias = alive, bias.clone()
        bias[:, here] = hard
        return bias


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-o", "--out", required=True)
    p.add_argument("--model", type=Path, default=ROOT / "examples/models" / NAME)
    p.add_argument("--layers", default="0,1", help="0-based: a stage stands after each of these blocks")
    p.add_argument("--keeps", default="0.5,0.3,0.2,0.1", help="of each stage; drawn for each step")
    p.add_argument("--scenes", type=int, default=300)
    p.add_argument("--steps", type=int, default=500)
    p.add_argument("--batch", type=int, default=6)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--minutes", type=float, default=12, help="training ends after so long, if not before")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    layers, keeps = [int(v) for v in a.layers.split(",")], [float(v) for v in a.keeps.split(",")]
    model = files.read_model(NAME, a.model).requires_grad_(False)
    prompts = Prompts(model, T.Tokenizer(a.model / "tokenizer.json"), a.scenes, a.seed)
    rows = prompts.rows.shape[1]
    print(f"{a.scenes} scenes of {rows} rows", flush=True)
    scorers = torch.nn.ModuleList(Scorer(prompts.rows.shape[2]) for _ in layers)
    opt, start, curve = torch.optim.AdamW(scorers.parameters(), lr=a.lr, weight_decay=0.01), time.time(), []
    for step in range(a.steps):
        left = min(1 - step / a.steps, 1 - (time.time() - start) / 60 / a.minutes)
        if left <= 0:
            break
        for g in opt.param_groups:  # a short rise, then a cosine
            g["lr"] = a.lr * min(1, (step + 1) / 20) * 0.5 * (1 - math.cos(math.pi * left))
        x, labels, first = prompts.batch(a.batch)
        targets, inputs = saliency(model, x, labels, first, rows, layers)
        scores = [s(h) for s, h in zip(scorers, inputs)]
        mse = sum(F.mse_loss(s, t) for s, t in zip(scores, targets)) / len(layers)
        i, j = torch.randint(rows, (2, 4 * rows))
        rank = sum(F.softplus(-(s[:, i] - s[:, j]) * (t[:, i] - t[:, j]).sign()).mean() for s, t in zip(scores, targets)) / len(layers)
        keep = keeps[int(torch.randint(len(keeps), (1,)))]
        task = forward(model, x.detach(), labels, Stages(scorers, layers, first, rows, keep))
        opt.zero_grad()
        (task + mse + rank).backward()
        torch.nn.utils.clip_grad_norm_(scorers.parameters(), 1.0)
        opt.step()
        curve.append([step, keep, task.item(), mse.item(), rank.item()])
        if step % 20 == 0:
            print(f"{step} keep {keep} task {task.item():.4f} mse {mse.item():.4f} rank {rank.item():.4f} {time.time() - start:.0f} s", flush=True)
    state = {f"{layer}.{name}": v.half().contiguous() for layer, s in zip(layers, scorers) for name, v in s.state_dict().items()}
    save_file(state, a.out, metadata={"format": "pt", "trained": f"{len(curve)} steps of {a.batch} questions, keep {a.keeps}, visual tokens"})
    with open(a.out.removesuffix(".safetensors") + ".losses.csv", "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["step", "keep", "task", "mse", "rank"])
        w.writerows([[r[0], r[1], *(f"{v:.5g}" for v in r[2:])] for r in curve])


if __name__ == "__main__":
    main()
