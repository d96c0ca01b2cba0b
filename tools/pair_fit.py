"""Fits one of the pair: packed batches, the losses, the checkpoints, the quick scores.

A training row is one scene: the visual prefix once, then several questions with their answers,
each of which sees the prefix and itself. Beside the answers' cross entropy, two linear heads that
are thrown away tell from single rows what shape is at a place: one on the tower, one inside the
Llama. Their weight falls to nothing
at SIDE_STEPS.
"""
import csv
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import pair_models as M
import pair_scenes as P
import pair_text as T

IGNORE = -100
SIDE_STEPS = 2000
# What a place's row must tell, by column of attributes(): kind (3: none), size, place, way,
# speed, colour. The last is for the video's towers alone, way and speed not for its tower.
CLASSES = [4, 2, 9, 4, 2, 4]


def load(folder, prefix, what, most=None):
    """(pixels u1 [n, frames, 84, 84, 3], owners u1 [n, 9, 6, 6], seeds [n])."""
    images, owners, seeds = [], [], []
    for path in sorted(folder.glob(f"{prefix}-*.npz"))[:most]:
        if ".tmp" in path.name:
            continue
        with np.load(path) as z:
            images.append(z[what])
            owners.append(z["owners"])
            seeds.append(int(z["first"]) + np.arange(len(images[-1])))
    return np.concatenate(images), np.concatenate(owners), np.concatenate(seeds)


def attributes(s):
    """[4, 6] of classes; row 3 is for no shape."""
    out = np.full((4, 6), IGNORE)
    out[3, 0] = 3
    for k, q in enumerate(s["shapes"]):
        out[k] = (P.KINDS.index(q["kind"]), P.SIZES.index(q["size"]),
                  3 * P.ROWS.index(q["row"]) + P.COLUMNS.index(q["column"]),
                  list(P.WAYS).index(q["way"]), list(P.SPEEDS).index(q["speed"]),
                  list(P.COLORS).index(q["color"]))
    return out


