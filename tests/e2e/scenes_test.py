"""scenes_test.py PACELINE: questions about scenes, from the files of a dataset to scored answers. The first half needs no model: a
foreign engine here sees what one is told. The second half runs the tiny pair on its held-out scenes."""
import itertools
import json
import os
import re
import shutil
import sys

import h5py
import numpy as np

from harness import TOP, Bench

DATA = os.path.join(TOP, "examples", "data", "pair")
EGPT, VL = (os.path.join(TOP, "examples", "models", name) for name in ("tiny-eventgpt", "tiny-video-llava"))

ENGINE = '''
import json, sys
def say(**a):
    print(json.dumps(a), flush=True)
say(type="hello", protocol=1, runner="seer", version="1", synthetic=False, devices=[])
for line in sys.stdin:
    q = json.loads(line)
    print(line.strip(), file=open(sys.argv[1], "a"))
    if q["type"] == "describe":
        say(type="described", id=q["id"], layers=1, warnings=[], errors=[], prompt_tokens=9)
    elif q["type"] == "load":
        say(type="loaded", id=q["id"], load_ns=0, models={})
    elif q["type"] == "trial":
        s = q["sample"]
        try:
            open(s["events"]).close()
        except OSError as e:
            say(type="error", id=q["id"], reason="data", text=str(e), fatal=False)
            continue
        say(type="result", id=q["id"], prompt_tokens=len(s["question"]), generated=[1], tokens=[[5]], token_ns=[[2000]],
            phases_ns={"vision": 1000, "prefill": 1000, "wait": 0}, ttft_ns=2000, total_ns=2000, texts=["It is two."])
    else:
        say(type="unloaded", id=q["id"])
'''

FOREIGN = """name: seer
data: {{kind: eventgpt, dir: {dir}}}
models: {{seer: {{engine: {{exec: [{python}, {engine}, {log}]}}}}}}
arms: {{seer: {{model: seer}}}}
grid: {{contexts: [auto], samples: all}}
generate: {{tokens: 4}}
measure: {{warmup: 0}}
"""


def write_npy(path, n=50, span_us=30000, seed=0):
    """Events as the official samples hold them: a 0-d object array, which is a pickled dict."""
    rng = np.random.default_rng(seed)
    events = {"x": rng.integers(0, 90, n).astype(np.uint16), "y": rng.integers(0, 80, n).astype(np.uint16),
              "t": np.sort(rng.integers(0, span_us, n)).astype(np.int64), "p": rng.integers(0, 2, n).astype(np.uint8)}
    os.makedirs(os.path.dirname(path), exist_ok=True)
    np.save(path, np.array(events, dtype=object), allow_pickle=True)


def dataset(bench, name):
    """Three scenes; the answer to the first question is the one that the engine above always gives."""
    root, items = bench.path(name), []
    for i in range(3):
        write_npy(f"{root}/event_npy/s/{i}.npy", seed=i)
        items.append({"id": f"scene-{i}", "event_data": f"event_npy/s/{i}.npy", "conversations": [
            {"from": "human", "value": "<event>\nHow many?"}, {"from": "gpt", "value": "It is 2"},
            {"from": "human", "value": "Which way?"}, {"from": "gpt", "value": "Left."},
            {"from": "human", "value": "Nobody knows the answer?"}]})
    with open(f"{root}/instruction.json", "w", encoding="utf-8-sig", newline="\r\n") as f:
        json.dump(items, f, indent=1)
    return root


def rows(out):
    with h5py.File(out, "r") as f:
        metric = [m.decode() for m in f["axes/metric"][:]]
        return dict(arms=[a.decode() for a in f["axes/arm"][:]], samples=list(f["axes/sample"].asstr()[:]),
                    context=f["axes/context"][:], state=f["commit"]["state"][...], trials=f["trials"][...],
                    reason=[r.decode() for r in f["axes/reason"][:]], tokens=f["tokens"][...],
                    accuracy=f["quality"][...][..., metric.index("accuracy")],
                    provenance=json.loads(f["sweep/provenance"][()]))


