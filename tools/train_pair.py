#!/usr/bin/env python3
"""Make, train and score the tiny EventGPT (drafter) and Video-LLaVA (verifier) of examples/models.

Both look at the same scenes of moving shapes (pair_scenes.py): one through an event camera, one
through a video camera. No outside data: scenes, events, clips, questions and answers follow from
seeds. Needs ffmpeg with libx264 and

  pip install torch safetensors tokenizers sentencepiece pillow numpy

  tools/train_pair.py generate --work W     tokenizer, training scenes (3.5 GB), held-out scenes
  tools/train_pair.py train NAME --work W   tiny-eventgpt or tiny-video-llava; goes on where it
                                            was stopped
  tools/train_pair.py export --work W       both models and their curves, as their users get them
  tools/train_pair.py eval                  scores the exported files on the held-out scenes

The weights written are the last step's; held-out scenes choose nothing.
"""
import argparse
import csv
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pair_files as files  # noqa: E402
import pair_fit as fit  # noqa: E402
import pair_models as M  # noqa: E402
import pair_scenes as P  # noqa: E402
import pair_text as T  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DRAFTER, VERIFIER = "tiny-eventgpt", "tiny-video-llava"
SEED = 20260
CHUNK = 200
TRAIN_SCENES, ADAPTER_SCENES, DEV_SCENES, HELD_SCENES = 11_000, 1_600, 300, 24
TRAIN = {DRAFTER: dict(steps=1800, towers=500, batch=16, questions=5, rate=2.5e-3),
         VERIFIER: dict(steps=1600, towers=500, batch=16, questions=5, rate=2.5e-3)}
MOST = 72  # tokens of an answer in scoring


# ---- generate ------------------------------------------------------------------------------

def make_chunk(job):
    out, first, count = job
    if out.exists():
        return out
    scenes = [P.scene(first + k) for k in range(count)]
    seen = P.encode(np.concatenate([P.clip(s) for s in scenes]))
    seen = seen.reshape(count, P.FRAMES, P.SIZE, P.SIZE, 3)
    frames = [i * 1e6 / P.FPS for i in P.VIDEO_FRAMES]
    part = out.with_suffix(".tmp.npz")
    np.savez(part, first=first,
             video=np.stack([[P.shrink(c[i]) for i in P.VIDEO_FRAMES] for c in seen]),
             events=np.stack([[P.shrink(i) for i in P.event_frames(P.events(s))]
                              for s in scenes]),
             owners=np.stack([[P.owners(s, t) for t in frames + [5e5]] for s in scenes]))
    part.rename(out)
    return out


