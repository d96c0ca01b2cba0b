#!/usr/bin/env python3
"""The parts of bench/gpu.sh, which says how to call it. Standard Python."""
import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import sys
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
from gpu_kit import MISTRAL, SIZES, TOP, Bench, Failed, key, load, medians, ms, must_load, trial, write_tensors  # noqa: E402
import gpu_report  # noqa: E402

# FACTS of the SDTP paper: FLOPs without / with ten stages of keep 0.9 on that shape, stages after blocks 4, 7 … 31, and the ratio it printed
IDEAL = {4096: (1.507, 1.52), 8192: (1.532, 1.58), 16384: (1.576, 1.67), 32768: (1.645, 1.79)}


def inventory(b):
    b.report.info = info = {"host": os.uname().nodename, "kernel": os.uname().release, "cores": os.cpu_count(), "runner": b.runner, "libraries": b.libraries}
    try:
        fields = "name,uuid,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,clocks_throttle_reasons.active,power.draw"
        smi = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
        info["gpus"] = b.sh([smi, f"--query-gpu={fields}", "--format=csv"], 20).stdout.strip().splitlines()
    except (Failed, OSError) as e:
        info["gpus"] = [f"nvidia-smi: {e}"]
    info["build"] = json.loads(b.sh([b.runner, "inspect", "--build", "--json"], 30).stdout)
    for line in info["gpus"]:
        print("  " + line)


def tests(b):
    """Every test of the backend, on the GPU: the tests that the CPU backend passes, held against it and against the goldens."""
    programs = b.tests()
    if not programs:
        raise Failed("no test_gpu_* programs are built")
    broken = []
    # drafting twice: near ties may differ, and nothing with `deterministic`
    runs = [[p] for p in programs] + [[p, "2", "bf16", "deterministic"] for p in programs if p.endswith("_lossless")]
    for argv in runs:
        name = " ".join([os.path.basename(argv[0]), *argv[1:]])
        try:
            done = b.sh(argv, 60, check=False)
        except Failed as e:
            broken.append(str(e))
            continue
        passed = len(re.findall(r"\[\s+OK \]", done.stdout + done.stderr))
        print(f"  {name}: {'skipped' if done.returncode == 77 else 'exit code %d' % done.returncode}, {passed} tests passed", flush=True)
        with open(os.path.join(b.out, "tests.log"), "a") as f:
            f.write(f"== {name}: {done.returncode}\n{done.stdout}{done.stderr}\n")
        if done.returncode == 77:
            b.notes.append(f"{name}: skipped: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ''}")
        elif done.returncode:
            broken.append(f"{name}: exit code {done.returncode}")
        if passed:
            b.figure(f"{name} passed", passed, "tests")
    if broken:
        raise Failed("; ".join(broken))


def seven(b):
    """The 7B Llama shape in bf16: decode at depths, a batch of eight, prefill, verify."""
    path = b.model("7b", SIZES[b.small])
    depths, prompt, long, n, r = (["16,32"], 64, 128, "6", "1") if b.small else (["512,1024", "2048,4096"], 4096, 16384, "64", "3")
    for i, some in enumerate(depths):  # a run that is cut short leaves what came before
        j = b.bench(path, "-p", "", "-n", n, "-d", some, "-k", "22", "-r", r)
        limits = j.get("device_limits") or j["limits"]
        b.figure(f"read stream{' again' if i else ''}", limits["read_gb_per_s"], "GB/s")
        if "gflop_per_s" in limits:
            b.figure(f"bf16 product{' again' if i else ''}", limits["gflop_per_s"] / 1e3, "TFLOP/s", note=limits["kind"])
        steps = {r["depth"]: r for r in j["rows"] if r["kind"] == "generation"}
        for row in j["rows"]:
            if row["kind"] == "generation":
                b.figure(f"decode at {row['depth']}: of the read stream", row["limit_pct"], "%", (">=", 85), f"{row['ms']:.3f} ms, {row['gb_per_s']:.0f} GB/s")
            else:
                b.figure(f"verify 22 at {row['depth']} / decode", row["ms"] / steps[row["depth"]]["ms"], "×", ("<=", 1.15), f"{row['ms']:.3f} ms")
    for tokens in (prompt, long):
        row = b.bench(path, "-p", str(tokens), "-n", "", "-r", r)["rows"][0]
        b.figure(f"prefill {tokens}: of the product's rate", row["limit_pct"], "%", (">=", 80 if tokens == prompt else 70),
                 f"{row['ms']:.2f} ms, {row['gflop_per_s'] / 1e3:.4g} TFLOP/s")
    j = b.bench(path, "-p", "", "-n", "4" if b.small else "32", "-b", "8", "-d", depths[0].split(",")[0], "-r", r)
    b.figure("decode of 8 together: of the read stream", j["rows"][0]["limit_pct"], "%", (">=", 80), f"{j['rows'][0]['ms']:.3f} ms a step")


