#!/usr/bin/env python3
"""Train the small GPT-2, T5 and BERT under examples/models.

The text is that of train_lm.py (see there for where it comes from); each family has its
own kind of tokenizer and objective:

  MODELS/small-gpt2/   byte-level BPE (tokenizer.json, vocab.json, merges.txt); next token
  MODELS/small-t5/     v1.1's layers, SentencePiece unigram (spiece.model); the encoder reads
                       a passage, the decoder continues it
  MODELS/small-bert/   WordPiece, lower case (vocab.txt); masked tokens

and beside them config.json, model.safetensors (bf16) and losses.csv. The learned positions
of GPT-2 and BERT start as sinusoids, and half of the windows in training begin at a random
position, so that all 4096 are near what the blocks expect.

  tools/train_families.py --rdb text/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb

The runs are short, minutes on one core: enough for text better than chance, no more. The
weights of the last step are the ones written; the held-out text chooses nothing.
"""
import argparse
import csv
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, T5Config,
                          T5ForConditionalGeneration)

from train_lm import HELDOUT, ROOT, learning_rate, plain_text, read_rdb

VOCAB = 1024
POSITIONS = 4096
WINDOW = 128
COMMON = {"torch_dtype": "bfloat16", "transformers_version": "4.40.0", "vocab_size": VOCAB}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def positions(weight):
    """Fill a table of learned positions with sinusoids to start from."""
    width = weight.shape[1]
    angle = (torch.arange(weight.shape[0])[:, None]
             * 10000.0 ** (-torch.arange(0, width, 2) / width))
    with torch.no_grad():
        weight.copy_(0.05 * torch.cat([angle.sin(), angle.cos()], 1))


def starts(rng, rows, width):
    """Position ids: half of the rows begin at 0, half anywhere."""
    first = rng.integers(0, POSITIONS - width + 1, rows)
    first[:rows // 2] = 0
    return torch.tensor(first)[:, None] + torch.arange(width)


class GPT2:
    name, loader, batch, lr = "small-gpt2", GPT2LMHeadModel, 8, 3e-3
    steps = 1200
    config = {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
              "attn_pdrop": 0.0, "bos_token_id": 0, "embd_pdrop": 0.0, "eos_token_id": 0,
              "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
              "n_ctx": POSITIONS, "n_embd": 128, "n_head": 4, "n_layer": 3,
              "n_positions": POSITIONS, "resid_pdrop": 0.0, **COMMON}
    tied = ("lm_head.weight",)

    def tokenizer(self, text):
        self.tok = Tokenizer(models.BPE())
        self.tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tok.decoder = decoders.ByteLevel()
        self.tok.train_from_iterator(text.splitlines(True), trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=["<|endoftext|>"], show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))

    def encode(self, text):
        return self.tok.encode(text).ids

    def files(self, folder):
        self.tok.save(str(folder / "tokenizer.json"))
        self.tok.model.save(str(folder))
        write_json(folder / "tokenizer_config.json", {
            "add_prefix_space": False, "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>", "model_max_length": POSITIONS,
            "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"})
        write_json(folder / "generation_config.json", {
            "_from_model_config": True, "bos_token_id": 0, "eos_token_id": 0,
            "transformers_version": "4.40.0"})

    def build(self):
        model = GPT2LMHeadModel(GPT2Config(**self.config, use_cache=False))
        torch.nn.init.normal_(model.transformer.wte.weight, std=0.1)
        positions(model.transformer.wpe.weight)
        return model

    def loss(self, model, tokens, rng, reduction="mean"):
        """tokens: [rows, WINDOW]; rng: None in the evaluation, all positions then from 0."""
        rows = torch.cat([torch.zeros(len(tokens), 1, dtype=torch.long), tokens[:, :-1]], 1)
        at = starts(rng, *rows.shape) if rng else None
        logits = model(input_ids=rows, position_ids=at).logits
        return F.cross_entropy(logits.reshape(-1, VOCAB), tokens.reshape(-1),
                               reduction=reduction), tokens.numel()


