"""The tiny EventGPT and Video-LLaVA, in plain torch, with the names that their files have.

Both are a CLIP tower, a projector and a Llama. What a prompt's visual places are filled with:

  EventGPT     5 event frames → tower's last hidden layer, CLS kept, no post-LayerNorm →
               Linear, GELU, Linear → Linear → 5 means over places, then the mean over frames at
               each of the 37 places: 42 rows
  Video-LLaVA  8 frames → tower's hidden_states[-2], CLS kept → Linear, GELU, Linear: 296 rows
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

PLACES = 37

SHAPES = {
    "tiny-eventgpt": dict(
        frames=5, rows=42, pooled=True, drop_last=0, eps=1e-5,
        tower=dict(hidden_size=96, intermediate_size=192, num_hidden_layers=4,
                   num_attention_heads=3),
        llama=dict(hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                   num_attention_heads=4)),
    "tiny-video-llava": dict(
        frames=8, rows=296, pooled=False, drop_last=1, eps=1e-5,
        tower=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4,
                   num_attention_heads=2),
        llama=dict(hidden_size=128, intermediate_size=320, num_hidden_layers=3,
                   num_attention_heads=4)),
}


class Attention(nn.Module):
    def __init__(self, width, heads, bias, out):
        super().__init__()
        self.heads, self.out = heads, out
        for name in ("q_proj", "k_proj", "v_proj", out):
            self.add_module(name, nn.Linear(width, width, bias=bias))

    def forward(self, x, mask=None, rope=None, cache=None):
        b, n, w = x.shape
        q, k, v = (p(x).view(b, n, self.heads, -1).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        if rope:
            q, k = turn(q, rope), turn(k, rope)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = k, v
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return getattr(self, self.out)(y.transpose(1, 2).reshape(b, n, w))


def turn(x, rope):
    half = x.shape[-1] // 2
    return x * rope[0] + torch.cat([-x[..., half:], x[..., :half]], -1) * rope[1]


class ClipLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        w = c["hidden_size"]
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(w), nn.LayerNorm(w)
        self.self_attn = Attention(w, c["num_attention_heads"], True, "out_proj")
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(w, c["intermediate_size"])
        self.mlp.fc2 = nn.Linear(c["intermediate_size"], w)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        h = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(h * torch.sigmoid(1.702 * h))  # quick_gelu


class Tower(nn.Module):
    def __init__(self, c):
        super().__init__()
        w = c["hidden_size"]
        self.embeddings = nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.randn(w) * 0.02)
        self.embeddings.patch_embedding = nn.Conv2d(3, w, 14, 14, bias=False)
        self.embeddings.position_embedding = nn.Embedding(PLACES, w)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.1)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(w), nn.LayerNorm(w)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(ClipLayer(c) for _ in range(c["num_hidden_layers"]))

    def forward(self, pixels, drop_last):
        """[n, 3, 84, 84] → [n, 37, w], without the last drop_last layers."""
        e = self.embeddings
        x = e.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([e.class_embedding.expand(len(x), 1, -1), x], 1)
        x = self.pre_layrnorm(x + e.position_embedding.weight)
        layers = self.encoder.layers
        for layer in layers[:len(layers) - drop_last]:
            x = layer(x)
        return x


class RMSNorm(nn.Module):
    def __init__(self, w, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(w)), eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class LlamaLayer(nn.Module):
    def __init__(self, c, eps):
        super().__init__()
        w, f = c["hidden_size"], c["intermediate_size"]
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(w, eps), RMSNorm(w, eps)
        self.self_attn = Attention(w, c["num_attention_heads"], False, "o_proj")
        self.mlp = nn.Module()
        self.mlp.gate_proj = nn.Linear(w, f, bias=False)
        self.mlp.up_proj = nn.Linear(w, f, bias=False)
        self.mlp.down_proj = nn.Linear(f, w, bias=False)

    def forward(self, x, mask, rope, cache):
        x = x + self.self_attn(self.input_layernorm(x), mask, rope, cache)
        h, m = self.post_attention_layernorm(x), self.mlp
        return x + m.down_proj(F.silu(m.gate_proj(h)) * m.up_proj(h))


class Llama(nn.Module):
    def __init__(self, c, vocab, eps, theta=10000.0):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, c["hidden_size"])
        self.layers = nn.ModuleList(LlamaLayer(c, eps) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], eps)
        self.theta, self.width = theta, c["hidden_size"] // c["num_attention_heads"]

    def forward(self, x, positions, mask, caches=None, tap=None):
        """Rows after the final norm; with tap = k, those after block k beside them."""
        f = self.theta ** -(torch.arange(0, self.width, 2) / self.width)
        angle = positions[:, None, :, None] * f
        rope = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
        middle = None
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, rope, caches[i] if caches else None)
            if tap == i + 1:
                middle = x
        return self.norm(x), middle


class Pair(nn.Module):
    """One of the two models; `ids` name visual places by VISUAL."""
    VISUAL = -200

    def __init__(self, name, vocab):
        super().__init__()
        self.shape = s = SHAPES[name]
        w, d = s["tower"]["hidden_size"], s["llama"]["hidden_size"]
        self.tower = Tower(s["tower"])
        self.projector = nn.Sequential(nn.Linear(w, d), nn.GELU(), nn.Linear(d, d))
        if s["pooled"]:
            self.adaptor = nn.Linear(d, d)
        self.llama = Llama(s["llama"], vocab, s["eps"])
        self.lm_head = nn.Linear(d, vocab, bias=False)
        self.apply(self.start)

    @staticmethod
    def start(m):
        if isinstance(m, (nn.Linear, nn.Embedding)) and m.weight.shape[0] != PLACES:
            nn.init.normal_(m.weight, std=0.02 if isinstance(m, nn.Embedding) else
                            1 / math.sqrt(m.weight.shape[1]) * 0.7)
            if getattr(m, "bias", None) is not None:
                nn.init.zeros_(m.bias)

    def see(self, pixels):
        """[b, frames, 3, 84, 84] → tower [b, frames, 37, w], rows [b, rows, d]."""
        b, f = pixels.shape[:2]
        seen = self.tower(pixels.flatten(0, 1), self.shape["drop_last"])
        x = self.projector(seen)
        if self.shape["pooled"]:
            x = self.adaptor(x).unflatten(0, (b, f))
            x = torch.cat([x.mean(2), x.mean(1)], 1)
        return seen.unflatten(0, (b, f)), x.reshape(b, self.shape["rows"], -1)

    def forward(self, ids, rows, positions, mask, caches=None, tap=None):
        x = self.llama.embed_tokens(ids.clamp(min=0))
        if rows is not None:
            at = (ids == self.VISUAL)[..., None]
            x = x.masked_scatter(at, rows.reshape(-1, rows.shape[-1]))
        return self.llama(x, positions, mask, caches, tap)
