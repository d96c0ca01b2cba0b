#!/usr/bin/env python3
"""Train the two small Llamas under examples/models and cut the held-out text.

Makes, from Jane Austen's six novels (public domain) as the Debian package
r-cran-janeaustenr carries them:

  DATA/heldout.txt                "Northanger Abbey", which is never trained on
  MODELS/small-llama/, tiny-llama/   config.json, model.safetensors (bf16),
                                  tokenizer.model (shared), tokenizer_config.json,
                                  generation_config.json: the Hub's classic layout
  MODELS/losses.csv               loss against training step
  MODELS/results.csv              held-out perplexity beside n-gram models

The other five novels are the training text; they are not kept. R is not needed:

  apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_*.deb text
  pip install torch transformers safetensors sentencepiece numpy
  tools/train_lm.py --rdb text/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb

The seed, the thread count and the number of steps fix the weights; the held-out
text chooses nothing: the weights of the last step are the ones written.
"""
import argparse
import csv
import io
import json
import math
import re
import struct
import time
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
HELDOUT = "NORTHANGER ABBEY"
VOCAB = 1024
BOS, EOS = 1, 2
WINDOW = 640  # a prompt of 512 and 128 generated tokens
SHORT = 256  # the windows of the first SHORT_PART of the steps: attention costs less
SHORT_PART = 0.7
STEP_TOKENS = 2560  # the same number of either

MODELS = {
    "small-llama": {
        "shape": dict(hidden_size=256, intermediate_size=512, num_hidden_layers=3,
                      num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True),
        "train": dict(steps=2800, lr=2e-3, dropout=0.05),
    },
    "tiny-llama": {
        "shape": dict(hidden_size=64, intermediate_size=192, num_hidden_layers=4,
                      num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False),
        "train": dict(steps=4500, lr=5e-3, dropout=0.0),
    },
}


# ---- text ----------------------------------------------------------------------------------

def read_rdb(path):
    """The novels in an R lazy-load database: {title: [line, ...]}.

    Each record is a big-endian size and a zlib stream holding one serialised character
    vector: a header, type 16, the count, then per line its flags, length and bytes.
    """
    novels, rest = {}, Path(path).read_bytes()
    while rest:
        inflate = zlib.decompressobj()
        raw, rest = inflate.decompress(rest[4:]), inflate.unused_data
        at = raw.index(b"\0\0\0\x10") + 4
        (count,) = struct.unpack_from(">I", raw, at)
        at, lines = at + 4, []
        for _ in range(count):
            _, size = struct.unpack_from(">II", raw, at)
            lines.append(raw[at + 8:at + 8 + size].decode("utf-8"))
            at += 8 + size
        novels[lines[0].upper()] = lines
    return novels


def plain_text(lines):
    """One paragraph a line, from the first chapter on, without italics' underscores and
    without the modern editor's note that closes one of the novels."""
    text = "\n".join(lines).replace("_", "")
    text = text[re.search(r"^chapter (1|i)$", text, re.M | re.I).start():]
    text = text.split("A NOTE ON THE TEXT")[0]
    paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", text))
    return "\n".join(p for p in paragraphs if p) + "\n"


