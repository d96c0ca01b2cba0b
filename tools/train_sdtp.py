#!/usr/bin/env python3
"""Train SDTP's token scorers (arXiv 2504.04514v2) for a Llama-class model, which stays as it is.

  pip install torch transformers safetensors numpy            (gguf besides, for GGUF files)
  tools/train_sdtp.py MODEL --text BOOK.txt -o scorers.safetensors --layers 4,7,10,13,16,19,22,25

MODEL: a Hugging Face directory, or a GGUF file of a llama architecture (dequantised). The text is cut into windows
of --prompt tokens and --answer tokens behind them. For each window

  target   log |sum over H of (d loss / d x) * x| at the scorer's input x, standardised over the prompt; the loss is
           the cross entropy of the answer, the model unpruned
  loss     cross entropy of the answer with the prompt pruned + MSE(score, target) + a pairwise ranking loss; with
           --teacher in place of the cross entropy the divergence from what the model says unpruned, which is less noisy

Pruning is simulated by masking: a token that went is seen by no later block, survivors keep their places. The mask is
hard going forward and soft going back (straight through). Keep ratios are drawn for each step.

Every tenth window is held out. Written beside OUT: OUT.losses.csv (loss against step) and OUT.results.csv: held-out
perplexity of the answer, unpruned, by these scorers, by the last token's attention and at random, at the same keep,
with 95 % intervals by bootstrap over windows.
"""
import argparse
import csv
import json
import math
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HEAD, TAIL, TAIL_MIN = 4, 0.1, 16


# ---- the model ------------------------------------------------------------------------------

