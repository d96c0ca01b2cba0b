"""energy_test.py PACELINE: energy bursts after the grid, by counters in a folder made like powercap's, which turn round on the way; a resume
does what is missing; and where there are no counters the report says so."""
import os
import sys
import threading
import time

import h5py
import numpy as np

from harness import Bench

SWEEP = """name: energy
seed: 1
data: {kind: synthetic}
models:
  sim: {engine: sim, prefill_us_per_token: 10, decode_us: 1000}
arms:
  one: {model: sim}
  four: {model: sim, batch: 4}
baseline: one
grid: {contexts: [16, 32], samples: 4, repeats: 1}
generate: {tokens: 5}
measure: {warmup: 1, energy: true}
"""
RANGE = 3_000_000  # µJ: at 4 W it turns round every 0.75 s, so that bursts of 0.6 s see turns
WATTS = {"intel-rapl:0": 4.0, "intel-rapl:0:0": 1.0, "intel-rapl:0:1": 0.5, "intel-rapl:1": 2.0}
NAMES = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1": "package-1"}


def put(path, text):
    with open(path + ".new", "w") as f:
        f.write(text + "\n")
    os.replace(path + ".new", path)


class Powercap:
    """Zones whose counters run with the clock."""

    def __init__(self, root):
        self.root, self.over = root, threading.Event()
        for zone, name in NAMES.items():
            os.makedirs(os.path.join(root, zone))
            put(os.path.join(root, zone, "name"), name)
            put(os.path.join(root, zone, "max_energy_range_uj"), str(RANGE))
            put(os.path.join(root, zone, "energy_uj"), "0")
        os.makedirs(os.path.join(root, "intel-rapl"))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        begun = time.monotonic()
        while not self.over.wait(0.002) and os.path.isdir(self.root):
            for zone, watts in WATTS.items():
                put(os.path.join(self.root, zone, "energy_uj"), str(int((time.monotonic() - begun) * watts * 1e6) % RANGE))


def measured(bench):
    root = bench.path("powercap")
    power = Powercap(root)
    env = {"PACELINE_POWERCAP": root, "PACELINE_BURST_S": "0.6"}
    sweep, out = bench.write("s.yaml", SWEEP), bench.path("a.h5")
    bench.run("run", sweep, "-o", out, ranks=3, env=env)
    bench.run("verify", out)
    rows = bench.table(out, "energy")
    bench.expect([(r["arm"], r["context"]) for r in rows] == [("one", 16), ("four", 16), ("one", 32), ("four", 32)], f"{rows}")
    want = WATTS["intel-rapl:0"] + WATTS["intel-rapl:0:1"] + WATTS["intel-rapl:1"]  # a core is a part of its package
    for r in rows:
        bench.expect(abs(r["watts"] / want - 1) < 0.05, f"{r['watts']} W, {want} were there")
        bench.expect(r["seconds"] >= 0.6 and r["readings"] >= 2 and r["synthetic"] is True, f"{r}")
        bench.expect(r["samples"] == r["trials"] * (4 if r["arm"] == "four" else 1) and r["trials"] > 1, f"{r}")
        bench.expect(abs(r["energy_per_sample"] * r["samples"] / r["joules"] - 1) < 1e-9, f"{r}")
        bench.expect(abs(r["energy_per_token"] * 5 / r["energy_per_sample"] - 1) < 1e-9, f"{r}")
        bench.expect(r["source"].endswith("package-0 dram package-1") or "package-0" in r["source"], f"{r['source']}")
    bench.expect(not [w for w in bench.table(out, "warnings") if w["kind"] == "energy"], "a warning of what was measured")
    # a resume of what is whole does no more; one burst that is missing is made good
    with h5py.File(out, "r+") as f:
        used = f["energy"]["used"]
        bench.expect(used.sum() == 4, "four bursts")
        slot = np.flatnonzero(used)[-1]
        e = f["energy"][slot]
        gone = (e["arm"], e["context"])
        e["used"] = 0
        f["energy"][slot] = e
    bench.run("run", sweep, "-o", out, "--resume", ranks=2, env=env)
    with h5py.File(out, "r") as f:
        e = f["energy"][...]
        e = e[e["used"] == 1]
        bench.expect(len(e) == 4 and sorted(e["session"]) == [0, 0, 0, 1], f"sessions {e['session']}")
        bench.expect((e[e["session"] == 1]["arm"][0], e[e["session"] == 1]["context"][0]) == gone, "another burst was done again")
    power.over.set()


def absent(bench):
    sweep, out = bench.write("b.yaml", SWEEP), bench.path("b.h5")
    said = bench.run("run", sweep, "-o", out, env={"PACELINE_POWERCAP": bench.path("nowhere")})
    bench.expect("energy is not measured" in said.stderr, f"run says {said.stderr}")
    rows = bench.table(out, "energy")
    bench.expect(len(rows) == 4 and all(r["joules"] is None and r["energy_per_sample"] is None for r in rows), f"{rows}")
    warnings = [w for w in bench.table(out, "warnings") if w["kind"] == "energy"]
    bench.expect(len(warnings) == 4 and "no energy counter" in warnings[0]["text"], f"{warnings}")
    with open(out + ".report/tables/energy.md") as f:
        bench.expect("not measured" in f.read(), "the table says nothing")
    # counters that lie, or are not for us
    root = bench.path("lies")
    os.makedirs(root + "/intel-rapl:0")
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "1000"), ("energy_uj", "many")):
        put(os.path.join(root, "intel-rapl:0", name), text)
    out = bench.path("c.h5")
    said = bench.run("run", sweep, "-o", out, env={"PACELINE_POWERCAP": root})
    bench.expect('energy_uj holds "many", expected µJ' in said.stderr, f"run says {said.stderr}")
    out = bench.path("d.h5")
    bench.run("run", bench.write("d.yaml", SWEEP.replace(", energy: true", "")), "-o", out)
    bench.expect(bench.table(out, "energy") == [], "nobody asked for it")


def main():
    bench = Bench(sys.argv[1])
    absent(bench)
    measured(bench)
    print(f"ok: {bench.checks} checks")


main()