def train_tokenizer(text):
    """A SentencePiece BPE model as Llama's, in bytes."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=model, model_type="bpe",
        vocab_size=VOCAB, byte_fallback=True, character_coverage=0.9999,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, split_digits=True, allow_whitespace_only_pieces=True,
        max_sentence_length=1 << 16, unk_id=0, bos_id=BOS, eos_id=EOS, pad_id=-1,
        num_threads=1, minloglevel=2)
    return model.getvalue()


# ---- the yardstick -------------------------------------------------------------------------

class KneserNey:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1998): three discounts an order."""

    def __init__(self, tokens, order):
        top = Counter(zip(*(tokens[i:] for i in range(order))))
        self.counts = [top]
        while len(self.counts) < order:  # lower orders count distinct left neighbours
            self.counts.insert(0, Counter(gram[1:] for gram in self.counts[0]))
        self.discounts, self.totals, self.mass = [], [], []
        for counts in self.counts:
            n = Counter(counts.values())
            y = n[1] / (n[1] + 2 * n[2])
            # A vocabulary this small can have no unigram that was seen just once.
            self.discounts.append([0.0] + [
                min(max(k - (k + 1) * y * n[k + 1] / n[k], 0.0), k) if n[k] else 0.0
                for k in (1, 2, 3)])
            total, mass = defaultdict(int), defaultdict(float)
            for gram, c in counts.items():
                total[gram[:-1]] += c
                mass[gram[:-1]] += self.discounts[-1][min(c, 3)]
            self.totals.append(total)
            self.mass.append(mass)

    def prob(self, gram):
        p = 1.0 / VOCAB
        for n in range(len(self.counts)):
            g = gram[len(gram) - n - 1:]
            total = self.totals[n].get(g[:-1])
            if not total:
                break
            c = self.counts[n][g]
            p = (c - self.discounts[n][min(c, 3)] + self.mass[n][g[:-1]] * p) / total
        return p

    def loss(self, tokens):
        order = len(self.counts)
        grams = (tuple(tokens[max(0, i - order + 1):i + 1]) for i in range(len(tokens)))
        return -sum(math.log(self.prob(g[-min(len(g), order):])) for g in grams) / len(tokens)

    def __repr__(self):
        return f"{len(self.counts)}-gram"


# ---- the models ----------------------------------------------------------------------------

def hub_config(shape):
    """config.json with the keys that the files on the Hub have."""
    return {"architectures": ["LlamaForCausalLM"], "attention_bias": False,
            "attention_dropout": 0.0, "bos_token_id": BOS, "eos_token_id": EOS,
            "hidden_act": "silu", "hidden_size": shape["hidden_size"],
            "initializer_range": 0.02, "intermediate_size": shape["intermediate_size"],
            "max_position_embeddings": 1024, "mlp_bias": False, "model_type": "llama",
            "num_attention_heads": shape["num_attention_heads"],
            "num_hidden_layers": shape["num_hidden_layers"],
            "num_key_value_heads": shape["num_key_value_heads"], "pretraining_tp": 1,
            "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0,
            "tie_word_embeddings": shape["tie_word_embeddings"], "torch_dtype": "bfloat16",
            "transformers_version": "4.40.0", "use_cache": True, "vocab_size": VOCAB}


def export(model, shape, tokenizer, folder):
    """Write the model's folder: bf16 weights, a tied head left out as on the Hub."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to(torch.bfloat16).contiguous().clone()
               for k, v in model.state_dict().items()
               if not (shape["tie_word_embeddings"] and k == "lm_head.weight")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "tokenizer.model").write_bytes(tokenizer)
    special = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    documents = {
        "config.json": hub_config(shape),
        "generation_config.json": {"_from_model_config": True, "bos_token_id": BOS,
                                   "eos_token_id": EOS, "transformers_version": "4.40.0"},
        "tokenizer_config.json": {
            "add_bos_token": True, "add_eos_token": False,
            "added_tokens_decoder": {str(i): {"content": s, **special, "special": True}
                                     for i, s in enumerate(("<unk>", "<s>", "</s>"))},
            "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>",
            "legacy": False, "model_max_length": 1024, "pad_token": None,
            "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
            "use_default_system_prompt": False}}
    for name, value in documents.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")


@torch.no_grad()
def window_loss(model, tokens):
    """Mean loss over every token, in windows of WINDOW that each begin with BOS."""
    model.eval()
    total = 0.0
    for at in range(0, len(tokens), WINDOW):
        window = torch.cat([torch.tensor([BOS]), tokens[at:at + WINDOW]])
        logits = model(input_ids=window[None, :-1]).logits[0].float()
        total += F.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / len(tokens)


def learning_rate(step, steps, peak):
    warm = min(100, steps // 10)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def train(name, shape, plan, tokens, heldout, seed, log, save):
    """Train one model on random windows. log takes (model, step, ...) rows; save(model) is
    called with each row, so that an interrupted run leaves weights behind."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = LlamaConfig(**shape, vocab_size=VOCAB, max_position_embeddings=1024,
                         rms_norm_eps=1e-5, bos_token_id=BOS, eos_token_id=EOS,
                         attn_implementation="sdpa", use_cache=False)
    model = LlamaForCausalLM(config)
    if plan["dropout"]:  # on what each block adds to the residual stream
        for layer in model.model.layers:
            for block in (layer.self_attn.o_proj, layer.mlp):
                block.register_forward_hook(
                    lambda m, _, out: F.dropout(out, plan["dropout"], m.training))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() == 1]
    adamw = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                               {"params": gains, "weight_decay": 0.0}], betas=(0.9, 0.95))
    every, running, start = max(1, plan["steps"] // 20), [], time.time()
    for step in range(plan["steps"]):
        model.train()
        window = SHORT if step < SHORT_PART * plan["steps"] else WINDOW
        at = rng.integers(0, len(tokens) - window, STEP_TOKENS // window)
        batch = torch.stack([torch.cat([torch.tensor([BOS]), tokens[i:i + window]]) for i in at])
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1))
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = learning_rate(step, plan["steps"], plan["lr"])
        adamw.step()
        running.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == plan["steps"]:
            row = [name, step + 1, (step + 1) * STEP_TOKENS,
                   f"{np.mean(running):.4f}", f"{window_loss(model, heldout[:WINDOW * 60]):.4f}"]
            log.append(row)
            running = []
            save(model)
            print(*row, f"{time.time() - start:.0f} s", flush=True)