class T5:
    name, loader, batch, lr = "small-t5", T5ForConditionalGeneration, 8, 3e-3
    steps = 700
    config = {"architectures": ["T5ForConditionalGeneration"], "d_ff": 160, "d_kv": 32,
              "d_model": 96, "decoder_start_token_id": 0, "dropout_rate": 0.0,
              "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
              "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "t5",
              "num_decoder_layers": 3, "num_heads": 3, "num_layers": 3, "pad_token_id": 0,
              "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
              "tie_word_embeddings": False, "use_cache": True, **COMMON}
    tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

    def tokenizer(self, text):
        model = io.BytesIO()
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(text.splitlines()), model_writer=model,
            model_type="unigram", vocab_size=VOCAB, character_coverage=1.0,
            normalization_rule_name="identity", max_sentence_length=1 << 16, pad_id=0,
            eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2)
        self.proto = model.getvalue()
        self.tok = spm.SentencePieceProcessor(model_proto=self.proto)

    def encode(self, text):
        return [i for line in text.splitlines() for i in self.tok.encode(line)]

    def files(self, folder):
        (folder / "spiece.model").write_bytes(self.proto)
        write_json(folder / "tokenizer_config.json", {
            "additional_special_tokens": [], "eos_token": "</s>", "extra_ids": 0,
            "model_max_length": 1024, "pad_token": "<pad>", "sp_model_kwargs": {},
            "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>"})
        write_json(folder / "generation_config.json", {
            "_from_model_config": True, "decoder_start_token_id": 0, "eos_token_id": 1,
            "pad_token_id": 0, "transformers_version": "4.40.0"})

    def build(self):
        model = T5ForConditionalGeneration(T5Config(**{**self.config, "use_cache": False}))
        # T5's own start is made for other learning rates; and transformers 5 ties the head
        # in a new model whatever config.json says (it does not where a file holds both).
        model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB, self.config["d_model"]))
        with torch.no_grad():
            torch.nn.init.normal_(model.shared.weight, std=0.1)
            torch.nn.init.normal_(model.lm_head.weight, std=0.02)
        return model

    def loss(self, model, tokens, rng, reduction="mean"):
        half = tokens.shape[1] // 2
        cut = int(rng.integers(0, half)) if rng else 0  # the passage's length varies
        passage, target = tokens[:, cut:half], tokens[:, half:]
        passage = F.pad(passage, (0, 1), value=1)
        begun = F.pad(target[:, :-1], (1, 0), value=0)
        logits = model(input_ids=passage, decoder_input_ids=begun).logits
        return F.cross_entropy(logits.reshape(-1, VOCAB), target.reshape(-1),
                               reduction=reduction), target.numel()


class BERT:
    name, loader, batch, lr = "small-bert", BertForMaskedLM, 8, 3e-3
    steps = 1000
    config = {"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.0,
              "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": 96,
              "initializer_range": 0.02, "intermediate_size": 384, "layer_norm_eps": 1e-12,
              "max_position_embeddings": POSITIONS, "model_type": "bert",
              "num_attention_heads": 3, "num_hidden_layers": 3, "pad_token_id": 0,
              "position_embedding_type": "absolute", "type_vocab_size": 2, **COMMON}
    tied = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

    def tokenizer(self, text):
        self.tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        self.tok.normalizer = normalizers.BertNormalizer(lowercase=True)
        self.tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.tok.train_from_iterator(text.splitlines(), trainers.WordPieceTrainer(
            vocab_size=VOCAB, special_tokens=self.special, show_progress=False))

    def encode(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def files(self, folder):
        vocab = sorted(self.tok.get_vocab().items(), key=lambda item: item[1])
        assert [i for _, i in vocab] == list(range(VOCAB))
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in vocab),
                                          encoding="utf-8")
        write_json(folder / "tokenizer_config.json", {
            "cls_token": "[CLS]", "do_lower_case": True, "mask_token": "[MASK]",
            "model_max_length": POSITIONS, "pad_token": "[PAD]", "sep_token": "[SEP]",
            "strip_accents": None, "tokenize_chinese_chars": True,
            "tokenizer_class": "BertTokenizer", "unk_token": "[UNK]"})

    def build(self):
        model = BertForMaskedLM(BertConfig(**self.config))
        torch.nn.init.normal_(model.bert.embeddings.word_embeddings.weight, std=0.1)
        positions(model.bert.embeddings.position_embeddings.weight)
        return model

    def loss(self, model, tokens, rng, reduction="mean"):
        """15 % of the tokens are to be found: 80 % of them stand as [MASK], 10 % as another
        piece, 10 % as themselves. The evaluation always draws the same."""
        draw = rng or np.random.default_rng(int(tokens.sum()))
        rows = F.pad(F.pad(tokens, (1, 0), value=2), (0, 1), value=3)
        hidden = torch.tensor(draw.random(rows.shape) < 0.15)
        hidden[:, 0] = hidden[:, -1] = False
        how = torch.tensor(draw.random(rows.shape))
        other = torch.tensor(draw.integers(len(self.special), VOCAB, rows.shape))
        seen = torch.where(hidden & (how < 0.8), 4, rows)
        seen = torch.where(hidden & (how >= 0.9), other, seen)
        at = starts(rng, *rows.shape) if rng else None
        hidden_states = model.bert(input_ids=seen, position_ids=at)[0]
        logits = model.cls(hidden_states[hidden])
        return F.cross_entropy(logits, rows[hidden], reduction=reduction), int(hidden.sum())


