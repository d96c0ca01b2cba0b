"""What the orchestrator's tests share: sweeps, launching, and an audit of the file that trusts nothing but h5py."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

try:
    import h5py
    import numpy as np
except ImportError:
    print(f"SKIP: {sys.executable} has no h5py")
    sys.exit(77)

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c

CELLS = ("trials", "tokens", "token_ms", "kv_len", "rounds", "quality")
ENV = dict(os.environ, OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_btl_vader_single_copy_mechanism="none",
           PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe", ASAN_OPTIONS="detect_leaks=0", NO_COLOR="1")
if os.geteuid() == 0:
    ENV.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def sweep(engine="virtual: true", arms="", contexts="[16, 32]", samples=6, repeats=2, tokens=4, warmup=1, seed=1,
          measure="", models="", data="{kind: synthetic}"):
    """A sweep's text: two simulated arms unless said otherwise. measure: further keys, ', ' before them."""
    arms = arms or "  base: {model: sim}\n  fast: {model: sim, scale: 0.9}\n"
    models = models or f"  sim: {{engine: sim, {engine}}}\n"
    return (f"name: test\nseed: {seed}\ndata: {data}\nmodels:\n{models}arms:\n{arms}baseline: base\n"
            f"grid: {{contexts: {contexts}, samples: {samples}, repeats: {repeats}}}\n"
            f"generate: {{tokens: {tokens}}}\nmeasure: {{warmup: {warmup}{measure}}}\n")


class Place:
    """A folder of one test with its sweep and its results file."""
    all = []

    def __init__(self, program, text=None):
        self.program = program
        self.dir = tempfile.mkdtemp(prefix="paceline-")
        self.sweep = os.path.join(self.dir, "s.yaml")
        self.file = os.path.join(self.dir, "o.h5")
        self.n = 0
        Place.all.append(self.dir)
        if text is not None:
            self.write(text)

    def write(self, text):
        with open(self.sweep, "w", encoding="utf-8") as f:
            f.write(text)

    def argv(self, *options, ranks=1, sweep_path=None):
        run = [self.program, "run", sweep_path or self.sweep, "-o", self.file, *options]
        return run if ranks == 1 else ["mpirun", "-n", str(ranks), *run]

    def start(self, *options, ranks=1, argv=None):
        """Its own process group, so that a test can end all of it by number."""
        self.n += 1
        log = open(os.path.join(self.dir, f"log{self.n}"), "w+")
        p = subprocess.Popen(argv or self.argv(*options, ranks=ranks), stdout=log, stderr=subprocess.STDOUT, env=ENV,
                             start_new_session=True)
        p.log = log
        return p

    def run(self, *options, ranks=1, argv=None, timeout=120):
        p = self.start(*options, ranks=ranks, argv=argv)
        return finish(p, timeout), text_of(p)

    def status(self):
        with open(self.file + ".status.json", encoding="utf-8") as f:
            return json.load(f)

    def command(self, *argv):
        return subprocess.run([self.program, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENV,
                              timeout=60)

    def rows(self):
        return rows(self.file)

    def left_processes(self):
        """Processes of this test that are still there (their command names the folder or their output does)."""
        out = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if self.dir.encode() in f.read() and int(pid) != os.getpid():
                        out.append(int(pid))
            except OSError:
                pass
        return out


def finish(p, timeout=120):
    try:
        return p.wait(timeout)
    except subprocess.TimeoutExpired:
        kill_tree(p.pid)
        p.wait()
        print(text_of(p))
        raise


def text_of(p):
    p.log.seek(0)
    return p.log.read()


def children(pid):
    """Descendants, nearest first: [(pid, argv)]."""
    parents = {}
    for q in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{q}/stat", encoding="latin-1") as f:
                parents.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(q))
        except OSError:
            pass
    out, todo = [], [pid]
    while todo:
        for child in parents.get(todo.pop(0), []):
            try:
                with open(f"/proc/{child}/cmdline", "rb") as f:
                    argv = f.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            out.append((child, argv))
            todo.append(child)
    return out


