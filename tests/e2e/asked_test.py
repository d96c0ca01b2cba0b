"""asked_test.py PACELINE: texts with a question from the sweep to /quality; a broken LongBench file is told by its line."""
import json
import sys

import h5py
import numpy as np

from harness import Bench

SWEEP = """name: asked
seed: 3
data: {data}
models: {{m: {{path: examples/models/small-llama, dtype: f32}}}}
arms:
  base: {{model: m}}
  half: {{model: m, prune: {{method: random, layers: [0], keep: 0.5}}}}
baseline: base
grid: {{contexts: [200], samples: {samples}}}
generate: {{tokens: 4}}
measure: {{warmup: 0}}
"""


def scores(out):
    with h5py.File(out) as f:
        names = [n.decode() for n in f["axes/metric"][...]]
        assert (f["commit"]["state"][...] == 1).all()
        return dict(zip(names, np.moveaxis(f["quality"][...], -1, 0)))


def main():
    bench = Bench(sys.argv[1])
    bench.run("run", bench.write("needle.yaml", SWEEP.format(data="{kind: needle, path: examples/data/heldout.txt, needles: 3}", samples=3)),
              "-o", bench.path("needle.h5"))
    q = scores(bench.path("needle.h5"))
    bench.expect(set(np.unique(q["accuracy"])) <= {0, 1} and np.isnan(q["f1"]).all(), f"needle: {q}")
    line = {"context": "The garden was in bloom. " * 60, "input": "What was in bloom?", "length": 300, "all_classes": None}
    bench.write("lb.jsonl", "".join(json.dumps({**line, "answers": ["the garden", str(i)]}) + "\n" for i in range(2)) +
                json.dumps({**line, "answers": ["Person"], "all_classes": ["Person", "Place"]}) + "\n")
    lb = SWEEP.format(data="{kind: longbench, path: %s}" % bench.path("lb.jsonl"), samples="all")
    bench.run("run", bench.write("lb.yaml", lb), "-o", bench.path("lb.h5"))
    q = scores(bench.path("lb.h5"))
    classes = ~np.isnan(q["classification"])
    bench.expect(classes.sum() == 2 and (np.isnan(q["f1"]) == classes).all() and np.isnan(q["accuracy"]).all(), f"longbench: {q}")
    bench.expect((q["rouge_l"][~classes] <= q["f1"][~classes] + 1e-12).all(), f"longbench: {q}")
    rows = bench.table(bench.path("lb.h5"), "quality")
    bench.expect({"f1", "rouge_l", "exact_match", "classification"} <= {r["metric"] for r in rows}, rows)
    for data, says in (("{kind: longbench, path: %s}" % bench.write("bad.jsonl", '{"context": "c", "input": "i", "answers": ["a"]}\n{"context": 1}\n'), "bad.jsonl:2: "),
                       ("{kind: longbench, path: %s, prompt: none}" % bench.path("lb.jsonl"), "data.prompt: a prompt with no {context}"),
                       ("{kind: needle, path: examples/data/heldout.txt, needles: 65}", "data.needles is \"65\", expected a whole number from 1 to 64"),
                       ("{kind: text, path: examples/data/heldout.txt, needles: 2}", "data.needles is given with text data, expected kind: needle"),
                       ("{kind: needle}", "data.path is missing")):
        done = bench.run("validate", bench.write("bad.yaml", SWEEP.format(data=data, samples=1)), code=2)
        bench.expect(says in done.stderr, f"{data}: {done.stderr}")
    print("ok")


main()
