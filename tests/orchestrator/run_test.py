#!/usr/bin/env python3
"""run_test.py PACELINE [GROUP|NAME…]: whole runs with the simulated engine at one, three and five ranks, and everything that ends a run."""
import json
import os
import shutil
import signal
import subprocess
import time

import lib
from lib import Place, audit, finish, log, rows, sweep, text_of, wait_for

SLOW = "virtual: false, prefill_us_per_token: 100, decode_us: 10000"  # about 40 ms a trial


def clean_runs(program):
    for ranks in (1, 3, 5):
        p = Place(program, sweep(samples=20, repeats=2))
        rc, text = p.run(ranks=ranks)
        assert rc == 0, (ranks, rc, text)
        got = audit(p.file)
        assert {r[2] for r in got.values()} == {0}
        s = p.status()
        assert (s["state"], s["exit"], s["done"], s["failed"], s["left"]) == ("done", 0, 160, 0, 0), s
        assert len(log(p.file, "workers")) == max(1, ranks - 1)
        assert len(log(p.file, "sessions")) == 2
        assert lib.trials(p.file)["synthetic"].all()
        assert not p.left_processes()
        v = p.command("verify", p.file)
        assert v.returncode == 0, v.stdout
        shutil.rmtree(p.dir)


def same_rows_whoever_ran_them(program):
    """Times are drawn from the sweep's seed, so ranks must not change a single measured value."""
    columns = ["ttft_ms", "total_ms", "ids_hash", "generated", "order"]
    seen = []
    for ranks in (1, 3):
        p = Place(program, sweep())
        assert p.run(ranks=ranks)[0] == 0
        t = lib.trials(p.file)
        seen.append([t[c] for c in columns if c != "order"])
    for a, b in zip(*seen):
        assert (a == b).all()


def existing_output(program):
    p = Place(program, sweep())
    assert p.run()[0] == 0
    before = open(p.file, "rb").read()
    for ranks in (1, 3):
        rc, text = p.run(ranks=ranks)
        assert rc == 2 and "--resume" in text and p.file in text, (rc, text)
        assert text.count("already exists") == 1, text
    assert open(p.file, "rb").read() == before


def bad_places(program):
    p = Place(program, sweep())
    r = p.command("run", p.sweep)
    assert r.returncode == 2 and "-o" in r.stdout, r.stdout
    r = p.command("run", p.sweep, "-o", p.dir + "/no/such/o.h5")
    assert r.returncode == 2 and "/no/such" in r.stdout, r.stdout
    r = p.command("run", p.sweep, "-o", "/proc/o.h5")
    assert r.returncode in (2, 6) and "/proc" in r.stdout, r.stdout
    r = p.command("run", p.dir + "/nope.yaml", "-o", p.file)
    assert r.returncode == 2, r.stdout
    assert not os.path.exists(p.file)
    rc, text = p.run(argv=["mpirun", "-n", "3", program, "run", p.dir + "/nope.yaml", "-o", p.file])
    assert rc == 2 and "nope.yaml" in text, (rc, text)
    assert not os.path.exists(p.file)
    r = p.command("run", p.sweep, "-o", p.file, "--dry-run")
    assert r.returncode == 0 and "trials" in r.stdout and not os.path.exists(p.file), r.stdout
    rc, text = p.run(argv=["mpirun", "-n", "1", program, "run", p.sweep, "-o", p.file])
    assert rc == 0 and p.status()["left"] == 0, (rc, text)  # a world of one does both


def other_sweeps(program):
    p = Place(program, sweep())
    other = os.path.join(p.dir, "other.yaml")
    with open(other, "w", encoding="utf-8") as f:
        f.write(sweep(seed=2))
    rc, text = p.run(argv=["mpirun", "-n", "1", *p.argv(), ":", "-n", "2", *p.argv(sweep_path=other)])
    assert rc == 2 and "another sweep" in text and "host" in text, (rc, text)
    assert not os.path.exists(p.file)


