"""examples_test.py PACELINE: the examples' sweeps are valid, and a small part of the scaling one runs to the table it is for."""
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import h5py
except ImportError:
    print(f"SKIP: {sys.executable} has no h5py")
    sys.exit(77)

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ARCHS = {"gpt2": "decoder", "t5": "encdec", "bert": "encoder"}
SMALL = "examples/models/small-llama"
BROUGHT = {"smollm2": ["--set", f"models.f32.path={SMALL}", "--set", "models.f16.path=examples/models/tiny-llama", "--contexts", "128,512"],
           "retrieval": ["--set", f"models.m.path={SMALL}", "--set", "arms.random{keep:nodot}.prune={method: random, layers: [1]}",
                         "--set", "arms.attention{keep:nodot}.prune={method: lazyllm, layers: [1]}",
                         "--set", f"arms.scorers{{keep:nodot}}.prune={{method: sdtp, layers: [1], weights: {SMALL}-sdtp.safetensors}}"],
           "peers": ["--arms", "ours,ours-q8", "--set", "baseline=ours", "--set", "arms.ours-q8.baseline=ours"]}  # models that are brought, not kept; engines that are installed elsewhere


def check_limits(paceline, file, out):
    """limit_pct is what h5py and numpy make of the ceilings, the work and the times in the file."""
    with h5py.File(file) as f:
        c = f["ceilings"][...]
        c = c[c["used"] == 1]
        assert len(c) == 1 and c["read_bytes_per_s"][0] > 1e8 and c["flop_per_s"][0] > 1e8 and c["kind"][0].startswith(b"f32 "), c
        work = json.loads(f["sweep/provenance"][()])["work"]
        trials = f["trials"][...]
        contexts = f["axes/context"][:].tolist()
    with open(os.path.join(out, "tables", "latency.csv"), encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    for r in rows:
        arm, k = list(ARCHS).index(r["arm"]), contexts.index(int(r["context"]))
        w, phase, t = work[r["arm"]][k], r["phase"], trials[arm, k].ravel()
        want = None
        if phase == ("prefill" if r["arm"] == "gpt2" else "encode"):
            want = 100 * w["prefill_flop"] * t.size / (t[phase + "_ms"].sum() / 1e3 * c["flop_per_s"][0])
        elif phase in ("decode", "tpot", "decode_tps") and r["arm"] == "gpt2":
            want = 100 * w["decode_bytes"] * t.size / (t["decode_ms"].sum() / 1e3 * c["read_bytes_per_s"][0])
        if want is None:
            assert r["limit_pct"] == "", r
        else:
            assert abs(float(r["limit_pct"]) / want - 1) < 1e-9 and want > 0, (r, want)
    check_limit_told(paceline, file, out, contexts)
    # gpt2, 128: 3 blocks of 128 wide with 512 in the middle, f32: 49 steps over 4·(3·(4·128² + 2·128·512) + 128·1024) bytes and norms, biases
    least = 49 * (4 * (3 * (4 * 128**2 + 2 * 128 * 512) + 128 * 1024) + sum(2 * 3 * 128 * 4 * (128 + i) for i in range(1, 50)) / 49)
    assert least < work["gpt2"][0]["decode_bytes"] < 1.02 * least, (least, work["gpt2"][0])


def check_limit_told(paceline, file, out, contexts):
    """Weights too large for any cache, read faster than memory was said to be: the report warns, and of these small ones it does not."""
    told = lambda folder: [(r["arm"], r["context"]) for r in json.load(open(os.path.join(folder, "tables", "warnings.json"), encoding="utf-8"))["rows"] if r["kind"] == "limit"]
    assert told(out) == [], told(out)
    large = shutil.copy(file, file + ".large.h5")
    with h5py.File(large, "r+") as f:
        p = json.loads(f["sweep/provenance"][()])
        p["work"]["gpt2"][0]["decode_bytes"] *= 1e5
        del f["sweep/provenance"]
        text = json.dumps(p, ensure_ascii=False).encode()
        f.create_dataset("sweep/provenance", data=text, dtype=h5py.string_dtype("utf-8", len(text) + 1))
    subprocess.run([paceline, "report", large, "-o", out + ".large", "--tables", "warnings", "--format", "json"], check=True, timeout=100, stdout=subprocess.DEVNULL)
    assert told(out + ".large") == [("gpt2", contexts[0])]


def retrieval(paceline):
    """Numbers hidden in a text: every arm's answers are scored, the pruned ones' beside their baseline's. What the small model says of them is not asked here."""
    with tempfile.TemporaryDirectory(prefix="paceline-examples-") as top:
        file, out = os.path.join(top, "a.h5"), os.path.join(top, "report")
        subprocess.run([paceline, "run", "examples/sweeps/retrieval.yaml", "-o", file, *BROUGHT["retrieval"], "--samples", "2", "--contexts", "192"],
                       cwd=SOURCE, check=True, timeout=100)
        subprocess.run([paceline, "report", file, "-o", out], check=True, timeout=100, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "tables", "quality.json"), encoding="utf-8") as f:
            rows = [r for r in json.load(f)["rows"] if r["metric"] == "accuracy"]
        with open(os.path.join(out, "tables", "table2.json"), encoding="utf-8") as f:
            table2 = json.load(f)["rows"]
    assert len(rows) == 11 and all(r["n"] == 2 and r["value"] in (0, 0.5, 1) and r["ci_low"] <= r["value"] <= r["ci_high"] for r in rows), rows
    assert len(table2) == 11 and all(r["quality_metric"] == "accuracy" and r["quality"] is not None for r in table2), table2
    kept = {r["arm"]: r["kv_kept"] for r in rows}
    assert kept["baseline"] == 1 and abs(kept["snapkv05"] - 0.5) < 0.01 and kept["random05"] < 1, kept


