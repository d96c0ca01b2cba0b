#!/usr/bin/env python3
"""Makes tests/pruning/goldens: a tiny random Llama with GQA, scorers, prompts, and what plain torch says is left of them.

    python3 tools/make_pruning_goldens.py [OUT] [--prumerge | --window]   needs torch, transformers, safetensors, numpy; kvpress 0.5.5 for the KV methods

Methods between blocks: own references, one attention over all tokens with what went masked out and every token at its old
place. Methods on the KV cache: kvpress' presses run on the same model (SnapKV, PyramidKV, StreamingLLM, TOVA, ObservedAttention);
H2O as its paper has it (half heavy hitters, half recent) from the attention weights. All choices are ascending indices.
PruMerge and PruMerge+ (arXiv 2403.15388): own reference, on the towers of tests/model/vision.
"""
import json
import math
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

OUT = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1][:2] != "--" else os.path.join(os.path.dirname(__file__), "..", "tests", "pruning", "goldens")
VOCAB, LAYERS, HIDDEN, HEADS, KV = 89, 5, 48, 6, 2
STAGES = [1, 2, 4]  # odd ones, the last block among them
GREEDY = 24
LENGTHS = [150, 97, 23]  # a batch of three
VISUAL = (5, 60)
WINDOW = 40  # of the windowed cases: rows that are left, as docs/SWEEP.md has it


def model():
    torch.manual_seed(11)
    m = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=80, num_hidden_layers=LAYERS,
                                     num_attention_heads=HEADS, num_key_value_heads=KV, max_position_embeddings=512, rms_norm_eps=1e-5,
                                     tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, initializer_range=0.2,
                                     attn_implementation="eager"))
    return m.eval()