def changed_sweep(program):
    p = Place(program, sweep())
    assert p.run()[0] == 0
    before = open(p.file, "rb").read()
    p.write(sweep(seed=77))
    for ranks in (1, 3):
        rc, text = p.run("--resume", ranks=ranks)
        assert rc == 2 and "seed" in text and "77" in text, (rc, text)
    p.write(sweep())
    rc, text = p.run("--resume", "--samples", "3")
    assert rc == 2 and "samples" in text, (rc, text)
    assert open(p.file, "rb").read() == before
    # what was said of the last run stands, unless a script removed it: then it must learn that this start failed
    assert p.status()["state"] == "done"
    for text in (sweep(seed=77), sweep() + "nonsense: 1\n"):
        os.unlink(p.file + ".status.json")
        p.write(text)
        assert p.run("--resume")[0] == 2
        assert p.status()["state"] == "failed" and p.status()["exit"] == 2
    p.write(sweep())
    rc, text = p.run("--resume")
    assert rc == 0, text
    audit(p.file)


def resume_starts_anew(program):
    p = Place(program, sweep())
    rc, text = p.run("--resume")
    assert rc == 0 and "anew" in text, (rc, text)
    audit(p.file)
    assert p.run("--rerun-failed")[0] == 2


def faults(program):
    kinds = {"crash": "crash", "hang": "timeout", "oom": "oom", "garbage": "garbage"}
    for kind, reason in kinds.items():
        p = Place(program, sweep(engine=f"virtual: true, fail: {{{kind}: 0.1}}", measure=", timeout: 0.3", samples=10, warmup=0))
        rc, text = p.run("--retries", "0", ranks=3)
        assert rc == 3, (kind, rc, text)
        got = audit(p.file, failed=True)
        f = log(p.file, "failures")
        names = list(lib.h5py.File(p.file)["axes/reason"].asstr())
        assert {names[x["reason"]] for x in f} == {reason}, (kind, [names[x["reason"]] for x in f])
        n_failed = sum(r[0] == 2 for r in got.values())
        assert 0 < n_failed < 40, (kind, n_failed)
        assert p.status()["state"] == "done" and p.status()["exit"] == 3 and p.status()["reason"] == f"{n_failed} of 80 trials failed", p.status()
        # every draw is keyed by the attempt: tried again, most come out well; the done ones are not touched
        rc, text = p.run("--resume", "--rerun-failed", "--retries", "5")
        assert rc == 0, (kind, rc, text)
        after = audit(p.file)
        for i, r in got.items():
            if r[0] == 1:
                assert after[i] == r, "a committed row changed"
            else:
                assert after[i][1] >= 1 and after[i][2] == 1, after[i][:3]
        shutil.rmtree(p.dir)


def retries_and_all_failed(program):
    p = Place(program, sweep(engine="virtual: true, fail: {crash: 0.2}", warmup=2, samples=8))
    rc, text = p.run("--retries", "8", ranks=3)
    assert rc == 0, text
    got = audit(p.file)
    assert any(r[1] > 0 for r in got.values())
    p = Place(program, sweep(engine="virtual: true, fail: {crash: 1}", samples=2, repeats=1, warmup=0))
    rc, text = p.run()
    assert rc == 4 and p.status()["state"] == "failed", (rc, text)
    audit(p.file, failed=True)
    # a warm-up that never comes through gives its arm up, not the sweep
    p = Place(program, sweep(arms="  base: {model: sim}\n  bad: {model: broken}\n", samples=2, repeats=1,
                             models="  sim: {engine: sim, virtual: true}\n"
                                    "  broken: {engine: sim, virtual: true, fail: {crash: 1}}\n"))
    rc, text = p.run()
    assert rc == 3, (rc, text)
    got = audit(p.file, failed=4)


def max_fails(program):
    p = Place(program, sweep(engine="virtual: true, fail: {crash: 0.5}", samples=40, warmup=0))
    rc, text = p.run("--retries", "0", "--max-fails", "5", ranks=3)
    s = p.status()
    assert rc == 3 and s["state"] == "failed" and "max-fails" in s["reason"], (rc, text)
    assert s["failed"] > 5 and s["left"] > 0, s


