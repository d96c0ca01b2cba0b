#!/usr/bin/env python3
"""Goldens of the adapters: small random ones of each kind, their inputs and what torch makes of them.

  tools/make_spec_goldens.py        → tests/spec_decode/goldens/{KIND}.safetensors, {KIND}.{e,v,out}.f32

The modules follow the published structure (docs/METRICS.md names it); files hold float32, row by row.
"""
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).resolve().parent.parent / "tests/spec_decode/goldens"
D, B, WIDE, FFN, P, N, HEADS = 64, 16, 24, 24, 16, 7, 8
DE = 48  # of the kinds with an in_proj


class Bottleneck(nn.Module):
    def __init__(self):
        super().__init__()
        self.down_proj, self.up_proj = nn.Linear(D, B, bias=False), nn.Linear(B, D, bias=False)
        self.layer_norm, self.alpha_param = nn.LayerNorm(D), nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return x + self.alpha_param * self.up_proj(nn.functional.gelu(self.down_proj(self.layer_norm(x))))


class Stack(nn.Module):
    def __init__(self, name, n):
        super().__init__()
        self.add_module(name, nn.ModuleList(Bottleneck() for _ in range(n)))
        self.name, self.final_norm = name, nn.LayerNorm(D)

    def forward(self, x):
        for b in getattr(self, self.name):
            x = b(x)
        return self.final_norm(x)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_norm, self.final_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(D, WIDE, bias=False), nn.LayerNorm(WIDE), nn.GELU(), nn.Identity(),
                                                  nn.Linear(WIDE, D, bias=False)) for _ in range(2))
        self.alphas = nn.ParameterList(nn.Parameter(torch.tensor(a)) for a in (0.2, 0.7))

    def forward(self, x):
        x = self.input_norm(x)
        for b, a in zip(self.blocks, self.alphas):
            x = x + a * b(x)
        return self.final_norm(x)


def layer():
    return nn.ModuleDict(dict(attn_norm=nn.LayerNorm(D), attn=nn.MultiheadAttention(D, HEADS, batch_first=True), ffn_norm=nn.LayerNorm(D),
                              ffn=nn.Sequential(nn.Linear(D, FFN), nn.GELU(), nn.Identity(), nn.Linear(FFN, D))))


class Attention(nn.Module):
    """L4; with causal L5 and B1; with fused L5F."""

    def __init__(self, causal=False, fused=False):
        super().__init__()
        self.causal, self.fused = causal, fused
        self.layers, self.alpha = nn.ModuleList([layer()]), nn.Parameter(torch.tensor(0.4))
        if causal:
            self.pos_embed = nn.Parameter(torch.randn(1, P, D) * 0.1)
            self.output_norm, self.output_proj = nn.LayerNorm(D), nn.Linear(D, D)
        else:
            self.output_proj = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D))
        if fused:
            self.fusion_proj, self.fusion_norm = nn.Linear(2 * D, D), nn.LayerNorm(D)
            self.gate = nn.Sequential(nn.Linear(2 * D, D), nn.Sigmoid())
        elif causal:
            self.input_norm = nn.LayerNorm(D)

    def forward(self, e, v=None):
        x = h = e
        if self.fused:
            both = torch.cat([e, v], -1)
            g, h = self.gate(both), v
            x = self.fusion_norm(g * e + (1 - g) * v + self.fusion_proj(both))
        elif self.causal:
            x = self.input_norm(x)
        n = x.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool).triu(1) if self.causal else None
        if self.causal:
            x = x + self.pos_embed[:, :n]
        for a in self.layers:
            y = a["attn_norm"](x)
            x = x + a["attn"](y, y, y, attn_mask=mask, need_weights=False)[0]
            x = x + a["ffn"](a["ffn_norm"](x))
        o = self.output_proj(self.output_norm(x)) if self.causal else self.output_proj(x)
        return h + self.alpha * (o - h)


KINDS = dict(L1=lambda: Stack("layers", 1), L2=lambda: Stack("blocks", 3), L3=Wide, L4=Attention, L5=lambda: Attention(True),
             B1=lambda: Attention(True), L5F=lambda: Attention(True, True))


def main():
    OUT.mkdir(exist_ok=True)
    for k, (name, make) in enumerate(KINDS.items()):
        torch.manual_seed(100 + k)
        m = make()
        for p in m.parameters():  # norms and zeros are not left at what they begin with
            if p.dim() == 1:
                p.data = p.data + 0.2 * torch.randn_like(p)
        e, v = torch.randn(1, N, DE if name == "L2" else D), torch.randn(1, N, D)
        weights = {k: t.detach().clone().contiguous() for k, t in m.state_dict().items()}
        x = e
        if name == "L2":  # a drafter of another width
            inp = nn.Linear(DE, D)
            x = inp(e)
            weights |= {"in_proj.weight": inp.weight.detach().clone(), "in_proj.bias": inp.bias.detach().clone()}
        with torch.no_grad():
            out = m(v) if name == "B1" else m(x, v) if name == "L5F" else m(x)
        save_file(weights, OUT / f"{name}.safetensors", {"adapter_type": name})
        for what, t in dict(e=e, v=v, out=out).items():
            t.detach().numpy().astype("<f4").tofile(OUT / f"{name}.{what}.f32")


if __name__ == "__main__":
    main()