def write_csv(path, header, rows):
    """Write a table; rows that it already has under other first columns stay, first."""
    new = {row[0] for row in rows}
    old = list(csv.reader(path.open(newline="")))[1:] if path.exists() else []
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([header] + [row for row in old if row[0] not in new] + rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rdb", default="/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    parser.add_argument("--models", type=Path, default=ROOT / "examples/models")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/data")
    parser.add_argument("--only", choices=MODELS,
                        help="train one of the two; the tables keep the other rows")
    parser.add_argument("--steps", type=int, help="instead of each model's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20260)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)

    novels = {title: plain_text(lines) for title, lines in read_rdb(args.rdb).items()}
    heldout_text = novels.pop(HELDOUT)
    args.data.mkdir(parents=True, exist_ok=True)
    (args.data / "heldout.txt").write_text(heldout_text, encoding="utf-8")
    tokenizer = train_tokenizer("".join(novels.values()))
    encode = spm.SentencePieceProcessor(model_proto=tokenizer).encode
    stream = [t for text in novels.values() for t in encode(text) + [EOS]]
    tokens, heldout = torch.tensor(stream), torch.tensor(encode(heldout_text))
    print(f"{len(tokens)} training tokens, {len(heldout)} held out, "
          f"{len(heldout_text) / len(heldout):.2f} characters a token", flush=True)

    log, results = [], []

    def result(name, parameters, train_loss, loss):
        row = [name, parameters, train_loss and f"{train_loss:.4f}", f"{loss:.4f}",
               f"{math.exp(loss):.2f}",
               f"{loss * len(heldout) / math.log(2) / len(heldout_text):.3f}"]
        results.append(row)
        print(*row, flush=True)

    if not args.only:
        for order in (3, 5):
            ngram = KneserNey(stream, order)
            result(f"{ngram!r} Kneser-Ney", "", "", ngram.loss(heldout.tolist()))
    for name, spec in MODELS.items():
        if args.only in (None, name):
            plan = dict(spec["train"], **({"steps": args.steps} if args.steps else {}))
            folder = args.models / name
            train(name, spec["shape"], plan, tokens, heldout, args.seed, log,
                  lambda model: export(model, spec["shape"], tokenizer, folder))
            stored = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
            result(name, sum(p.numel() for p in stored.parameters()),
                   window_loss(stored, tokens[:len(heldout)]), window_loss(stored, heldout))
    write_csv(args.models / "losses.csv",
              ["model", "step", "tokens", "train_loss", "heldout_part_loss"], log)
    write_csv(args.models / "results.csv",
              ["model", "parameters", "train_part_loss", "heldout_loss", "heldout_perplexity",
               "heldout_bits_per_character"], results)


if __name__ == "__main__":
    main()