def scorers():
    torch.manual_seed(12)
    return {l: torch.nn.Sequential(torch.nn.Linear(HIDDEN, HIDDEN // 4), torch.nn.GELU(), torch.nn.Linear(HIDDEN // 4, 1)) for l in STAGES}


# ---- between blocks: masked attention, original places --------------------------------------

def keep_count(n, r):
    fixed = min(n, min(4, n) + max(16, math.floor(0.1 * n)))
    return max(fixed, min(n - 1, max(1, math.floor(r * n), fixed))) if r < 1 else n


def block(m, i, x, mask):
    """One decoder layer by hand: hidden states and attention [heads, n, n]."""
    layer, a = m.model.layers[i], m.model.layers[i].self_attn
    n, d = x.shape[0], HIDDEN // HEADS
    cos, sin = m.model.rotary_emb(x[None], torch.arange(n)[None])
    h = layer.input_layernorm(x)
    q, k, v = (p(h).view(1, n, -1, d).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
    q, k = apply_rotary_pos_emb(q, k, cos, sin)
    k, v = k[0].repeat_interleave(HEADS // KV, 0), v[0].repeat_interleave(HEADS // KV, 0)
    p = (q[0] @ k.transpose(1, 2) * d**-0.5 + mask).softmax(-1)
    x = x + a.o_proj((p @ v).transpose(0, 1).reshape(n, -1))
    return x + layer.mlp(layer.post_attention_layernorm(x)), p


def masked(m, ids, n, stages, keep, score, visual=None, window=None):
    """All of ids (n of them the prompt) through the model; after each stage's block what goes is masked for every later one. window: a row sees so many
    of those that are left, itself included."""
    x = m.model.embed_tokens(torch.tensor(ids))
    total = len(ids)
    alive, kept = torch.ones(total, dtype=torch.bool), []
    causal = torch.full((total, total), -math.inf).triu(1)
    for i in range(LAYERS):
        mask = causal.clone()
        gone = ~alive
        mask[:, gone] = -math.inf
        if window:
            at = alive.cumsum(0)
            mask[at[:, None] - at[None, :] >= window] = -math.inf
        mask.fill_diagonal_(0.0)  # rows that went still need a number; nobody sees them
        x, p = block(m, i, x, mask)
        if i not in stages:
            continue
        left = torch.nonzero(alive[:n]).flatten()
        s = score(i, x, p, left, n)
        if visual:
            inside = (left >= visual[0]) & (left < visual[0] + visual[1])
            count = len(left) - int(inside.sum()) + math.floor(keep * int(inside.sum()))
            s = torch.where(inside, s, math.inf)
        else:
            count = keep_count(len(left), keep)
            s = s.clone()
            s[:4] = math.inf
            s[len(left) - max(16, math.floor(0.1 * len(left))):] = math.inf
        if count < len(left):
            left = left[s.topk(count).indices.sort().values]
            alive[:n] = False
            alive[left] = True
        kept.append(left.tolist())
    return m.lm_head(m.model.norm(x)), kept


def staged(m, name, ids, stages, keep, score, visual=None, window=None):
    logits, kept = masked(m, ids, len(ids), stages, keep, score, visual, window)
    survivors = logits[kept[-1]]
    out = list(ids)
    for _ in range(GREEDY):
        step, again = masked(m, out, len(ids), stages, keep, score, visual, window)
        assert again == kept
        out.append(int(step[-1].argmax()))
    return dict(name=name, kept=kept, greedy=out[len(ids):]), survivors


# ---- on the cache: kvpress ------------------------------------------------------------------

def rows_kept(press, m, ids):
    """The press' own scores and budgets; the cache is then cut by hand, so that the greedy tokens are those of these rows."""
    cls, kept = type(press), []
    original_score = cls.score

    def score(self, module, hidden, keys, values, attentions, kwargs):
        s = original_score(self, module, hidden, keys, values, attentions, kwargs)
        n = self.get_layer_budget(module, keys.shape[2]) if hasattr(self, "get_layer_budget") else int(keys.shape[2] * (1 - self.compression_ratio))
        kept.append(s.topk(n, dim=-1).indices[0].sort(-1).values.tolist())
        return s
    cls.score = score
    try:
        with press(m):
            m(torch.tensor([ids]), past_key_values=DynamicCache(), output_attentions=True)
    finally:
        cls.score = original_score
    return kept


def h2o_rows(m, ids, keep):
    """Each KV head: the last half of its budget, and the heaviest of the rest by attention summed over all queries."""
    att = m(torch.tensor([ids]), output_attentions=True).attentions
    n, kept = len(ids), []
    count = math.floor(keep * n)
    for p in att:
        s = p[0].sum(1).view(KV, HEADS // KV, n).mean(1)
        s[:, n - math.floor(0.5 * count):] = math.inf
        kept.append(s.topk(count, -1).indices.sort(-1).values.tolist())
    return kept


def decode_on(m, ids, kept):
    """Greedy tokens on a cache that holds those rows only; new tokens stand at n + t."""
    cache = DynamicCache()
    logits = m(torch.tensor([ids]), past_key_values=cache).logits[0, -1]
    d = HIDDEN // HEADS
    for i, heads in enumerate(kept):
        at = torch.tensor(heads)[None, :, :, None].expand(1, KV, len(heads[0]), d)
        cache.layers[i].keys = cache.layers[i].keys.gather(2, at)
        cache.layers[i].values = cache.layers[i].values.gather(2, at)
    out = []
    for t in range(GREEDY):
        out.append(int(logits.argmax()))
        x = m.model.embed_tokens(torch.tensor([[out[-1]]]))[0]
        place = torch.tensor([[len(ids) + t]])
        cos, sin = m.model.rotary_emb(x[None], place)
        for i, layer in enumerate(m.model.layers):
            a = layer.self_attn
            h = layer.input_layernorm(x)
            q, k, v = (p(h).view(1, 1, -1, d).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
            q, k = apply_rotary_pos_emb(q, k, cos, sin)
            c = cache.layers[i]
            c.keys, c.values = torch.cat([c.keys, k], 2), torch.cat([c.values, v], 2)
            k, v = c.keys[0].repeat_interleave(HEADS // KV, 0), c.values[0].repeat_interleave(HEADS // KV, 0)
            p = (q[0] @ k.transpose(1, 2) * d**-0.5).softmax(-1)
            x = x + a.o_proj((p @ v).transpose(0, 1).reshape(1, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        logits = m.lm_head(m.model.norm(x))[0]
    return out


# ---- before the model: PruMerge on the models of tests/model/vision ---------------------------

def outlier_count(a):
    """Patches whose attention is beyond Q3 + 1.5 IQR."""
    q1, q3 = np.percentile(a.astype(np.float64), [25, 75])
    return int((a > q3 + 1.5 * (q3 - q1)).sum())


def prumerge_choose(attn, keys, keep, plus, neighbours):
    """attn [patches], keys [patches, hidden] → the patches that stay and, for each, those merged into it."""
    n = len(attn)
    count = max(1, math.floor(keep * n) if keep else outlier_count(attn.numpy()))
    kept = set(attn.topk(count).indices.tolist())
    if plus:
        kept |= set(range(0, n, max(1, int(int(n / count) / 3))))
    kept = sorted(kept)
    unit = keys / keys.norm(dim=1, keepdim=True)
    like = unit[kept] @ unit.T
    like[torch.arange(len(kept)), kept] = -math.inf
    return kept, like.topk(min(neighbours, n - 1)).indices


def prumerge_apply(x, attn, kept, near):
    """x [1 + patches, hidden]: the class row, then a row a patch that stays: itself and its neighbours times their attention."""
    patches = x[1:]
    return torch.cat([x[:1], patches[kept] + (attn[near][..., None] * patches[near]).sum(1)])


def look(tower, blocks, pixels):
    """A CLIP tower over one picture: rows after `blocks` blocks, the last one's class attention (mean over heads), its keys."""
    inner = getattr(tower, "vision_model", tower)
    seen = {}
    hook = inner.encoder.layers[blocks - 1].self_attn.k_proj.register_forward_hook(lambda m, i, o: seen.update(k=o[0]))
    out = tower(pixels[None], output_hidden_states=True, output_attentions=True)
    hook.remove()
    return out.hidden_states[blocks][0], out.attentions[blocks - 1][0].mean(0)[0], seen["k"]


def prumerge():
    from safetensors.torch import load_file
    from transformers import CLIPVisionConfig, VideoLlavaForConditionalGeneration
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from eventgpt_reference import EVENT, EventGPT
    vision = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "model", "vision")

    def json_of(*path):
        with open(os.path.join(vision, *path)) as f:
            return json.load(f)
    egpt = EventGPT(LlamaConfig(**json_of("eventgpt", "config.json"), attn_implementation="eager"),
                    CLIPVisionConfig(**json_of("eventgpt", "tower", "config.json"), attn_implementation="eager")).eval()
    state = load_file(os.path.join(vision, "eventgpt", "model.safetensors"))
    for name, t in egpt.official().items():  # contiguous, so the model's own memory
        t.copy_(state[name])
    vl = VideoLlavaForConditionalGeneration.from_pretrained(os.path.join(vision, "video-llava-v5"), attn_implementation="eager").eval()
    cases = []
    for options in (dict(), dict(neighbours=3), dict(plus=True), dict(keep=0.4, neighbours=5), dict(keep=0.2, plus=True, neighbours=2)):
        how = (options.get("keep"), options.get("plus", False), options.get("neighbours", 32))
        for name in ("eventgpt", "video-llava"):
            pixels, ids = (torch.tensor(np.load(os.path.join(vision, name, f + ".npy"))) for f in ("pixels", "ids"))
            if name == "eventgpt":
                x, attn, keys = (torch.stack(v) for v in zip(*[look(egpt.tower, 3, p) for p in pixels]))
                a = attn.mean(0)[1:]
                kept, near = prumerge_choose(a, keys.mean(0)[1:], *how)
                few = torch.stack([egpt.adaptor(egpt.projector(prumerge_apply(r, a, kept, near))) for r in x])
                whole = torch.stack([egpt.adaptor(egpt.projector(r)) for r in x])
                rows, merged, llama, mark = torch.cat([whole.mean(1), few.mean(0)]), [kept], egpt.llama, EVENT
            else:
                rows, merged, mark = [], [], vl.config.video_token_id if hasattr(vl.config, "video_token_id") else vl.config.video_token_index
                for p in pixels:
                    x, a, keys = look(vl.model.video_tower, 2, p)
                    kept, near = prumerge_choose(a[1:], keys[1:], *how)
                    merged.append(kept)
                    rows.append(vl.model.multi_modal_projector(prumerge_apply(x, a[1:], kept, near)))
                rows, llama = torch.cat(rows), vl
            words = llama.get_input_embeddings()
            at = (ids == mark).nonzero().flatten()
            x = torch.cat([words(ids[:at[0]].long()), rows, words(ids[at[-1] + 1:].long())])
            body, head = (llama.model, llama.lm_head) if name == "eventgpt" else (vl.model.language_model, vl.lm_head)
            logits = head(body(inputs_embeds=x[None]).last_hidden_state)[0]
            cases.append(dict(model=name, prune=dict(options, method="prumerge"), merged=merged, rows=len(x),
                              last=[float(f"{v:.8g}") for v in logits[-1].tolist()]))
            print(name, options, [len(k) for k in merged], len(x))
    with open(f"{OUT}/prumerge.json", "w") as f:
        json.dump(cases, f, separators=(",", ":"))


def windowed(m, config, prompts, score):
    """The same weights as a Mistral with a sliding window, in OUT/window."""
    out = f"{OUT}/window"
    os.makedirs(out, exist_ok=True)
    json.dump(dict(config, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=WINDOW), open(f"{out}/config.json", "w"), indent=1)
    cases, survivors = [], []
    for b, ids in enumerate(prompts):
        for keep in (0.7, 0.5):
            case, logits = staged(m, "sdtp" if keep == 0.7 else "sdtp-deep", ids, STAGES, keep, score, None, WINDOW)
            cases.append(dict(case, prompt=b, prune=dict(method="sdtp", weights="scorers.safetensors", keep=keep), visual=None, rows=len(logits)))
            survivors.append(logits)
    json.dump(dict(prompts=prompts, cases=cases), open(f"{out}/cases.json", "w"), separators=(",", ":"))
    np.concatenate([v.numpy() for v in survivors]).astype(np.float32).tofile(f"{out}/logits.f32")


def main():
    os.makedirs(OUT, exist_ok=True)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if "--window" not in sys.argv:
        prumerge()
    if "--prumerge" in sys.argv:
        return
    m, s = model(), scorers()
    save_file({k: v.contiguous() for k, v in m.state_dict().items()}, f"{OUT}/model.safetensors", metadata={"format": "pt"})
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=80,
                  num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV, max_position_embeddings=512,
                  rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, hidden_act="silu",
                  torch_dtype="float32", rope_theta=10000.0, rope_scaling=None)
    json.dump(config, open(f"{OUT}/config.json", "w"), indent=1)
    half = {f"{l}.scorer.{k}": v.half().contiguous() for l, q in s.items() for k, v in q.state_dict().items()}
    save_file(half, f"{OUT}/scorers.safetensors", metadata={"format": "pt"})
    for l, q in s.items():  # what the file holds
        q.load_state_dict({k: half[f"{l}.scorer.{k}"].float() for k in q.state_dict()})
    rng = np.random.default_rng(13)
    prompts = [rng.integers(3, VOCAB, n).tolist() for n in LENGTHS]
    cases, survivors = [], []

    def by_scorer(i, x, p, left, n):
        return s[i](x[left]).squeeze(-1)

    windowed(m, config, prompts, by_scorer)
    if "--window" in sys.argv:
        return

    def by_last(i, x, p, left, n):
        return p[:, n - 1, left].mean(0)
    for b, ids in enumerate(prompts):
        for name, stages, keep, score, visual, prune in (
                ("sdtp", STAGES, 0.7, by_scorer, None, dict(method="sdtp", weights="scorers.safetensors", keep=0.7)),
                ("sdtp-deep", STAGES, 0.5, by_scorer, None, dict(method="sdtp", weights="scorers.safetensors", layers=STAGES, keep=0.5)),
                ("lazyllm", [0, 3], 0.6, by_last, None, dict(method="lazyllm", layers=[0, 3], keep=0.6)),
                ("fastv", [1], 0.3, by_last, VISUAL, dict(method="fastv", keep=0.3))):
            if visual and len(ids) < sum(visual) + 1:
                continue
            case, logits = staged(m, name, ids, stages, keep, score, visual)
            cases.append(dict(case, prompt=b, prune=prune, visual=visual, rows=len(logits)))
            survivors.append(logits)
    try:
        import kvpress
    except ImportError:
        sys.exit("kvpress is needed for the KV methods: pip install kvpress==0.5.5")
    for b, ids in enumerate(prompts):
        for keep in (0.5, 0.3):
            w = 8
            r = 1 - keep
            presses = [("streamingllm", kvpress.StreamingLLMPress(r), dict(method="streamingllm")),
                       ("tova", kvpress.TOVAPress(r), dict(method="tova")),
                       ("observed", kvpress.ObservedAttentionPress(r), dict(method="h2o", recent=0, average=True)),
                       ("snapkv", kvpress.SnapKVPress(r, window_size=w, kernel_size=5), dict(method="snapkv", window=w, kernel=5)),
                       ("pyramidkv", kvpress.PyramidKVPress(r, window_size=w, kernel_size=3, beta=5),
                        dict(method="pyramidkv", window=w, kernel=3, beta=5))]
            for name, press, prune in presses:
                if len(ids) * keep < w + 1:
                    continue
                kept = rows_kept(press, m, ids)
                cases.append(dict(name=name, prompt=b, prune=dict(prune, keep=keep), visual=None, kept_kv=kept, greedy=decode_on(m, ids, kept)))
            kept = h2o_rows(m, ids, keep)
            cases.append(dict(name="h2o", prompt=b, prune=dict(method="h2o", keep=keep), visual=None, kept_kv=kept, greedy=decode_on(m, ids, kept)))
    json.dump(dict(prompts=prompts, cases=cases), open(f"{OUT}/cases.json", "w"), separators=(",", ":"))
    np.concatenate([v.numpy() for v in survivors]).astype(np.float32).tofile(f"{OUT}/logits.f32")
    for c in cases:
        print(c["name"], c["prompt"], [len(k) for k in c.get("kept", [])] or [len(k[0]) for k in c["kept_kv"]])


if __name__ == "__main__":
    main()