FAMILIES = {f.name: f for f in (GPT2, T5, BERT)}


def export(family, model, folder):
    """Write the folder: bf16 weights without what is tied to another tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to(torch.bfloat16).contiguous().clone()
               for k, v in model.state_dict().items()
               if k not in family.tied and v.is_floating_point()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", family.config)
    family.files(folder)


@torch.no_grad()
def evaluate(family, model, tokens):
    """Mean loss over the windows of tokens; what is left behind the last full one is not used."""
    model.eval()
    windows, total, count = tokens[:len(tokens) // WINDOW * WINDOW].view(-1, WINDOW), 0.0, 0
    for rows in windows.split(32):
        loss, n = family.loss(model, rows, None, "sum")
        total, count = total + loss.item(), count + n
    return total / count


def train(family, tokens, heldout, seed, folder):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = family.build()
    decayed = [p for n, p in model.named_parameters()
               if p.dim() > 1 and "wpe" not in n and "position" not in n]
    ids = {id(p) for p in decayed}
    rest = [p for p in model.parameters() if id(p) not in ids]
    adamw = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                               {"params": rest, "weight_decay": 0.0}], betas=(0.9, 0.98))
    every, running, start, log = max(1, family.steps // 10), [], time.time(), []
    for step in range(family.steps):
        model.train()
        at = rng.integers(0, len(tokens) - WINDOW, family.batch)
        loss, _ = family.loss(model, torch.stack([tokens[i:i + WINDOW] for i in at]), rng)
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = learning_rate(step, family.steps, family.lr)
        adamw.step()
        running.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == family.steps:
            log.append([step + 1, f"{np.mean(running):.4f}",
                        f"{evaluate(family, model, heldout[:WINDOW * 100]):.4f}"])
            running = []
            export(family, model, folder)
            print(family.name, *log[-1], f"{time.time() - start:.0f} s", flush=True)
    with (folder / "losses.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["step", "train_loss", "heldout_part_loss"]] + log)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rdb", default="/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    parser.add_argument("--models", type=Path, default=ROOT / "examples/models")
    parser.add_argument("--only", choices=FAMILIES)
    parser.add_argument("--steps", type=int, help="instead of each model's own")
    parser.add_argument("--evaluate", action="store_true", help="only what is there")
    parser.add_argument("--seed", type=int, default=20260)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    novels = {title: plain_text(lines) for title, lines in read_rdb(args.rdb).items()}
    heldout_text = novels.pop(HELDOUT)
    for name in [args.only] if args.only else FAMILIES:
        family, folder = FAMILIES[name](), args.models / name
        family.steps = args.steps or family.steps
        family.tokenizer("".join(novels.values()))
        tokens = torch.tensor([i for text in novels.values() for i in family.encode(text)])
        heldout = torch.tensor(family.encode(heldout_text))
        print(name, f"{len(tokens)} training tokens, {len(heldout)} held out", flush=True)
        if not args.evaluate:
            train(family, tokens, heldout, args.seed, folder)
        stored = family.loader.from_pretrained(folder, dtype=torch.float32)
        part = evaluate(family, stored, tokens[:WINDOW * 300])
        full = evaluate(family, stored, heldout)
        print(name, sum(p.numel() for p in stored.parameters()), f"parameters, train part {part:.4f},"
              f" held-out {full:.4f}, perplexity {math.exp(full):.2f}", flush=True)


if __name__ == "__main__":
    main()
