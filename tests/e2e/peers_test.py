"""peers_test.py PACELINE SOURCE absent|hf|llama: what goes wrong with the runners of foreign engines (tools/runners) in a sweep. absent: a Python
without their packages, told before anything runs, by name. hf, llama: libraries that print to stdout, a runner that is killed midway through a
trial, one that hangs: all of it costs one row, with its reason, and the next runner makes the others."""
import json
import os
import signal
import subprocess
import sys
import time

import h5py

from harness import TOP, Bench

SOURCE, WHICH = os.path.abspath(sys.argv[2]), sys.argv[3]
sys.path.insert(0, os.path.join(SOURCE, "tests", "runner"))
from lib import need, python_with  # noqa: E402

RUNNERS = {"hf": ("hf_runner.py", "torch, transformers", "small-llama", 300, 5), "llama": ("llama_runner.py", "llama_cpp, numpy", "small-llama-q8_0.gguf", 1800, 12)}
SWEEP = """data: {{kind: synthetic}}
models: {{peer: {{engine: {{exec: {argv}}}, path: {model}, threads: 1}}}}
arms: {{a: {{model: peer}}}}
grid: {{contexts: [32], samples: {samples}}}
generate: {{tokens: {tokens}}}
measure: {{warmup: 0, timeout: {timeout}, load_timeout: 100}}
"""
# A library that prints while it is imported, past Python's own sys.stdout.
NOISE = """import os, sys
class Noise:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "llama_cpp"):
            os.write(1, b"a banner of " + name.encode() + b"\\n")
sys.meta_path.insert(0, Noise())
"""


def sweep_of(bench, which, python, timeout=60):
    script, _, model, tokens, samples = RUNNERS[which]
    return bench.write(which + ".yaml", SWEEP.format(argv=json.dumps([*python, os.path.join(SOURCE, "tools/runners", script)]), samples=samples, tokens=tokens,
                                                     model=need(os.path.join(SOURCE, "examples/models", model)), timeout=timeout))


def absent(bench):
    for which, package in (("hf", "torch"), ("llama", "llama_cpp")):
        sweep, out = sweep_of(bench, which, ["python3", "-S"]), bench.path(which + ".h5")  # -S: no packages
        for command in (["validate", sweep], ["run", sweep, "-o", out]):
            done = bench.run(*command, "--allow-exec", code=2)
            bench.expect(f"No module named '{package}'" in done.stderr and f"{which}_runner" in done.stderr and "is needed" in done.stderr, done.stderr)
        bench.expect(not os.path.exists(out), "nothing was made")


def below(pid):
    """The processes below pid."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as f:
                parents[int(name)] = int(f.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    found = [pid]
    for p in found:
        found += [c for c, parent in parents.items() if parent == p]
    return found[1:]


def runner_below(pid, script):
    for p in below(pid):
        try:
            with open(f"/proc/{p}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if any(w.endswith(script.encode()) for w in words) and b"exec" not in words:
            return p
    return None


def disturbed(bench, which, python, send, reason, word):
    """A signal once a row is there; the trials are long enough that it comes in the middle of one."""
    samples = RUNNERS[which][4]
    sweep, out = sweep_of(bench, which, [python], timeout=8), bench.path(f"{which}-{reason}.h5")
    p = subprocess.Popen([bench.program, "run", sweep, "-o", out, "--allow-exec", "--retries", "0"], stderr=subprocess.PIPE, text=True, cwd=TOP, stdin=subprocess.DEVNULL)
    until, hit = time.monotonic() + 150, None
    while time.monotonic() < until and p.poll() is None and not hit:
        time.sleep(0.01)
        try:
            hit = bench.status(out)["done"] and runner_below(p.pid, RUNNERS[which][0])
        except (OSError, ValueError, KeyError):
            continue
    if hit:
        os.kill(hit, send)
    said = p.communicate(timeout=170)[1]
    bench.expect(hit and p.returncode == 3, f"{reason}: exit code {p.returncode}, expected 3\n{said}")
    with h5py.File(out, "r") as f:
        names, state = [x.decode() for x in f["/axes/reason"][...]], f["/commit"]["state"].reshape(-1)
        reasons, log = f["/trials"]["reason"].reshape(-1), f["/failures"][...]
    bench.expect((state == 2).sum() == 1 and (state == 1).sum() == samples - 1, f"{reason}: {state}\n{said}")
    bench.expect(names[reasons[state == 2][0]] == reason and word in log[log["used"] == 1]["detail"][0], f"{reason}: {log['detail'][0]}")
    bench.run("verify", out)


def noisy(bench, which, python):
    os.makedirs(bench.path("noise"), exist_ok=True)
    bench.write("noise/sitecustomize.py", NOISE)
    sweep, out = sweep_of(bench, which, [python]), bench.path(which + "-noise.h5")
    said = subprocess.run([python, "-c", "import " + RUNNERS[which][1].split(",")[0]], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": bench.path("noise")})
    bench.expect("a banner of" in said.stdout, "the library does print: " + said.stdout + said.stderr)
    bench.run("run", sweep, "-o", out, "--allow-exec", "--retries", "0", "--samples", "1", env={"PYTHONPATH": bench.path("noise")}, timeout=170)
    with h5py.File(out, "r") as f:
        bench.expect((f["/commit"]["state"][...] == 1).all(), "what a library prints is no answer")


def main():
    bench = Bench(sys.argv[1])
    if WHICH == "absent":
        absent(bench)
    else:
        python = python_with(RUNNERS[WHICH][1])
        noisy(bench, WHICH, python)
        disturbed(bench, WHICH, python, signal.SIGKILL, "crash", b"SIGKILL")
        disturbed(bench, WHICH, python, signal.SIGSTOP, "timeout", b"deadline")
    print(f"{WHICH}: {bench.checks} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
