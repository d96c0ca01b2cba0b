"""pruning_test.py PACELINE: a sweep that prunes, from the rows to what users of the published tool read: published/table2.md byte for byte, sdtp_results.json
as Python would write it and key for key as the published ones, the staircase in both, the terminal's line, quality beside every speed or that there is none."""
import json
import os
import re
import sys

import h5py
import numpy as np

from harness import TOP, Bench

THEIRS = os.path.join(TOP, "..", "shared", "data", "published", "sdtp", "latency_results_keep09.json")
SWEEP = ["examples/sweeps/sdtp-table2.yaml", "--contexts", "128,200", "--samples", "3", "--set", "generate.tokens=5", "--set", "measure.warmup=1"]
KEPT = {"keep09": 0.9, "keep08": 0.8, "keep07": 0.7}
HEAD = ("| Length | Method | Prefill (s) | Decode (s) | Total (s) | Prefill Speedup (×) | End2End Speedup (×) | KV Reduction (%) |\n"
        "|---|---|---|---|---|---|---|---|\n")


def stair(n, keep, layers=3):
    """The rows of each layer, by the keep rule; stages stand after blocks 0 and 1."""
    out = [n]
    for _ in range(layers - 1):
        fixed = min(n, 4 + max(16, int(0.1 * n)))
        n = max(fixed, min(n - 1, max(1, int(keep * n), fixed)))
        out.append(n)
    return out


def shape(v, path=""):
    """Keys in order, and the types of what is not null."""
    if isinstance(v, dict):
        return [s for k, x in v.items() for s in shape(x, path + "/" + (k if not k.isdigit() else "N"))]
    return [(path, type(v[0]).__name__ if isinstance(v, list) else type(v).__name__)]


def same_shape(ours, theirs):
    """Hardware is null in ours; the lengths differ in number."""
    ours, theirs = dict(shape(ours)), dict(shape(theirs))
    assert list(ours) == list(theirs), (list(ours), list(theirs))
    for k, kind in ours.items():
        assert kind in (theirs[k], "NoneType") and (kind != "NoneType" or "/hardware/" in k), (k, kind, theirs[k])


def published(bench, file, out):
    with h5py.File(file) as f:
        arms, contexts = list(f["axes/arm"].asstr()), f["axes/context"][:].tolist()
        t, kv = f["trials"][...], f["kv_len"][:, :, :, :, 0, 0, :].astype(float)
    seconds = {a: [[t[i, c][k].ravel() for k in ("prefill_ms", "total_ms")] + [(t[i, c]["total_ms"] - t[i, c]["ttft_ms"]).ravel()]
                   for c in range(len(contexts))] for i, a in enumerate(arms)}
    text = HEAD
    for c, n in enumerate(contexts):
        base = [v.mean() / 1e3 for v in seconds["baseline"][c]]
        for i, a in enumerate(arms):
            p, e, d = (v.mean() / 1e3 for v in seconds[a][c])
            cut = 100 * (1 - kv[i, c].mean(axis=(0, 1)).sum() / (3 * n))
            text += f"| {n} | {a} | {p:.4f} | {d:.4f} | {e:.4f} | {base[0] / p:.2f} | {base[1] / e:.2f} | {cut:.1f} |\n"
    with open(os.path.join(out, "published", "table2.md"), encoding="utf-8") as f:
        said = f.read()
    bench.expect(said == text, f"table2.md is\n{said}expected\n{text}")
    for a, keep in KEPT.items():
        with open(os.path.join(out, "published", f"sdtp_results_{a}.json"), encoding="utf-8") as f:
            raw = f.read()
        j = json.loads(raw)
        bench.expect(raw == json.dumps(j, indent=2), f"{a}: other bytes than json.dump writes")
        c = j["metadata"]["pruning_config"]
        bench.expect(c["prune_layers"] == [0, 1] and c["keep_ratio"] == keep and abs(c["cumulative_keep_ratio"] - keep**2) < 1e-12, c)
        for n in contexts:
            r, want = j["results"][str(n)], stair(n, keep)
            bench.expect(r["sdtp"]["kv_lens_after_prefill"] == want and r["baseline"]["kv_lens_after_prefill"] == [n] * 3, r)
            bench.expect((r["sdtp"]["tokens_kept"], r["sdtp"]["tokens_pruned"], r["sdtp"]["pruning_steps"]) == (want[-1], n - want[-1], 2), r["sdtp"])
            bench.expect(abs(r["kv_reduction"] - (1 - sum(want) / (3 * n))) < 1e-12, r["kv_reduction"])
        bench.expect(j["summary"]["tested_lengths"] == contexts, j["summary"])
        if os.path.exists(THEIRS):
            with open(THEIRS, encoding="utf-8") as f:
                same_shape(j, json.load(f))
        if a == "keep09":
            with open(os.path.join(out, "published", "sdtp_results.json"), encoding="utf-8") as f:
                bench.expect(f.read() == raw, "sdtp_results.json is the first configuration's")


def tables(bench, out, said):
    lines = re.findall(r"^KV Cache: baseline=(\d+), sdtp=(\d+), reduction=([\d.]+)%", said, re.M)
    want = [(str(n), f"{np.mean(stair(n, k)):.0f}", f"{100 * (1 - np.mean(stair(n, k)) / n):.1f}") for n in (128, 200) for k in KEPT.values()]
    bench.expect(lines == want, f"the terminal says {lines}, expected {want}")

    def rows(name):
        with open(os.path.join(out, "tables", name + ".json"), encoding="utf-8") as f:
            return json.load(f)["rows"]
    kv = {(r["arm"], r["context"]): r for r in rows("kv")}
    for (a, n), r in kv.items():
        want = stair(n, KEPT[a]) if a in KEPT else [n] * 3
        bench.expect(r["lengths"] == want and abs(r["reduction"] - (1 - sum(want) / (3 * n))) < 1e-9, r)
    bench.expect(len(kv) == 8, list(kv))
    return rows("table2") + [r for r in rows("speedup") if r["arm"] != "baseline"]


def main():
    bench = Bench(sys.argv[1])
    file, out = bench.path("a.h5"), bench.path("report")
    bench.run("run", *SWEEP, "-o", file)
    said = bench.run("report", file, "-o", out).stdout
    published(bench, file, out)
    for r in tables(bench, out, said):
        bench.expect(r["quality_metric"] == "perplexity" and r["quality"] > 1 and r["quality_baseline"] > 1, r)
    for name in ("speedup_length", "quality_kv"):
        with open(os.path.join(out, "figures", name + ".svg"), encoding="utf-8") as f:
            bench.expect("keep07" in f.read() or name == "quality_kv", name)
    file, out = bench.path("b.h5"), bench.path("bare")  # no text scored: the first token's agreement stands beside, and of the baseline nothing
    bench.run("run", *SWEEP, "--arms", "keep07", "--samples", "2", "--set", "measure={mode: prefill, warmup: 0, quality: 0}", "-o", file)
    bench.run("report", file, "-o", out)
    with open(os.path.join(out, "tables", "table2.json"), encoding="utf-8") as f:
        base, arm = (r for r in json.load(f)["rows"] if r["Length"] == 128)
    bench.expect(arm["quality_metric"] == "agreement" and base["quality_metric"] is None and base["Decode (s)"] is None, (base, arm))
    with open(os.path.join(out, "tables", "table2.md"), encoding="utf-8") as f:
        bench.expect("not measured" in f.read(), "the baseline's quality was not measured")
    print(f"{bench.checks} checks")


main()
