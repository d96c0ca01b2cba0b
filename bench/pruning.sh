#!/usr/bin/env bash
# What pruning buys beside what it could: pruning.sh OUT_DIR [MODEL [SCORERS [CONTEXTS [SAMPLES]]]]
#   OUT_DIR/stages.txt   share of the prefill that the stages take (score, select, drop), per context: the better of 2
#   OUT_DIR/table2.md    measured speedups beside the ideal (docs/METRICS.md), MODEL as it stands in the file
# MODEL: SmolLM2-135M (tools/get-model); SCORERS: of examples/models. About a minute a context on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build/release} out=$1
model=${2:-$(tools/get-model smollm2-135m)}
scorers=${3:-examples/models/smollm2-135m-sdtp.safetensors}
contexts=${4:-2048,4096} samples=${5:-2}
runner=$build/cli/runner/paceline-runner
mkdir -p "$out"

prompt() { # N: a JSON list of N ids of the held-out text
  python3 - "$runner" "$model" "$1" <<'PY'
import json, subprocess, sys
runner, model, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open("examples/data/heldout.txt", encoding="utf-8") as f:
    text = f.read()[:8 * n]
line = subprocess.run([runner, "tokenize", model], input=json.dumps(text) + "\n", capture_output=True, text=True, check=True).stdout
print(*json.loads(line)[:n])
PY
}

: >"$out/stages.txt"
for n in ${contexts//,/ }; do
  ids=$(prompt "$n")
  for prune in "{\"method\":\"sdtp\",\"keep\":0.9,\"weights\":\"$scorers\"}" "{\"method\":\"random\",\"keep\":0.9,\"layers\":[4,7,10,13,16,19,22,25]}" \
    "{\"method\":\"lazyllm\",\"keep\":0.9,\"layers\":[4,7,10,13,16,19,22,25]}"; do
    for _ in 1 2; do
      "$runner" generate "$model" --ids "$ids" --tokens 1 --json --prune "$prune"
    done | python3 -c "
import json, sys
runs = [json.loads(line) for line in sys.stdin]
best = min(runs, key=lambda r: r['stages_ms'] / r['prefill_ms'])
print('$n', json.loads('''$prune''')['method'], 'stages %.1f ms of %.1f ms prefill: %.2f %%' % (best['stages_ms'], best['prefill_ms'], 100 * best['stages_ms'] / best['prefill_ms']))
" | tee -a "$out/stages.txt"
  done
done

cat >"$out/pruning.yaml" <<YAML
name: pruning
seed: 1
data: {kind: text, path: $PWD/examples/data/heldout.txt}
models: {m: {path: $model}}
arms:
  baseline: {model: m}
  "keep{keep:nodot}": {model: m, prune: {method: sdtp, weights: $PWD/$scorers}, matrix: {keep: [0.9, 0.7]}}
  snapkv: {model: m, prune: {method: snapkv, keep: 0.25}}
baseline: baseline
grid: {contexts: [$contexts], samples: $samples}
generate: {tokens: 64}
measure: {warmup: 0, quality: 32, exclusive: node}
YAML
rm -f "$out/pruning.h5"*
"$build/cli/paceline" run "$out/pruning.yaml" -o "$out/pruning.h5"
"$build/cli/paceline" report "$out/pruning.h5" -o "$out/report" >/dev/null
cp "$out/report/tables/table2.md" "$out/"
python3 - "$out/report/tables/table2.json" <<'PY'
import json, sys
for r in json.load(open(sys.argv[1]))["rows"]:
    e, p = r["End2End Speedup (×)"], r["Prefill Speedup (×)"]
    print(r["Length"], r["Method"], "prefill %.3f of %.3f, end to end %.3f of %.3f: %.3f of the ideal" % (p, r["prefill_ideal"], e, r["e2e_ideal"], e / r["e2e_ideal"]),
          "decode %.3f of %.3f" % (1 if r["Method"] == "baseline" else base / r["Decode (s)"], r["decode_ideal"]))
    if r["Method"] == "baseline":
        base = r["Decode (s)"]
PY
