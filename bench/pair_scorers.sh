#!/usr/bin/env bash
# bench/pair_scorers.sh [OUT.csv]: what the trained scorers of the tiny Video-LLaVA are worth: right answers to ten questions about each of
# the 24 held-out scenes, beside random choice and the last token's attention at the same keep of the clip's rows, by the engine; means and
# 95 % intervals by bootstrap over scenes, differences paired. About ten minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3} # Debian's: it has numpy and h5py
out=${1:-examples/models/tiny-video-llava-sdtp.results.csv}
paceline=${PACELINE:-build/release/cli/paceline}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/s.yaml" <<YAML
name: pair-scorers
seed: 1
data: {kind: dsec, dir: $PWD/examples/data/pair, questions: $PWD/examples/data/pair/instruction.json, n_questions: 10, cache_vision: true}
models:
  vl: {path: $PWD/examples/models/tiny-video-llava, dtype: f32}
arms:
  full: {model: vl}
  "scorers-{keep}":   {model: vl, prune: {method: sdtp, tokens: visual, weights: $PWD/examples/models/tiny-video-llava-sdtp.safetensors}, matrix: {keep: [0.3, 0.2, 0.1, 0.05]}}
  "attention-{keep}": {model: vl, prune: {method: lazyllm, tokens: visual, layers: [0, 1]}, matrix: {keep: [0.3, 0.2, 0.1, 0.05]}}
  "random-{keep}":    {model: vl, prune: {method: random, tokens: visual, layers: [0, 1]}, matrix: {keep: [0.3, 0.2, 0.1, 0.05]}}
baseline: full
grid: {contexts: [auto], samples: all}
generate: {tokens: 64, stop_at_eos: true}
measure: {warmup: 0}
YAML
"$paceline" run "$work/s.yaml" -o "$work/s.h5" >&2
"$python" - "$work/s.h5" "$out" <<'PY'
import csv
import sys

import h5py
import numpy as np

f = h5py.File(sys.argv[1])
arms, samples = list(f["axes/arm"].asstr()), list(f["axes/sample"].asstr())
metric = list(f["axes/metric"].asstr()).index("accuracy")
right = f["quality"][..., metric][:, 0, :, 0]
kept = f["kv_len"][:, 0, :, 0, 0, 0, :].astype(float)
prompt = f["trials"]["prompt_tokens"][:, 0, :, 0].astype(float)
scenes = np.array([s.split(" × ")[0] for s in samples])
names = sorted(set(scenes))
sums = np.stack([[right[a, scenes == s].sum() for s in names] for a in range(len(arms))])
count = np.array([(scenes == s).sum() for s in names])
draws = np.random.default_rng(1).integers(0, len(names), (4000, len(names)))


def interval(v):
    b = v[draws].sum(1) / count[draws].sum(1)
    return [v.sum() / count.sum(), *np.percentile(b, [2.5, 97.5])]


with open(sys.argv[2], "w", newline="") as out:
    w = csv.writer(out, lineterminator="\n")
    w.writerow(["method", "keep", "visual_rows_left", "questions", "accuracy", "ci_low", "ci_high", "scorers_minus_it", "diff_low", "diff_high"])
    for a, name in enumerate(arms):
        method, _, keep = name.partition("-")
        own = sums[a]
        rows = [method, keep or "1", round((kept[a, :, :][:, kept[a].any(0)][:, -1] - prompt[a] + 296).mean()), len(samples),
                *(f"{v:.4f}" for v in interval(own))]
        if method in ("attention", "random"):
            rows += [f"{v:.4f}" for v in interval(sums[arms.index("scorers-" + keep)] - own)]
        w.writerow(rows)
        print(*rows)
PY