def deterministic(b):
    """What deterministic: true costs: a decode step, a verification of 22 rows, both ways in turn."""
    path, depth, n, runs = b.model("7b", SIZES[b.small]), *(("16", "4", "1") if b.small else ("1024", "32", "3"))
    got = {}
    for name, more in (("plain", ()), ("deterministic", ("--deterministic",))):
        j = b.bench(path, "-p", "", "-n", n, "-d", depth, "-k", "22", "-r", runs, *more)
        got[name] = {r["kind"]: r["ms"] for r in j["rows"]}
    for kind in ("generation", "verify"):
        plain, exact = got["plain"][kind], got["deterministic"][kind]
        b.figure(f"deterministic {kind} / plain", exact / plain, "×", None, f"{exact:.3f} / {plain:.3f} ms")


def overlap(b):
    """What launches that begin early give (PACELINE_CUDA_OVERLAP): a decode step of the 7B shape, both ways in turn; of compute capability 9 and more."""
    path, depth, n, got = b.model("7b", SIZES[b.small]), *(("16", "4") if b.small else ("1024", "64")), {"0": [], "1": []}
    for on in ("0", "1", "1", "0"):
        j = b.bench(path, "-p", "", "-n", n, "-d", depth, "-r", "2", env=[f"PACELINE_CUDA_OVERLAP={on}"])
        got[on].append(j["rows"][0]["ms"])
    off, on = min(got["0"]), min(got["1"])
    b.figure("decode, launches overlapped / plain", on / off, "×", None, f"{on:.3f} / {off:.3f} ms")


def transport(b):
    """Carrying states from one device to another, by each transport that there is."""
    done = b.sh([b.runner, "bench", "--transport", "--device", b.device, "--format", "json"], 60)
    j = json.loads(done.stdout)
    for r in j["rows"]:
        if r["bytes"] in (8192, 8 << 20):
            what, unit, value = ("latency of 8 KiB", "µs", r["median_us"]) if r["bytes"] == 8192 else ("8 MiB", "GB/s", r["gb_per_s"])
            b.figure(f"transport {r['transport']}: {what}", value, unit, None, "shared device" if r["shared_device"] else f"{j['from']} to {j['to']}")
    b.notes += [f"transport {name}: not here: {why}" for name, why in j["unsupported"].items()]


def lanes(b):
    """Drafter and verifier on one GPU, prefills overlapped: on all multiprocessors together, and each on its own (draft.sm_share), in turn. Eight blocks of the 7B widths
    verify, two draft."""
    c = SIZES[b.small]
    entry = lambda name, blocks, seed: {"path": b.model(name, dict(c, num_hidden_layers=blocks)), "weights": f"random:{seed}", "dtype": "bf16", "device": b.device}
    draft = {"model": "d", "gamma": 4}
    arms = {"in turn": {"model": "v", "draft": {**draft, "overlap": "none"}}, "shared": {"model": "v", "draft": draft}}
    shares = () if b.device == "cpu" else (0.125, 0.25, 0.5)
    arms.update({f"split {s:g}": {"model": "v", "draft": {**draft, "sm_share": s}} for s in shares})
    context, r = 64 if b.small else 4096, b.serve()
    said = must_load(r, b.device, {"v": entry("verifier", 2 if b.small else 8, 1), "d": entry("drafter", 1 if b.small else 2, 2)}, arms, tokens=6 if b.small else 32, max_context=context)
    free = {}
    got = medians(r, list(arms), [context], 1 if b.small else 5, lambda x: (x["ttft_ns"] / 1e6, x["counts"]["free_tokens"]))
    for arm in arms:
        ttft, free[arm] = got[arm, context]
        told = said.get("arms", {}).get(arm, {})
        where = "{} of {} multiprocessors".format(*told["multiprocessors"]) if "multiprocessors" in told else told.get("not_split", "")
        b.figure(f"two lanes, {arm}: first token", ttft, "ms", None, f"{free[arm]} drafted meanwhile" + (f"; the drafter: {where}" if where else ""))
    shared = got["shared", context][0]
    for s in shares:
        b.figure(f"two lanes: shared / split {s:g}", shared / got[f"split {s:g}", context][0], "×", None, "time to the first token; free tokens stand above")
    r.end()


