"""Drafting from the sweep to the tables: identities on every row, output that is the baseline's, spans, the published curve to the digit."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np

import tempfile

PACELINE, SOURCE = sys.argv[1:3]


def run(*argv, ok=(0,)):
    p = subprocess.run([PACELINE, *argv], capture_output=True, text=True, timeout=500)
    assert p.returncode in ok, (argv, p.returncode, p.stdout[-2000:], p.stderr[-2000:])
    return p


def rows(out, name):
    with open(os.path.join(out, "tables", name + ".json")) as f:
        return json.load(f)["rows"]


def check_file(path):
    f = h5py.File(path)
    names = list(f["axes/arm"].asstr())
    t, rounds, tokens, spans = f["trials"][:], f["rounds"][:], f["tokens"][:], f["spans"][:]
    assert (f["commit"]["state"][:] == 1).all()
    assert spans.shape[:2] == t.shape[:2] and spans.shape[3] == 256
    base = names.index("baseline")
    for arm, name in enumerate(names):
        assert (tokens[arm] == tokens[base]).all(), name
        a, r = t[arm], rounds[arm]
        assert (a["rounds"] > 0).all() == (name != "baseline") or name.startswith(("lookup", "tiny-hidden")), name
        assert (r["drafted"].sum(axis=(-1, -2)) == a["drafted"]).all() and (r["accepted"].sum(axis=(-1, -2)) == a["accepted"]).all()
        plain = a["generated"].astype(int) + a["cut"] - 1 - a["accepted"] - a["rounds"]
        assert (plain >= 0).all(), name
        lane = sum(np.nan_to_num(a[k + "_ms"]) for k in ("tokenize", "prefill", "draft", "adapter", "verify", "decode", "wait"))
        assert (abs(lane - a["total_ms"]) <= np.maximum(0.01 * a["total_ms"], 0.002)).all(), name
        other = sum(np.nan_to_num(a[k + "_ms"]) for k in ("d_vision", "d_prefill", "d_decode", "d_wait"))
        assert (np.isnan(a["d_wait_ms"]) == np.isnan(a["d_prefill_ms"])).all() and (np.isnan(a["d_wait_ms"]) != name.startswith("tiny")).all(), name
        assert (np.isnan(a["d_wait_ms"]) | (abs(other - a["total_ms"]) <= np.maximum(0.01 * a["total_ms"], 0.002))).all(), name
        used = spans[arm]["end_ms"] > 0
        assert used.any() == (name != "baseline"), name
        assert (spans[arm]["start_ms"][used] <= spans[arm]["end_ms"][used]).all()
        if name.startswith("tiny"):
            assert (a["d_prefill_ms"] > 0).all() and (f["kv_len"][arm, :, :, :, 1, 0, :4] > 0).all()
            assert set(np.unique(spans[arm]["lane"][used])) == {0, 1}
    in_turn = t[names.index("tiny-in-turn")]
    assert (in_turn["free_tokens"] == 0).all()
    assert t[names.index("tiny-g4")]["free_tokens"].sum() > 0
    return names


def near(a, b):
    return a is None and np.isnan(b) or abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1e-9)


def check_numbers(path, out):
    """Every number of the drafting tables, made again from the file alone."""
    f = h5py.File(path)
    names, t, rounds, spans = list(f["axes/arm"].asstr()), f["trials"][:], f["rounds"][:], f["spans"][:]
    context = f["axes/context"][:].tolist()
    base = t[names.index("baseline")]
    step = [(b["total_ms"].mean() - b["ttft_ms"].mean()) / (b["generated"].mean() - 1) for b in base]
    prefill = list(t.dtype.names).index("prefill_ms")

    for r in rows(out, "acceptance"):
        a, c = names.index(r["arm"]), context.index(r["context"])
        cell, q = t[a, c], rounds[a, c].ravel()
        q = q[(q["drafted"] > 0) | (q["verify_us"] > 0) | (q["draft_us"] > 0)]
        seconds = cell["total_ms"].sum() / 1e3
        assert (r["rounds"], r["drafted"], r["accepted"], r["free_tokens"]) == tuple(int(x) for x in (len(q), q["drafted"].sum(), q["accepted"].sum(), cell["free_tokens"].sum())), r
        assert near(r["drafted_tps"], q["drafted"].sum() / seconds) and near(r["accepted_tps"], q["accepted"].sum() / seconds), r
        assert near(r["verify_ratio"], q["verify_us"].mean() / 1e3 / step[c]), r
        at = [(q["accepted"] > i).mean() for i in range(q["drafted"].max())]
        assert all(abs(x - y) < 1e-12 for x, y in zip(r["per_position"], at, strict=True)), (r, at)
        assert r["histogram"] == np.bincount(q["accepted"]).tolist(), r
        # 95 % over prompts: a ratio of totals, linearised, t of H - 1
        d, k = cell["drafted"].sum(1).astype(float), cell["accepted"].sum(1).astype(float)
        d, k = d[d > 0], k[d > 0]
        e, h = (k - k.sum() / d.sum() * d) / d.sum(), len(d)
        half = {2: 12.7062047364, 3: 4.30265272991}.get(h, np.nan) * np.sqrt(h / (h - 1) * (e * e).sum()) if h > 1 else np.nan
        if h < 2:
            assert r["rate_low"] is None and r["rate_high"] is None, r
        else:
            assert abs(r["rate_low"] - max(0, r["acceptance_rate"] - half)) < 1e-4 and abs(r["rate_high"] - min(1, r["acceptance_rate"] + half)) < 1e-4, (r, half)
        hidden = []
        for s in spans[a, c]:
            s = s[s["end_ms"] > 0]
            if not len(s):
                continue
            (p,) = s[(s["lane"] == 0) & (s["kind"] == prefill)]
            d = s[s["lane"] == 1]
            hidden.append(np.maximum(0, np.minimum(p["end_ms"], d["end_ms"]) - np.maximum(p["start_ms"], d["start_ms"])).sum())
        assert near(r["hidden_prefill_ms"], np.mean(hidden)), (r, hidden)
    for r in rows(out, "speedup_analysis"):
        a, c = names.index(r["arm"]), context.index(r["context"])
        cell, b = t[a, c], base[c]
        n = cell.size
        mean = {k: np.nan_to_num(cell[k + "_ms"]).sum() / n for k in ("draft", "adapter", "verify", "wait")}
        saved, verify = cell["accepted"].mean() * step[c], mean.pop("verify")
        beyond, hidden = verify - cell["rounds"].mean() * step[c], sum(mean.values())
        d, k, count, tokens = (x.mean() for x in (cell["drafted"], cell["accepted"], cell["rounds"], cell["generated"] - 1.0 + cell["cut"]))
        g = 1 + d / count  # tokens of a round whose draft is accepted
        accepted = (d - k) * step[c] if count * g <= tokens else max(0, tokens - k - count) * step[c] + (count - tokens / g) * (verify + mean["draft"] + mean["adapter"]) / count
        want = {"drafted": cell["drafted"].mean(), "saved": cell["accepted"].mean(), "step_ms": step[c], "saved_ms": saved, "verify_ms": verify,
                "verify_cost_ms": beyond, "draft_ms": mean["draft"], "adapter_ms": mean["adapter"], "wait_ms": mean["wait"], "net_ms": saved - beyond - hidden,
                "measured_ms": b["total_ms"].mean() - cell["total_ms"].mean(), "all_accepted_ms": accepted,
                "cheap_verify_ms": max(0, beyond), "all_hidden_ms": hidden}
        for k, v in want.items():
            assert abs(r[k] - v) <= 1e-6 * max(abs(v), 1), (r["arm"], k, r[k], v)
        levers = {"acceptance": want["all_accepted_ms"], "verify cost": want["cheap_verify_ms"], "overlap": hidden}
        assert r["lever"] == max(levers, key=levers.get) and r["sentence"].startswith(r["lever"] + " would pay most: "), r
        total = b["total_ms"].mean()
        best = total / (cell["total_ms"].mean() - levers[r["lever"]])
        assert f"{total / cell['total_ms'].mean():.2f}× now" in r["sentence"] and f"{best:.2f}× if" in r["sentence"], r
    cost = rows(out, "verify_cost")
    assert {r["arm"] for r in cost} == {"baseline", *(r["arm"] for r in rows(out, "acceptance"))}, cost
    for r in cost:
        a, c = names.index(r["arm"]), context.index(r["context"])
        every = r["of"] == "all its arms"
        assert every == (r["arm"] == "baseline"), r
        if r["k"] == 1:
            assert every and near(r["verify_ms"], step[c]) and r["verify_steps"] == 1, r
            continue
        q = rounds[:, c] if every else rounds[a, c]
        v = q["verify_us"][q["drafted"] == r["k"] - 1] / 1e3
        assert r["n"] == len(v) and near(r["verify_ms"], v.mean()) and near(r["verify_steps"], v.mean() / step[c]), r
        assert r["n"] == 1 or near(r["sd"], v.std(ddof=1)) or v.std() < 1e-3, r


def pair(tmp):
    """The trained pair under the published names: every arm says what the verifier alone says."""
    path, out = os.path.join(tmp, "pair.h5"), os.path.join(tmp, "pair")
    p = run("run", os.path.join(SOURCE, "examples/sweeps/pair-drafting.yaml"), "--samples", "2", "-o", path, ok=(0, 2, 4))
    if p.returncode != 0 and "FFmpeg" in p.stderr:
        return  # a build without a decoder of clips
    assert p.returncode == 0, p.stderr
    run("verify", path)
    f = h5py.File(path)
    names, tokens, t = list(f["axes/arm"].asstr()), f["tokens"][:], f["trials"][:]
    assert {"vl_baseline", "L1+VL", "L4+VL", "L5F_decode", "B1_decode", "L4+VL-g16"} <= set(names)
    for arm, name in enumerate(names):
        assert (tokens[arm] == tokens[names.index("vl_baseline")]).all(), name
        if name not in ("vl_baseline", "B1_decode"):
            assert (t[arm]["d_vision_ms"] > 0).all() and (t[arm]["d_prefill_ms"] > 0).all(), name
            assert (abs(sum(t[arm][k] for k in ("d_vision_ms", "d_prefill_ms", "d_decode_ms", "d_wait_ms")) - t[arm]["total_ms"]) <= 0.01 * t[arm]["total_ms"]).all(), name
            assert (t[arm]["d_preprocess_ms"] > 0).all() and (t[arm]["d_tower_ms"] > 0).all(), name
    run("report", path, "-o", out)
    for r in rows(out, "acceptance"):
        assert r["divergent"] == 0 and (r["acceptance_rate"] > 0.2 or r["arm"] == "B1_decode"), r
    assert os.path.exists(os.path.join(out, "published/e2e_wallclock.json"))


def children(pid):
    """Processes below pid, by the kernel."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            own = [int(x) for x in f.read().split()]
    except FileNotFoundError:
        return []
    return own + [c for p in own for c in children(p)]


