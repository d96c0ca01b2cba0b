#!/usr/bin/env python3
"""Turn published SDTP scorers (a torch .bin or .pt, keys "{layer}.scorer.{0,2}.{weight,bias}", f16) into safetensors.

    tools/convert_sdtp.py pruning_module.bin -o scorers.safetensors          needs torch, safetensors

The file is read with weights_only: nothing in it is run. A prefix before the layer's number (module., token_pruners.) is dropped;
numbers, shapes and types stay as they are. Layers are 0-based: a stage stands after that block.
"""
import argparse
import re
import sys

import torch
from safetensors.torch import save_file


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bin")
    p.add_argument("-o", "--out", required=True)
    a = p.parse_args()
    state = torch.load(a.bin, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    out, other = {}, []
    for name, t in state.items():
        m = re.fullmatch(r"(?:.*\.)?(\d+)\.scorer\.([02])\.(weight|bias)", name)
        if m:
            out[f"{int(m[1])}.scorer.{m[2]}.{m[3]}"] = t.contiguous()
        else:
            other.append(name)
    layers = sorted({int(k.split(".")[0]) for k in out})
    for layer in layers:
        have = {k.split(".", 1)[1] for k in out if k.startswith(f"{layer}.")}
        want = {f"scorer.{i}.{k}" for i in (0, 2) for k in ("weight", "bias")}
        if have != want:
            sys.exit(f"{a.bin}: layer {layer} has {sorted(have)}, expected {sorted(want)}")
    if not out:
        sys.exit(f"{a.bin}: no tensor is called like 4.scorer.0.weight; there are {other[:3]}")
    if other:
        print(f"left out: {', '.join(other[:5])}{' …' if len(other) > 5 else ''}", file=sys.stderr)
    save_file(out, a.out, metadata={"format": "pt"})
    print(f"{a.out}: scorers of layers {layers}")


if __name__ == "__main__":
    main()
