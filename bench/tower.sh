#!/usr/bin/env bash
# bench/tower.sh [ROUNDS] [THREADS]: what part of this machine's sgemm rate an image tower's products reach: CLIP ViT-L/14 at 336² as
# EventGPT has it, random f32 weights, one picture a pass. Each round times three passes and, right after them, the same products by the
# BLAS behind numpy (libopenblas, python3-numpy) with as many threads; the multiply-add limit of registers stands beside both.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3} # Debian's: it has numpy and h5py
rounds=${1:-3}
threads=${2:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/config.json" <<'JSON'
{"architectures": ["EventChatModel"], "vocab_size": 64, "torch_dtype": "float32", "hidden_size": 1024, "intermediate_size": 64,
 "num_hidden_layers": 1, "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
 "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
 "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
   "num_attention_heads": 16, "patch_size": 14, "hidden_act": "quick_gelu", "image_size": 336}}
JSON
OPENBLAS_NUM_THREADS=$threads OMP_NUM_THREADS=$threads "$python" - "$work/config.json" "$rounds" "$threads" <<'PY'
import json
import statistics
import subprocess
import sys
import time

import numpy as np

config, rounds, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3]
shapes = [(1024, 1024)] * 4 + [(1024, 4096), (4096, 1024)]  # in, out of a block's matrices
x = {k: np.random.default_rng(k).standard_normal((577, k), dtype=np.float32) for k in (1024, 4096)}
w = [np.random.default_rng(i).standard_normal(s, dtype=np.float32) for i, s in enumerate(shapes)]
flop = sum(2 * 577 * a * b for a, b in shapes)


def blas(passes=12):
    best = 0
    for _ in range(2):
        t = time.perf_counter()
        for _ in range(passes):
            for a, (k, _) in zip(w, shapes):
                x[k] @ a
        best = max(best, passes * flop / (time.perf_counter() - t) / 1e9)
    return best


blas(1)
ours, theirs, fma, share = [], [], [], []
for r in range(rounds):
    j = json.loads(subprocess.run(["build/release/tests/model/bench_tower", config, threads, "3"], check=True, capture_output=True, text=True).stdout)
    ours.append(max(run["product_gflop"] / run["product_seconds"] for run in j["runs"]))
    share += [run["product_seconds"] / run["seconds"] for run in j["runs"]]
    fma.append(max(j["fma_gflop_per_s"]))
    theirs.append(blas())
    print(f"round {r + 1}: products {ours[-1]:.1f}, BLAS {theirs[-1]:.1f}, multiply-adds {fma[-1]:.1f} GFLOP/s; "
          f"a pass {min(run['seconds'] for run in j['runs']):.2f} s", file=sys.stderr)
paths = [line.split()[-1] for line in open("/proc/self/maps") if "blas" in line]
blas_name = "OpenBLAS" if any("openblas" in p for p in paths) else paths[0] if paths else "numpy"
last = j["runs"][-1]
print("| operation | share of a pass |\n|---|---:|")
for name, s in sorted(last["ops"].items(), key=lambda i: -i[1]):
    if s > 0.002 * last["seconds"]:
        print(f"| {name} | {100 * s / last['seconds']:.1f} % |")
print(f"\nproducts: {100 * statistics.median(share):.0f} % of a pass, {statistics.median(ours):.1f} GFLOP/s = "
      f"{100 * statistics.median(o / t for o, t in zip(ours, theirs)):.0f} % of sgemm by {blas_name} "
      f"({statistics.median(theirs):.1f}), {100 * statistics.median(o / t for o, t in zip(ours, fma)):.0f} % of multiply-adds in registers "
      f"({statistics.median(fma):.1f}, {j['vectors']}, {threads} threads)")
PY
