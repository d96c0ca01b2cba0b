"""inputs_test.py PACELINE: what a user gets wrong. Each case: one clear error, the right exit code, nothing made, nothing lost."""
import os
import shutil
import subprocess
import sys

from harness import TOP, Bench, launcher

MODEL = os.path.join(TOP, "examples", "models", "small-llama")

SIM = """name: inputs
seed: 3
data: {kind: synthetic}
models:
  sim: {engine: sim, decode_us: 50, virtual: true}
arms:
  base: {model: sim}
  quick: {model: sim, scale: 0.9}
baseline: base
grid: {contexts: [16], samples: 4, repeats: 1}
generate: {tokens: 4}
measure: {warmup: 0}
"""

LLM = """name: inputs
seed: 3
data: {{kind: text, path: {text}}}
models:
  llm: {{path: {model}}}
arms:
  base: {{model: llm}}
baseline: base
grid: {{contexts: [{context}], samples: 2, repeats: 1}}
generate: {{tokens: 4}}
measure: {{warmup: 0}}
"""


def refused(bench, words, *argv, code=2, ranks=1, out=None, env=None):
    done = bench.run(*argv, code=code, ranks=ranks, env=env)
    for word in [words] if isinstance(words, str) else words:
        bench.expect(word in done.stderr, f"{' '.join(argv)}: expected {word!r} in\n{done.stderr}")
    bench.expect(out is None or not os.path.exists(out), f"{' '.join(argv)}: nothing may be made")
    return done


def command_line(bench):
    sweep, out = bench.write("sim.yaml", SIM), bench.path("a.h5")
    refused(bench, "did you mean", "rnu", sweep)
    refused(bench, "--resmue", "run", sweep, "-o", out, "--resmue", out=out)
    refused(bench, "nosuch.yaml", "run", bench.path("nosuch.yaml"), "-o", out, out=out)
    refused(bench, "-o", "run", sweep)
    refused(bench, "quikc", "run", sweep, "-o", out, "--arms", "base,quikc", out=out)
    refused(bench, "samples", "run", sweep, "-o", out, "--samples", "many", out=out)
    refused(bench, "grid.nosuch", "run", sweep, "-o", out, "--set", "grid.nosuch=3", out=out)


def sweep_file(bench):
    out = bench.path("b.h5")
    bad = bench.write("bad.yaml", SIM.replace("samples: 4", "sampels: four").replace("scale: 0.9", "scale: -1")
                      .replace("baseline: base\n", "baseline: bsae\n"))
    done = refused(bench, ["did you mean samples", "did you mean base", "scale"], "run", bad, "-o", out, out=out)
    lines = [line for line in done.stderr.splitlines() if "bad.yaml:" in line and not line.startswith("paceline:")]
    bench.expect(len(lines) >= 3, "all mistakes come in one go:\n" + done.stderr)
    bench.expect(all(part.isdigit() for line in lines for part in line[line.index("bad.yaml:"):].split(":")[1:3]), "file:line:column")
    refused(bench, "bad.yaml", "validate", bench.write("bad.yaml", ""), out=out)
    refused(bench, "bad.yaml", "validate", bench.write("bad.yaml", "name: [unclosed"), out=out)


