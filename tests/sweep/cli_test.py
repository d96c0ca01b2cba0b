"""validate, plan, inspect and the rest of the program's manners, through the program itself: cli_test.py PACELINE SOURCE."""

import json
import os
import subprocess
import sys
import tempfile

PACELINE, SOURCE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
SIM = """data: {kind: synthetic}
models: {sim: {engine: sim, prefill_us_per_token: 10, decode_us: 1000}}
arms: {base: {model: sim}, fast: {model: sim, scale: 0.5}}
baseline: base
grid: {contexts: [100], samples: 20, repeats: 2}
generate: {tokens: 11}
"""
failed = 0


def run(*args, code=0, out="", err="", env=None):
    """Runs paceline; its exit code must be `code`, its output must hold the given parts. Returns stdout."""
    global failed
    p = subprocess.run([PACELINE, *args], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                       env={**os.environ, **(env or {})})
    for what, ok in (("exit code", p.returncode == code), ("stdout", out in p.stdout), ("stderr", err in p.stderr)):
        if not ok:
            failed += 1
            print(f"{what} of paceline {' '.join(args)}: {p.returncode}, wanted {code} {out!r} {err!r}\n{p.stdout}{p.stderr}")
    return p.stdout


def write(name, text):
    with open(name, "w", encoding="utf-8") as f:
        f.write(text)
    return name


def manners():
    run(code=2, err="usage: paceline COMMAND")
    run("--version", out="paceline ")
    for command in ("validate", "plan", "run", "status", "report", "verify", "inspect"):
        run("--help", out=f"\n  {command} ")
        run("help", command, out=f"usage: paceline {command} ")
    run("vlidate", code=2, err='unknown command "vlidate", did you mean validate?')
    run("plan", code=2, err="an argument is missing")
    run("plan", "--jsno", "s.yaml", code=2, err="unknown option --jsno, did you mean --json?")
    run("plan", "a", "b", code=2, err='unexpected argument "b"')
    run("plan", "s.yaml", "--workers", code=2, err="--workers needs a value: N")
    run("plan", "s.yaml", "--workers=two", code=2, err='"two" is not a whole number')
    run("plan", "s.yaml", "-n0", code=2, err="--workers 0, expected 1 to")
    run("plan", "s.yaml", "--json=1", code=2, err="--json takes no value")
    run("hlep", code=2, err="did you mean help?")
    for option, wanted in (("--max-fails=-3", "expected 0 or more"), ("--lease=nan", "expected seconds")):
        run("run", "s.yaml", "-o", "x.h5", option, code=2, err=wanted)
    with open("/dev/full", "w", encoding="utf-8") as full:
        for argv in (["--version"], ["--help"], ["run", "--help"]):
            assert subprocess.run([PACELINE, *argv], stdout=full, stderr=subprocess.PIPE, check=False).returncode == 6, argv


def outputs():
    """What cannot be a results file is said to be so; a run whose stdout and stderr are closed writes no message into its results."""
    write("s.yaml", SIM.replace("decode_us", "virtual: true, decode_us"))
    os.mkdir("folder")
    os.symlink("nowhere/x.h5", "dangling")
    os.mkfifo("pipe")
    for name, wanted in (("", "-o is empty"), ("folder", "is a directory"), ("dangling", "link to a file that is not there"), ("pipe", "is a device or pipe")):
        run("run", "s.yaml", "-o", name, code=2, err=wanted)
    run("run", "pipe", "-o", "x.h5", code=2, err="the sweep is a pipe")
    run("validate", "folder", code=2, err="folder: Is a directory")
    assert subprocess.run(["sh", "-c", '"$0" run s.yaml -o closed.h5 >&- 2>&-', PACELINE], check=False).returncode == 0
    run("verify", "closed.h5", out="done 80,")


def sweeps():
    write("s.yaml", SIM)
    run("validate", "s.yaml", out="2 arms, 1 context, 20 samples, 2 repeats: 80 trials; 1 model; 0 warnings")
    assert run("validate", "s.yaml").endswith("\nok\n")
    resolved = json.loads(run("validate", "s.yaml", "--resolved"))
    assert resolved["arms"][1]["scale"] == 0.5 and resolved["measure"]["warmup"] == 3
    plan = json.loads(run("plan", "s.yaml", "--json", "--workers", "2"))
    assert plan["trials"] == 80 and plan["loads"] == 2 and plan["workers"] == 2, plan
    assert plan["bytes"] == [{"model": "sim", "weights": 0, "kv": 0, "workspace": 0, "fits": True}], plan
    assert abs(plan["trials_s"] - 40 * 1.5 * 0.011) < 1e-9, plan
    assert abs(plan["arms"][1]["trial_ms"][0] - 5.5) < 1e-9, plan
    assert 0.33 < plan["estimate_s"] < 0.45, plan
    plan = json.loads(run("plan", "--json", "s.yaml", "--samples", "3", "--contexts", "1,2", "--set", "grid.repeats=1"))
    assert plan["trials"] == 12 and plan["contexts"] == [1, 2], plan
    run("plan", "s.yaml", out="trials     80 = 2 arms")
    run("validate", "s.yaml", "--arms", "fast", err='note: --arms: "base" runs too')
    run("validate", "s.yaml", "--arms", "fats", code=2, err="did you mean fast")
    run("validate", "none.yaml", code=2, err="none.yaml: No such file or directory")
    write("bad.yaml", SIM.replace("samples", "smaples").replace("scale", "scael"))
    run("validate", "bad.yaml", code=2, err="paceline: bad.yaml: 3 mistakes\n")
    write("nobody.yaml", SIM)
    run("validate", "nobody.yaml", code=2, err="/not/here", env={"PACELINE_RUNNER": "/not/here"})


