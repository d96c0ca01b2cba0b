"""engines_test.py PACELINE: foreign engines as arms. The Python runner of examples/runners works as one; an executable that is missing,
exits at once, prints garbage, sends a 1 GB line or stops reading costs its own rows and nothing else (exit code 3, or 2 where
it can be known before anything runs)."""
import os
import sys

import h5py

from harness import TOP, Bench

SWEEP = """name: engines
seed: 3
data: {{kind: text, path: {text}}}
models:
  sim: {{engine: sim, decode_us: 50}}
  other: {{engine: {{exec: {argv}}}}}
arms:
  base: {{model: sim}}
  other: {{model: other}}
baseline: base
grid: {{contexts: [16], samples: 3, repeats: 1}}
generate: {{tokens: 4}}
measure: {{warmup: 0, timeout: 3, load_timeout: 5}}
"""

# A runner that behaves until its first trial, then does what its argument says.
BAD = r'''
import json, os, sys, time
how = sys.argv[1]
def say(**kw): print(json.dumps(kw), flush=True)
say(type="hello", protocol=1, runner="bad", version="1", devices=[{"kind": "cpu", "uuid": "cpu"}])
for line in sys.stdin:
    q = json.loads(line)
    if q["type"] == "describe": say(type="described", id=q["id"], layers=1, vocab=10)
    elif q["type"] == "load": say(type="loaded", id=q["id"], load_ns=1)
    elif q["type"] == "unload": say(type="unloaded", id=q["id"])
    elif how == "garbage": print("%$# not the protocol", flush=True)
    elif how == "long":
        for _ in range(1024): sys.stdout.write("x" * (1 << 20))
        sys.stdout.write("\n"); sys.stdout.flush()
    elif how == "deaf": time.sleep(3600)
    elif how == "exit": print("last words", file=sys.stderr); sys.exit(9)
    elif how == "wrong-id": say(type="result", id=q["id"] + 7, generated=[4], ttft_ns=1, total_ns=2)
    elif how == "negative": say(type="result", id=q["id"], generated=[4], ttft_ns=-5, total_ns=-2)
    elif how == "terse": say(type="result", id=q["id"], generated=[4], ttft_ns=1000, total_ns=2000)
    elif how == "error": say(type="error", id=q["id"], reason="data", text="sample is broken", fatal=False)
'''


def rows(out):
    with h5py.File(out, "r") as f:
        reasons = [r.decode() for r in f["/axes/reason"][...]]
        commit, trials = f["/commit"][...], f["/trials"][...]
        failures = f["/failures"][...]
    return commit, trials, reasons, failures[failures["used"] == 1]


def sweep_of(bench, name, argv):
    text = os.path.join(TOP, "examples", "data", "heldout.txt")
    if not os.path.exists(text):
        text = bench.write("text.txt", "It was a bright cold day in April, and the clocks were striking. " * 2000)
    return bench.write(name + ".yaml", SWEEP.format(text=text, argv=argv))


def example_runner(bench):
    program = os.path.join(TOP, "examples", "runners", "simple_runner.py")
    sweep, out = sweep_of(bench, "simple", f"[python3, {program}]"), bench.path("simple.h5")
    refused = bench.run("validate", sweep, code=2)
    bench.expect("--allow-exec" in refused.stderr, "foreign engines must be allowed by name: " + refused.stderr)
    bench.run("validate", sweep, "--allow-exec")
    for ranks in (1, 3):
        bench.run("run", sweep, "-o", out, "--allow-exec", ranks=ranks)
        commit, trials, _, _ = rows(out)
        bench.expect((commit["state"] == 1).all(), "every row of the Python runner is done")
        bench.expect((trials["generated"] == 4).all(), "it generated what was asked")
        bench.expect((trials["synthetic"][0] == 1).all() and (trials["synthetic"][1] == 0).all(), "only the simulated arm is synthetic")
        os.unlink(out)


def broken(bench, how, reason):
    script = bench.write("bad.py", BAD)
    sweep, out = sweep_of(bench, how, f"[python3, {script}, {how}]"), bench.path(how + ".h5")
    for ranks in (1, 3):
        done = bench.run("run", sweep, "-o", out, "--allow-exec", "--retries", "1", ranks=ranks, code=3 if ranks == 1 else None)
        commit, trials, reasons, failures = rows(out)
        bench.expect((commit["state"][0] == 1).all(), f"{how}: the other arm is done\n{done.stderr}")
        bench.expect((commit["state"][1] == 2).all(), f"{how}: every row of the bad arm failed\n{done.stderr}")
        bench.expect({reasons[r] for r in trials["reason"][1].reshape(-1)} == {reason},
                     f"{how}: reasons {[reasons[r] for r in trials['reason'][1].reshape(-1)]}, expected {reason}")
        bench.expect(bench.status(out)["exit"] == 3 and bench.status(out)["failed"] == 3, f"{how}: {bench.status(out)}")
        bench.expect(len(failures) >= 3, f"{how}: /failures holds {len(failures)}")
        if how == "exit":
            bench.expect(any(b"last words" in f["stderr_tail"] for f in failures), "the stderr tail is kept")
        os.unlink(out)
    print(f"{how}: rows with reason {reason}")


def terse(bench):
    """Only what docs/RUNNER.md asks for: no phases, no ids."""
    script = bench.write("bad.py", BAD)
    sweep, out = sweep_of(bench, "terse", f"[python3, {script}, terse]"), bench.path("terse.h5")
    bench.run("run", sweep, "-o", out, "--allow-exec")
    bench.run("verify", out)
    row = next(r for r in bench.table(out, "latency") if r["arm"] == "other" and r["phase"] == "e2e")
    bench.expect(row["mean"] == 0.002 and row["n"] == 3, f"{row}")


def before_anything_runs(bench):
    for name, argv, words in (("missing", "[/nonexistent/runner]", "/nonexistent/runner"),
                              ("exits", "['false']", "false"), ("babbles", "[echo, hello]", "no hello")):
        sweep, out = sweep_of(bench, name, argv), bench.path(name + ".h5")
        done = bench.run("run", sweep, "-o", out, "--allow-exec", code=None)
        bench.expect(done.returncode in (2, 6) and words in done.stderr, f"{name}: {done.returncode}: {done.stderr}")
        bench.expect(not os.path.exists(out), f"{name}: nothing was made")


def main():
    bench = Bench(sys.argv[1])
    example_runner(bench)
    terse(bench)
    before_anything_runs(bench)
    for how, reason in (("garbage", "garbage"), ("long", "garbage"), ("deaf", "timeout"), ("exit", "crash"), ("wrong-id", "garbage"),
                        ("negative", "garbage"), ("error", "data")):
        broken(bench, how, reason)
    print(f"{bench.checks} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