def main():
    paceline = os.path.abspath(sys.argv[1])
    names = sorted(n[:-5] for n in os.listdir(os.path.join(SOURCE, "examples/sweeps")) if n.endswith(".yaml"))
    assert set(BROUGHT) < set(names) and len(names) > 10, names
    for name in names:
        out = subprocess.run([paceline, "validate", f"examples/sweeps/{name}.yaml", *BROUGHT.get(name, [])], cwd=SOURCE, capture_output=True, text=True)
        assert out.returncode == 0 and out.stdout.endswith("\nok\n"), (name, out)
        print(name, "ok")
    retrieval(paceline)
    if not shutil.which("mpirun"):
        print("no mpirun: nothing was run")
        return 77
    alone = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with tempfile.TemporaryDirectory(prefix="paceline-examples-") as top:
        file, out = os.path.join(top, "a.h5"), os.path.join(top, "report")
        subprocess.run(["mpirun", "--oversubscribe", "-n", "2", paceline, "run", "examples/sweeps/context-scaling.yaml", "-o", file,
                        "--samples", "2", "--contexts", "128,256,4047", "--set", "grid.repeats=1", "--set", "measure.warmup=0"], cwd=SOURCE, env=alone, check=True, timeout=200)
        subprocess.run([paceline, "report", file, "-o", out], check=True, timeout=100, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "tables", "context_scaling.csv"), encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
        want = [f"{a}-{c}" for a in ARCHS for c in (128, 256, 4047)]
        assert [r["exp_id"] for r in rows] == want, rows
        for r in rows:
            arm, _, context = r["exp_id"].partition("-")
            tokens = int(context) if arm == "bert" else 50
            assert r["model"].endswith("small-" + arm) and r["arch"] == ARCHS[arm] and r["synthetic"] == "false", r
            assert abs(float(r["throughput"]) * float(r["latency_ms"]) / tokens - 1e3) < 1e-6 and float(r["max_memory_gb"]) > 0.001, r
        check_limits(paceline, file, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