def runners(pid):
    return [p for p, argv in children(pid) if "serve" in argv]


def ranks_of(pid):
    """The paceline processes below an mpirun, in rank order (they are started in that order)."""
    return sorted(p for p, argv in children(pid) if len(argv) > 1 and argv[1] == "run")


def send(pid, sig):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


def kill_tree(pid):
    for child, _ in children(pid):
        send(child, signal.SIGKILL)
    send(pid, signal.SIGKILL)


def wait_for(what, seconds=30, step=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(step)
    raise AssertionError("waited in vain")


def rows(path):
    """{index: (state, attempt, session, crc, bytes)} of every committed row; asserts every checksum."""
    with h5py.File(path, "r") as f:
        commit = f["commit"][...].reshape(-1)
        cells = [f[n][...].reshape(commit.size, -1) if f[n].ndim > 4 else f[n][...].reshape(commit.size)
                 for n in CELLS if n in f]
    out = {}
    for index, mark in enumerate(commit):
        if mark["state"] == 0:
            continue
        data = b"".join(c[index].tobytes() for c in cells)
        assert mark["state"] in (1, 2), f"row {index}: state {mark['state']}"
        if crc32c(index.to_bytes(8, "little") + data) != mark["crc"]:
            continue  # torn: counts as empty
        out[index] = (int(mark["state"]), int(mark["attempt"]), int(mark["session"]), int(mark["crc"]), data)
    return out


def log(path, name):
    with h5py.File(path, "r") as f:
        records = f[name][...]
    return records[records["used"] == 1]


def total(path):
    with h5py.File(path, "r") as f:
        return f["commit"].size


def trials(path):
    with h5py.File(path, "r") as f:
        return f["trials"][...]


def audit(path, failed=None):
    """Every row is there, whole, once; logs agree. failed: how many may have failed (None: none)."""
    got, n = rows(path), total(path)
    assert len(got) == n, f"{n - len(got)} of {n} rows are missing"
    n_failed = sum(r[0] == 2 for r in got.values())
    assert failed is True or n_failed == (failed or 0), f"{n_failed} rows failed"
    t = trials(path).reshape(-1)
    for index, (state, *_) in got.items():
        assert (t[index]["reason"] != 0) == (state == 2), f"row {index}: state {state}, reason {t[index]['reason']}"
    with h5py.File(path, "r") as f:
        overflowed = f["log_overflow"][...].any()
    if not overflowed:
        workers = {int(w["worker"]) for w in log(path, "workers")}
        assert {int(t[i]["worker"]) for i in got} <= workers, "a row names a worker that /workers lacks"
        loads = {int(x["load"]) for x in log(path, "loads") if x["ok"]}
        assert {int(t[i]["load"]) for i, r in got.items() if r[0] == 1} <= loads, "a row names a load that /loads lacks"
        given_up = {int(x["row"]) for x in log(path, "failures") if x["final"]}
        assert {i for i, r in got.items() if r[0] == 2} <= given_up, "a failed row has no entry in /failures"
    return got


def main(groups):
    """python X_test.py PACELINE [GROUP|NAME…]: runs the tests of `groups`, all or those named."""
    program, names = os.path.abspath(sys.argv[1]), sys.argv[2:]
    use_runner_beside(program)
    tests = [(g, t) for g, members in groups.items() for t in members]
    chosen = [t for g, t in tests if not names or g in names or t.__name__ in names]
    assert chosen, f"no test {names}"
    for t in chosen:
        begun = time.monotonic()
        t(program)
        for folder in Place.all:  # kept after a failure
            shutil.rmtree(folder, ignore_errors=True)
        Place.all.clear()
        print(f"ok {t.__name__} ({time.monotonic() - begun:.1f} s)", flush=True)


def use_runner_beside(program):
    """In a build tree the runner stands in a folder of its own."""
    beside = os.path.join(os.path.dirname(program), "runner", "paceline-runner")
    if os.path.exists(beside):
        ENV.setdefault("PACELINE_RUNNER", beside)
