"""runner_test.py EMULATED RUNNER SOURCE runner|sweeps|script: what paceline-runner does with a GPU, told by the emulated one: it is in hello, by UUID it is the one that is
used, ceilings and memory are its own, phases have its clock; and bench/gpu.sh goes all its way, with toy sizes here and with no GPU there."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

EMULATED, RUNNER, SOURCE = (os.path.abspath(p) for p in sys.argv[1:4])
sys.path.insert(0, os.path.join(SOURCE, "tests", "runner"))
from lib import Runner, check_times, load  # noqa: E402

LLAMA = os.path.join(SOURCE, "examples/models/tiny-llama")
PACELINE = os.path.join(os.path.dirname(os.path.dirname(RUNNER)), "paceline")  # absent in a build without MPI and HDF5


def paceline(*argv):
    return subprocess.run([PACELINE, *argv], env={**os.environ, "PACELINE_RUNNER": EMULATED}, capture_output=True, text=True, timeout=150)


def sweep_file(tmp, name, models, arms, grid, tokens, measure, baseline="a"):
    path = os.path.join(tmp, name + ".yaml")
    with open(path, "w") as f:  # JSON is YAML
        json.dump({"data": {"kind": "synthetic"}, "models": models, "arms": arms, "baseline": baseline, "grid": grid, "generate": {"tokens": tokens}, "measure": measure}, f)
    return path


def devices():
    os.environ["PACELINE_NCCL"] = os.path.join(os.path.dirname(EMULATED), "libfake_nccl.so")
    r = Runner(EMULATED, "serve")
    del os.environ["PACELINE_NCCL"]
    assert {k: r.hello["software"][k] for k in ("cuda", "nccl")} == {"cuda": "13.0", "nccl": "2.29.7"}, r.hello
    cpu, gpu = r.hello["devices"]
    assert cpu["kind"] == "cpu" and gpu["kind"] == "cuda" and gpu["uuid"].startswith("GPU-e0") and gpu["bytes"] == 96 << 20, r.hello
    here = {"kind": "cuda", "uuid": gpu["uuid"]}
    c = r.call("ceilings", threads=1, device=here)
    assert c["type"] == "ceilings" and c["read_bytes_per_s"] > 0 and c["flop_per_s"] > 0 and "bf16" in c["kind"], c
    assert r.call("ceilings", threads=1, device={"kind": "cuda", "uuid": "GPU-other"})["type"] == "error"
    entry, sample = {"path": LLAMA, "device": "cuda", "dtype": "f32"}, {"kind": "synthetic", "index": 0, "key": "%016x" % 5}
    ask = dict(model=entry, draft_model=None, arm={"model": "m"}, contexts=[24], tokens=4, data="synthetic")
    gpu_room = r.call("describe", **ask)["workspace_bytes"]
    cpu_room = r.call("describe", **{**ask, "model": {**entry, "device": "cpu"}})["workspace_bytes"]
    assert gpu_room > 0 and gpu_room != cpu_room, "the workspace is the backend's own"
    wrong = r.call("load", **{**load({"m": entry}, {"a": {"model": "m"}}), "device": {"kind": "cuda", "uuid": "GPU-other"}})
    assert wrong["type"] == "error" and "GPU-other" in wrong["text"], wrong
    results = {}
    for device in ("cuda", "cpu"):
        said = r.call("load", **{**load({"m": {**entry, "device": device}}, {"a": {"model": "m"}}, tokens=4), "device": here})
        assert said["type"] == "loaded", said
        x = results[device] = r.call("trial", arm="a", context=24, sample=sample, repeat=0, attempt=0, timed=True)
        assert x["type"] == "result", x
        check_times(x)
    gpu, cpu = results["cuda"], results["cpu"]
    assert gpu["tokens"] == cpu["tokens"] and gpu["ids_hash"] == cpu["ids_hash"]
    assert set(gpu["device_ns"]) == {"prefill", "decode"} and "device_ns" not in cpu
    for phase, ns in gpu["device_ns"].items():
        assert 0 < ns < 1.05 * gpu["phases_ns"][phase] + 2e6, (gpu["device_ns"], gpu["phases_ns"])
    b = gpu["bytes"]
    assert b["weights"] + b["kv"] <= b["device_peak"] <= 96 << 20 and b["workspace"] > 0, b
    assert cpu["bytes"]["device_peak"] != b["device_peak"]
    assert r.end() == 0, r.stderr
    print("devices: the emulated GPU is told, used and measured")


def counts():
    """Operations and bytes of arms that prune: what the GPU counts is what the CPU counts, to the last one, and so are the rows it keeps."""
    folder = os.path.join(SOURCE, "tests/pruning/goldens")
    stages = {"random": {"layers": [0, 2]}, "lazyllm": {"layers": [1, 3]}, "sdtp": {"weights": os.path.join(folder, "scorers.safetensors")}}
    arms = {"full": {"model": "m"}}
    for method in ("random", "lazyllm", "sdtp", "h2o", "snapkv", "streamingllm", "tova"):
        arms[method] = {"model": "m", "prune": {"method": method, "keep": 0.6, **stages.get(method, {}), **({"window": 8} if method == "snapkv" else {})}}
    sample, said = {"kind": "synthetic", "index": 0, "key": "%016x" % 5}, {}
    r = Runner(EMULATED, "serve")
    here = {"kind": "cuda", "uuid": r.hello["devices"][1]["uuid"]}
    for device in ("cuda", "cpu"):
        x = r.call("load", **{**load({"m": {"path": folder, "device": device, "dtype": "f32"}}, arms, tokens=4), "device": here})
        assert x["type"] == "loaded", x
        for arm in arms:
            said[device, arm] = r.call("trial", arm=arm, context=56, sample=sample, repeat=0, attempt=0, timed=True)
            assert said[device, arm]["type"] == "result", said[device, arm]
    r.end()
    for arm in arms:
        gpu, cpu = said["cuda", arm], said["cpu", arm]
        assert gpu["kv_len"] == cpu["kv_len"] and gpu["tokens"] == cpu["tokens"], arm
        assert gpu["work"] == cpu["work"] and all(v > 0 for v in gpu["work"].values()), (arm, gpu["work"], cpu["work"])
        assert arm == "full" or gpu["work"]["decode_bytes"] < said["cpu", "full"]["work"]["decode_bytes"], arm
    print(f"counts: {len(arms)} arms cost the same operations and bytes on both")


def ends(tmp):
    """Trials that end with a text: made a few tokens ahead on the GPU, those behind the end are in no figure. Everything is what the CPU says."""
    folder, samples = os.path.join(tmp, "ends"), [{"kind": "synthetic", "index": i, "key": "%016x" % (5 + i)} for i in range(3)]
    arms = {**ONE, "three": {"model": "m", "batch": 3}, "loop": {"model": "m", "concurrency": 2, "requests": 3}}
    os.mkdir(folder)
    for name in os.listdir(LLAMA):
        os.symlink(os.path.join(LLAMA, name), os.path.join(folder, name))
    config = json.load(open(os.path.join(LLAMA, "config.json")))

    def trials(program, device, end, stop=True, many=False, **measure):
        os.unlink(os.path.join(folder, "config.json"))
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump({**config, "eos_token_id": end}, f)
        r, out = Runner(program, "serve"), []
        ask = load({"m": {"path": folder, "device": device, "dtype": "f32"}}, arms, tokens=24)
        ask["generate"]["stop_at_eos"] = stop
        ask["measure"].update(measure)
        assert r.call("load", **ask)["type"] == "loaded"
        for arm, n, tokens in (("a", 1, 24), ("a", 1, 24), ("a", 1, 5), ("three", 3, 11), ("loop", 3, 7))[:3 if stop and not many else 5]:
            more = {"samples": samples} if n > 1 else {}
            out.append(r.call("trial", arm=arm, context=24, sample=samples[0], repeat=0, attempt=0, timed=True, tokens=tokens, **more))
            assert out[-1]["type"] == "result", out[-1]
            if n == 1:
                check_times(out[-1])
            stamps = out[-1]["token_ns"]
            assert all(t == sorted(t) for t in stamps) and max(t[-1] for t in stamps) == out[-1]["total_ns"], stamps
        assert r.end() == 0, r.stderr
        return out

    never = trials(EMULATED, "cuda", 1 << 11)  # an end that never comes
    ids = never[0]["tokens"][0]
    assert len(ids) == 24
    differing = False
    for at in (0, 8, 9, None):
        end = ids[at or 0]
        how_each = [{"stop": at is not None, "many": at == 8}] + [{"energy": True}] * (at == 9)
        cpu = trials(EMULATED, "cpu", end, **how_each[0])
        for how in how_each:
            gpu = trials(EMULATED, "cuda", end, **how)
            differing |= at == 8 and len(set(gpu[3]["generated"])) > 1
            for a, b in zip(gpu, cpu):
                for key in ("generated", "tokens", "kv_len", "work", "ids_hash", "counts"):
                    assert a[key] == b[key], (at, how, key, a[key], b[key])
                assert (at is None or a["generated"][0] <= ids.index(end) + 1) and a["bytes"]["kv"] == b["bytes"]["kv"], (a, b)
                if a["generated"][0] > 1 and len(a["generated"]) == 1:
                    assert 0 < a["device_ns"]["decode"] < 1.05 * a["phases_ns"]["decode"] + 2e6, (a["device_ns"], a["phases_ns"])
    assert differing  # some of a batch ended before others
    said = {}
    for device in ("cuda", "cpu"):
        argv = [EMULATED, "generate", folder, "--ids", "3 5 7 11", "--tokens", "20", "--json", "--device", device, "--dtype", "f32"]
        for more in ((), ("--stop-at-eos",)):
            x = said[device, more] = json.loads(subprocess.run([*argv, *more], capture_output=True, text=True, timeout=100, check=True).stdout)
            assert len(x["token_ms"]) == len(x["ids"]) and x["token_ms"] == sorted(x["token_ms"]) and x["ttft_ms"] == x["token_ms"][0], x
    for more in ((), ("--stop-at-eos",)):
        assert said["cuda", more]["ids"] == said["cpu", more]["ids"], more
    assert len(said["cuda", ()]["ids"]) == 20
    print("ends: tokens made ahead of an end are in no figure")


ONE = {"a": {"model": "m"}}


def rows_of_faults(sweep, tmp):
    """Without another try each fault is a row with its reason and the text; then the rows are made again by runners that start clean."""
    import h5py
    run = lambda *more: paceline("run", sweep, "-o", tmp + "/rows.h5", "--retries", "0", *more)
    for planted, code, reason, word in (("sync:35", 3, "runner", b"illegal memory access"), ("alloc:9", 4, "oom", b"loading m: oom: model m"), ("kill", 3, "crash", b"SIGKILL")):
        for name in os.listdir(tmp):
            if name.startswith("rows.h5"):
                os.unlink(os.path.join(tmp, name))
        os.environ.pop("PACELINE_CUDA_FAULT", None)
        longer = ("--set", "generate.tokens=48") if planted == "kill" else ()  # a status is written every two seconds
        if planted == "kill":
            killed_midway([sweep, *longer], tmp + "/rows.h5")
        else:
            os.environ["PACELINE_CUDA_FAULT"] = planted
            done = run()
            assert done.returncode == code, (planted, done.returncode, done.stderr)
        with h5py.File(tmp + "/rows.h5") as f:
            failed, log = f["commit"]["state"][:] == 2, f["failures"][:]
            names = [x.decode() if isinstance(x, bytes) else x for x in f["axes/reason"][:]]
            assert failed.all() if code == 4 else 0 < failed.sum() < 12, (planted, failed.sum())
            assert {names[i] for i in f["trials"]["reason"][:][failed]} == {reason}, planted
            assert all(word in x["detail"] for x in log[log["used"] == 1]), (planted, log["text"][log["used"] == 1])
        os.environ.pop("PACELINE_CUDA_FAULT", None)
        done = run("--resume", "--rerun-failed", *longer)
        assert done.returncode == 0 and " 0 failed" in done.stderr, (planted, done.stderr)


def memory_of_a_trial(tmp):
    """Memory that runs out in a trial, not in the load before it: that row fails with reason oom, and all others are made, by a runner that starts clean."""
    import h5py
    arms, entry = {"a": {"model": "m"}, "b": {"model": "m", "prune": {"method": "random", "keep": 0.5, "layers": [1]}}}, {"path": LLAMA, "device": "cuda", "dtype": "f32"}
    least, most = 1, 500
    while least < most:  # the first allocation behind the load's
        n = (least + most) // 2
        os.environ["PACELINE_CUDA_FAULT"] = f"alloc:{n}"
        r = Runner(EMULATED, "serve")
        loaded = r.call("load", **load({"m": entry}, arms, tokens=4, max_context=40))["type"] == "loaded"
        r.end()
        least, most = (least, n) if loaded else (n + 1, most)
    sweep = sweep_file(tmp, "trial", {"m": entry}, arms, {"contexts": [40], "samples": 6}, 4, {"warmup": 0})
    os.environ["PACELINE_CUDA_FAULT"] = f"alloc:{least + 1}"  # the first is that of the ceilings, which a runner is asked for once
    done = paceline("run", sweep, "-o", tmp + "/trial.h5", "--retries", "0")
    assert done.returncode == 3, (least, done.returncode, done.stderr)
    with h5py.File(tmp + "/trial.h5") as f:
        failed, log, loads = f["commit"]["state"][:] == 2, f["failures"][:], f["loads"][:]
        names = [x.decode() if isinstance(x, bytes) else x for x in f["axes/reason"][:]]
        assert failed.sum() == 1 and failed[1].sum() == 1, failed
        assert names[f["trials"]["reason"][:][failed][0]] == "oom" and b"out of memory" in log[log["used"] == 1]["detail"][0], log
        assert (loads["used"] == 1).sum() == 2 and loads["ok"][loads["used"] == 1].all(), "one runner before it, one after it"


def killed_midway(sweep, out):
    """The runner is killed once a row is there, with trials long enough to be in the middle of one."""
    p = subprocess.Popen([PACELINE, "run", *sweep, "-o", out, "--retries", "0"], env={**os.environ, "PACELINE_RUNNER": EMULATED}, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and p.poll() is None:
        try:
            done = json.load(open(out + ".status.json"))["done"]
            below = [int(c) for c in open(f"/proc/{p.pid}/task/{p.pid}/children").read().split()]
            serving = [c for c in below if b"serve" in open(f"/proc/{c}/cmdline", "rb").read()]
        except (OSError, ValueError, KeyError):
            continue
        if done and serving:
            os.kill(serving[0], signal.SIGKILL)
            break
        time.sleep(0.002)
    err = p.communicate(timeout=100)[1]
    assert p.returncode == 3, (p.returncode, err)


def faults(tmp):
    """Memory that runs out and a GPU that is lost: an error that says so and ends the runner; in a sweep, a failure with that text, and a fresh runner."""
    entry, sample = {"path": LLAMA, "device": "cuda", "dtype": "f32"}, {"kind": "synthetic", "index": 0, "key": "%016x" % 5}
    for planted, reason, word in (("alloc:5", "oom", "out of memory"), ("sync:9", "runner", "illegal memory access")):
        os.environ["PACELINE_CUDA_FAULT"] = planted
        r = Runner(EMULATED, "serve")
        x = r.call("load", **load({"m": entry}, ONE, tokens=4))
        while x["type"] != "error":
            x = r.call("trial", arm="a", context=24, sample=sample, repeat=0, attempt=0, timed=True)
        assert x["reason"] == reason and word in x["text"] and x["fatal"], x
        assert r.p.wait(20) != 0
        r.end()
    if os.path.exists(PACELINE):
        sweep = sweep_file(tmp, "lost", {"m": entry}, ONE, {"contexts": [12], "samples": 12}, 4, {"warmup": 1})
        os.environ["PACELINE_CUDA_FAULT"] = "sync:35"
        done = paceline("run", sweep, "-o", tmp + "/lost.h5", "--retries", "2")
        assert done.returncode == 0 and "12 trials done, 0 failed" in done.stderr, (done.returncode, done.stderr)
        assert "illegal memory access" in done.stderr, done.stderr
        rows_of_faults(sweep, tmp)
        memory_of_a_trial(tmp)
    os.environ.pop("PACELINE_CUDA_FAULT", None)
    print("faults: out of memory and a lost GPU are told, and the next runner starts clean")


def loads():
    """Many loads and unloads leave no device memory behind (bench/gpu.sh has a thousand of them on a GPU)."""
    r, sample, peaks = Runner(EMULATED, "serve"), {"kind": "synthetic", "index": 0, "key": "%016x" % 5}, []
    for i in range(12):
        assert r.call("load", **load({"m": {"path": LLAMA, "device": "cuda"}}, ONE, tokens=2, max_context=8))["type"] == "loaded"
        peaks.append(r.call("trial", arm="a", context=8, sample=sample, repeat=0, attempt=0, timed=True)["bytes"]["device_peak"])
        assert r.call("unload", models=[])["type"] == "unloaded"
    r.end()
    assert max(peaks[1:]) - min(peaks[1:]) < 1 << 14, peaks  # what malloc adds varies


def eyes(tmp):
    """preprocess: device: the host's pixels, the trial that they make, and who refuses it."""
    vision = os.path.join(SOURCE, "tests/model/vision")
    events, pixels = os.path.join(vision, "events/p4core.npy"), {}
    for where, more in (("host", ()), ("device", ("--device", "cuda", "--preprocess", "device"))):
        done = subprocess.run([EMULATED, "pixels", os.path.join(vision, "eventgpt"), "--events", events, "-o", f"{tmp}/{where}.npy", *more], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        pixels[where] = open(f"{tmp}/{where}.npy", "rb").read()
    assert pixels["host"] == pixels["device"] and len(pixels["host"]) > 5 * 3 * 4
    done = subprocess.run([EMULATED, "pixels", os.path.join(vision, "eventgpt"), "--events", events, "-o", tmp + "/no.npy", "--preprocess", "device"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--device cpu makes no pixels by itself" in done.stderr, done.stderr
    pair, said = os.path.join(SOURCE, "examples/models/tiny-eventgpt"), {}
    scene = {"kind": "eventgpt", "index": 0, "key": "%016x" % 5, "scene": "1", "question": "What is there?", "max_window_ms": None,
             "events": os.path.join(SOURCE, "examples/data/pair/event_npy/shapes/1.npy")}
    r = Runner(EMULATED, "serve")
    for where in ("host", "device"):
        entry = {"path": pair, "device": "cuda", "dtype": "f32", "preprocess": where}
        x = r.call("load", **load({"m": entry}, ONE, tokens=4))
        assert x["type"] == "loaded", x
        said[where] = r.call("trial", arm="a", context=0, sample=scene, repeat=0, attempt=0, timed=True)
        assert said[where]["type"] == "result", said[where]
        check_times(said[where])
        parts = said[where]["parts_ns"]
        assert 0 < parts["preprocess"] and 0 < parts["tower"] and parts["preprocess"] + parts["tower"] <= said[where]["phases_ns"]["vision"], said[where]
    assert [said["host"][k] for k in ("tokens", "ids_hash", "logits_hash")] == [said["device"][k] for k in ("tokens", "ids_hash", "logits_hash")]
    ask = dict(model={"path": pair, "device": "cpu", "preprocess": "device"}, draft_model=None, arm={"model": "m"}, contexts=[], tokens=4)
    assert "preprocess: the cpu makes no pixels" in str(r.call("describe", **ask)["errors"])
    ask["model"]["preprocess"] = "here"
    assert "preprocess: \"here\", expected host or device" in str(r.call("describe", **ask)["errors"])
    assert r.end() == 0, r.stderr
    print("eyes: pixels made on the device are the host's, and so is the trial")


def transports(gpus):
    """Adapters fed by each transport that one GPU has, or two (emulated), and NCCL's stand-in: the same tokens as the verifier alone, the same drafts, and what
    carried them is told."""
    goldens = os.path.join(SOURCE, "tests/spec_decode/goldens")
    models = {n: {"path": LLAMA, "dtype": "f32", "device": "cuda", "weights": f"random:{i}"} for i, n in enumerate(("v", "d"), 1)}
    arms, counts = {"alone": {"model": "v"}}, {}
    kinds = ("L1", "L4", "L5F") if gpus == 1 else ("L4",)
    for kind in kinds:
        for way in ("host", "auto", "nccl"):
            arms[kind + way] = {"model": "v", "draft": {"model": "d", "adapter": kind, "weights": os.path.join(goldens, kind + ".safetensors"), "gamma": 4,
                                                        "overlap": "none", "transport": way}}
    if gpus == 2:
        arms["two lanes"] = {"model": "v", "draft": {**arms["L4auto"]["draft"], "overlap": "prefill"}}
    os.environ.update(PACELINE_NCCL=os.path.join(os.path.dirname(EMULATED), "libfake_nccl.so"), PACELINE_EMULATED_GPUS=str(gpus))
    r, sample = Runner(EMULATED, "serve"), {"kind": "synthetic", "index": 0, "key": "%016x" % 5}
    here = [{"kind": "cuda", "uuid": d["uuid"]} for d in r.hello["devices"] if d["kind"] == "cuda"]
    assert len(here) == gpus, r.hello
    said = r.call("load", **{**load(models, arms, tokens=6, max_context=12), **({"device": here[0], "devices": here} if gpus == 2 else {})})
    assert said["type"] == "loaded", said
    tokens = {}
    for a in arms:
        x = r.call("trial", arm=a, context=12, sample=sample, repeat=0, attempt=0, timed=True)
        assert x["type"] == "result", (a, x)
        tokens[a], counts[a] = x["tokens"], x["counts"]
    assert r.end() == 0, r.stderr
    assert all(t == tokens["alone"] for t in tokens.values()), tokens
    for kind in kinds:
        assert counts[kind + "host"]["drafted"] > 0 and counts[kind + "host"] == counts[kind + "auto"] == counts[kind + "nccl"], counts
        assert [said["arms"][kind + w] for w in ("host", "auto", "nccl")] == [{"transport": t, "shared_device": gpus == 1} for t in ("host", "peer", "nccl")], said
    del os.environ["PACELINE_NCCL"], os.environ["PACELINE_EMULATED_GPUS"]
    print(f"transports: states go from device to device of {gpus}, drafts are the same")


def lanes(tmp):
    """draft.sm_share: the drafter has multiprocessors of its own while both lanes run; the same tokens, told in the answer and in /loads; a driver that cannot is
    told, too, and the arm runs all the same."""
    models = {n: {"path": LLAMA, "dtype": "f32", "device": "cuda", "weights": f"random:{i}"} for i, n in enumerate(("v", "d"), 1)}
    arms = {"alone": {"model": "v"}, "beside": {"model": "v", "draft": {"model": "d", "gamma": 3}}, "parts": {"model": "v", "draft": {"model": "d", "gamma": 3, "sm_share": 0.4}}}
    for green, told in (("1", {"shared_device": True, "multiprocessors": [2, 4]}), ("0", {"not_split": "this driver has no cuGreenCtxCreate"})):
        os.environ["PACELINE_EMULATED_GREEN"] = green
        r, tokens = Runner(EMULATED, "serve"), {}
        said = r.call("load", **load(models, arms, tokens=6, max_context=12))
        assert said["type"] == "loaded" and said["arms"] == {"parts": told}, said
        for a in ("parts", "alone", "beside", "parts"):
            x = r.call("trial", arm=a, context=12, sample={"kind": "synthetic", "index": 0, "key": "%016x" % 5}, repeat=0, attempt=0, timed=True)
            assert x["type"] == "result", (a, x)
            tokens[a] = x["tokens"]
        assert tokens["parts"] == tokens["alone"] == tokens["beside"], tokens
        assert r.end() == 0, r.stderr
    ask = dict(model={**models["v"], "device": "cpu"}, draft_model=models["d"], arm=arms["parts"], contexts=[12], tokens=4, data="synthetic")
    r = Runner(EMULATED, "serve")
    assert "draft.sm_share: shares out one GPU's multiprocessors and the verifier runs on device cpu" in str(r.call("describe", **ask)["errors"])
    r.end()
    del os.environ["PACELINE_EMULATED_GREEN"]
    if os.path.exists(PACELINE):
        import h5py
        sweep = sweep_file(tmp, "lanes", models, arms, {"contexts": [12], "samples": 2}, 4, {"warmup": 0}, baseline="alone")
        done = paceline("run", sweep, "-o", tmp + "/lanes.h5")
        assert done.returncode == 0 and "6 trials done, 0 failed" in done.stderr, (done.returncode, done.stderr)
        with h5py.File(tmp + "/lanes.h5") as f:
            loads = [x["transports"].decode() for x in f["loads"][:] if x["used"] == 1]
            said, told = dict(f["sweep"].attrs), json.loads(f["sweep/provenance"][()])
        assert "parts, shared device, 2 of 4 multiprocessors" in loads, loads
        assert said["cuda"] == b"13.0" and said["gpus"].startswith(b"GPU-e0") and told["engines"]["paceline-runner"]["software"]["cuda"] == "13.0", (said, told)
    print("lanes: each on multiprocessors of its own, and told so")


def kernels(tmp):
    """measure.kernels in a sweep, CUPTI by a stand-in: one more warm-up tells them, and the table has each beside its limit."""
    if not os.path.exists(PACELINE):
        return
    arms = {"a": {"model": "m"}, "b": {"model": "m", "prune": {"method": "random", "keep": 0.5, "layers": [1]}}}
    sweep = sweep_file(tmp, "kernels", {"m": {"path": LLAMA, "device": "cuda", "dtype": "f32"}}, arms, {"contexts": [24], "samples": 2}, 3, {"warmup": 1, "kernels": True})
    os.environ["PACELINE_CUPTI"] = os.path.join(os.path.dirname(EMULATED), "libfake_cupti.so")
    done = paceline("run", sweep, "-o", tmp + "/kernels.h5")
    assert done.returncode == 0 and "4 trials done, 0 failed" in done.stderr, (done.returncode, done.stderr)
    done = paceline("report", tmp + "/kernels.h5", "-o", tmp + "/kernels")
    assert done.returncode == 0, done.stderr
    rows = json.load(open(tmp + "/kernels/tables/kernels.json"))["rows"]
    assert {r["arm"] for r in rows} == {"a", "b"} and all(r["ms"] > 0 and r["calls"] > 0 and r["context"] == 24 for r in rows), rows
    for arm in ("a", "b"):
        of = {r["kernel"]: r for r in rows if r["arm"] == arm}
        assert abs(sum(r["share_pct"] for r in of.values()) - 100) < 1e-6
        down, norm = of["down: gemv_dense"], of["norm: gemv_dense"]
        assert down["gb"] > 0 and down["limit_pct"] > 0 and abs(down["gb_per_s"] / (down["gb"] / down["ms"] * 1e3) - 1) < 1e-9, down
        assert norm["gb"] is None and norm["limit_pct"] is None
    assert "kernels" in open(tmp + "/kernels/report.html").read()
    # no CUPTI: every warm-up says so, and nothing is measured without it
    os.environ["PACELINE_CUPTI"] = "/nowhere/libcupti.so"
    done = paceline("run", sweep, "-o", tmp + "/none.h5", "--retries", "0")
    assert done.returncode == 4 and "kernel times: CUPTI: /nowhere/libcupti.so" in done.stderr, (done.returncode, done.stderr)
    # no GPU: validate says it
    done = paceline("validate", sweep, "--set", "models.m.device=cpu")
    assert done.returncode == 2 and "measure.kernels is true, expected device: cuda of every model" in done.stderr, (done.returncode, done.stderr)
    del os.environ["PACELINE_CUPTI"]
    print("kernels: a sweep's table of them")


def bench():
    run = lambda *argv: subprocess.run([EMULATED, "bench", LLAMA, "--device", "cuda", "-p", "8", "-n", "2", "-k", "3", "-r", "1", *argv], capture_output=True, text=True, timeout=100, check=True).stdout
    j = json.loads(run("--format", "json"))
    assert j["device_limits"]["read_gb_per_s"] > 0 and all(r["limit_pct"] > 0 for r in j["rows"]), j
    assert "measured here on the device" in run()
    os.environ["PACELINE_CUPTI"] = os.path.join(os.path.dirname(EMULATED), "libfake_cupti.so")
    done = json.loads(run("--profile", "--format", "json"))
    for p in done["profile"]:
        ops = {o["name"]: o for o in p["ops"]}
        assert set(ops) >= {f"{o}: gemv_dense" for o in ("q, k, v", "attention", "attention output", "gate, up", "down", "norm", "head")}, ops.keys()
        steps = {"pp8": 1, "tg2": 3, "vr3": 9}[p["test"]]  # and the prefill before them
        for name, layers in (("q, k, v", 2), ("head", 1)):
            o = ops[name + ": gemv_dense"]
            assert o["calls"] >= steps * layers - (name == "head") and o["bytes"] > 0 and o["flops"] > 0 and o["limit_pct"] > 0, (p["test"], o)
        assert ops["norm: gemv_dense"]["limit_pct"] is None and abs(sum(o["pct"] for o in p["ops"]) - 100) < 1e-6
    assert "one run by kernel" in run("--profile")
    os.environ["PACELINE_CUPTI"] = "/nowhere/libcupti.so"
    done = subprocess.run([EMULATED, "bench", LLAMA, "--device", "cuda", "-p", "8", "-n", "", "-r", "1", "--profile"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "kernel times: CUPTI: /nowhere/libcupti.so" in done.stderr, (done.returncode, done.stderr)
    del os.environ["PACELINE_CUPTI"]


def parts():
    return subprocess.run([os.path.join(SOURCE, "bench/gpu.sh"), "--list"], capture_output=True, text=True, timeout=20, check=True).stdout.split()


def shares(tmp):
    """bench/gpu.sh: however long the parts take, all end within the budget; what is stopped midway leaves what it had."""
    sys.path.insert(0, os.path.join(SOURCE, "bench"))
    from gpu_report import limit
    for spent in ("0", "3.5", "160", "470"):
        done = subprocess.run([os.path.join(SOURCE, "bench/gpu.sh"), "--dry-run"], env={**os.environ, "PACELINE_GPU_SPENT": spent}, capture_output=True, text=True, timeout=20)
        ends = [float(line.split()[6]) for line in done.stdout.splitlines() if " share " in line]
        assert done.returncode == 0 and len(ends) == len(parts()) and ends == sorted(ends) and ends[-1] <= 480, (spent, done.stdout, done.stderr)
    all = [10, 60, 30]
    assert limit(all, 0, 100) == 10 and limit(all, 0, 120) == 30 and limit(all, 1, 110) == 80 and limit(all, 2, 110) == 110  # what is left over goes on
    assert abs(limit(all, 0, 50) - 5) < 1e-9 and abs(limit(all, 1, 45) - 30) < 1e-9
    out = os.path.join(tmp, "cut")
    p = subprocess.Popen([sys.executable, os.path.join(SOURCE, "bench/gpu.py"), "--device", "cpu", "--small", "--only", "inventory,7b,sdtp", "--out", out],
                         env={**os.environ, "PACELINE_RUNNER": RUNNER}, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (os.path.exists(out + "/report.json") and json.load(open(out + "/report.json"))["figures"]):
        time.sleep(0.01)
    p.terminate()
    assert p.wait(20) == 143
    report = json.load(open(out + "/report.json"))
    assert report["figures"] and [x["state"] for x in report["parts"]] == ["ran", "running", "not reached"], report["parts"]
    assert "not reached" in open(out + "/report.md").read()
    print("gpu.sh: its shares add up, and a cut run leaves its figures")


def hung(tmp):
    """bench/gpu.sh: a program that hangs with what it started, and one that prints nonsense, cost their parts alone; nothing of them goes on."""
    out, fake, left = os.path.join(tmp, "hung"), os.path.join(tmp, "hung.sh"), os.path.join(tmp, "left")
    with open(fake, "w") as f:
        f.write(f"#!/bin/sh\ncase $1 in inspect) echo '{{}}' ;; bench) case \"$*\" in *--transport*) echo '{{\"rows\": 3}}' ;; *) sleep 100 & echo $! >>{left}; wait ;; esac ;; esac\n")
    os.chmod(fake, 0o755)
    start = time.monotonic()
    done = subprocess.run([sys.executable, os.path.join(SOURCE, "bench/gpu.py"), "--device", "cpu", "--small", "--only", "inventory,deterministic,transport", "--budget", "22",
                           "--out", out], env={**os.environ, "PACELINE_RUNNER": fake}, capture_output=True, text=True, timeout=60)
    report = json.load(open(out + "/report.json"))
    states = {x["part"]: (x["state"], x["why"]) for x in report["parts"]}
    assert done.returncode == 1 and time.monotonic() - start < 30, (done.returncode, done.stdout, done.stderr)
    assert states["inventory"][0] == "ran" and "over its" in states["deterministic"][1] and states["transport"][0] == "failed", states
    for pid in open(left).read().split():
        assert not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat").read().split()[2], "what a killed program started goes on"
    assert all(word in open(out + "/report.md").read() for word in ("deterministic", "over its", "transport"))
    print("gpu.sh: what hangs is killed with all it started")


def emulated(tmp):
    """bench/gpu.sh --emulated, the cheap parts of it (the whole takes minutes): the paths that only a GPU takes; figures against the shapes they are of; a sanitizer
    that finds something, one that says nothing."""
    build, tools = os.path.dirname(os.path.dirname(os.path.dirname(EMULATED))), os.path.join(tmp, "tools")
    os.makedirs(tools)
    with open(tools + "/compute-sanitizer", "w") as f:  # of a race: what racecheck says; initcheck dies
        f.write("#!/bin/sh\ncase $2 in memcheck) echo '========= ERROR SUMMARY: 0 errors' ;; initcheck) exit 3 ;;\n"
                "racecheck) echo '========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)'; exit 9 ;; *) echo '========= ERROR SUMMARY: 0 errors' ;; esac\n")
    os.chmod(tools + "/compute-sanitizer", 0o755)
    env = {**os.environ, "PATH": tools + ":" + os.environ["PATH"]}
    done = subprocess.run([os.path.join(SOURCE, "bench/gpu.sh"), "--emulated", build, "--out", tmp + "/emulated", "--only", "inventory,7b,faults,transport,sanitizer"],
                          env=env, capture_output=True, text=True, timeout=150)
    report, page = json.load(open(tmp + "/emulated/report.json")), open(tmp + "/emulated/report.md").read()
    states = {p["part"]: (p["state"], p["why"]) for p in report["parts"]}
    assert done.returncode == 1 and report["emulated"] and "toy sizes on an emulated GPU" in page, (done.returncode, done.stdout, done.stderr)
    assert all(states[p] == ("ran", "") for p in ("inventory", "7b", "faults", "transport")), states
    found = states["sanitizer"][1]
    assert "racecheck" in found and "1 hazard" in found and "initcheck" in found and "memcheck" not in found and "synccheck" not in found, states
    g = {(x["part"], x["name"]): x for x in report["figures"]}
    read = g["7b", "read stream"]["value"]  # GB/s
    # a step at depth 16 reads: three blocks of 4·64·64 + 3·64·128 weights and the head's 500·64, two bytes each; K and V of the rows before it
    weights = 2 * (3 * (4 * 64 * 64 + 3 * 64 * 128) + 500 * 64)
    d = g["7b", "decode at 16: of the read stream"]
    took = float(d["note"].split(" ms")[0])
    least, most = (100 * (weights + 3 * 2 * 64 * 2 * rows) / (took * 1e6 * read) for rows in (0, 64))
    assert 0.99 * least < d["value"] < 1.01 * most, (least, d, most)
    # a prompt of 64 rows: products of the blocks, the head's last row, scores and values of the keys before each row
    flops = 64 * (weights - 2 * 500 * 64) + 2 * 500 * 64 + 3 * 2 * 64 * 64 * 65
    took, told = (float(x.split()[0]) for x in g["7b", "prefill 64: of the product's rate"]["note"].split(", "))
    assert abs(told * 1e12 * took * 1e-3 / flops - 1) < 0.02, (took, told, flops)


def script(tmp):
    """bench/gpu.sh: no GPU, then all that toy sizes can try on the CPU."""
    run = lambda runner, *argv: subprocess.run([os.path.join(SOURCE, "bench/gpu.sh"), "--out", tmp, *argv], env={**os.environ, "PACELINE_RUNNER": runner},
                                               capture_output=True, text=True, timeout=170)
    if subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0 if os.path.exists("/usr/bin/nvidia-smi") else False:
        print("a GPU is here: gpu.sh without one is not tried")
    else:
        done = run(RUNNER)
        report = json.load(open(tmp + "/report.json"))
        assert done.returncode == 6, (done.returncode, done.stdout, done.stderr)
        states = {p["part"]: (p["state"], p["why"]) for p in report["parts"]}
        assert states.pop("inventory")[0] == "ran" and all(s == ("left out", "no GPU") for s in states.values()) and len(states) == len(parts()) - 1, states
        assert "no GPU" in open(tmp + "/report.md").read()
    done = run(RUNNER, "--device", "cpu", "--small", "--only", "inventory,7b,sdtp,quantised,outside,transport,lanes,deterministic")
    report = json.load(open(tmp + "/report.json"))
    states = {p["part"]: (p["state"], p["why"]) for p in report["parts"]}
    assert done.returncode == 0 and all(s == ("ran", "") for s in states.values()), (done.stdout, done.stderr)
    figures = {(g["part"], g["name"]): g for g in report["figures"]}
    assert len(figures) >= 16 and all(g["value"] is not None for g in figures.values()), figures
    assert ("outside", "adapter") in figures and ("7b", "verify 22 at 32 / decode") in figures and "Rehearsal: toy sizes" in open(tmp + "/report.md").read()
    emulated(tmp)
    done = run(RUNNER, "--device", "cpu", "--small", "--only", "nonsense")
    assert done.returncode == 2 and "nonsense" in done.stderr
    print(f"gpu.sh: {len(figures)} toy figures")


PARTS = {"runner": (lambda tmp: devices(), lambda tmp: counts(), ends, lambda tmp: loads(), eyes, lambda tmp: transports(1),
                    lambda tmp: transports(2), lanes, lambda tmp: bench()),
         "sweeps": (faults, kernels), "script": (shares, hung, script)}
with tempfile.TemporaryDirectory() as folder:
    for part in PARTS[sys.argv[4]]:
        part(folder)