def load_gguf(path):
    """A llama GGUF file as a LlamaForCausalLM in f32. Its Q and K rows are paired: (i, i + d/2) stand side by side."""
    import gguf
    r = gguf.GGUFReader(path)

    def field(key, default=None):
        f = r.fields.get("llama." + key)
        return default if f is None else f.contents()
    heads, kv = field("attention.head_count"), field("attention.head_count_kv")
    tensors = {t.name: torch.from_numpy(np.ascontiguousarray(
        gguf.dequantize(t.data, t.tensor_type).astype(np.float32))) for t in r.tensors}
    vocab, hidden = tensors["token_embd.weight"].shape
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"), num_attention_heads=heads, num_key_value_heads=kv,
        max_position_embeddings=field("context_length"), rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_theta=field("rope.freq_base", 10000.0), tie_word_embeddings="output.weight" not in tensors)
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"], "model.norm.weight": tensors["output_norm.weight"]}
    if "output.weight" in tensors:
        state["lm_head.weight"] = tensors["output.weight"]
    for name, t in tensors.items():
        parts = name.split(".")
        if parts[0] != "blk":
            continue
        n = {"attn_q": heads, "attn_k": kv}.get(parts[2])
        if n:
            d = t.shape[0] // n
            t = t.view(n, d // 2, 2, -1).transpose(1, 2).reshape(t.shape)
        state[f"model.layers.{parts[1]}.{names[parts[2]]}.weight"] = t
    model = LlamaForCausalLM(config)
    missing, extra = model.load_state_dict(state, strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    return model


def tokenize(runner, path, text):
    """The engine's own tokenizer, so that scorers see the ids that they will see."""
    lines = [p for p in text.split("\n") if p.strip()]
    out = subprocess.run([runner, "tokenize", path], input="\n".join(json.dumps(p + "\n") for p in lines) + "\n",
                         capture_output=True, text=True, check=True).stdout
    ids = [json.loads(line) for line in out.splitlines()]
    bos = ids[0][0] if all(i[0] == ids[0][0] for i in ids) and len(ids) > 9 else None
    return bos, [t for i in ids for t in (i[1:] if bos is not None else i)]


# ---- the forward ----------------------------------------------------------------------------

class Scorer(torch.nn.Module):
    """Trained on standardised inputs (some dimensions of hidden states are hundreds of times others); the file holds the
    same function of the plain ones."""

    def __init__(self, hidden):
        super().__init__()
        self.scorer = torch.nn.Sequential(torch.nn.Linear(hidden, max(1, hidden // 4)), torch.nn.GELU(),
                                          torch.nn.Linear(max(1, hidden // 4), 1))
        self.mean, self.sd = torch.zeros(hidden), torch.ones(hidden)

    def look(self, x):
        x = x[:, HEAD:].flatten(0, 1).float()
        self.mean, self.sd = x.mean(0), x.std(0).clamp_min(1e-3)

    def forward(self, x):
        return self.scorer((x.float() - self.mean) / self.sd).squeeze(-1)

    @torch.no_grad()
    def unfold(self, state):
        """What fold() made, taken apart again."""
        self.scorer.load_state_dict(state)
        first = self.scorer[0]
        first.bias += first.weight @ self.mean
        first.weight *= self.sd

    @torch.no_grad()
    def fold(self):
        first = self.scorer[0]
        first.weight /= self.sd
        first.bias -= first.weight @ self.mean
        self.mean, self.sd = torch.zeros_like(self.mean), torch.ones_like(self.sd)


def keep_count(n, r):
    fixed = min(n, min(HEAD, n) + max(TAIL_MIN, math.floor(TAIL * n)))
    return max(fixed, min(n - 1, max(1, math.floor(r * n), fixed))) if r < 1 else n


def run(model, ids, bias, each=None, attention_of=()):
    """Hidden states through all blocks. bias [B, L] is added to the scores of keys; each(layer, x, last) may return a
    new one. last: attention of the prompt's last token, mean over heads, of the layers in attention_of."""
    inner = model.model
    x = inner.embed_tokens(ids).detach()
    if each is not None and getattr(each, "leaf", False):
        x.requires_grad_(True)
    n = ids.shape[1]
    place = torch.arange(n)[None]
    bias = bias.to(x.dtype)
    rope = inner.rotary_emb(x, place)
    causal = torch.full((n, n), -1e9, dtype=x.dtype).triu(1)[None, None]
    for i, layer in enumerate(inner.layers):
        last = last_attention(model, layer, x, rope, causal + bias[:, None, None, :], each.prompt) if i in attention_of else None
        x = layer(x, attention_mask=causal + bias[:, None, None, :], position_ids=place, position_embeddings=rope)
        x = x[0] if isinstance(x, tuple) else x
        if each is not None:
            bias = each(i, x, bias, last).to(x.dtype)
    return inner.norm(x)


def last_attention(model, layer, x, rope, mask, prompt):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
    a, c = layer.self_attn, model.config
    with torch.no_grad():
        h = layer.input_layernorm(x)
        b, n, _ = h.shape
        q = a.q_proj(h).view(b, n, -1, a.head_dim).transpose(1, 2)
        k = a.k_proj(h).view(b, n, -1, a.head_dim).transpose(1, 2)
        q, k = apply_rotary_pos_emb(q, k, *rope)
        k = k.repeat_interleave(c.num_attention_heads // c.num_key_value_heads, 1)
        s = (q[:, :, prompt - 1:prompt] @ k.transpose(2, 3)) * a.head_dim**-0.5 + mask[:, :, prompt - 1:prompt]
        return s.softmax(-1).mean(1)[:, 0, :prompt]


def answer_loss(model, x, ids, prompt, each=False):
    logits = model.lm_head(x[:, prompt - 1:-1].to(model.lm_head.weight.dtype))
    ce = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, prompt:].flatten(), reduction="none").view(len(ids), -1)
    return ce.mean(1) if each else ce.mean()


def divergence(model, x, teacher, prompt):
    """KL from the unpruned model's words for the answer [B, answer, vocab], nats a token."""
    logits = model.lm_head(x[:, prompt - 1:-1].to(model.lm_head.weight.dtype)).float()
    return F.kl_div(logits.log_softmax(-1).flatten(0, 1), teacher.flatten(0, 1), reduction="batchmean", log_target=True)


def saliency(model, ids, prompt, layers):
    """Targets [stages][B, prompt], the inputs that they belong to, and the model's own log probabilities of the answer."""
    seen = {}

    def each(i, x, bias, last):
        if i in layers:
            x.retain_grad()
            seen[i] = x
        return bias
    each.leaf = True
    out = run(model, ids, torch.zeros(ids.shape), each)
    with torch.no_grad():
        teacher = model.lm_head(out[:, prompt - 1:-1].to(model.lm_head.weight.dtype)).float().log_softmax(-1)
    answer_loss(model, out, ids, prompt).backward()
    targets, inputs = [], []
    for i in layers:
        s = (seen[i].grad.float() * seen[i].float()).sum(-1)[:, :prompt].detach().abs().clamp_min(1e-12).log()
        targets.append((s - s.mean(1, keepdim=True)) / s.std(1, keepdim=True))
        inputs.append(seen[i][:, :prompt].detach())
    return targets, inputs, teacher


class Pruner:
    """The stages of one pass. kind: scorers, random, attention; None: nothing goes."""
    leaf = False

    def __init__(self, kind, scorers, layers, prompt, keep, soft=False, generator=None):
        self.kind, self.scorers, self.layers, self.prompt = kind, scorers, layers, prompt
        self.keep, self.soft, self.generator, self.alive = keep, soft, generator, None

    def __call__(self, i, x, bias, last):
        if i not in self.layers or self.kind is None:
            return bias
        b, p = len(x), self.prompt
        if self.alive is None:
            self.alive = torch.ones(b, p, dtype=torch.bool)
        n = int(self.alive[0].sum())
        count = keep_count(n, self.keep)
        if self.kind == "scorers":
            s = self.scorers[self.layers.index(i)](x[:, :p])
        elif self.kind == "random":
            s = torch.rand(b, p, generator=self.generator)
        else:
            s = last
        rank = s.detach().clone()
        rank[~self.alive] = -math.inf
        left = self.alive.cumsum(1)
        fixed = self.alive & ((left <= HEAD) | (left > n - max(TAIL_MIN, math.floor(TAIL * n))))
        rank[fixed] = math.inf
        at = rank.topk(count, 1).indices
        alive = torch.zeros_like(self.alive).scatter_(1, at, True)
        hard = torch.where(alive, 0.0, -1e9)
        if self.soft:  # back: the mask's log as a smooth step at the last score that stays
            edge = torch.where(alive & ~fixed, s.detach(), torch.inf).min(1, keepdim=True).values
            smooth = F.logsigmoid((s - edge.clamp(max=1e6)) / 0.5)
            hard = hard + torch.where(self.alive & ~fixed, smooth - smooth.detach(), 0.0)
        self.alive = alive
        return torch.cat([hard, bias[:, p:]], 1)


# ---- training and its proof -----------------------------------------------------------------

def begin(scorers, layers, path):
    state = load_file(path)
    for layer, s in zip(layers, scorers):
        s.unfold({k: state[f"{layer}.scorer.{k}"].float() for k in s.scorer.state_dict()})


def bootstrap(values, others=None, draws=2000):
    """exp of the mean, or of the mean difference; 95 % over windows."""
    v = np.array(values) - (np.array(others) if others is not None else 0)
    g = np.random.default_rng(1)
    means = np.exp([v[g.integers(0, len(v), len(v))].mean() for _ in range(draws)])
    return math.exp(v.mean()), *np.percentile(means, [2.5, 97.5])


def evaluate(model, scorers, layers, windows, prompt, keeps, batch):
    rows, base = [], None
    for keep in (1.0, *keeps):
        for kind in (None,) if keep == 1 else ("scorers", "attention", "random"):
            losses, g = [], torch.Generator().manual_seed(5)
            with torch.no_grad():
                for at in range(0, len(windows), batch):
                    ids = windows[at:at + batch]
                    pruner = Pruner(kind, scorers, layers, prompt, keep, generator=g)
                    x = run(model, ids, torch.zeros(ids.shape), pruner, layers if kind == "attention" else ())
                    losses += answer_loss(model, x, ids, prompt, each=True).tolist()
            base = losses if kind is None else base
            left = prompt
            for _ in layers:
                left = keep_count(left, keep)
            rows.append((keep, left, kind or "none", losses))
    out = []
    for keep, left, kind, losses in rows:
        ours = next((v for k, _, name, v in rows if k == keep and name == "scorers"), None)
        ratio = bootstrap(losses, ours) if ours and kind != "scorers" else ("", "", "")
        out.append([keep, left, kind, len(losses), *bootstrap(losses), *ratio])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--text", required=True)
    p.add_argument("--layers", required=True, help="0-based: a stage stands after each of these blocks")
    p.add_argument("-o", "--out", required=True)
    p.add_argument("--runner", default="build/release/cli/runner/paceline-runner", help="its tokenizer is used")
    p.add_argument("--prompt", type=int, default=256)
    p.add_argument("--answer", type=int, default=32)
    p.add_argument("--keeps", default="0.9,0.8,0.7,0.5", help="of each stage, in the results")
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--windows", type=int, default=4000, help="at most")
    p.add_argument("--held-out", type=int, default=200, help="at most")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--minutes", type=float, default=20, help="training ends after so long, if not before")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--start", help="go on from these scorers")
    p.add_argument("--teacher", action="store_true", help="the task is to say what the unpruned model says")
    p.add_argument("--task-weight", type=float, default=1)
    p.add_argument("--bf16", action="store_true", help="the model in bf16 (scorers stay f32)")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    layers = [int(v) for v in a.layers.split(",")]
    keeps = [float(v) for v in a.keeps.split(",")]
    model = load_gguf(a.model) if Path(a.model).is_file() else AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    model.config._attn_implementation = "sdpa"
    model.eval().requires_grad_(False)
    if a.bf16:
        model.bfloat16()
    bos, ids = tokenize(a.runner, a.model, Path(a.text).read_text())
    size = a.prompt + a.answer - (bos is not None)
    windows = torch.tensor(ids[:len(ids) // size * size]).view(-1, size)
    if bos is not None:
        windows = torch.cat([torch.full((len(windows), 1), bos), windows], 1)
    held = windows[9::10][:a.held_out]
    train = windows[[i for i in range(len(windows)) if i % 10 != 9]]
    train = train[torch.randperm(len(train))[:a.windows]]
    scorers = torch.nn.ModuleList(Scorer(model.config.hidden_size) for _ in layers)
    steps = a.steps
    opt = torch.optim.AdamW(scorers.parameters(), lr=a.lr, weight_decay=0.01)
    start, curve = time.time(), []
    for step in range(steps):
        done = max(step / steps, min(1, (time.time() - start) / (60 * a.minutes)))
        for g in opt.param_groups:  # a short rise, then a cosine
            g["lr"] = a.lr * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * done))
        batch = train[torch.randint(len(train), (a.batch,))]
        targets, inputs, teacher = saliency(model, batch, a.prompt, layers)
        if step == 0:
            for s, x in zip(scorers, inputs):
                s.look(x)
            if a.start:
                begin(scorers, layers, a.start)
        scores = [s(x) for s, x in zip(scorers, inputs)]
        mse = sum(F.mse_loss(s[:, HEAD:], t[:, HEAD:]) for s, t in zip(scores, targets)) / len(layers)
        i, j = torch.randint(HEAD, a.prompt, (2, 4 * a.prompt))  # the head stays whatever its score
        rank = sum(F.softplus(-(s[:, i] - s[:, j]) * (t[:, i] - t[:, j]).sign()).mean()
                   for s, t in zip(scores, targets)) / len(layers)
        keep = keeps[int(torch.randint(len(keeps), (1,)))]
        pruner = Pruner("scorers", scorers, layers, a.prompt, keep, soft=True)
        x = run(model, batch, torch.zeros(batch.shape), pruner)
        task = divergence(model, x, teacher, a.prompt) if a.teacher else answer_loss(model, x, batch, a.prompt)
        opt.zero_grad()
        (a.task_weight * task + mse + rank).backward()
        torch.nn.utils.clip_grad_norm_(scorers.parameters(), 1.0)
        opt.step()
        curve.append([step, keep, task.item(), mse.item(), rank.item()])
        if step % 10 == 0:
            print(f"{step} keep {keep} task {task.item():.4f} mse {mse.item():.4f} rank {rank.item():.4f} {time.time() - start:.0f} s", flush=True)
        if time.time() - start > a.minutes * 60:
            break
    state = {}
    for layer, s in zip(layers, scorers):
        s.fold()
        for name, v in s.state_dict().items():
            state[f"{layer}.{name}"] = v.half().contiguous()
    save_file(state, a.out, metadata={"format": "pt", "trained": f"{len(curve)} steps of {a.batch} windows, keep {a.keeps}"})
    with open(a.out + ".losses.csv", "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["step", "keep", "task", "mse", "rank"])
        w.writerows([[r[0], r[1], *(f"{v:.5g}" for v in r[2:])] for r in curve])
    with torch.no_grad():
        for s in scorers:  # what the file holds
            s.half().float()
    rows = evaluate(model, scorers, layers, held, a.prompt, keeps, a.batch)
    with open(a.out + ".results.csv", "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["keep", "tokens_left", "method", "windows", "perplexity", "ci_low", "ci_high", "ratio_to_scorers", "ratio_low", "ratio_high"])
        for r in rows:
            w.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in r])
            print(*[f"{v:.5g}" if isinstance(v, float) else v for v in r])


if __name__ == "__main__":
    main()