def kernels(b):
    """The 7B shape's kernels by CUPTI: a decode step and a prompt, each beside its limit."""
    path = b.model("7b", SIZES[b.small])
    j = b.bench(path, "-p", "64" if b.small else "4096", "-n", "4", "-d", "16" if b.small else "1024", "-r", "1", "--profile")
    for p in j["profile"]:
        lines = ["| kernel | ms | % | calls | % of limit |", "|---|---:|---:|---:|---:|"]
        for o in sorted(p["ops"], key=lambda o: -o["ms"])[:16]:
            limit = "" if o.get("limit_pct") is None else f"{o['limit_pct']:.1f}"
            lines.append(f"| {o['name']} | {o['ms']:.3f} | {o['pct']:.1f} | {o.get('calls', '')} | {limit} |")
        b.notes.append(f"kernels of {p['test']}\n\n" + "\n".join(lines))
        b.figure(f"kernels of {p['test']}", len(p["ops"]), "rows")


def video(b):
    """Time to the first token of the Video-LLaVA shape, eight frames: transformers' in one call, ours the tower and the prompt, each measured alone."""
    ops = b.program("bench_ops", "tests/model")
    if not ops:
        raise Failed("bench_ops is not built")
    eyes, model = video_shape(b)
    frames = 8
    script = [*b.python, os.path.join(TOP, "bench/gpu_video.py"), eyes, "cpu" if b.emulated else b.device, str(frames), "2" if b.small else "5"]
    theirs = json.loads(b.sh(script, 100).stdout.strip().splitlines()[-1])
    done = b.sh([ops, b.device, "--model", model, "--vision", eyes, *(["--runs", "2"] if b.emulated else [])], 60, check=False)
    tower = [json.loads(line) for line in done.stdout.splitlines() if '"tower"' in line]
    if not tower:
        raise Failed((done.stderr.strip().splitlines() or ["bench_ops measured no tower"])[-1])
    j = b.bench(model, "-p", str(theirs["rows"]), "-n", "", "-r", "3")
    ours = tower[0]["ms"] + j["rows"][0]["ms"]
    b.figure("Video-LLaVA TTFT: transformers / ours", theirs["ttft_ms"] / ours, "×", (">=", 1.3),
             f"{theirs['ttft_ms']:.1f} / {tower[0]['ms']:.1f} + {j['rows'][0]['ms']:.1f} ms, {theirs['rows']} rows; ours is a sum")


def quantised(b):
    """Eight blocks of the 7B widths in Q4_K and Q8_0, block bits at random; shares of the read stream do not depend on the depth of the model."""
    for kind in ("Q4_K", "Q8_0"):
        path = os.path.join(b.tmp, f"{kind}.gguf")
        b.sh([sys.executable, os.path.join(TOP, "bench", "gpu_gguf.py"), path, kind, "small" if b.small else "7b"], 60)
        size = ("-p", "48", "-n", "4", "-d", "16", "-r", "1") if b.small else ("-p", "2048", "-n", "64", "-d", "512", "-r", "3")
        j = b.bench(path, *size, "-k", "22", weights=())
        step = next(r["ms"] for r in j["rows"] if r["kind"] == "generation")
        for r in j["rows"]:
            if r["kind"] == "verify":
                b.figure(f"{kind} verify 22 / decode", r["ms"] / step, "×", ("<=", 1.15), f"{r['ms']:.3f} ms")
            elif r["kind"] == "generation":
                b.figure(f"{kind} decode: of the read stream", r["limit_pct"], "%", (">=", 75), f"{r['ms']:.3f} ms")
            else:
                b.figure(f"{kind} prefill {r['tokens']}: of the product's rate", r["limit_pct"], "%", None, f"{r['ms']:.1f} ms")
        os.unlink(path)


