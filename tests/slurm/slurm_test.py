"""slurm_test.py PACELINE BATCH-SCRIPT: the batch script on a real one-node Slurm. The job is stopped by USR1 in the middle, requeues itself,
resumes, and ends done; a job with a wrong sweep ends with 2 and is not requeued; time left by --signal is the same USR1."""
import json
import os
import sys
import tempfile
import time

import h5py

from one_node_slurm import OneNodeSlurm, why_not

SWEEP = """name: slurm-test
seed: 7
data: {kind: synthetic}
models:
  sim: {engine: sim, prefill_us_per_token: 10, decode_us: 2000, noise: 0.05}
arms:
  base: {model: sim}
  quick: {model: sim, scale: 0.8}
baseline: base
grid: {contexts: [64, 128], samples: 30, repeats: 1}
generate: {tokens: 32}
measure: {warmup: 0}
"""
TRIALS = 2 * 2 * 30


def job_field(slurm, job, name):
    for word in slurm.run(["scontrol", "show", "job", "-o", job], check=False).stdout.split():
        key, _, value = word.partition("=")
        if key == name:
            return value
    return ""


def wait_for(slurm, what, seconds, ready, log):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            with open(log, errors="replace") as f:
                sys.exit(f"FAIL: {what} not within {seconds} s\n{f.read()}\n{slurm.logs()}")
        time.sleep(0.2)


def submit(slurm, folder, script, program, *args):
    log = os.path.join(folder, f"job-{os.path.basename(args[0])}.log")
    env = f"ALL,PACELINE={program},OMPI_ALLOW_RUN_AS_ROOT=1,OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    job = slurm.run(["sbatch", "--parsable", f"--export={env}", f"--chdir={folder}", f"--output={log}", "--open-mode=append",
                     script, *args]).stdout.strip()
    return job, log


def done_rows(path):
    try:
        with h5py.File(path, "r") as f:
            return int((f["/commit"]["state"] != 0).sum())
    except OSError:
        return 0


def stopped_and_resumed(slurm, folder, script, program):
    sweep, out = os.path.join(folder, "sweep.yaml"), os.path.join(folder, "out.h5")
    with open(sweep, "w") as f:
        f.write(SWEEP)
    job, log = submit(slurm, folder, script, program, sweep, out)
    wait_for(slurm, "rows of the first start", 60, lambda: done_rows(out) >= 8, log)
    slurm.run(["scancel", "--signal=USR1", job])
    wait_for(slurm, "the requeue", 30, lambda: job_field(slurm, job, "Restarts") == "1", log)
    with open(log) as f:
        assert "interrupted" in f.read(), "the batch script did not see the interruption"
    with h5py.File(out, "r") as f:
        assert not f["/failures"]["used"].any(), "the signal, sent to the whole step, must not reach the runners"
    before = done_rows(out)
    assert before < TRIALS, "the sweep was over before it was stopped: nothing was tested"

    # Slurm lets a requeued job rest for two minutes. Less will do, but not nothing: the node refuses, "Job credential revoked", what
    # was issued in the same second in which it ended the start before.
    wait_for(slurm, "an earlier start", 30,
             lambda: slurm.run(["scontrol", "update", f"JobId={job}", "StartTime=now+3"], check=False).returncode == 0, log)
    wait_for(slurm, "the end", 120, lambda: job_field(slurm, job, "JobState") in ("COMPLETED", "FAILED"), log)
    with open(log) as f:
        text = f.read()
    assert job_field(slurm, job, "JobState") == "COMPLETED", text + slurm.logs()
    with open(out + ".status.json") as f:
        status = json.load(f)
    assert status["state"] == "done" and status["done"] == TRIALS and status["exit"] == 0, status
    with h5py.File(out, "r") as f:
        commit = f["/commit"][...].reshape(-1)
    assert (commit["state"] == 1).all()
    assert set(commit["session"]) == {0, 1}, "both starts must have written rows"
    print(f"stopped after {before} of {TRIALS} rows, requeued, resumed, done")


def wrong_sweep(slurm, folder, script, program):
    sweep, out = os.path.join(folder, "wrong.yaml"), os.path.join(folder, "wrong.h5")
    with open(sweep, "w") as f:
        f.write(SWEEP.replace("samples:", "sampels:"))
    job, log = submit(slurm, folder, script, program, sweep, out)
    wait_for(slurm, "the end of the wrong job", 60, lambda: job_field(slurm, job, "JobState") == "FAILED", log)
    with open(log) as f:
        text = f.read()
    assert job_field(slurm, job, "ExitCode") == "2:0", job_field(slurm, job, "ExitCode") + text
    assert "sampels" in text and "did you mean" in text, text
    assert not os.path.exists(out)
    print("a wrong sweep ends with 2 and is not requeued")


def main():
    reason = why_not()
    if reason:
        print(f"SKIP: {reason}")
        return 77
    program, script = (os.path.abspath(p) for p in sys.argv[1:3])
    with OneNodeSlurm() as slurm, tempfile.TemporaryDirectory(prefix="paceline-slurm-test-") as folder:
        stopped_and_resumed(slurm, folder, script, program)
        wrong_sweep(slurm, folder, script, program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
