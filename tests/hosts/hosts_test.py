"""hosts_test.py PACELINE: one sweep over three hosts made of namespaces. First all stay; then one vanishes in the middle (its link goes
down: Open MPI tells nobody). The run must end by itself with every row done, the lost host's rows re-leased to the others."""
import json
import os
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

from three_hosts import Hosts, pids_of, why_not

SWEEP = """name: hosts-test
seed: 11
data: {{kind: synthetic}}
models:
  sim: {{engine: sim, prefill_us_per_token: 10, decode_us: {decode_us}, noise: 0.05}}
arms:
  base: {{model: sim}}
  quick: {{model: sim, scale: 0.8}}
baseline: base
grid: {{contexts: [64, 128], samples: 30, repeats: 1}}
generate: {{tokens: 32}}
measure: {{warmup: 0, timeout: 2}}
"""
TRIALS = 2 * 2 * 30


def commit(path):
    with h5py.File(path, "r") as f:
        return f["/commit"][...].reshape(-1), f["/trials"][...].reshape(-1)


def done_rows(path):
    try:
        return int((commit(path)[0]["state"] != 0).sum())
    except OSError:
        return 0


def start(hosts, slots, program, folder, name, decode_us):
    sweep, out = os.path.join(folder, name + ".yaml"), os.path.join(folder, name + ".h5")
    with open(sweep, "w") as f:
        f.write(SWEEP.format(decode_us=decode_us))
    log = open(os.path.join(folder, name + ".log"), "w+")
    argv = hosts.mpirun(slots) + [program, "run", sweep, "-o", out]
    return subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True), out, log


def text_of(log):
    log.seek(0)
    return log.read()


def audit(out, log, workers):
    rows, trials = commit(out)
    assert (rows["state"] == 1).all(), f"{(rows['state'] != 1).sum()} rows not done\n{text_of(log)}"
    with open(out + ".status.json") as f:
        status = json.load(f)
    assert status["state"] == "done" and status["done"] == TRIALS and status["exit"] == 0, status
    assert len(np.unique(trials["worker"])) == workers, np.unique(trials["worker"])
    with h5py.File(out, "r") as f:
        log_rows = f["/workers"][...]
        return {row["host"].decode() for row in log_rows if row["used"]}


def all_stay(hosts, program, folder):
    run, out, log = start(hosts, [2, 2, 1], program, folder, "stay", 500)
    code = run.wait(120)
    assert code == 0, f"exit code {code}\n{text_of(log)}"
    seen = audit(out, log, 4)
    assert seen == set(hosts.names), seen
    print("three hosts, four workers: all rows done")


def one_vanishes(hosts, program, folder):
    run, out, log = start(hosts, [2, 1, 1], program, folder, "vanish", 3000)
    end = time.monotonic() + 60
    while done_rows(out) < 12:
        assert time.monotonic() < end and run.poll() is None, text_of(log)
        time.sleep(0.05)
    hosts.vanish(hosts.names[2])
    at = done_rows(out)
    assert at < TRIALS // 2, "the sweep was nearly over before the host vanished: nothing was tested"
    begin = time.monotonic()
    # mpirun itself never notices and hangs (Open MPI 4.1): the status file is what says that the run is over.
    while state(out) == "running":
        assert time.monotonic() < begin + 150, f"still running\n{text_of(log)}"
        time.sleep(0.2)
    seconds = time.monotonic() - begin
    audit(out, log, 3)
    end = time.monotonic() + 10
    here = hosts.names[:2]
    while any(b"paceline" in name for host in here for name in commands(pids_of(host))):
        assert time.monotonic() < end, "the ranks that are left must end by themselves"
        time.sleep(0.1)
    launcher = run.poll()
    run.kill()
    print(f"a host vanished after {at} of {TRIALS} rows: all rows done {seconds:.1f} s later; mpirun " +
          ("hangs, as it does" if launcher is None else f"ended with {launcher}"))


def state(out):
    try:
        with open(out + ".status.json") as f:
            return json.load(f)["state"]
    except FileNotFoundError:
        return "running"


def commands(pids):
    for pid in pids:
        try:
            with open(f"/proc/{pid}/comm", "rb") as f:
                yield f.read()
        except OSError:
            pass


def main():
    reason = why_not()
    if reason:
        print(f"SKIP: {reason}")
        return 77
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="paceline-hosts-test-") as folder:
        with Hosts() as hosts:
            all_stay(hosts, program, folder)
        with Hosts() as hosts:
            one_vanishes(hosts, program, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