def video_shape(b, layers=0):
    """The directories of the Video-LLaVA shape (or a toy one) with so many blocks of text (0: all), and of its language model alone."""
    c = SIZES[b.small]
    tower = dict(model_type="clip_vision_model", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
                 image_size=224, hidden_act="quick_gelu")
    if b.small:
        tower.update(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=56)
    text = dict(c, num_hidden_layers=layers or c["num_hidden_layers"], vocab_size=c["vocab_size"] + 64)
    first = c["vocab_size"]
    eyes = dict(architectures=["VideoLlavaForConditionalGeneration"], model_type="video_llava", torch_dtype="bfloat16", text_config=text, vision_config=tower,
                image_token_index=first, video_token_index=first + 1, pad_token_id=first + 2)
    return b.model(f"eyes{layers}", eyes), b.model(f"text{layers}", text)


def outside(b):
    """Selection, gather, L4 with the head, the CLIP tower; pixels of events and of frames, made by the host and by the device."""
    ops = b.program("bench_ops", "tests/model")
    if not ops:
        raise Failed("bench_ops is not built")
    c = SIZES[b.small]
    h = c["hidden_size"]
    model = b.model("head", dict(c, num_hidden_layers=1))
    norm, linear = lambda n, w: {f"{n}.weight": [w], f"{n}.bias": [w]}, lambda n, o, i: {f"{n}.weight": [o, i], f"{n}.bias": [o]}
    l4 = {**norm("layers.0.attn_norm", h), "layers.0.attn.in_proj_weight": [3 * h, h], "layers.0.attn.in_proj_bias": [3 * h],
          **linear("layers.0.attn.out_proj", h, h), **norm("layers.0.ffn_norm", h), **linear("layers.0.ffn.0", 4 * h, h), **linear("layers.0.ffn.3", h, 4 * h),
          **norm("output_proj.0", h), **linear("output_proj.1", h, h), "alpha": [1]}
    eyes, _ = video_shape(b, 1)
    aims = {"select": ("<=", 0.06), "adapter": ("<=", 0.2), "tower": ("<=", 4.5)}
    more = ["--scores", "600", "--runs", "2"] if b.emulated else ["--events", "132268"]
    done = b.sh([ops, b.device, "--model", model, "--adapter", write_tensors(os.path.join(b.tmp, "l4.safetensors"), l4), "--vision", eyes, *more], 60, check=False)
    for line in done.stdout.splitlines():
        o = json.loads(line)
        where, _, shape = o["shape"].partition(": ")  # of pixels: who made them
        b.figure(f"{o['op']}, {where}" if shape else o["op"], o["ms"], "ms", aims.get(o["op"]), f"{shape or where}; least {o['least_ms']:.4f} ms")
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or ["ops"])[-1])


