"""planted_test.py PACELINE: effects planted with the simulated engine come out of the whole chain (sweep, three ranks, file, report):
0.98 FASTER, 1.0 not called, 1.02 SLOWER, at the sample count that docs/METRICS.md derives."""
import re
import sys

import os

from harness import TOP, Bench

SWEEP = """name: planted
seed: {seed}
data: {{kind: synthetic}}
models:
  sim: {{engine: sim, prefill_us_per_token: 20, decode_us: 300, noise: 0.05, sample_effect: 0.2, device_effect: 0.03,
        drift_per_hour: 0.1, virtual: true}}
arms:
  base: {{model: sim}}
  faster: {{model: sim, scale: 0.98}}
  same: {{model: sim, scale: 1.0}}
  slower: {{model: sim, scale: 1.02}}
baseline: base
grid: {{contexts: [256], samples: {samples}, repeats: 1}}
generate: {{tokens: 8}}
measure: {{warmup: 0}}
"""


def derived_samples():
    """The count stands in the document, so that the document is what is tested."""
    with open(os.path.join(TOP, "docs", "METRICS.md")) as f:
        found = re.search(r"planted 2 % effect[^\n]*?\bn = (\d+)", f.read())
    assert found, "docs/METRICS.md does not state `planted 2 % effect … n = N`"
    return int(found.group(1))


def main():
    bench = Bench(sys.argv[1])
    samples = derived_samples()
    for seed in (1, 2, 3):
        sweep, out = bench.write(f"planted{seed}.yaml", SWEEP.format(seed=seed, samples=samples)), bench.path(f"planted{seed}.h5")
        bench.run("run", sweep, "-o", out, ranks=3)
        rows = {r["arm"]: r for r in bench.table(out, "speedup") if r["metric"] == "e2e"}
        for arm, truth, verdict in (("faster", 1 / 0.98, "FASTER"), ("slower", 1 / 1.02, "SLOWER")):
            row = rows[arm]
            bench.expect(row["verdict"].startswith(verdict), f"seed {seed}: {arm}: {row}")
            bench.expect(abs(row["speedup"] - truth) < 0.01, f"seed {seed}: {arm}: {row}")
        bench.expect(rows["same"]["verdict"].split()[0] in ("SAME", "AMBIGUOUS"), f"seed {seed}: same: {rows['same']}")
        print(f"seed {seed}, n = {samples}: " + ", ".join(f"{a} {r['speedup']:.4f} {r['verdict']}" for a, r in rows.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