def models(bench):
    if not os.path.isdir(MODEL):
        sys.exit("FAIL: examples/models/small-llama is missing")
    out = bench.path("c.h5")
    text = bench.write("text.txt", "It was a bright cold day in April, and the clocks were striking thirteen. " * 400)

    def case(name, words, model=MODEL, words_text=text, context=16):
        sweep = bench.write(name + ".yaml", LLM.format(text=words_text, model=model, context=context))
        refused(bench, words, "run", sweep, "-o", out, out=out)

    case("nomodel", "no-such-model", model=bench.path("no-such-model"))
    case("notext", "no-such-text", words_text=bench.path("no-such-text"))
    case("emptytext", "empty", words_text=bench.write("empty.txt", ""))
    case("binary", "UTF-8", words_text=_bytes(bench, "binary.txt", b"abc \xff\xfe def " * 1000))
    case("long", "positions", context=5000)
    bare = bench.path("bare")
    shutil.copytree(MODEL, bare)
    os.unlink(os.path.join(bare, "tokenizer.model"))
    case("notokenizer", "tokenizer", model=bare)
    cut = bench.path("cut")
    shutil.copytree(MODEL, cut)
    weights = os.path.join(cut, "model.safetensors")
    with open(weights, "r+b") as f:
        f.truncate(os.path.getsize(weights) // 2)
    case("cut", "model.safetensors", model=cut)


def inputs_changed(bench):
    """The corpus was edited between two starts."""
    text, out = bench.write("corpus.txt", "It was a bright cold day in April, and the clocks were striking. " * 400), bench.path("g.h5")
    sweep = bench.write("corpus.yaml", LLM.format(text=text, model=MODEL, context=16))
    bench.run("run", sweep, "-o", out)
    bench.run("run", sweep, "-o", out, "--resume")
    with open(text, "a") as f:
        f.write("One more line.")
    refused(bench, "data has changed", "run", sweep, "-o", out, "--resume")


def _bytes(bench, name, data):
    with open(bench.path(name), "wb") as f:
        f.write(data)
    return bench.path(name)


def output(bench):
    sweep, out = bench.write("sim.yaml", SIM), bench.path("d.h5")
    bench.run("run", sweep, "-o", out)
    with open(out, "rb") as f:
        before = f.read()
    refused(bench, ["exists", "--resume"], "run", sweep, "-o", out)
    with open(out, "rb") as f:
        bench.expect(f.read() == before, "a file that exists stays as it was")
    bench.run("run", sweep, "-o", out, "--resume")
    changed = bench.write("changed.yaml", SIM.replace("seed: 3", "seed: 4"))
    done = refused(bench, ["seed"], "run", changed, "-o", out, "--resume")
    bench.expect("3" in done.stderr and "4" in done.stderr, "the difference is shown: " + done.stderr)
    refused(bench, "nodir", "run", sweep, "-o", bench.path("nodir/x.h5"), code=None)
    done = bench.run("run", sweep, "-o", "/dev/full", code=None)
    bench.expect(done.returncode in (2, 6) and "/dev/full" in done.stderr, f"/dev/full: {done.returncode} {done.stderr}")
    notours = _bytes(bench, "notours.h5", b"not an HDF5 file" * 100)
    refused(bench, "notours.h5", "run", sweep, "-o", notours, "--resume", code=None)
    with open(notours, "rb") as f:
        bench.expect(f.read() == b"not an HDF5 file" * 100, "another's file is left alone")
    for command in (["report", notours, "-o", bench.path("r")], ["verify", notours], ["status", bench.path("nosuch.h5")]):
        refused(bench, os.path.basename(command[1]), *command, code=None)


def world_of_one(bench):
    """mpirun -n 1 is one process that does both, as without mpirun."""
    sweep, out = bench.write("sim.yaml", SIM), bench.path("one.h5")
    argv = launcher(2)
    argv[-1] = "1"
    done = subprocess.run([*argv, bench.program, "run", sweep, "-o", out], text=True, capture_output=True, timeout=60)
    bench.expect(done.returncode == 0 and bench.status(out)["done"] == 8, f"{done.returncode}: {done.stderr}")


def disk_full(bench):
    if os.geteuid() != 0:
        print("note: the tmpfs case needs root and was left out")
        return
    small = bench.path("small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], check=True)
    try:
        sweep, out = bench.write("wide.yaml", SIM.replace("samples: 4", "samples: 3000").replace("tokens: 4", "tokens: 64")), small + "/f.h5"
        for ranks in (1, 3):
            done = bench.run("run", sweep, "-o", out, code=None, ranks=ranks, timeout=60)
            bench.expect("no space left" in done.stderr.lower(), f"disk full with {ranks} ranks: {done.returncode}: {done.stderr}")
            bench.expect(done.returncode != 0, "a full disk is not a success")
            for name in os.listdir(small):
                os.unlink(os.path.join(small, name))
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def ranks_disagree(bench):
    """Rank 1 reads another sweep file under the same name, as on a node with an old copy."""
    a, b, out = bench.path("nodeA"), bench.path("nodeB"), bench.path("e.h5")
    os.mkdir(a)
    os.mkdir(b)
    bench.write("nodeA/s.yaml", SIM)
    bench.write("nodeB/s.yaml", SIM.replace("samples: 4", "samples: 5"))
    argv = launcher(3)
    del argv[argv.index("-n"):]
    argv += ["-n", "2", "-wdir", a, bench.program, "run", "s.yaml", "-o", out, ":", "-n", "1", "-wdir", b, bench.program, "run", "s.yaml", "-o", out]
    done = subprocess.run(argv, text=True, capture_output=True, timeout=60)
    bench.expect(done.returncode != 0 and "sweep" in done.stderr and "rank 2" in done.stderr,
                 f"another sweep file on one rank: {done.returncode}: {done.stderr}")
    bench.expect(not os.path.exists(out), "nothing may be made")


def main():
    bench = Bench(sys.argv[1])
    for part in (command_line, sweep_file, output, world_of_one, disk_full, ranks_disagree, models, inputs_changed):
        part(bench)
        print(f"{part.__name__}: ok")
    print(f"{bench.checks} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
