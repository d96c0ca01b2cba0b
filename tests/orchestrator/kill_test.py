#!/usr/bin/env python3
"""kill_test.py PACELINE [N] [FIRST]: N seeded sweeps (default 20) at one, three or five ranks. In each, at a random moment, a runner, a
worker, rank 0, mpirun or everything gets SIGKILL or SIGSTOP; the sweep is resumed at once, perhaps with another number of ranks, perhaps
killed again. After every kill the file must open; at the end every row is there once, whole, and every row that was committed at the
moment of a kill is unchanged, byte for byte."""
import os
import random
import shutil
import signal
import sys
import time

import lib
from lib import Place, audit, finish, kill_tree, rows, send, text_of

WHO = ("runner", "worker", "rank0", "mpirun", "everything")
ENDS_BY_ITSELF = 45  # s: a run that lost a runner or a stopped worker


def victims(who, pid, ranks, rng):
    """Process ids to hit; empty when there is no such process at this moment."""
    tree = lib.children(pid)
    ours = lib.ranks_of(pid) if ranks > 1 else [pid]
    if who == "runner":
        found = lib.runners(pid)
        return [rng.choice(found)] if found else []
    if who == "worker":
        return [rng.choice(ours[1:] or ours)] if ours else []
    if who == "rank0":
        return ours[:1]
    if who == "mpirun":
        return [pid]
    return [pid] + [p for p, _ in tree]


def snapshot(path):
    return rows(path) if os.path.exists(path) else {}


def began(path, pid):
    """Rank 0 of this run holds the lock: every rank is through MPI_Init, where a stopped one would hold all of them."""
    try:
        with open(path + ".lock", encoding="utf-8") as f:
            words = f.read().split()
    except OSError:
        return False
    return len(words) > 1 and int(words[1]) in [pid] + [p for p, _ in lib.children(pid)]


def check_kept(before, after, what):
    for index, row in before.items():
        assert index in after, f"{what}: committed row {index} is lost"
        assert after[index] == row, f"{what}: committed row {index} changed"


def one(program, seed, counts):
    rng = random.Random(seed)
    virtual = rng.random() < 0.3
    p = Place(program, lib.sweep(engine=f"virtual: {str(virtual).lower()}, prefill_us_per_token: 2, decode_us: 300",
                                 samples=rng.choice((20, 40)), repeats=3, seed=seed, warmup=rng.choice((0, 1)),
                                 measure=", timeout: 1, load_timeout: 2"))
    kept = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        ranks, who, sig = rng.choice((1, 3, 5)), rng.choice(WHO), rng.choice((signal.SIGKILL, signal.SIGSTOP))
        run = p.start("--resume", "--lease", "1", "--retries", "3", ranks=ranks)
        what = f"seed {seed}: {sig.name} of {who}, {ranks} ranks"
        time.sleep(rng.uniform(0.02, 0.3 if ranks == 1 else 1.2))
        hit = victims(who, run.pid, ranks, rng)
        for _ in range(40):  # it may not be there yet
            if hit or run.poll() is not None:
                break
            time.sleep(0.01)
            hit = victims(who, run.pid, ranks, rng)
        through = began(p.file, run.pid)
        for pid in hit:
            send(pid, sig)
        counts[(who if hit else "none", sig.name, ranks)] = counts.get((who if hit else "none", sig.name, ranks), 0) + 1
        now = snapshot(p.file)  # the file opens, whatever happened, while others may still write
        check_kept(kept, now, what)
        kept.update(now)
        others = who == "worker" and sig == signal.SIGSTOP and ranks > 1 and through
        if run.poll() is None and (who == "runner" or others):
            try:
                rc = finish(run, ENDS_BY_ITSELF)
            except lib.subprocess.TimeoutExpired:
                # stopped within its very last MPI call, when everyone else had gone: only mpirun could notice
                assert others and p.status()["state"] == "done", f"{what}: it did not end by itself\n{text_of(run)}"
                rc = 0
            # a runner that is killed while it describes the models ends the start, before there is anything to lose
            assert rc == 0 or not through or p.status()["exit"] == 0, f"{what}: rc {rc}\n{text_of(run)}"
        elif sig == signal.SIGSTOP:  # nobody else would end it
            kill_tree(run.pid)
            run.wait()
    rc, text = p.run("--resume", "--lease", "1", "--retries", "3", ranks=rng.choice((1, 3, 5)))
    assert rc == 0, f"seed {seed}: the last resume: rc {rc}\n{text}"
    check_kept(kept, audit(p.file), f"seed {seed}")
    v = p.command("verify", p.file)
    assert v.returncode == 0, f"seed {seed}: {v.stdout}"
    for pid in p.left_processes():  # ranks that outlive a killed mpirun end by themselves; do not wait for them
        send(pid, signal.SIGKILL)
    shutil.rmtree(p.dir)


def main():
    n, first = int(sys.argv[2]) if len(sys.argv) > 2 else 20, int(sys.argv[3]) if len(sys.argv) > 3 else 1
    program = os.path.abspath(sys.argv[1])
    lib.use_runner_beside(program)
    counts, begun = {}, time.monotonic()
    for seed in range(first, first + n):
        try:
            one(program, seed, counts)
        except Exception:
            print(f"seed {seed} failed", flush=True)
            raise
        if seed % 10 == 0:
            print(f"{seed - first + 1} of {n} sweeps, {time.monotonic() - begun:.0f} s", flush=True)
    for key in sorted(counts):
        print(f"{counts[key]:4d} × {key[1]} of {key[0]} at {key[2]} ranks")
    print(f"ok {n} sweeps ({time.monotonic() - begun:.0f} s)")


if __name__ == "__main__":
    main()