def generate(args):
    data = args.work / "data"
    data.mkdir(parents=True, exist_ok=True)
    T.learn(args.work / "tokenizer.json")
    files.write_scenes(args.data, HELD_SCENES)
    jobs = [(data / "dev-0000.npz", 1_000_000, DEV_SCENES)]
    jobs += [(data / f"train-{k:04d}.npz", k * CHUNK, CHUNK)
             for k in range((TRAIN_SCENES + ADAPTER_SCENES) // CHUNK)]
    with Pool(args.threads) as pool:
        for n, _ in enumerate(pool.imap(make_chunk, jobs)):
            print(f"{n + 1} of {len(jobs)} chunks", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)


# ---- train, export -------------------------------------------------------------------------

def train(args):
    torch.manual_seed(SEED)
    tok = T.Tokenizer(args.work / "tokenizer.json")
    f = fit.Fit(args.name, tok, args.work / "data", TRAIN_SCENES // CHUNK)
    print(f"{args.name}: {sum(p.numel() for p in f.model.parameters()):,} parameters, "
          f"{len(f.train[2])} scenes", flush=True)
    f.run(args.work, seed=SEED, **TRAIN[args.name])


def export(args):
    logs = []
    for name in TRAIN:
        saved = torch.load(args.work / f"{name}.pt", weights_only=False)
        model = M.Pair(name, T.VOCAB)
        model.load_state_dict(saved["model"])
        files.export(name, model, args.work / "tokenizer.json", args.models / name)
        fit.write_log(args.models / name / "losses.csv", saved["log"])
        print(f"{name}: step {saved['step']}")


# ---- eval ----------------------------------------------------------------------------------

class Speaker:
    """A model of the stored files and its sight of the held-out scenes."""

    def __init__(self, name, models, data, count, blind):
        self.name, self.tok = name, T.Tokenizer(models / name / "tokenizer.json")
        self.model = files.read_model(name, models / name)
        images = np.stack([files.read_scene(data, k, name) for k in range(count)])
        if blind:  # every scene's question is asked of the next one
            images = np.roll(images, -1, axis=0)
        with torch.no_grad():
            self.rows = self.model.see(fit.Fit.pixels(images))[1]

    def start(self, scene, question):
        """caches, the last row's state, the number of rows."""
        head, tail, _ = self.tok.parts(self.name, question, None, self.model.shape["rows"])
        ids = torch.tensor([head + tail])
        caches = [[] for _ in self.model.llama.layers]
        n = ids.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool).tril()[None, None]
        out, _ = self.model(ids, self.rows[scene:scene + 1], torch.arange(n)[None], mask, caches)
        return caches, out[:, -1:], n

    @torch.no_grad()
    def say(self, scene, question):
        """Greedy ids up to and with eos, and the states that chose them [n, d]."""
        caches, h, at = self.start(scene, question)
        ids, states = [], []
        while True:
            states.append(h[0, 0])
            ids.append(int(self.model.lm_head(h).argmax()))
            if ids[-1] == T.EOS or len(ids) == MOST:
                return ids, torch.stack(states)
            h, _ = self.model(torch.tensor([[ids[-1]]]), None, torch.tensor([[at]]), None, caches)
            at += 1

    @torch.no_grad()
    def follow(self, scene, question, ids):
        """What the model would say at each place of `ids`, given those before it."""
        caches, h, at = self.start(scene, question)
        n = len(ids) - 1
        mask = torch.cat([torch.ones(n, at, dtype=torch.bool),
                          torch.ones(n, n, dtype=torch.bool).tril()], 1)[None, None]
        if n:
            more, _ = self.model(torch.tensor([ids[:-1]]), None, at + torch.arange(n)[None], mask,
                                 caches)
            h = torch.cat([h, more], 1)
        return self.model.lm_head(h)[0].argmax(-1).tolist()


def right(tok, said, truth):
    """(whole answer right, content words right, content words), the words of the truth by place
    among its content words."""
    mine = [w for w in tok.decode(said).replace(",", " ").replace(".", " ").split()
            if w.lower() in P.CONTENT]
    want = [w for w in truth.replace(",", " ").replace(".", " ").split() if w.lower() in P.CONTENT]
    same = sum(a == b for a, b in zip(mine, want))
    return tok.decode(said) == truth, same, len(want)


def evaluate(args):
    data, out, sums = args.data, [], {}
    asked = files.read_questions(data)
    count = 1 + max(k for k, _, _ in asked)
    speakers = {(n, b): Speaker(n, args.models, data, count, b)
                for n in TRAIN for b in (False, True)}
    said = {}
    for key, speaker in speakers.items():
        for k, q, _ in asked:
            said[key, k, q] = speaker.say(k, q)[0]
    for k, q, truth in asked:
        what = P.answer(P.scene(files.HELD + k), q)[0]
        for (name, blind), speaker in speakers.items():
            whole, same, words = right(speaker.tok, said[(name, blind), k, q], truth)
            for group in (what, "all"):
                s = sums.setdefault((name, group), {}).setdefault(blind, np.zeros(4))
                s += (1, whole, same, words)
    for (name, group), s in sums.items():
        out.append(dict(model=name, questions=group, n=int(s[False][0]),
                        answers=s[False][1] / s[False][0], answers_blind=s[True][1] / s[True][0],
                        words=s[False][2] / max(1, s[False][3]),
                        words_blind=s[True][2] / max(1, s[True][3])))
    with open(args.models / "pair-results.csv", "w", newline="") as f:
        w = csv.DictWriter(f, out[0].keys(), lineterminator="\n")
        w.writeheader()
        w.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in r.items()}
                    for r in out)
    for r in out:
        print(" ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v}" for k, v in r.items()))
    agree(speakers, asked, said, args.models / "pair-agreement.csv")


def agree(speakers, asked, said, path):
    """Drafter against verifier: given the verifier's own tokens (follow), and each on its own, by
    place (alone); over all tokens and over content tokens. Once with the drafter blind."""
    content = speakers[VERIFIER, False].tok.content_ids()
    rows = []
    for blind in (False, True):
        drafter, n = speakers[DRAFTER, blind], np.zeros(6)
        for k, q, _ in asked:
            want = said[(VERIFIER, False), k, q]
            given = drafter.follow(k, q, want)
            alone = said[(DRAFTER, blind), k, q]
            for i, w in enumerate(want):
                c = w in content
                g, a = given[i] == w, i < len(alone) and alone[i] == w
                n += (1, g, a, c, c and g, c and a)
        rows.append(["yes" if blind else "no", int(n[0])] +
                    [f"{v:.4f}" for v in (n[1] / n[0], n[2] / n[0])] + [int(n[3])] +
                    [f"{v:.4f}" for v in (n[4] / n[3], n[5] / n[3])])
    with open(path, "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["drafter_blind", "tokens", "given", "alone", "content_tokens",
                    "content_given", "content_alone"])
        w.writerows(rows)
    for r in rows:
        print(*r)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sub = p.add_subparsers(required=True)
    for name, do in (("generate", generate), ("train", train), ("export", export),
                     ("eval", evaluate)):
        s = sub.add_parser(name)
        s.set_defaults(do=do)
        s.add_argument("--threads", type=int, default=2)
        if name == "train":
            s.add_argument("name", choices=list(TRAIN))
        if name != "eval":
            s.add_argument("--work", type=Path, required=True)
        if name in ("export", "eval"):
            s.add_argument("--models", type=Path, default=ROOT / "examples/models")
        if name in ("generate", "eval"):
            s.add_argument("--data", type=Path, default=ROOT / "examples/data/pair")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    args.do(args)


if __name__ == "__main__":
    main()
