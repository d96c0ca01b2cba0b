#!/usr/bin/env python3
"""Published adapter checkpoints (torch) → the safetensors that `arms.A.draft.weights` reads.

  tools/convert_adapter.py best_model.pt L4.safetensors [--kind L4] [--dtype bf16]

A checkpoint is {"model_state_dict": …, "adapter_type": …, "config": …}, or the state dict itself. Names stay as they are
(spec_decode/adapter.h lists them); shapes are checked here and when a sweep loads the file. Checkpoints are pickles: only tensors and
plain values are read from them (torch.load with weights_only), and the one class that L1's hold is read as its fields.
"""
import argparse
import sys
import types

import torch
from safetensors.torch import save_file

TYPES = {"L1_Bottleneck": "L1", "L2_MultiLayerBottleneck": "L2", "L3_WideBottleneck": "L3", "L4_Attention": "L4", "L5_EAGLE": "L5",
         "B1_VLM_Only": "B1", "L5F_FusedEAGLE": "L5F"}
NEEDS = {"L1": ["layers.0.down_proj.weight", "final_norm.weight"], "L2": ["blocks.0.down_proj.weight", "final_norm.weight"],
         "L3": ["blocks.0.0.weight", "alphas.0", "input_norm.weight"], "L4": ["layers.0.attn.in_proj_weight", "output_proj.1.weight", "alpha"],
         "L5": ["pos_embed", "input_norm.weight", "output_proj.weight", "alpha"], "B1": ["pos_embed", "input_norm.weight", "output_proj.weight"],
         "L5F": ["pos_embed", "gate.0.weight", "fusion_proj.weight", "alpha"]}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class HiddenAdapterConfig:
    """Stands for the published dataclass: its fields arrive as attributes."""

    def __setstate__(self, state):
        self.__dict__.update(state)


def read(path):
    for name in ("hidden_adapter", "__main__", "feasible.feature_alignment.hidden_adapter", "pipeline.adapter_train.hidden_adapter"):
        at = ""
        for part in name.split("."):
            at = f"{at}.{part}" if at else part
            module = sys.modules.setdefault(at, types.ModuleType(at))
        module.HiddenAdapterConfig = HiddenAdapterConfig
        HiddenAdapterConfig.__module__ = name
        torch.serialization.add_safe_globals([(HiddenAdapterConfig, f"{name}.HiddenAdapterConfig")])
    return torch.load(path, map_location="cpu", weights_only=True)


def kind_of(checkpoint, weights):
    if isinstance(checkpoint, dict) and checkpoint.get("adapter_type") in TYPES:
        return TYPES[checkpoint["adapter_type"]]
    found = [k for k, names in NEEDS.items() if k != "B1" and all(n in weights for n in names)]
    return found[0] if len(found) == 1 else None


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("checkpoint")
    a.add_argument("out")
    a.add_argument("--kind", choices=sorted(NEEDS), help="where the file does not say (B1 has L5's names)")
    a.add_argument("--dtype", choices=DTYPES, default=None, help="as stored, unless given")
    o = a.parse_args()
    checkpoint = read(o.checkpoint)
    weights = checkpoint.get("model_state_dict", checkpoint) if isinstance(checkpoint, dict) else checkpoint
    weights = {k.removeprefix("module."): t for k, t in weights.items() if isinstance(t, torch.Tensor)}
    kind = o.kind or kind_of(checkpoint, weights)
    if kind is None:
        sys.exit(f"{o.checkpoint}: which adapter it is does not show, expected --kind")
    missing = [n for n in NEEDS[kind] if n not in weights]
    if missing:
        sys.exit(f"{o.checkpoint}: {missing[0]} misses, expected adapter {kind}")
    if any(k.startswith(("token_embed", "token_fusion")) for k in weights):
        sys.exit(f"{o.checkpoint}: it mixes in token embeddings, which no published configuration uses")
    save_file({k: (t.to(DTYPES[o.dtype]) if o.dtype else t).contiguous().clone() for k, t in weights.items()}, o.out,
              {"format": "pt", "adapter_type": next(k for k, v in TYPES.items() if v == kind)})
    print(f"{o.out}: adapter {kind}, {sum(t.numel() for t in weights.values()):,} numbers")


main()