def signals_alone(program):
    for sig, word in ((signal.SIGINT, "INT"), (signal.SIGTERM, "TERM"), (signal.SIGUSR1, "USR1"), (signal.SIGHUP, "HUP")):
        p = Place(program, sweep(engine=SLOW, samples=20))
        run = p.start()
        wait_for(lambda: os.path.exists(p.file) and rows(p.file))
        run.send_signal(sig)
        assert finish(run, 20) == 5, text_of(run)
        s = p.status()
        assert s["state"] == "interrupted" and s["exit"] == 5 and s["left"] > 0 and word in s["reason"], s
        got = rows(p.file)
        assert len(got) == s["done"], (len(got), s)
        assert not p.left_processes()
        rc, text = p.run("--resume", "--set", "models.sim.virtual=true")
        assert rc == 2, text  # that is another sweep
        run = p.start("--resume")
        wait_for(lambda: len(rows(p.file)) > len(got))
        run.send_signal(sig)
        assert finish(run, 20) == 5
        after = rows(p.file)
        assert all(after[i] == r for i, r in got.items())
        assert {r[2] for r in after.values()} == {0, 1}
        shutil.rmtree(p.dir)


def second_ctrl_c(program):
    p = Place(program, sweep(engine="virtual: false, decode_us: 3000000", samples=4))  # 12 s a trial
    run = p.start()
    wait_for(lambda: os.path.exists(p.file) and lib.runners(run.pid))
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    begun = time.monotonic()
    run.send_signal(signal.SIGINT)
    assert finish(run, 20) == 5
    assert time.monotonic() - begun < 2
    assert p.status()["state"] == "interrupted"
    wait_for(lambda: not p.left_processes(), 5)


def signals_under_mpirun(program):
    for sig, expected in ((signal.SIGTERM, None), (signal.SIGINT, None), (signal.SIGUSR1, 5)):
        p = Place(program, sweep(engine=SLOW, samples=50))
        run = p.start(ranks=3)
        wait_for(lambda: os.path.exists(p.file) and rows(p.file))
        begun = time.monotonic()
        run.send_signal(sig)
        rc = finish(run, 20)
        assert time.monotonic() - begun < 5
        assert rc == expected if expected else rc != 0, (sig, rc, text_of(run))
        s = p.status()
        assert s["state"] == "interrupted" and s["exit"] == 5, s
        got = rows(p.file)
        assert 0 < len(got) < 400
        wait_for(lambda: not p.left_processes(), 5)
        shutil.rmtree(p.dir)


def status_from_another_shell(program):
    p = Place(program, sweep(engine=SLOW, samples=20))
    run = p.start(ranks=3)
    wait_for(lambda: os.path.exists(p.file) and len(rows(p.file)) > 3)
    r = p.command("status", p.file, "--json")
    s = lib.json.loads(r.stdout)
    assert r.returncode == 0 and s["state"] == "running" and s["done"] > 3 and s["left"] > 0, s
    assert s["done"] + s["failed"] + s["left"] == 160
    wait_for(lambda: lib.json.loads(p.command("status", p.file, "--json").stdout).get("rate_per_s"), 10)
    s = lib.json.loads(p.command("status", p.file, "--json").stdout)
    assert len(s["workers"]) == 2 and s["eta_s"] > 0, s
    lib.kill_tree(run.pid)
    run.wait()
    wait_for(lambda: lib.json.loads(p.command("status", p.file, "--json").stdout)["state"] == "interrupted", 10)
    assert "interrupted" in p.command("status", p.file).stdout
    assert p.command("status", p.dir + "/none.h5").returncode == 2


def one_writer(program):
    """A second run waits for the first; when that ends in time it goes on from there."""
    p = Place(program, sweep(engine=SLOW, samples=6))
    first = p.start()
    wait_for(lambda: os.path.exists(p.file) and rows(p.file))
    second = p.start("--resume")
    time.sleep(1.5)
    assert second.poll() is None
    assert finish(first) == 0, text_of(first)
    before = rows(p.file)
    assert finish(second) == 0, text_of(second)
    assert "waiting" in text_of(second)
    assert rows(p.file) == before