def foreign_engine(bench):
    root, out, log = dataset(bench, "d"), bench.path("seer.h5"), bench.path("seen.jsonl")
    engine = bench.write("seer.py", ENGINE)
    sweep = bench.write("seer.yaml", FOREIGN.format(dir=root, python=sys.executable, engine=engine, log=log))
    done = bench.run("validate", sweep, "--allow-exec")
    bench.expect("9 samples" in done.stdout and "0 warnings" in done.stdout, done.stdout)
    bench.run("run", sweep, "-o", out, "--allow-exec")
    bench.run("verify", out)
    r = rows(out)
    bench.expect(list(r["context"]) == [0] and len(r["samples"]) == 9 == len(set(r["samples"])), str(r["samples"]))
    bench.expect("scene-1 × Which way?" in r["samples"], str(r["samples"]))
    for i, name in enumerate(r["samples"]):
        a = r["accuracy"][0, 0, i, 0]
        right = a == 1 if "How many" in name else a == 0 if "Which" in name else np.isnan(a)
        bench.expect(right, f"{name}: accuracy {a}")
    bench.expect((r["trials"]["vision_ms"] > 0).all() and len(r["provenance"]["data"]) == 64, "vision, provenance")
    asked = [json.loads(line) for line in open(log)]
    trials = [q for q in asked if q["type"] == "trial"]
    bench.expect({q["sample"]["question"] for q in trials} == {"How many?", "Which way?", "Nobody knows the answer?"}, "questions")
    bench.expect(all(q["context"] == 0 and q["sample"]["max_window_ms"] == 100 for q in trials), "context, window")
    bench.expect("It is 2" not in open(log).read() and "Left" not in open(log).read(), "the true answer was told")
    told = [q for q in asked if q["type"] == "describe"][0]["sample"]["question"]
    bench.expect(told == "Nobody knows the answer?", f"described by {told}")
    table = bench.table(out, "latency")
    bench.expect(all(row["context"] is None for row in table), "a context of its own is null")
    return root, sweep, out