class Muon:
    """Momentum made orthogonal, for the matrices inside blocks (Jordan 2024), in float32; its
    step has the root mean square of AdamW's, so that one rate serves both."""

    def __init__(self, params, momentum=0.95, decay=0.05):
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum, self.decay = momentum, decay
        self.state = {k: torch.zeros(len(v), *k) for k, v in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, group in self.groups.items():
            m, g = self.state[shape], torch.stack([p.grad if p.grad is not None else
                                                   torch.zeros_like(p) for p in group])
            m.lerp_(g, 1 - self.momentum)
            x = g.lerp(m, self.momentum)
            if shape[0] > shape[1]:
                x = x.mT
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            if shape[0] > shape[1]:
                x = x.mT
            for p, u in zip(group, x):
                p.mul_(1 - rate * self.decay).add_(u, alpha=-rate * 0.2 * max(shape) ** 0.5)


class Fit:
    def __init__(self, name, tokenizer, folder, chunks=None):
        self.name, self.tok = name, tokenizer
        self.video = name == "tiny-video-llava"
        what = "video" if self.video else "events"
        self.train = load(folder, "train", what, chunks)
        self.dev = load(folder, "dev", what)
        self.model = M.Pair(name, T.VOCAB)
        w = self.model.shape["tower"]["hidden_size"]
        d = self.model.shape["llama"]["hidden_size"]
        self.heads = nn.ModuleList([nn.Linear(w, sum(CLASSES)), nn.Linear(d, sum(CLASSES))])
        self.content = torch.zeros(T.VOCAB, dtype=torch.bool)
        self.content[list(tokenizer.content_ids())] = True
        self.step, self.log, self.spent = 0, [], 0.0

    # -- batches

    def asked(self, seed, rng, n):
        s = P.scene(seed)
        kinds = ["describe"] + [T_ for T_ in rng.permutation(P.TYPES[1:])[:n - 1]]
        out = []
        for what in kinds:
            q = P.ask(s, rng, what)
            _, text = P.answer(s, q)
            out.append((what, *self.tok.parts(self.name, q, text, self.model.shape["rows"])))
        return s, out

    def pack(self, seeds, rng, n):
        """ids, labels, positions [b, l], mask [b, 1, l, l], segment types."""
        rows, scenes = [], []
        for seed in seeds:
            s, asked = self.asked(int(seed), rng, n)
            scenes.append(s)
            head = asked[0][1]
            ids, labels = list(head), [IGNORE] * len(head)
            place, part = list(range(len(head))), [0] * len(head)
            for k, (_, _, tail, said) in enumerate(asked):
                ids += tail + said
                labels += [IGNORE] * (len(tail) - 1) + said + [IGNORE]
                place += range(len(head), len(head) + len(tail) + len(said))
                part += [k + 1] * (len(tail) + len(said))
            rows.append((ids, labels, place, part, [a[0] for a in asked]))
        most = max(len(r[0]) for r in rows)

        def grid(k, fill):
            return torch.tensor([r[k] + [fill] * (most - len(r[k])) for r in rows])
        part = grid(3, -1)
        mask = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
        mask &= torch.ones(most, most, dtype=torch.bool).tril()
        mask |= torch.eye(most, dtype=torch.bool)
        return (grid(0, 0), grid(1, IGNORE), grid(2, 0), mask[:, None], part,
                [r[4] for r in rows], scenes)

    @staticmethod
    def pixels(images):
        x = torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255
        return (x - torch.from_numpy(P.MEAN)[:, None, None]) / torch.from_numpy(
            P.STD)[:, None, None]

    # -- losses

    def places(self, scenes, owners, rows):
        """Loss of the throw-away heads: rows [b, frames, 36, ·] against who is there."""
        head = self.heads[0] if rows is self.seen else self.heads[1]
        at = torch.from_numpy(owners.astype(np.int64)).flatten(2)  # [b, frames, 36]
        at[at == 255] = 3
        truth = torch.from_numpy(np.stack([attributes(s) for s in scenes]))
        y = torch.stack([truth[k][at[k]] for k in range(len(at))])  # [b, frames, 36, 6]
        if self.video and rows is self.seen:
            y[..., 3:5] = IGNORE
        if not self.video:
            y[..., 5] = IGNORE
        total, logits = 0.0, head(rows)
        for k, part in enumerate(logits.split(CLASSES, -1)):
            if (y[..., k] != IGNORE).any():
                total = total + F.cross_entropy(part.flatten(0, 2), y[..., k].flatten(),
                                                ignore_index=IGNORE)
        return total

    def loss(self, images, owners, seeds, rng, n, side):
        ids, labels, place, mask, _, _, scenes = self.pack(seeds, rng, n)
        self.seen, rows = self.model.see(self.pixels(images))
        out, middle = self.model(ids, rows, place, mask, tap=2)
        at = labels != IGNORE
        truth = labels[at]
        each = F.cross_entropy(self.model.lm_head(out[at]), truth, reduction="none")
        weight = 1 + 2 * self.content[truth].float()
        text = (each * weight).sum() / weight.sum()
        if side <= 0:
            return text, text
        first = (ids == T.VISUAL).int().argmax(1)[0]
        if self.video:
            late = middle[:, first:first + 296].unflatten(1, (8, 37))[:, 1:, 1:]
            tower = self.places(scenes, owners[:, :8], self.grid(self.seen))
            more = self.places(scenes, owners[:, 1:8], late)
        else:
            late = middle[:, first + 6:first + 42][:, None]
            tower = self.places(scenes, owners[:, 8:], self.grid(self.seen.mean(1, True)))
            more = self.places(scenes, owners[:, 8:], late)
        return text + side * (tower + more), text

    def tower_loss(self, images, owners, rng):
        """The tower alone, on two frames."""
        at = np.sort(rng.permutation(images.shape[1])[:2])
        seen = self.model.tower(self.pixels(images[:, at]).flatten(0, 1),
                                self.model.shape["drop_last"]).unflatten(0, (-1, 2))
        if self.video:
            return self.places(self.scenes, owners[:, at], self.grid(seen))
        return self.places(self.scenes, owners[:, 8:], self.grid(seen.mean(1, True)))

    def grid(self, seen):
        self.seen = seen[:, :, 1:]
        return self.seen

    # -- training

    def run(self, folder, steps, towers, batch, questions, rate, seed, every=100, stop=None):
        """`towers` steps of the tower alone come first, on two frames of twice as many scenes."""
        params = [*self.model.parameters(), *self.heads.parameters()]
        inside = [p for n, p in self.model.named_parameters()
                  if "layers." in n and p.ndim == 2]
        rest = [p for p in params if all(p is not q for q in inside)]
        muon = Muon(inside)
        opt = torch.optim.AdamW(rest, weight_decay=0.0, lr=rate, betas=(0.9, 0.98))
        saved = folder / f"{self.name}.pt"
        if saved.exists():
            was = torch.load(saved, weights_only=False)
            self.model.load_state_dict(was["model"])
            self.heads.load_state_dict(was["heads"])
            opt.load_state_dict(was["opt"])
            muon.state = was["muon"]
            self.step, self.log, self.spent = was["step"], was["log"], was["spent"]
        images, owners, seeds = self.train
        began, sums = time.time(), []
        while self.step < (stop or steps):
            rng = np.random.default_rng([seed, self.step])
            early = self.step < towers
            at = rng.integers(0, len(seeds), batch * 2 if early else batch)
            if early:
                left, since = 1.0, self.step
            else:
                left, since = 4 * (1 - self.step / steps), self.step - towers
            now = rate * min(1, (since + 1) / 100, left + 0.01)
            for g in opt.param_groups:
                g["lr"] = now
            if early:
                self.scenes = [P.scene(int(k)) for k in seeds[at]]
                loss = text = self.tower_loss(images[at], owners[at], rng)
            else:
                side = 0.3 * max(0.0, 1 - self.step / SIDE_STEPS)
                loss, text = self.loss(images[at], owners[at], seeds[at], rng, questions, side)
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            opt.step()
            muon.step(now)
            self.step += 1
            sums.append((float(loss.detach()), float(text.detach())))
            if self.step % every == 0 or self.step == steps:
                spent = self.spent + time.time() - began
                mean = np.mean(sums, 0)
                sums = []
                if self.step <= towers:
                    print(f"{self.name} {self.step} {spent:.0f}s tower {mean[0]:.3f}", flush=True)
                    continue
                score = self.score(60)
                self.log.append(dict(model=self.name, step=self.step, train=mean[1],
                                     with_places=mean[0], dev=score["loss"],
                                     dev_tokens=score["content"], seconds=spent))
                print(f"{self.name} {self.step} {spent:.0f}s loss {mean[0]:.3f} text {mean[1]:.4f}"
                      f" dev {score['loss']:.4f} content {score['content']:.3f} "
                      + " ".join(f"{k} {v:.2f}" for k, v in score["right"].items()), flush=True)
                torch.save(dict(model=self.model.state_dict(), heads=self.heads.state_dict(),
                                opt=opt.state_dict(), muon=muon.state, step=self.step,
                                log=self.log, spent=spent),
                           saved.with_suffix(".tmp"))
                saved.with_suffix(".tmp").rename(saved)
        self.spent += time.time() - began

    @torch.no_grad()
    def score(self, n, blind=False):
        """Teacher-forced on unseen scenes: loss, content tokens right, whole answers right."""
        images, _, seeds = self.dev
        rng = np.random.default_rng(5)
        right, total = {k: [] for k in P.TYPES}, []
        for first in range(0, n, 20):
            pick = np.arange(first, min(first + 20, n))
            ids, labels, place, mask, part, types, _ = self.pack(seeds[pick], rng, len(P.TYPES))
            look = (pick + 37) % len(seeds) if blind else pick
            _, rows = self.model.see(self.pixels(images[look]))
            out, _ = self.model(ids, rows, place, mask)
            at = labels != IGNORE
            logits = self.model.lm_head(out[at])
            ok = torch.ones_like(labels, dtype=torch.bool)
            ok[at] = logits.argmax(-1) == labels[at]
            each = F.cross_entropy(logits, labels[at], reduction="none")
            content = self.content[labels[at]]
            total.append((float(each.sum()), len(each), int(ok[at][content].sum()),
                          int(content.sum())))
            for b, kinds in enumerate(types):
                for k, what in enumerate(kinds):
                    right[what].append(bool(ok[b][part[b] == k + 1].all()))
        total = np.sum(total, 0)
        return dict(loss=total[0] / total[1], content=total[2] / total[3],
                    right={k: float(np.mean(v)) for k, v in right.items()})


def write_log(path, logs):
    with open(path, "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["model", "step", "train", "with_places", "dev", "dev_tokens", "seconds"])
        for r in logs:
            out.writerow([r["model"], r["step"]] + [f"{r[k]:.4f}" for k in
                         ("train", "with_places", "dev", "dev_tokens")] + [f"{r['seconds']:.0f}"])
