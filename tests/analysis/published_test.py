"""published_test.py SCENARIO TOP: DIR/published has the shapes of the published files, key for key and type for type (where those
files are beside the repository), and the numbers are those of the results file, worked out again by h5py and numpy."""
import csv
import glob
import json
import os
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
except ImportError:
    print(f"SKIP: {sys.executable} has no h5py or numpy")
    sys.exit(77)

SCENARIO, TOP = sys.argv[1:3]
E3 = os.path.join(TOP, "..", "shared", "data", "published", "e3bench")
ARCH = {"gpt2": "decoder", "t5": "encdec", "bert": "encoder"}
GIB = 1 << 30


def make(top, name):
    file, out = os.path.join(top, name + ".h5"), os.path.join(top, name)
    subprocess.run([SCENARIO, name, file, out], check=True)
    return file, os.path.join(out, "published")


def shape(v):
    """Keys in their order and kinds of values; null stands for what was not measured."""
    if isinstance(v, dict):
        return {k: shape(x) for k, x in v.items()}
    return "list of " + str(shape(v[0])) if isinstance(v, list) else type(v).__name__


def same_shape(ours, theirs, path=""):
    if ours == "NoneType" and not isinstance(theirs, dict):
        return
    if isinstance(theirs, dict):
        if path == "/metrics":  # by context length: any of them has the shape of any other
            theirs = {k: next(iter(theirs.values())) for k in ours}
        assert isinstance(ours, dict) and list(ours) == list(theirs), (path, list(ours), list(theirs))
        for k in theirs:
            same_shape(ours[k], theirs[k], f"{path}/{k}")
    else:
        assert ours == theirs, (path, ours, theirs)


def near(a, b):
    assert abs(a - b) <= 1e-9 * max(abs(a), abs(b)), (a, b)


def check_numbers(d, t, arm, c):
    m = d["metrics"][str(c)]
    ms = t["encode_ms" if arm == "bert" else "total_ms"]
    mean, sd = ("forward_pass_latency_ms", "latency_std_ms") if arm == "bert" else ("e2e_latency_ms", "e2e_std_ms")
    near(m[mean], ms.mean())
    near(m[sd], ms.std(ddof=1))
    assert m["total_runs"] == ms.size
    near(m["max_memory_gb"], t["device_peak_bytes"].max() / GIB)
    near(m["current_memory_gb"], (t["weights_bytes"] + t["kv_bytes"] + t["workspace_bytes"]).mean() / GIB)
    if arm != "bert":
        near(m["ttft_ms"], t["ttft_ms"].mean())
        near(m["tbt_ms"], ((t["total_ms"] - t["ttft_ms"]) / (t["generated"] - 1)).mean())
        near(m["throughput_tokens_per_sec"], 1e3 * t["generated"].sum() / t["total_ms"].sum())
        near(m["throughput_std"], (1e3 * t["generated"] / t["total_ms"]).std(ddof=1))
    if arm == "t5":
        near(m["encoder_latency_ms"], t["encode_ms"].mean())
    return ms.mean(), 1e3 * (c if arm == "bert" else t["generated"].mean()) / ms.mean(), t["device_peak_bytes"].max() / GIB


def check_scaling(top):
    file, out = make(top, "scaling")
    theirs = {}
    for path in sorted(glob.glob(os.path.join(E3, "*.json"))):
        with open(path, encoding="utf-8") as f:
            d = json.load(f)
        theirs[d["config"]["model"]["arch"]] = shape(d)
    with h5py.File(file) as f:
        trials, contexts = f["trials"][...], f["axes/context"][:].tolist()
    with open(os.path.join(out, "inference_results.csv"), encoding="utf-8", newline="") as f:
        assert f.readline() == "exp_id,model,arch,context_length,latency_ms,throughput,max_memory_gb\n"
        rows = list(csv.reader(f))
    assert sorted(os.listdir(out)) == sorted([f"e3_{a}.json" for a in ARCH] + ["inference_results.csv"])
    for i, arm in enumerate(ARCH):
        with open(os.path.join(out, f"e3_{arm}.json"), encoding="utf-8") as f:
            text = f.read()
        d = json.loads(text)
        assert text == json.dumps(d, indent=2), arm  # byte for byte what Python would write
        assert "synthetic" not in d and d["config"]["model"]["arch"] == ARCH[arm]
        assert d["config"]["bench"]["context_lengths"] == contexts and list(d["metrics"]) == [str(c) for c in contexts]
        if theirs:
            same_shape(shape(d), theirs[ARCH[arm]])
        for k, c in enumerate(contexts):
            latency, rate, gib = check_numbers(d, trials[i, k].ravel(), arm, c)
            row = rows[i * len(contexts) + k]
            assert row[:4] == [d["exp_id"], arm, ARCH[arm], str(c)], row
            for got, want in zip(row[4:], (latency, rate, gib)):
                near(float(got), want)
        begin = trials[i]["start_unix_ns"]
        near(d["timing"]["start_time"], begin.min() / 1e9)
        near(d["timestamp"], d["timing"]["end_time"])
    return bool(theirs)


def main():
    with tempfile.TemporaryDirectory(prefix="paceline-published-") as top:
        compared = check_scaling(top)
        _, out = make(top, "hostile")  # names that no file should have; simulated rows
        names = sorted(os.listdir(out))
        assert len(names) == 4 and all(n.isascii() and "/" not in n for n in names), names
        for n in names:
            with open(os.path.join(out, n), encoding="utf-8") as f:
                text = f.read()
            assert json.loads(text)["synthetic"] if n.endswith("json") else text.count("(synthetic)") == text.count("\n") - 1, n
        own = os.path.join(out, "notes.txt")  # a later report takes its own files away, and no others
        open(own, "w").close()
        subprocess.run([SCENARIO, "empty", os.path.join(top, "e.h5"), os.path.dirname(out)], check=True)
        assert os.listdir(out) == ["notes.txt"], os.listdir(out)
        _, out = make(top, "foreign")
        with open(os.path.join(out, "e3_arm0.json"), encoding="utf-8") as f:
            d = json.load(f)
        assert d["config"]["model"]["arch"] is None and d["metrics"]["64"]["max_memory_gb"] is None
    if not compared:
        print("SKIP: no published files beside the repository: the shapes were not compared")
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
