"""memory_test.py PACELINE RUNNER SOURCE: a runner on the CPU that may have only so much memory. What does not fit at the load costs every row
(reason oom, exit code 4); what does not fit in a trial costs that trial's row, and the next one goes on with a runner that starts clean."""
import json
import os
import sys

import h5py

from harness import Bench

RUNNER, SOURCE = (os.path.abspath(p) for p in sys.argv[2:4])
sys.path.insert(0, os.path.join(SOURCE, "tests", "runner"))
from lib import Runner, load, need  # noqa: E402

MODEL = need(os.path.join(SOURCE, "examples/models/small-llama"))
SWEEP = """data: {data}
models: {{m: {model}}}
arms: {{a: {{model: m}}}}
grid: {{contexts: [24], samples: 24}}
generate: {{tokens: 2}}
measure: {{warmup: 0}}
"""
MIB = 1 << 20


def most_mapped(r):
    with open(f"/proc/{r.p.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmPeak"))


def needs(text):
    """Bytes of address space at most: of a runner that has loaded nothing, and of one that has made a trial."""
    r = Runner(RUNNER, "serve")
    empty = most_mapped(r)
    assert r.call("load", **load({"m": {"path": MODEL, "threads": 1}}, {"a": {"model": "m"}}, tokens=2, max_context=24))["type"] == "loaded"
    sample = {"kind": "text", "index": 0, "path": text, "offset": 0}
    assert r.call("trial", arm="a", context=24, sample=sample, repeat=0, attempt=0, timed=True)["type"] == "result"
    whole = most_mapped(r)
    assert r.end() == 0
    return empty, whole


def limited(bench, mapped):
    """The runner with that much address space."""
    path = bench.write("limited.sh", f"#!/bin/sh\nulimit -v {mapped // 1024}\nexec '{RUNNER}' \"$@\"\n")
    os.chmod(path, 0o755)
    return {"PACELINE_RUNNER": path}


def rows(out):
    with h5py.File(out, "r") as f:
        names, log, loads = [x.decode() for x in f["/axes/reason"][...]], f["/failures"][...], f["/loads"][...]
        state = f["/commit"]["state"].reshape(-1)
        reasons = [names[i] for i in f["/trials"]["reason"].reshape(-1)]
    return state, reasons, log[log["used"] == 1], loads[loads["used"] == 1]


def main():
    bench = Bench(sys.argv[1])
    os.mkdir(bench.path("texts"))
    with open(need(os.path.join(SOURCE, "examples/data/heldout.txt")), "rb") as f:
        words = f.read()
    with open(bench.path("texts/little.txt"), "wb") as f:
        f.write(words * (48 * MIB // len(words)))
    with open(bench.path("texts/much.txt"), "wb") as f:  # nobody gets to read it: it does not fit
        f.truncate(256 * MIB)
    sweep = bench.write("memory.yaml", SWEEP.format(data=f"{{kind: text, path: {bench.path('texts')}}}", model=f"{{path: {MODEL}, threads: 1}}"))
    empty, whole = needs(bench.path("texts/little.txt"))

    out = bench.path("trial.h5")
    done = bench.run("run", sweep, "-o", out, "--retries", "0", code=3, env=limited(bench, whole + 100 * MIB))
    state, reasons, log, loads = rows(out)
    bench.expect(0 < (state == 1).sum() < 24 and ((state == 1) | (state == 2)).all(), f"some rows done, the others failed: {state}\n{done.stderr}")
    bench.expect({r for r, s in zip(reasons, state) if s == 2} == {"oom"}, f"reasons {set(reasons)}")
    bench.expect(all(b"much.txt" in x["detail"] and b"Cannot allocate memory" in x["detail"] for x in log), f"{log['detail']}")
    bench.expect(loads["ok"].all() and len(loads) > 1, "a fresh runner after each")
    made = (state == 1).sum()

    out = bench.path("load.h5")
    with open(os.path.join(MODEL, "config.json"), encoding="utf-8") as f:
        large = dict(json.load(f), hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8, head_dim=64)
    os.mkdir(bench.path("large"))
    bench.write("large/config.json", json.dumps(large))
    sweep = bench.write("large.yaml", SWEEP.format(data="{kind: synthetic}", model=f"{{path: {bench.path('large')}, weights: \"random:1\", dtype: f32, threads: 1}}"))
    done = bench.run("run", sweep, "-o", out, "--retries", "0", code=4, env=limited(bench, empty + 40 * MIB))
    state, reasons, log, loads = rows(out)
    bench.expect((state == 2).all() and set(reasons) == {"oom"}, f"{set(reasons)}\n{done.stderr}")
    bench.expect(not loads["ok"].any() and all(b"loading m: oom" in x["detail"] for x in log), f"{log['detail']}")
    print(f"out of memory: {24 - made} of 24 trials, then every load of 100 MB of weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