def stopped_worker(program):
    """A worker that does not move loses its trials to the others, and the run ends without it."""
    p = Place(program, sweep(engine=SLOW, samples=20))
    run = p.start("--lease", "1", ranks=3)
    wait_for(lambda: os.path.exists(p.file) and len(rows(p.file)) > 3)
    victim = lib.ranks_of(run.pid)[2]
    os.kill(victim, signal.SIGSTOP)
    rc = finish(run, 60)
    assert rc == 0 or p.status()["exit"] == 0, (rc, text_of(run))
    audit(p.file)
    assert p.status()["state"] == "done", p.status()
    assert "not been heard of" in text_of(run)
    wait_for(lambda: not p.left_processes(), 10)


def worker_comes_back(program):
    """Stopped for longer than its lease, then continued: it writes nothing under the old lease and takes new ones."""
    p = Place(program, sweep(engine=SLOW, samples=40))
    run = p.start("--lease", "1", ranks=3)
    wait_for(lambda: os.path.exists(p.file) and len(rows(p.file)) > 3)
    victim = lib.ranks_of(run.pid)[2]
    os.kill(victim, signal.SIGSTOP)
    time.sleep(3)
    os.kill(victim, signal.SIGCONT)
    assert finish(run, 60) == 0, text_of(run)
    audit(p.file)
    assert "is back" in text_of(run), text_of(run)


HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


def foreign(how, more=""):
    return lib.sweep(arms="  base: {model: sim}\n  other: {model: other}\n",
                     models="  sim: {engine: sim, virtual: true}\n"
                            f"  other: {{engine: {{exec: [python3, {HERE}/engine.py, {how}]{more}}}}}\n", samples=40)


def models_that_do_not_load(program):
    """An arm whose model loads nowhere costs its own rows and a few tries, not a try a row."""
    for how in ("no-load", "load-dies"):
        p = Place(program, foreign(how))
        rc, text = p.run("--allow-exec", ranks=3)
        assert rc == 3, (rc, text)
        got = audit(p.file, failed=160)
        with lib.h5py.File(p.file) as f:
            names = list(f["axes/reason"].asstr())
        t = lib.trials(p.file)
        assert {names[r] for r in t[1]["reason"].reshape(-1)} == {"load"}, how
        assert len(got) == 320 and len(log(p.file, "loads")) < 20, len(log(p.file, "loads"))
        if how == "no-load":
            tails = [x["stderr_tail"].decode() for x in log(p.file, "failures")]
            assert any("not for this machine" in x for x in tails), tails


def a_worker_that_cannot(program):
    """One worker cannot load a model that another can: it must not eat the sweep with failures."""
    if (os.cpu_count() or 1) < 2:
        print("SKIP: a_worker_that_cannot needs two cores")
        return
    p = Place(program, foreign("odd-core"))
    rc, text = p.run("--allow-exec", ranks=3)
    assert rc == 0, (rc, text)
    audit(p.file)
    t = lib.trials(p.file)
    assert len(set(t[1]["worker"].reshape(-1))) == 1
    assert any(not x["ok"] for x in log(p.file, "loads")), "both could load: nothing was tested"