def sdtp(b):
    """keep 0.9 after ten blocks of the Mistral-7B shape, against the same prompts unpruned; and stages that drop one row each: their own cost."""
    c = MISTRAL[b.small]
    h, stages = c["hidden_size"], [0, 1] if b.small else list(range(4, 32, 3))
    names = {}
    for s in stages:
        names.update({f"{s}.scorer.0.weight": [h // 4, h], f"{s}.scorer.0.bias": [h // 4], f"{s}.scorer.2.weight": [1, h // 4], f"{s}.scorer.2.bias": [1]})
    weights = write_tensors(os.path.join(b.tmp, "sdtp.safetensors"), names)
    prune = dict(method="sdtp", weights=weights, layers=stages, positions="original")
    path = b.model("mistral", c)
    arms = {"base": {"model": "m"}, "keep09": {"model": "m", "prune": dict(prune, keep=0.9)}, "all": {"model": "m", "prune": dict(prune, keep=0.99999)}}
    contexts = [48, 64] if b.small else [4096, 8192, 16384, 32768]
    r = b.serve()
    must_load(r, b.device, {"m": {"path": path, "weights": "random:1", "dtype": "bf16", "device": b.device}}, arms, tokens=1, mode="prefill", max_context=contexts[-1])
    for context in contexts:
        got = medians(r, list(arms), [context], 1 if b.small else 3, ms("prefill"))
        base, kept = got["base", context], got["keep09", context]
        ideal, paper = IDEAL.get(context, (None, None))
        b.figure(f"keep09 prefill {context}: speedup", base / kept, "×", (">=", 0.9 * ideal) if ideal else None,
                 f"{base:.1f} → {kept:.1f} ms; FLOPs allow {ideal}, the paper printed {paper} (A800)" if ideal else f"{base:.1f} → {kept:.1f} ms")
        if context == contexts[0]:
            b.figure(f"stages alone at {context}", 100 * (got["all", context] / base - 1), "% of prefill", ("<=", 1.5), f"{len(stages)} stages that drop one row each")
    r.end()


def transformers(b):
    """Ours against transformers on one random 7B shape, trials interleaved; eager with a dynamic cache, and the compiled step with a static one."""
    c = SIZES[b.small]
    path, context, tokens = b.model("peer", c), 32 if b.small else 2048, 6 if b.small else 64
    entry = {"path": path, "weights": "random:1", "dtype": "bf16", "device": b.device}
    hf = [*b.python, os.path.join(TOP, "tools/runners/hf_runner.py")]
    runners = {"ours": b.serve()}
    for name, more in (("eager", []), ("compiled", ["--compile", "decode"])):
        try:
            r = None
            r = b.serve(*hf, *more, most=b.left() * 0.6)  # what does not come up leaves time for the others
            on = "cpu" if b.emulated else b.device  # torch has no emulated GPU
            must_load(r, on, {"m": {**entry, "device": on}}, {"a": {"model": "m"}}, tokens=tokens, max_context=context)
            trial(r, "a", context, 99)
            trial(r, "a", context, 98)
            runners[name] = r
            r.ends = b.ends
        except (Failed, ValueError, TimeoutError, OSError) as e:
            b.notes.append(f"transformers {name}: {e}")
            if r:
                r.p.kill()  # its memory, too
    must_load(runners["ours"], b.device, {"m": entry}, {"a": {"model": "m"}}, tokens=tokens, max_context=context)
    trial(runners["ours"], "a", context, 99)
    if len(runners) == 1:
        raise Failed("transformers is not there or does not run: " + "; ".join(b.notes[-2:]))
    got = {name: [] for name in runners}
    for i in range(5):
        for name in random.Random(i).sample(sorted(runners), len(runners)):
            got[name].append(trial(runners[name], "a", context, i))
    mid = {n: {p: statistics.median(x["phases_ns"][p] / 1e6 for x in v) for p in ("prefill", "decode")} for n, v in got.items()}
    for r in runners.values():
        r.end()
    for name, least in (("eager", 3), ("compiled", 1.25)):
        if name in mid:
            b.figure(f"decode: {name} / ours", mid[name]["decode"] / mid["ours"]["decode"], "×", (">=", least),
                     f"{mid[name]['decode'] / (tokens - 1):.3f} / {mid['ours']['decode'] / (tokens - 1):.3f} ms a token")
    best = min(m["prefill"] for n, m in mid.items() if n != "ours")
    b.figure(f"prefill {context}: best of transformers / ours", best / mid["ours"]["prefill"], "×", (">=", 1.2), f"{best:.1f} / {mid['ours']['prefill']:.1f} ms")


def life(b):
    """A thousand loads and unloads of a small model: the device's memory is as it was."""
    r, peaks, cycles = b.serve(), [], 14 if b.small else 1000
    entry = {"path": os.path.join(TOP, "examples/models/tiny-llama"), "device": b.device}
    for i in range(cycles):
        must_load(r, b.device, {"m": entry}, {"a": {"model": "m"}}, tokens=2, max_context=8)
        peaks.append(trial(r, "a", 8, 0)["bytes"]["device_peak"])
        r.call("unload", models=[])
        if b.left() < 3:
            b.notes.append(f"life: {i + 1} of {cycles} cycles in the time there was")
            break
    r.end()
    b.figure("loads and unloads: memory grown from the 10th to the last", (peaks[-1] - peaks[9]) / 2**20, "MiB", ("<=", 2), f"{len(peaks)} cycles")


def sweep(b):
    """The demo's sweep on the GPU under mpirun, with the tables it leaves."""
    paceline = b.program("paceline", "cli")
    mpirun = os.path.join(TOP, ".gpu/unpacked/openmpi/bin/mpirun")
    mpirun = mpirun if b.bin and os.access(mpirun, os.X_OK) else shutil.which("mpirun")
    if not paceline or not mpirun:
        raise Failed("Open MPI or paceline is not here: bench/gpu-pack.sh carries them")
    out, more = os.path.join(b.tmp, "sweep.h5"), []
    for m in ("f32", "bf16", "kvf16", "tiny"):
        more += ["--set", f"models.{m}.device={b.device}"]
    select = ["--samples", "2", "--contexts", "64"] if b.small else ["--samples", "20"]
    if b.emulated:
        select = ["--samples", "1", "--contexts", "64", "--set", "grid.repeats=1", "--set", "generate.tokens=3", "--set", "measure.warmup=0"]
    b.sh([mpirun, "--allow-run-as-root", "--oversubscribe", "-n", "2", paceline, "run", "examples/sweeps/demo.yaml", "-o", out, *select, *more], 120)
    shutil.copy(out, b.out)
    done = b.sh([paceline, "verify", out], 30)
    print("  " + done.stdout.strip().splitlines()[0])
    b.sh([paceline, "report", out, "-o", os.path.join(b.tmp, "sweep")], 60, check=False)
    shutil.copy(os.path.join(b.tmp, "sweep/report.html"), os.path.join(b.out, "sweep.html"))
    with open(os.path.join(b.tmp, "sweep/tables/speedup.md")) as f:
        b.notes.append("speedup of the demo's sweep\n\n" + f.read())


def agreement(b):
    """Greedy tokens of the examples' trained models on the device and on the CPU, in f32 and bf16; and the same bits when a trial is run again, here and by another runner."""
    contexts, tokens, samples = (24, 6, 1) if b.small else (64, 64, 8)
    r, again, arms = b.serve(), b.serve(), {"a": {"model": "m"}}
    for dtype, least in (("f32", 100), ("bf16", 99)):
        same = all_ = 0
        for name in ("small-llama", "small-gpt2")[:1 if b.small else 2]:
            entry, got = {"path": os.path.join(TOP, "examples/models", name), "dtype": dtype}, {}
            for on, runner in (("cpu", r), (b.device, r), (b.device, again)):
                must_load(runner, on, {"m": {**entry, "device": on}}, arms, tokens=tokens, max_context=contexts)
                got[on, runner] = [trial(runner, "a", contexts, i) for i in [*range(samples), 0]]
            ours, theirs, other = got[b.device, r], got["cpu", r], got[b.device, again]
            if any(x["logits_hash"] != y["logits_hash"] for x, y in zip(ours, other)) or ours[0]["logits_hash"] != ours[-1]["logits_hash"]:
                raise Failed(f"{name} in {dtype}: a trial run again has other logits")
            for x, y in zip(ours[:-1], theirs[:-1]):  # up to where they part: what follows has another beginning
                mine, its = x["tokens"][0], y["tokens"][0]
                n = next((k for k in range(len(mine)) if mine[k] != its[k]), len(mine))
                same, all_ = same + n, all_ + min(n + 1, len(mine))
        b.figure(f"greedy tokens as on the CPU, {dtype}", 100 * same / all_, "%", (">=", least), f"{same} of {all_}; each trial run thrice, with the same bits")
    r.end()
    again.end()


def faults(b):
    """A model that the device has no room for, a wait that fails as on a lost GPU, a runner killed midway: told, and the next runner works."""
    huge = dict(SIZES[b.small], num_hidden_layers=400)  # 160 GB
    small = {"path": os.path.join(TOP, "examples/models/tiny-llama"), "device": b.device}
    told = []

    def works():
        r = b.serve()
        must_load(r, b.device, {"m": small}, {"a": {"model": "m"}}, tokens=2, max_context=8)
        hash_ = trial(r, "a", 8, 0)["logits_hash"]
        r.end()
        return hash_

    first = works()
    r = b.serve("env", *(["PACELINE_CUDA_FAULT=alloc:5"] if b.emulated else []), b.runner, "serve")  # the emulation has all the host's memory
    path = b.model("huge", huge)
    x = r.call("load", **dict(load({"m": {"path": path, "weights": "random:1", "dtype": "bf16", "device": b.device}}, {"a": {"model": "m"}}), device={"kind": "cuda"}))
    told.append(("out of memory", x.get("reason") == "oom", f"{x.get('reason')}: {x.get('text')}"))
    b.stop_children()
    r = b.serve("env", "PACELINE_CUDA_FAULT=sync:9", b.runner, "serve")
    x = r.call("load", **dict(load({"m": small}, {"a": {"model": "m"}}, tokens=4), device={"kind": "cuda"}))
    for _ in range(20):
        if x["type"] == "error":
            break
        x = r.call("trial", arm="a", context=8, sample=key(0), repeat=0, attempt=0, timed=True)
    told.append(("a failing wait", x["type"] == "error" and x["fatal"], str(x.get("text"))))
    b.stop_children()
    r = b.serve()
    must_load(r, b.device, {"m": small}, {"a": {"model": "m"}}, tokens=64, max_context=8)
    r.send("trial", arm="a", context=8, sample=key(0), repeat=0, attempt=0, timed=True)
    b.stop_children()
    told.append(("a killed runner", True, "midway in a trial"))
    for what, ok, text in told:
        b.notes.append(f"faults: {what}: {text}")
    if works() != first:
        raise Failed("the runner after them gives other logits")
    wrong = [f"{what}: {text}" for what, ok, text in told if not ok]
    b.figure("faults told, and a clean runner behind them", len(told) - len(wrong), "of 3")
    if wrong:
        raise Failed("; ".join(wrong))


# What compute-sanitizer looks for, and the small cases it looks at: memory in all of them first, and then what takes more time.
CASES = ("ops", "generate", "stage", "gguf", "goldens", "families", "pruning", "pixels")
LOOKS = (("memcheck", ["--report-api-errors", "no"], CASES), ("racecheck", [], CASES[:4]), ("initcheck", [], CASES[:4]), ("synccheck", [], CASES[:4]))


def sanitizer(b):
    """compute-sanitizer over the small cases: memory, races, what was never written, barriers."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.access(tool, os.X_OK):
        raise Failed("compute-sanitizer is not here")
    broken, clean, looks = [], 0, [(kind, more, p) for kind, more, names in LOOKS for p in b.tests(names)]
    for i, (kind, more, p) in enumerate(looks):
        name = os.path.basename(p)
        if b.left() < 8:
            b.notes.append("sanitizer: no time for " + ", ".join(f"{k} of {os.path.basename(q)}" for k, _, q in looks[i:]))
            break
        try:
            done = b.sh([tool, "--tool", kind, *more, "--print-limit", "20", "--error-exitcode", "9", p], 90, check=False)
        except Failed as e:
            broken.append(f"{kind} {name}: {e}")
            continue
        said = (done.stdout + done.stderr).splitlines()
        last = [line.strip("= ") for line in said if "SUMMARY" in line]
        print(f"  {kind} {name}: {last[-1] if last else 'no summary'}, exit code {done.returncode}", flush=True)
        with open(os.path.join(b.out, "sanitizer.log"), "a") as f:
            f.write(f"== {kind} {name}: {done.returncode}\n{done.stdout[-20000:]}{done.stderr[-5000:]}\n")
        if done.returncode or not last:
            broken.append(f"{kind} {name}: {last[-1] if last else (said or ['no word'])[-1]}, exit code {done.returncode}")
        else:
            clean += 1
    b.figure("sanitizer: looks without a finding", clean, f"of {len(looks)}")
    if broken:
        raise Failed("; ".join(broken))


# Name, share of the eight minutes, what it does; the most worth first, so that a cut leaves the best. What one leaves over goes to the next.
PARTS = [("inventory", 8, inventory), ("tests", 45, tests), ("7b", 50, seven), ("sdtp", 45, sdtp), ("quantised", 22, quantised), ("outside", 12, outside),
         ("agreement", 12, agreement), ("transformers", 110, transformers), ("video", 38, video), ("kernels", 12, kernels), ("deterministic", 12, deterministic),
         ("overlap", 14, overlap), ("lanes", 12, lanes), ("transport", 6, transport), ("sweep", 18, sweep), ("faults", 10, faults), ("life", 12, life), ("sanitizer", 30, sanitizer)]
ENDING = 6  # seconds of the budget for what comes after the last part: children that are killed, the report


def gpu_there(b):
    """Whether the runner sees the device that was asked for; else why not."""
    if not b.runner:
        return "paceline-runner is not built (build-gpu.log says why)"
    if b.device == "cpu":
        return None
    try:
        r = b.serve()
        kinds = [d["kind"] for d in r.hello["devices"]]
        r.end()
    except (OSError, ValueError, TimeoutError) as e:
        return f"paceline-runner does not start: {e}"
    return None if "cuda" in kinds else "no GPU"


def over(*_):
    raise Failed("over its time")


def stopped(*_):
    sys.exit(143)


def run_part(b, part, limit, run):
    """(state, why) of one part, which ends by its limit: children by their own, this program's own work by the alarm."""
    state, why = "ran", ""
    b.ends = time.monotonic() + limit
    signal.setitimer(signal.ITIMER_REAL, limit + 1)
    try:
        run(b)
    except Exception as e:  # whatever it is, it is this part's alone
        state, why = "failed", f"{'' if isinstance(e, Failed) else type(e).__name__ + ': '}{e}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        b.stop_children()
    return state, why


def run_all(b, chosen, budget, missing):
    shares = [share for _, share, _ in chosen]
    for i, (name, _, run) in enumerate(chosen):
        part, start = b.report.parts[i], time.monotonic()
        part["limit"] = gpu_report.limit(shares, i, b.report.began + budget - ENDING - start)
        b.part, part["state"] = name, "running"
        b.report.write()
        print(f"== {name}: " + ((run.__doc__ or "").split(". ")[0].split(":")[0].strip() or "what this machine is") + f" (at most {part['limit']:.0f} s)", flush=True)
        if missing and name != "inventory":
            part["state"], part["why"] = "left out", missing
        elif part["limit"] < 2:
            part["state"], part["why"] = "left out", "the budget is spent"
        else:
            part["state"], part["why"] = run_part(b, name, part["limit"], run)
        part["seconds"] = time.monotonic() - start
        print(f"  {part['state']}{': ' + part['why'] if part['why'] else ''} ({part['seconds']:.1f} s)", flush=True)
        b.report.write()


def dry_run(chosen, budget, spent):
    """Who may run from when to when, if each takes all that it may."""
    shares, at = [share for _, share, _ in chosen], spent
    for i, (name, share, _) in enumerate(chosen):
        most = gpu_report.limit(shares, i, budget - ENDING - at)
        print(f"{name} share {share} from {at:.1f} to {at + most:.1f}")
        at += most
    print(f"all end by {at:.1f} of {budget:.0f} s ({spent:.1f} of them before the first)")


def main():
    signal.signal(signal.SIGALRM, over)
    signal.signal(signal.SIGTERM, stopped)
    p = argparse.ArgumentParser(prog="gpu.sh", description="Everything that wants a GPU (see the head of bench/gpu.sh).")
    p.add_argument("--out", default=os.path.join(TOP, "build", "gpu-report"))
    p.add_argument("--budget", type=float, default=480)
    p.add_argument("--only", default="")
    p.add_argument("--device", default="cuda")
    p.add_argument("--small", action="store_true")
    p.add_argument("--emulated", metavar="BUILD", default="")
    p.add_argument("--list", action="store_true")
    p.add_argument("--dry-run", action="store_true")
    a = p.parse_args()
    a.small = a.small or bool(a.emulated)
    if a.list:
        print(" ".join(name for name, _, _ in PARTS))
        return 0
    only = [n for n in a.only.split(",") if n]
    unknown = sorted(set(only) - {name for name, _, _ in PARTS})
    if unknown:
        p.error(f"--only {','.join(unknown)}: expected some of {' '.join(name for name, _, _ in PARTS)}")
    chosen = [x for x in PARTS if not only or x[0] in only]
    spent = float(os.environ.get("PACELINE_GPU_SPENT", "0"))  # gpu.sh's own, where it had to unpack or build
    if a.dry_run:
        dry_run(chosen, a.budget, spent)
        return 0
    report = gpu_report.Report(os.path.abspath(a.out), [(name, share) for name, share, _ in chosen], time.monotonic() - spent, device=a.device, small=a.small, emulated=bool(a.emulated))
    b = Bench(a, report)
    try:
        missing = gpu_there(b)
        run_all(b, chosen, a.budget, missing)
    finally:
        b.stop_children()
        shutil.rmtree(b.tmp, ignore_errors=True)
        report.write()
    print(f"report: {report.out}/report.md, {report.out}/report.json")
    return 6 if missing else 1 if any(x["state"] != "ran" for x in report.parts) else 0


if __name__ == "__main__":
    sys.exit(main())
