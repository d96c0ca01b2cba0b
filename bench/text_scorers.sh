#!/usr/bin/env bash
# bench/text_scorers.sh MODEL SCORERS OUT.csv [SAMPLES [KEEPS [FILE.h5]]]: what a text model's trained scorers are worth: perplexity of 64 tokens
# behind held-out prompts of 512, beside random choice and the last token's attention after the same blocks at the same keep, by the engine;
# 95 % by bootstrap over prompts, ratios paired. FILE.h5 stays, and a run that was interrupted goes on there. SmolLM2-135M, 120 prompts: 20
# minutes of one core.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3} # Debian's: it has numpy and h5py
paceline=${PACELINE:-build/release/cli/paceline}
model=$(realpath "$1") scorers=$(realpath "$2") out=$3 samples=${4:-120} keeps=${5:-0.9,0.8,0.7}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
file=${6:-$work/s.h5}
layers=$("$python" -c "
import json, sys
with open(sys.argv[1], 'rb') as f:
    names = json.loads(f.read(int.from_bytes(f.read(8), 'little')))
print(sorted({int(k.split('.')[0]) for k in names if '.scorer.' in k}))" "$scorers")
cat >"$work/s.yaml" <<YAML
name: text-scorers
seed: 1
data: {kind: text, path: $PWD/examples/data/heldout.txt}
models: {m: {path: $model, threads: 1}}
arms:
  none: {model: m}
  "scorers-{keep}":   {model: m, prune: {method: sdtp, weights: $scorers}, matrix: {keep: [$keeps]}}
  "attention-{keep}": {model: m, prune: {method: lazyllm, layers: $layers}, matrix: {keep: [$keeps]}}
  "random-{keep}":    {model: m, prune: {method: random, layers: $layers}, matrix: {keep: [$keeps]}}
baseline: none
grid: {contexts: [512], samples: $samples}
generate: {tokens: 1}
measure: {mode: prefill, warmup: 0, quality: 64, exclusive: none}
YAML
resume=
[ -e "$file" ] && resume=--resume
"$paceline" run "$work/s.yaml" -o "$file" $resume >&2
"$python" - "$file" "$out" <<'PY'
import csv
import sys

import h5py
import numpy as np

f = h5py.File(sys.argv[1])
arms = list(f["axes/arm"].asstr())
metric = list(f["axes/metric"].asstr()).index("perplexity")
assert (f["commit"]["state"][...] == 1).all(), "some trials are not done"
loss = np.log(f["quality"][..., metric][:, 0, :, 0])
left = f["kv_len"][:, 0, 0, 0, 0, 0, :].astype(int)
draws = np.random.default_rng(1).integers(0, loss.shape[1], (4000, loss.shape[1]))


def interval(v):
    return [np.exp(v.mean()), *np.percentile(np.exp(v[draws].mean(1)), [2.5, 97.5])]


with open(sys.argv[2], "w", newline="") as out:
    w = csv.writer(out, lineterminator="\n")
    w.writerow(["method", "keep", "tokens_left", "kv_kept", "prompts", "perplexity", "ci_low", "ci_high", "it_over_scorers", "ratio_low", "ratio_high"])
    for a, name in enumerate(arms):
        method, _, keep = name.partition("-")
        rows = left[a][left[a] > 0]
        row = [method, keep or "1", rows[-1], f"{rows.mean() / 512:.3f}", loss.shape[1], *(f"{v:.5g}" for v in interval(loss[a]))]
        if method in ("attention", "random"):
            row += [f"{v:.4f}" for v in interval(loss[a] - loss[arms.index("scorers-" + keep)])]
        w.writerow(row)
        print(*row)
PY