def what_foreign_engines_get(program):
    text_file = os.path.join(TOP, "examples", "data", "heldout.txt")
    model = os.path.join(TOP, "examples", "models", "tiny-llama")
    data = f"{{kind: text, path: {text_file}}}"
    script = f"{HERE}/engine.py"
    p = Place(program, lib.sweep(arms="  base: {model: text}\n", data=data, measure=", timeout: 20",
                                 models=f"  text: {{engine: {{exec: [python3, {script}, ok]}}}}\n"))
    rc, text = p.run("--allow-exec", ranks=3)
    assert rc == 0, (rc, text)
    audit(p.file)
    t = lib.trials(p.file)
    assert (t["prompt_tokens"][:, 0] >= 16 * 6).all() and (t["prompt_tokens"][:, 1] >= 32 * 6).all()
    if not os.path.exists(os.path.join(model, "config.json")):
        return
    p = Place(program, lib.sweep(arms="  base: {model: ids}\n  ours: {model: tiny}\n", data=data, measure=", timeout: 20", samples=3,
                                 models=f"  ids: {{engine: {{exec: [python3, {script}, ok], ids_from: tiny}}}}\n"
                                        f"  tiny: {{path: {model}}}\n"))
    rc, text = p.run("--allow-exec", ranks=3)
    assert rc == 0, (rc, text)
    audit(p.file)
    t = lib.trials(p.file)
    assert (t["prompt_tokens"][:, 0] == 16).all() and (t["prompt_tokens"][:, 1] == 32).all()
    assert p.run()[0] == 2  # without --allow-exec


def tokens_by_context(program):
    p = Place(program, sweep(tokens="{32: 2, 16: 4, 64: 9}"))
    rc, text = p.run(ranks=3)
    assert rc == 0, (rc, text)
    audit(p.file)
    g = lib.trials(p.file)["generated"]
    assert (g[:, 0] == 4).all() and (g[:, 1] == 2).all(), g
    with lib.h5py.File(p.file) as f:
        assert f["tokens"].shape[-1] == 4 and (f["tokens"][:, 1, ..., 2:] == -1).all()
        assert json.loads(f["sweep/resolved"][()])["generate"]["tokens"] == [4, 2]
    plan = json.loads(p.command("plan", p.sweep, "--json").stdout)
    assert plan["tokens"] == 4 and plan["context_tokens"] == [4, 2], plan
    p.write(sweep(tokens="{32: 2, 16: 4}", contexts="[32]"))
    assert json.loads(p.command("plan", p.sweep, "--json").stdout)["context_tokens"] == [2]
    # an engine that always makes four is caught where two were asked for
    p = Place(program, lib.sweep(arms="  base: {model: text}\n", tokens="{16: 4, 32: 2}",
                                 models=f"  text: {{engine: {{exec: [python3, {HERE}/engine.py, ok]}}}}\n"))
    rc, text = p.run("--allow-exec", "--retries", "0")
    assert rc == 3, (rc, text)
    with lib.h5py.File(p.file) as f:
        state = f["commit"]["state"]
        assert (state[:, 0] == 1).all() and (state[:, 1] == 2).all(), state
        why = [x["detail"] for x in f["failures"][...] if x["used"]]
    assert why and all(b"generated 4 tokens, 2 were asked for" in x for x in why), why


def full_disk(program):
    if os.geteuid() != 0 or not shutil.which("mount"):
        print("SKIP: full_disk needs root to mount a small tmpfs")
        return
    p = Place(program, sweep(samples=2000, repeats=5, tokens=64))
    small = os.path.join(p.dir, "small")
    os.mkdir(small)
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small]):
        print("SKIP: full_disk may not mount a tmpfs here")
        return
    try:
        p.file = os.path.join(small, "o.h5")
        rc, text = p.run(ranks=3)
        assert rc == 6 and "space" in text, (rc, text)
        assert not os.path.exists(p.file) or rows(p.file) is not None
    finally:
        subprocess.call(["umount", "-l", small])


GROUPS = {
    "runs": [clean_runs, same_rows_whoever_ran_them, status_from_another_shell, one_writer, resume_starts_anew],
    "refusals": [existing_output, bad_places, other_sweeps, changed_sweep, full_disk],
    "faults": [faults, retries_and_all_failed, max_fails],
    "engines": [models_that_do_not_load, a_worker_that_cannot, what_foreign_engines_get, tokens_by_context],
    "signals": [signals_alone, second_ctrl_c, signals_under_mpirun],
    "lost": [stopped_worker, worker_comes_back],
}

if __name__ == "__main__":
    lib.main(GROUPS)