def texts():
    write("short.txt", "only a few words")
    write("latin1.txt", "")
    with open("latin1.txt", "wb") as f:
        f.write(b"caf\xe9 " * 100)
    for name, wanted in (("short.txt", "too short for a context of 100 tokens"), ("latin1.txt", "not UTF-8 at byte 3")):
        write("t.yaml", SIM.replace("kind: synthetic", f"kind: text, path: {name}"))
        run("validate", "t.yaml", code=2, err=wanted)
    write("t.yaml", SIM.replace("kind: synthetic", f"kind: text, path: {SOURCE}/examples/data/heldout.txt"))
    run("validate", "t.yaml", "--samples", "100000", err="disjoint samples: some overlap")


def engines():
    """Foreign engines: allowed only when said so, and what is wrong with them is said before anything runs."""
    argv = {
        "": None,
        "ended before its hello: exit code 3": ["python3", "-c", "raise SystemExit(3)"],
        "its last words: boom": ["sh", "-c", "echo boom >&2; exit 9"],
        "the first line is no hello": ["sh", "-c", "echo garbage; cat"],
        "a line of more than": ["sh", "-c", "head -c 1000000000 /dev/zero; cat"],
        "no hello before the deadline": ["sleep", "100"],
    }
    for wanted, command in argv.items():
        command = command or ["python3", f"{SOURCE}/examples/runners/simple_runner.py"]
        write("e.yaml", f"""data: {{kind: text, path: {SOURCE}/examples/data/heldout.txt}}
models: {{e: {{engine: {{exec: {json.dumps(command)}}}}}}}
arms: {{e: {{model: e}}}}
grid: {{contexts: [64], samples: 2}}
measure: {{load_timeout: 3}}
""")
        run("validate", "e.yaml", code=2, err="expected --allow-exec")
        run("validate", "e.yaml", "--allow-exec", code=2 if wanted else 0, err=wanted and f"e.yaml:3:8: arms.e: ")
        run("validate", "e.yaml", "--allow-exec", code=2 if wanted else 0, err=wanted)


def models():
    demo = f"{SOURCE}/examples/sweeps/demo.yaml"
    here = os.getcwd()
    os.chdir(SOURCE)
    run("validate", demo, out="\nok\n")
    run("validate", "examples/sweeps/sim.yaml", out="\nok\n")
    plan = json.loads(run("plan", demo, "--json"))
    assert plan["estimate_s"] is None and all(b["weights"] > 0 and b["kv"] > 0 for b in plan["bytes"]), plan
    run("validate", demo, "--contexts", "100000", code=2, err="beyond the model's")
    run("validate", demo, "--set", "models.tiny.device=cuda", code=2, err="demo.yaml:")
    run("inspect", "examples/models/tiny-llama", out="LlamaForCausalLM")
    assert json.loads(run("inspect", "examples/models/tiny-llama", "--json"))
    run("inspect", "examples/models/none", code=2)
    run("inspect", "--build", out="hdf5  ")
    build = json.loads(run("inspect", "--build", "--json"))
    assert build["paceline"]["hdf5"].endswith(("parallel", "serial")) and build["paceline"]["mpi"], build
    assert build["runner"]["version"] == build["paceline"]["version"], build
    run("inspect", code=2, err="expected a path, or --build")
    os.chdir(here)
    with open("/dev/full", "w", encoding="utf-8") as full:
        p = subprocess.run([PACELINE, "plan", "s.yaml"], stdout=full, stderr=subprocess.PIPE, check=False)
        assert p.returncode == 6 and b"could not write to stdout" in p.stderr, p
    run("verify", "s.yaml", code=2, err="s.yaml")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    for part in (manners, outputs, sweeps, texts, engines, models):
        part()
    os.chdir("/")
sys.exit(1 if failed else 0)
