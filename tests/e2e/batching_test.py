"""batching_test.py PACELINE: batches and closed loops from the sweep to the tables, on the real engine and the simulated one; kill -9 and
resume; bad input."""
import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c
from harness import TOP, Bench

SIM = """name: planted-batches
seed: 5
data: {kind: synthetic}
models:
  sim: {engine: sim, prefill_us_per_token: 1, decode_us: 100, batch_cost: 0.2, noise: 0.05, sample_effect: 0.2, virtual: true}
arms:
  one:   {model: sim}
  four:  {model: sim, batch: 4}
  alike: {model: sim, batch: 4, baseline: four}
  loop:  {model: sim, concurrency: 4, requests: 8}
baseline: one
grid: {contexts: [200], samples: 800, repeats: 1}
generate: {tokens: 21}
measure: {warmup: 0}
"""
REAL = """name: batches
seed: 3
data: {kind: text, path: examples/data/heldout.txt}
models:
  llama: {path: examples/models/small-llama, dtype: f32}
  t5: {path: examples/models/small-t5, dtype: f32}
  bert: {path: examples/models/small-bert, dtype: f32}
arms:
  one: {model: llama}
  four: {model: llama, batch: 4}
  loop: {model: llama, concurrency: 2, requests: 5}
  t5: {model: t5, baseline: t5}
  t5-four: {model: t5, batch: 4, baseline: t5}
  bert: {model: bert, baseline: bert}
  bert-four: {model: bert, batch: 4, baseline: bert}
baseline: one
grid: {contexts: [8, 40], samples: 6, repeats: 2}
generate: {tokens: 6}
measure: {warmup: 0}
"""


def group(n, size, i):
    """docs/METRICS.md: the samples of a trial of `size` sequences on sample i."""
    first = i // size * size
    of = min(size, n - first)
    return [first + (i - first + j) % of for j in range(size)]


def check_file(bench, out):
    with h5py.File(out, "r") as f:
        arms = list(f["axes/arm"].asstr()[:])
        commit, trials, tokens, ms, kv = (f[n][...] for n in ("commit", "trials", "tokens", "token_ms", "kv_len"))
        index = 0
        for at in np.ndindex(commit.shape):
            row = b"".join(f[n][at].tobytes() for n in ("trials", "tokens", "token_ms", "kv_len", "rounds", "quality") if n in f)
            if index % 7 == 0:
                bench.expect(crc32c(index.to_bytes(8, "little") + row) == commit[at]["crc"], f"row {at}: another CRC")
            index += 1
    bench.expect(tokens.shape == (7, 2, 6, 2, 5, 6), f"/tokens is {tokens.shape}")
    bench.expect((commit["state"] == 1).all(), f"states {np.unique(commit['state'])}")
    for name, of, size in (("four", "one", 4), ("loop", "one", 5), ("t5-four", "t5", 4)):
        a, b = arms.index(name), arms.index(of)
        bench.expect((trials[a]["generated"] == 6 * size).all(), f"{name}: generated")
        bench.expect((trials[a]["prompt_tokens"][0] == 8 * size).all(), f"{name}: prompt tokens")
        bench.expect((tokens[a, :, :, :, size:] == -1).all(), f"{name}: sequences beyond its own")
        for i in range(6):
            for j, sample in enumerate(group(6, size, i)):
                bench.expect((tokens[a, :, i, :, j] == tokens[b, :, sample, :, 0]).all(),
                             f"{name}: sequence {j} of sample {i} says something else than sample {sample} alone")
        bench.expect((kv[a, ..., 0, :size, :] == kv[b, ..., 0, :1, :]).all(), f"{name}: kv_len")
        bench.expect((trials[a]["ids_hash"] == trials[b]["ids_hash"]).all(), f"{name}: another first prompt")
        bench.expect((trials[a]["logits_hash"] == trials[b]["logits_hash"]).all(), f"{name}: other bits")
        bench.expect(np.isfinite(ms[a, :, :, :, :size]).all() and np.isnan(ms[a, :, :, :, size:]).all(), f"{name}: token_ms")
    a, b = arms.index("bert-four"), arms.index("bert")
    bench.expect((trials[a]["logits_hash"] == trials[b]["logits_hash"]).all(), "bert-four: other bits")
    bench.expect((trials[a]["generated"] == 0).all() and (trials[a]["prompt_tokens"] == 4 * trials[b]["prompt_tokens"]).all(), "bert")
    return arms, trials, ms