def killed(tmp, how, retries):
    """Both lanes die, or stop for ever, in the middle of a round: the trial is tried again on a fresh runner, or is a failed row; never a hang."""
    path, sweep = os.path.join(tmp, f"killed{how}{retries}.h5"), os.path.join(tmp, "killed.yaml")
    models = os.path.join(SOURCE, "examples/models")
    with open(sweep, "w") as f:  # every arm drafts, so every moment of a trial is one of a round or of both prefills
        f.write(f"data: {{kind: text, path: {SOURCE}/examples/data/heldout.txt}}\n"
                f"models: {{big: {{path: {models}/small-llama, dtype: f32}}, tiny: {{path: {models}/tiny-llama, dtype: f32}}}}\n"
                "arms: {beside: {model: big, draft: {model: tiny, gamma: 4}}, in turn: {model: big, draft: {model: tiny, gamma: 3, overlap: none}}}\n"
                "baseline: beside\ngrid: {contexts: [64], samples: 12}\ngenerate: {tokens: 500}\nmeasure: {warmup: 0, timeout: 3}\n")
    p = subprocess.Popen([PACELINE, "run", sweep, "-o", path, "--retries", str(retries)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    victim, done = None, 0
    for _ in range(3000):
        if p.poll() is not None:
            break
        try:
            with open(path + ".status.json") as f:
                done = json.load(f)["done"]
        except (FileNotFoundError, ValueError):
            done = 0
        below = [c for c in children(p.pid) if "paceline-runner" in open(f"/proc/{c}/cmdline").read() and "serve" in open(f"/proc/{c}/cmdline").read()]
        if done >= 1 and below:
            victim = below[-1]
            os.kill(victim, how)
            break
        time.sleep(0.01)
    err = p.communicate(timeout=200)[1]
    assert victim, ("the run ended before its runner was killed", err)
    assert p.returncode == (0 if retries else 3), (p.returncode, err)
    assert not os.path.exists(f"/proc/{victim}"), "a stopped runner was left behind"
    f = h5py.File(path)
    failed = f["commit"]["state"][:] == 2
    log = f["failures"][:]
    reasons = list(f["axes/reason"].asstr())
    assert failed.sum() == (0 if retries else 1) and (f["commit"]["state"][:] > 0).all(), f["commit"]["state"][:]
    want = "crash" if how == signal.SIGKILL else "timeout"
    assert [reasons[x["reason"]] for x in log[log["used"] == 1]] == [want], log[log["used"] == 1]
    assert (f["trials"]["reason"][:][failed] == reasons.index(want)).all()
    both = ~failed.any(axis=0)
    assert (f["tokens"][0][both] == f["tokens"][1][both]).all() and (f["trials"]["generated"][:][~failed] == 500).all()
    run("verify", path)


def turned_vocabulary(tmp):
    """The tiny EventGPT with another tokenizer: the same pieces under other ids."""
    out, source = os.path.join(tmp, "egpt-turned"), os.path.join(SOURCE, "examples/models/tiny-eventgpt")
    shutil.copytree(source, out)
    first, n = 259, 634 - 259  # behind the byte pieces, before the added ones
    new = {i: first + (i - first + 101) % n if first <= i < first + n else i for i in range(640)}
    with open(os.path.join(out, "tokenizer.json"), encoding="utf-8") as f:
        t = json.load(f)
    t["model"]["vocab"] = {piece: new[i] for piece, i in t["model"]["vocab"].items()}
    with open(os.path.join(out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(t, f)
    with open(os.path.join(out, "model.safetensors"), "r+b") as f:
        size = int.from_bytes(f.read(8), "little")
        head = json.loads(f.read(size))
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            begin, end = head[name]["data_offsets"]
            f.seek(8 + size + begin)
            rows = np.frombuffer(f.read(end - begin), np.uint16).reshape(640, -1)
            moved = np.empty_like(rows)
            moved[[new[i] for i in range(640)]] = rows
            f.seek(8 + size + begin)
            f.write(moved.tobytes())
    return out


def other_events(tmp):
    """The held-out scenes with each other's events."""
    out, source = os.path.join(tmp, "shuffled"), os.path.join(SOURCE, "examples/data/pair")
    os.makedirs(os.path.join(out, "event_npy/shapes"))
    for name in os.listdir(source):
        if name != "event_npy":
            os.symlink(os.path.join(source, name), os.path.join(out, name))
    files = sorted(os.listdir(os.path.join(source, "event_npy/shapes")))
    for name, other in zip(files, files[1:] + files[:1]):
        os.symlink(os.path.join(source, "event_npy/shapes", other), os.path.join(out, "event_npy/shapes", name))
    return out


def pair_text(tmp):
    """The events' words draft for the clip as tokens, also from another tokenizer's; and what is drafted is about the scene: with another's events less of it is accepted."""
    sweep, path, out = (os.path.join(SOURCE, "examples/sweeps/pair-text.yaml"), os.path.join(tmp, "text.h5"), os.path.join(tmp, "text"))
    more = ("--set", "generate.tokens=32", "--samples", "24")  # six questions about each of four scenes
    p = run("run", sweep, *more, "-o", path, ok=(0, 2, 4))
    if p.returncode != 0 and "FFmpeg" in p.stderr:
        return
    assert p.returncode == 0, p.stderr
    rates = {}

    def accepted(path):
        run("verify", path)
        f = h5py.File(path)
        names, t, tokens = list(f["axes/arm"].asstr()), f["trials"][:], f["tokens"][:]
        assert (f["commit"]["state"][:] == 1).all()
        for arm, name in enumerate(names):
            assert (tokens[arm] == tokens[names.index("vl_baseline")]).all(), name
        return {n: t[a]["accepted"].sum() / t[a]["drafted"].sum() for a, n in enumerate(names) if n != "vl_baseline"}

    rates = accepted(path)
    assert set(rates) == {"L4_decode", "text_decode", "text+VL", "retokenize_decode", "retokenize+VL"} and min(rates.values()) > 0.8, rates
    turned = turned_vocabulary(tmp)
    p = run("validate", sweep, "--arms", "vl_baseline,text_decode", "--set", "models.egpt.path=" + turned, ok=(2,))
    assert "vocabulary is another one" in p.stderr, p.stderr
    path = os.path.join(tmp, "turned.h5")
    run("run", sweep, *more, "--arms", "vl_baseline,retokenize_decode,retokenize+VL", "--set", "models.egpt.path=" + turned, "-o", path)
    other = accepted(path)
    assert other["retokenize_decode"] == rates["retokenize_decode"] and other["retokenize+VL"] > 0.8, (rates, other)
    path = os.path.join(tmp, "shuffled.h5")
    run("run", sweep, *more, "--arms", "vl_baseline,L4_decode,text_decode", "--set", "data.dir=" + other_events(tmp), "-o", path)
    shuffled = accepted(path)
    print("accepted", rates, "of other scenes' events", shuffled)
    for name in shuffled:
        assert rates[name] >= 0.5 and shuffled[name] < rates[name] - 0.1, (rates, shuffled)


def main():
    with tempfile.TemporaryDirectory() as tmp:
        path, out = os.path.join(tmp, "d.h5"), os.path.join(tmp, "out")
        sweep = os.path.join(SOURCE, "examples/sweeps/drafting.yaml")
        run("run", sweep, "--samples", "2", "--contexts", "96", "--set", "generate.tokens=24", "-o", path)
        names = check_file(path)
        run("verify", path)
        run("report", path, "-o", out)
        acceptance = rows(out, "acceptance")
        assert [r["arm"] for r in acceptance] == [n for n in names if n != "baseline"][: len(acceptance)]
        for r in acceptance:
            assert r["divergent"] == 0 and abs(r["acceptance_rate"] - r["accepted"] / r["drafted"]) < 1e-12
            assert abs(r["mean_length"] - 1 - r["accepted"] / r["rounds"]) < 1e-12
            first = r["per_position"]
            assert first == sorted(first, reverse=True)  # a prefix is accepted
            assert all(abs(x * r["rounds"] - round(x * r["rounds"])) < 1e-9 for x in first), first  # in full: whole rounds
            assert sum(r["histogram"]) == r["rounds"]
        for name in ("drafting_speedup", "drafting_lanes", "acceptance", "acceptance_position", "verify_cost", "accept_to_speedup", "timeline"):
            assert not shutil.which("gnuplot") or os.path.getsize(os.path.join(out, "figures", name + ".svg")) > 1000, name
        check_numbers(path, out)
        curve = [r for r in rows(out, "accept_to_speedup") if r["arm"] == "published"]
        assert [f"{r['speedup']:.2f}" for r in curve] == ["1.01", "1.14", "1.25", "1.47"], curve
        assert [r["acceptance_rate"] for r in curve] == [0.21, 0.5, 0.7, 1.0] and all("5 decode steps" in r["source"] for r in curve)
        for r in rows(out, "speedup_analysis"):
            assert r["lever"] in ("acceptance", "verify cost", "overlap") and r["measured_ms"] is not None
        with open(os.path.join(out, "published/e2e_wallclock.json")) as f:
            w = json.load(f)
        assert list(w) == ["timestamp", "config", "stage_timing", "aggregate", "baseline_per_sample", "sd_per_sample"]
        eyes = w["stage_timing"]  # models that read text alone have no vision: not measured is null, not 0
        assert eyes["eventgpt"]["vision_ms"] is None and eyes["videollava"]["vision_ms"] is None and eyes["eventgpt"]["prefill_ms"] > 0, eyes
        assert list(w["aggregate"])[0] == "VL baseline" and set(w["sd_per_sample"]) == set(names) - {"baseline"}
        one = w["sd_per_sample"]["tiny-g4"][0]
        assert list(one)[:4] == ["sample", "question", "bl_total_ms", "parallel_prefill_ms"] and one["speedup"] == one["bl_total_ms"] / one["sd_total_ms"]
        with open(os.path.join(out, "published/e2e_wallclock.md")) as f:
            md = f.read()
        assert "| Config | Prefill (ms) | Decode (ms) | Total (ms) | Accept | Speedup | FreeTok |" in md and "| VL baseline | " in md
        said = {a["name"]: a["draft"] for a in json.loads(run("validate", sweep, "--resolved").stdout)["arms"] if a.get("draft")}
        assert all(d["gamma"] >= 1 and d["after_prefill"] in ("none", "gamma") for d in said.values()), said  # defaults are written out
        # one key wrong: exit 2 before anything runs, the place named
        p = run("validate", sweep, "--set", "arms.tiny-in-turn.draft.gamma=0", ok=(2,))
        assert "gamma" in p.stderr and "1 to 255" in p.stderr, p.stderr
        p = run("validate", sweep, "--set", "models.tiny.path=" + os.path.join(SOURCE, "examples/models/small-gpt2"), ok=(2,))
        assert "vocabulary" in p.stderr, p.stderr
        for how, retries in ((signal.SIGKILL, 1), (signal.SIGKILL, 0), (signal.SIGSTOP, 1)):
            killed(tmp, how, retries)
        pair(tmp)
        pair_text(tmp)
        # the simulated engine's drafting arms give the same tables, labelled
        sim = os.path.join(tmp, "sim.yaml")
        with open(sim, "w") as f:
            f.write("data: {kind: synthetic}\nmodels: {s: {engine: sim, virtual: true}}\n"
                    "arms: {base: {model: s}, d: {model: s, acceptance: 0.7, gamma: 4, draft_us: 30, verify_us: 350}}\n"
                    "baseline: base\ngrid: {contexts: [128], samples: 300}\ngenerate: {tokens: 64}\n")
        run("run", sim, "-o", os.path.join(tmp, "s.h5"))
        run("report", os.path.join(tmp, "s.h5"), "-o", out)
        (r,) = rows(out, "acceptance")
        assert r["synthetic"] and abs(r["per_position"][0] - 0.7) < 0.05, r
        assert abs(r["verify_ratio"] - 350 / 300) < 0.01, r


main()