def changed_files(bench, root, sweep, out):
    with open(f"{root}/event_npy/s/1.npy", "r+b") as f:
        f.seek(0, 2)
        size = f.tell()
        f.seek(size // 2)
        f.write(b"\xaa")
    done = bench.run("run", sweep, "-o", out, "--allow-exec", "--resume", code=2)
    bench.expect("the data has changed" in done.stderr, done.stderr)
    os.unlink(f"{root}/event_npy/s/1.npy")
    with open(f"{root}/event_npy/s/2.npy", "r+b") as f:
        f.truncate(size - 1)
    done = bench.run("validate", sweep, "--allow-exec")
    bench.expect("of 3 scenes, 1 lack their event file and 1 have a broken one" in done.stderr, done.stderr)
    other = bench.path("broken.h5")
    done = bench.run("run", sweep, "-o", other, "--allow-exec", code=3)
    bench.expect("1 lack their event file" in done.stderr, done.stderr)
    r = rows(other)
    for i, name in enumerate(r["samples"]):
        want = 2 if name.startswith("scene-1") else 1
        bench.expect(r["state"][0, 0, i, 0] == want, f"{name}: state {r['state'][0, 0, i, 0]}")
        if want == 2:
            bench.expect(r["reason"][r["trials"]["reason"][0, 0, i, 0]] == "data", f"{name}: its reason")
    table = bench.table(other, "failures")
    bench.expect(table[0]["reason"] == "data" and table[0]["failed"] == 3, str(table))


def bad_questions(bench):
    root = dataset(bench, "e")
    sweep = bench.write("bad.yaml", f"""data: {{kind: dsec, dir: {root}, questions: q.txt, n_questions: 2}}
models: {{sim: {{engine: sim, virtual: true}}}}
arms: {{a: {{model: sim}}}}
grid: {{contexts: [auto], samples: all}}
""")
    for text, said in (("12\tWhat?\r\nx\tWhy?\r\n", 'q.txt:2: "x", expected COUNT<TAB>QUESTION'), ("\ufeff\r\n", "no question in it"),
                       ('[{"id": 1}]', "q.txt: item 0 (id 1): event_data is missing")):
        with open(f"{root}/q.txt", "w", newline="") as f:
            f.write(text)
        done = bench.run("run", sweep, "-o", bench.path("none.h5"), code=2)
        bench.expect(said in done.stderr and not os.path.exists(bench.path("none.h5")), f"{text!r}: {done.stderr}")
    with open(f"{root}/q.txt", "w", newline="") as f:
        f.write("\ufeff12\tWhat?\r\n3\tWhere is it?\r\n1\tWhy?\r\n")
    out = bench.path("sim.h5")
    bench.run("run", sweep, "-o", out)
    r = rows(out)
    bench.expect(sorted(r["samples"])[0] == "s/0 × What?" and len(r["samples"]) == 6, str(r["samples"]))
    lengths = {name.split(" × ")[1]: int(n) for name, n in zip(r["samples"], r["trials"]["prompt_tokens"][0, 0, :, 0])}
    bench.expect(lengths == {"What?": 5, "Where is it?": 12}, str(lengths))


PAIR = """name: pair
data: {{kind: {kind}, dir: {dir}, n_questions: 2, max_window_ms: none, cache_vision: {cache}}}
models:
  vl:   {{path: {vl}, dtype: f32}}
  egpt: {{path: {egpt}, dtype: f32}}
arms:
  verifier: {{model: vl}}
  drafter:  {{model: egpt}}
baseline: verifier
grid: {{contexts: [auto], samples: 8}}
generate: {{tokens: 12}}
measure: {{warmup: 1}}
"""


def pair(bench, name, cache="false", kind="dsec", data=DATA, code=0, extra=()):
    sweep = bench.write(name + ".yaml", PAIR.format(kind=kind, dir=data, cache=cache, vl=VL, egpt=EGPT))
    out = bench.path(name + ".h5")
    done = bench.run("run", sweep, "-o", out, *extra, code=code)
    return out, done, sweep


def trained_pair(bench):
    out, _, _ = pair(bench, "plain")
    bench.run("verify", out)
    plain = rows(out)
    t = plain["trials"]
    bench.expect((plain["state"] == 1).all(), "every trial is done")
    bench.expect((t["vision_ms"] > 0).all() and (t["tokenize_ms"] > 0).all(), "no look takes no time")
    bench.expect(np.allclose(t["tokenize_ms"] + t["vision_ms"] + t["prefill_ms"], t["ttft_ms"], rtol=1e-6), "the phases are the TTFT")
    bench.expect((t["preprocess_ms"] > 0).all() and (t["tower_ms"] > 0).all(), "both parts of a look are told")
    bench.expect((t["preprocess_ms"] + t["tower_ms"] <= t["vision_ms"]).all(), "parts of a look are no more than it")
    phases = {(row["arm"], row["phase"]): row["mean"] for row in bench.table(out, "latency")}
    for arm, part in itertools.product(("verifier", "drafter"), ("preprocess", "tower")):
        mean = t[part + "_ms"][list(plain["arms"]).index(arm)].mean()
        bench.expect(abs(phases[arm, part] - mean) < 1e-9, f"latency of {part} of {arm}")
    accuracy = np.nanmean(plain["accuracy"], axis=(1, 2, 3))
    bench.expect(not np.isnan(plain["accuracy"]).any() and (accuracy > 0.3).all(), f"accuracy {accuracy}")
    bench.expect(len(set(t["ids_hash"].ravel())) == t.size, "different inputs have different hashes")
    speedup = bench.table(out, "speedup")
    bench.expect(speedup[0]["quality_metric"] == "accuracy" and abs(speedup[0]["quality"] - accuracy[1]) < 1e-12, str(speedup[0]))
    with open(os.path.join(out + ".report", "tables", "latency.md")) as f:
        bench.expect("cached vision" not in f.read(), "nothing was cached")

    out, _, _ = pair(bench, "cached", cache="true")
    cached = rows(out)
    bench.expect((cached["tokens"] == plain["tokens"]).all(), "a kept scene says the same")
    bench.expect((cached["trials"]["logits_hash"] == t["logits_hash"]).all(), "bit for bit")
    faster = np.median(cached["trials"]["vision_ms"]) < np.median(t["vision_ms"]) / 5
    bench.expect(faster and (cached["trials"]["vision_ms"] > 0).all(), "a kept scene is looked up")
    bench.expect(np.isnan(cached["trials"]["preprocess_ms"]).any(), "a kept scene has no preprocessing")
    bench.table(out, "warnings")
    for name in os.listdir(os.path.join(out + ".report", "tables")):
        if name.endswith(".md"):
            with open(os.path.join(out + ".report", "tables", name)) as f:
                bench.expect("cached vision" in f.read(), f"{name} does not say that vision was cached")


def broken_pair(bench):
    data = bench.path("pair")
    shutil.copytree(DATA, data)
    os.unlink(f"{data}/event_npy/shapes/3.npy")
    for name, keep in (("event_npy/shapes/5.npy", 0.5), ("mp4/shapes/7.mp4", 0.5)):
        with open(f"{data}/{name}", "r+b") as f:
            f.truncate(int(os.path.getsize(f"{data}/{name}") * keep))
    with open(f"{data}/mp4/shapes/9.mp4", "w") as f:
        f.write("no clip at all, this")
    out, done, sweep = pair(bench, "holes", data=data, code=3, extra=("--samples", "all", "--set", "data.n_questions=1"))
    bench.expect("of 24 scenes, 1 lack their event file and 1 have a broken one" in done.stderr, done.stderr)
    bench.expect("of 24 scenes, 0 lack their clip and 2 have a broken one" in done.stderr, done.stderr)
    r = rows(out)
    failed = {(r["arms"][a], r["samples"][s].split(" ")[0]) for a, _, s, _ in zip(*np.nonzero(r["state"] == 2))}
    bench.expect(failed == {("drafter", "shapes/3"), ("drafter", "shapes/5"), ("verifier", "shapes/7"), ("verifier", "shapes/9")}, str(failed))
    table = bench.table(out, "failures")
    bench.expect({row["reason"] for row in table} == {"data"}, str(table))
    done = bench.run("run", sweep, "-o", bench.path("short.h5"), "--set", "data.max_window_ms=1", "--arms", "drafter", "--samples", "2", code=3)
    bench.expect("windows of 1 ms and more are refused" in done.stderr, done.stderr)
    shutil.rmtree(f"{data}/mp4")
    done = bench.run("validate", sweep, code=2)
    bench.expect("none of 24 scenes has its clip, which arm verifier reads" in done.stderr, done.stderr)


PRUNED = """
name: pruned
seed: 1
data: {{kind: dsec, dir: {dir}, questions: {dir}/instruction.json, n_questions: 2, cache_vision: true}}
models:
  vl: {{path: {vl}, dtype: f32}}
  egpt: {{path: {egpt}, dtype: f32}}
arms:
  full: {{model: vl}}
  fastv: {{model: vl, prune: {{method: fastv, layers: [0], keep: 0.25}}}}
  merged: {{model: vl, prune: {{method: prumerge, keep: 0.25}}}}
  outliers: {{model: vl, prune: {{method: prumerge}}}}
  plus: {{model: vl, prune: {{method: prumerge, plus: true}}}}
  all: {{model: vl, prune: {{method: prumerge, keep: 1}}}}
  drafter: {{model: egpt}}
  drafter-merged: {{model: egpt, prune: {{method: prumerge, keep: 0.5}}}}
baseline: full
grid: {{contexts: [auto], samples: 6}}
generate: {{tokens: 12}}
measure: {{warmup: 1}}
"""


def pruned_pair(bench):
    """The clip's 8 × 37 rows and the events' 5 + 37, fewer of them: lengths, what is equal, what the tables say."""
    out = bench.path("pruned.h5")
    bench.run("run", bench.write("pruned.yaml", PRUNED.format(dir=DATA, vl=VL, egpt=EGPT)), "-o", out)
    bench.run("verify", out)
    r = rows(out)
    bench.expect((r["state"] == 1).all(), "every trial is done")
    with h5py.File(out) as f:
        kv = {arm: f["kv_len"][i, 0, :, 0, 0, 0, :3].astype(int) for i, arm in enumerate(r["arms"])}
    t = {arm: r["trials"][i, 0, :, 0] for i, arm in enumerate(r["arms"])}
    n = t["full"]["prompt_tokens"].astype(int)
    for arm in ("fastv", "merged", "outliers", "plus", "all"):
        bench.expect((t[arm]["prompt_tokens"] == n).all(), f"{arm}: the prompt is as long as unpruned")
    bench.expect((kv["full"] == n[:, None]).all() and (kv["all"] == n[:, None]).all(), "nothing goes")
    bench.expect((t["all"]["logits_hash"] == t["full"]["logits_hash"]).all(), "keep 1 changes no bit")
    bench.expect((kv["fastv"] == np.stack([n, n - 296 + 74, n - 296 + 74], 1)).all(), str(kv["fastv"]))
    bench.expect((kv["merged"] == (n - 296 + 8 * (1 + 9))[:, None]).all(), str(kv["merged"]))
    fewer, more = kv["outliers"][:, 0], kv["plus"][:, 0]
    bench.expect((fewer >= n - 296 + 16).all() and (fewer < more).all() and (more < n).all(), f"{fewer} {more}")
    bench.expect((kv["drafter-merged"] == (t["drafter"]["prompt_tokens"].astype(int) - 36 + 18)[:, None]).all(), str(kv["drafter-merged"]))
    bench.expect(not np.isnan(r["accuracy"]).any(), "answers are scored")
    for row in bench.table(out, "table2"):
        bench.expect(row["quality_metric"] == "accuracy" and row["quality"] is not None, str(row))
    with open(os.path.join(out + ".report", "published", "table2.md")) as f:
        lengths = {line.split("|")[1].strip() for line in f.read().splitlines()[2:]}
    bench.expect(lengths == {str(round(n.mean()))}, f"published lengths {lengths}")


SCORERS = """
name: scorers
seed: 1
data: {{kind: dsec, dir: {dir}, questions: {dir}/instruction.json, n_questions: 3, cache_vision: true}}
models:
  vl: {{path: {vl}, dtype: f32}}
arms:
  scorers: {{model: vl, prune: {{method: sdtp, tokens: visual, weights: {vl}-sdtp.safetensors, keep: 0.1}}}}
  attention: {{model: vl, prune: {{method: lazyllm, tokens: visual, layers: [0, 1], keep: 0.1}}}}
  random: {{model: vl, prune: {{method: random, tokens: visual, layers: [0, 1], keep: 0.1}}}}
baseline: scorers
grid: {{contexts: [auto], samples: all}}
generate: {{tokens: 48, stop_at_eos: true}}
measure: {{warmup: 0}}
"""


def trained_scorers(bench):
    """Right answers where 2 of a clip's 296 rows are left: the trained scorers' beyond the others', by scenes (bench/pair_scorers.sh: all)."""
    out = bench.path("scorers.h5")
    bench.run("run", bench.write("scorers.yaml", SCORERS.format(dir=DATA, vl=VL)), "-o", out)
    r = rows(out)
    bench.expect((r["state"] == 1).all(), "every trial is done")
    with h5py.File(out) as f:
        left = f["kv_len"][:, 0, :, 0, 0, 0, 2].astype(int) - (r["trials"]["prompt_tokens"][:, 0, :, 0].astype(int) - 296)
    bench.expect((left == 2).all(), f"the same keep everywhere: {np.unique(left)}")
    right = dict(zip(r["arms"], r["accuracy"][:, 0, :, 0]))
    scene = np.array([s.split(" × ")[0] for s in r["samples"]])
    draws = np.random.default_rng(1).integers(0, 24, (2000, 24))
    for other in ("attention", "random"):
        gain = np.array([(right["scorers"] - right[other])[scene == s].mean() for s in sorted(set(scene))])
        low, high = np.percentile(gain[draws].mean(1), [2.5, 97.5])
        bench.expect(low > 0.05, f"scorers {right['scorers'].mean():.3f}, {other} {right[other].mean():.3f}: a gain of {low:.3f} to {high:.3f}")


def blind_model(bench):
    sweep = bench.write("blind.yaml", PAIR.format(kind="dsec", dir=DATA, cache="false", vl=VL, egpt=os.path.join(TOP, "examples", "models", "small-llama")))
    done = bench.run("validate", sweep, code=2)
    bench.expect("arms.drafter: the model reads text alone" in done.stderr, done.stderr)


def main():
    bench = Bench(sys.argv[1])
    changed_files(bench, *foreign_engine(bench))
    bad_questions(bench)
    built = bench.run("inspect", "--build").stdout
    if not os.path.isdir(VL):
        sys.exit("FAIL: the tiny pair is missing")
    blind_model(bench)
    if re.search(r"^ *ffmpeg +no$", built, re.M):
        done = bench.run("validate", bench.write("clips.yaml", PAIR.format(kind="dsec", dir=DATA, cache="false", vl=VL, egpt=EGPT)), code=2)
        bench.expect("arms.verifier" in done.stderr and "no FFmpeg (install libavformat-dev" in done.stderr, done.stderr)
        print(f"SKIP: a build without FFmpeg reads no clips: {bench.checks} checks passed without it")
        sys.exit(77)
    trained_pair(bench)
    broken_pair(bench)
    pruned_pair(bench)
    trained_scorers(bench)
    print(f"{bench.checks} checks")


main()