def real(bench):
    sweep, out = bench.write("real.yaml", REAL), bench.path("real.h5")
    notes = bench.run("validate", sweep).stderr
    bench.expect("no multiple" in notes, f"validate says nothing of the short last group: {notes}")
    plan = json.loads(bench.run("plan", sweep, "--json").stdout)
    one = json.loads(bench.run("plan", sweep, "--json", "--arms", "one").stdout)
    kv = {m["model"]: m["kv"] for m in plan["bytes"]}["llama"], one["bytes"][0]["kv"]
    bench.expect(kv[0] == 4 * kv[1], f"KV of four sequences: {kv}")
    bench.run("run", sweep, "-o", out, ranks=2, timeout=240)
    bench.run("verify", out)
    arms, trials, ms = check_file(bench, out)
    rows = bench.table(out, "latency")
    of = {(r["arm"], r["context"], r["phase"]): r for r in rows}
    for name, size in (("four", 4), ("loop", 5), ("one", 1), ("t5-four", 4)):
        for phase in ("ttft", "tpot"):
            bench.expect(of[name, 8, phase]["n"] == 12 * size, f"{name}: n of {phase} is {of[name, 8, phase]['n']}")
        bench.expect(of[name, 8, "e2e"]["n"] == 12, f"{name}: n of e2e")
        bench.expect(of[name, 8, "throughput"]["unit"] == "tokens/s", f"{name}: throughput")
        want = 1000 * trials[arms.index(name), 0]["generated"].sum() / trials[arms.index(name), 0]["total_ms"].sum()
        bench.expect(abs(of[name, 8, "throughput"]["mean"] / want - 1) < 1e-9, f"{name}: throughput")
    four, loop = ms[arms.index("four"), 0], ms[arms.index("loop"), 0]
    bench.expect(abs(of["four", 8, "ttft"]["mean"] / four[..., :4, 0].mean() - 1) < 1e-5, "mean ttft of a batch")
    gaps = (four[..., :4, 5] - four[..., :4, 0]) / 5
    bench.expect(abs(of["four", 8, "tpot"]["mean"] / gaps.mean() - 1) < 1e-4, "mean tpot of a batch")
    begin = trials[arms.index("loop"), 0]["tokenize_ms"][..., None]
    came = np.concatenate([begin, begin, loop[..., 0:3, 5]], axis=-1)  # clients 0 1 0 1 0
    bench.expect(abs(of["loop", 8, "ttft"]["mean"] / (loop[..., 0] - came).mean() - 1) < 1e-4, "mean ttft of a loop")
    bench.expect(("loop", 8, "decode_tps") not in of and ("four", 8, "decode_tps") in of, "decode_tps")
    kv = {(r["arm"], r["context"]): r for r in bench.table(out, "kv")}
    bench.expect(kv["four", 40]["mean_length"] == 40 and kv["four", 40]["reduction"] == 0, f"kv: {kv['four', 40]}")
    bench.expect(kv["four", 40]["layers"] == kv["one", 40]["layers"], "kv: layers")
    speed = {(r["arm"], r["context"], r["metric"]): r for r in bench.table(out, "speedup")}
    r = speed["four", 8, "e2e"]
    want = trials[arms.index("one"), 0]["total_ms"].sum() / (trials[arms.index("four"), 0]["total_ms"].sum() / 4)
    bench.expect(abs(r["speedup"] / want - 1) < 1e-9, f"speedup a sequence {r['speedup']}, {want}")
    return out


def killed(bench, whole):
    """The same sweep, killed twice in its middle: the rows are those of the run that was left alone, times aside."""
    sweep, out = bench.write("killed.yaml", REAL), bench.path("killed.h5")
    for turn in range(2):
        p = subprocess.Popen([bench.program, "run", sweep, "-o", out, *(["--resume"] if turn else [])], cwd=TOP, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        until = time.time() + 60
        while time.time() < until and p.poll() is None:
            time.sleep(0.02)
            try:
                with h5py.File(out, "r") as f:
                    if (f["commit"]["state"] == 1).sum() >= 20 * (turn + 1):
                        break
            except OSError:
                pass
        p.send_signal(signal.SIGKILL)
        p.wait()
        bench.expect(p.returncode == -9, f"the run ended before it was killed: {p.returncode}")
    bench.run("run", sweep, "-o", out, "--resume", timeout=240)
    bench.run("verify", out)
    check_file(bench, out)
    with h5py.File(out, "r") as a, h5py.File(whole, "r") as b:
        bench.expect((a["tokens"][...] == b["tokens"][...]).all(), "other tokens after two kills")
        bench.expect(len(np.unique(a["commit"]["session"])) > 1, "one session wrote it all")


def planted(bench):
    sweep, out = bench.write("sim.yaml", SIM), bench.path("sim.h5")
    bench.run("run", sweep, "-o", out, ranks=2)
    bench.run("verify", out)
    speed = {(r["arm"], r["metric"]): r for r in bench.table(out, "speedup")}
    one = 200 + 20 * 100
    truth = {("four", "e2e"): one / ((4 * 200 + 20 * 160) / 4), ("four", "prefill"): 1, ("four", "decode"): 2000 / (20 * 160 / 4),
             ("four", "ttft"): 200 / 500, ("alike", "e2e"): 1}
    for key, want in truth.items():
        r = speed[key]
        bench.expect(r["n"] == 800 and r["ci_low"] - 0.01 <= want <= r["ci_high"] + 0.01 and abs(r["speedup"] / want - 1) < 0.02,
                     f"{key}: {r['speedup']} [{r['ci_low']}, {r['ci_high']}], planted {want}")
    latency = {(r["arm"], r["phase"]): r for r in bench.table(out, "latency")}
    bench.expect(abs(latency["four", "tpot"]["mean"] / 0.175 - 1) < 0.03, f"tpot {latency['four', 'tpot']['mean']}")
    bench.expect(latency["four", "tpot"]["n"] == 3200 and latency["four", "tpot"]["p99"], "tpot a sequence")
    bench.expect(abs(latency["loop", "throughput"]["mean"] / latency["one", "throughput"]["mean"] - 1) > 0.5, "a loop of four")
    bench.expect("synthetic" in latency["loop", "ttft"], "label")


def bad(bench):
    def said(old, new, text, code=2, base=SIM):
        done = bench.run("validate", bench.write("bad.yaml", base.replace(old, new)), code=code)
        bench.expect(text in done.stderr, f"{new}: {done.stderr}")
    said("batch: 4}", "batch: 0}", "arms.four.batch is \"0\", expected a whole number from 1 to 1024")
    said("batch: 4}", "batch: 4, concurrency: 2}", "batch is 4 beside concurrency 2, expected one of them")
    said("concurrency: 4, requests: 8", "requests: 8", "requests is given without concurrency")
    said("requests: 8", "requests: 3", "requests is 3, expected at least concurrency, 4")
    said("batch: 4}", "batch: 4, acceptance: 0.5}", "expected one sequence")
    said("batch: 4}", "batch: 300}", "at most 256 sequences", base=REAL)
    huge = REAL.replace("contexts: [8, 40]", "contexts: [1000]").replace("batch: 4}", "batch: 256}").replace("tokens: 6", "tokens: 500")
    config = json.load(open(os.path.join(TOP, "examples/models/small-llama/config.json")))
    config.update(num_hidden_layers=64, max_position_embeddings=65536, vocab_size=64)
    os.makedirs(bench.path("big"), exist_ok=True)
    bench.write("big/config.json", json.dumps(config))
    huge = (REAL.split("arms:")[0].replace("path: examples/models/small-llama", f"weights: random:1, path: {bench.path('big')}")
            .replace("{kind: text, path: examples/data/heldout.txt}", "{kind: synthetic}") +
            "arms: {one: {model: llama}, many: {model: llama, batch: 256}}\nbaseline: one\n"
            "grid: {contexts: [60000], samples: 1}\ngenerate: {tokens: 2}\n")
    done = bench.run("plan", bench.write("huge.yaml", huge), "--json")
    bench.expect("its trials will fail (reason memory)" in done.stderr and "arms.many" in done.stderr, f"plan says {done.stderr}")
    bench.expect(not json.loads(done.stdout)["bytes"][0]["fits"], "plan says that it fits")
    lengths(bench, config)


def lengths(bench, config):
    """Of lengths that a machine has no room for the plan tells bytes; their rows fail with that reason, the others are measured."""
    config.update(num_hidden_layers=24, max_position_embeddings=20000000)
    os.makedirs(bench.path("long"), exist_ok=True)
    bench.write("long/config.json", json.dumps(config))
    sweep = bench.write("long.yaml", (
        f"name: long\nseed: 1\ndata: {{kind: synthetic}}\nmodels: {{m: {{path: {bench.path('long')}, weights: random:1, dtype: f32}}}}\n"
        "arms: {base: {model: m}, half: {model: m, prune: {method: random, layers: [0], keep: 0.5}}}\nbaseline: base\n"
        "grid: {contexts: [64, 16777216], samples: 1}\ngenerate: {tokens: 2}\nmeasure: {warmup: 0, quality: 0}\n"))
    done = bench.run("plan", sweep, "--json")
    plan = json.loads(done.stdout)["lengths"]
    bench.expect("arms.base, context 16777216 needs 19" in done.stderr and "context 64" not in done.stderr, f"plan says {done.stderr}")
    bench.expect([c["fits"] for c in plan] == [True, False] and plan[1]["bytes"] > 16777216 * 24 * 2 * 2 * 32 * 4, plan)
    out = bench.path("long.h5")
    bench.run("run", sweep, "-o", out, code=3)
    with h5py.File(out) as f:
        reasons = [r.decode() for r in f["axes/reason"][...]]
        state, reason = f["commit"]["state"][:, :, 0, 0], f["trials"]["reason"][:, :, 0, 0]
        bench.expect(state.tolist() == [[1, 2], [1, 2]] and all(reasons[r] == "memory" for r in reason[:, 1]), (state, reason))
        bench.expect(b"context 16777216 needs" in bytes(f["failures"][0]["detail"]), f["failures"][0])


def main():
    bench = Bench(sys.argv[1])
    bad(bench)
    planted(bench)
    killed(bench, real(bench))
    print(f"ok: {bench.checks} checks")


main()
