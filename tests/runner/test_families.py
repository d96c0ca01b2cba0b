"""Encoders, encoder-decoders and image towers through the program: `logits` and `generate` against transformers, trials of
`serve`, and what is refused."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

from lib import Runner, check_times, load, need, npy_floats, npy_ids, npy_read_ids

PROGRAM, SOURCE = sys.argv[1:3]
FAMILIES = need(os.path.join(SOURCE, "tests/model/goldens/families"))
SEED = {"kind": "synthetic", "index": 0, "key": "0123456789abcdef"}


def run(*argv, code=0):
    p = subprocess.run([PROGRAM, *argv], capture_output=True, text=True, timeout=60)
    assert p.returncode == code, (argv, p.returncode, p.stderr)
    return p.stderr if code else p.stdout


def near(out, want):
    """The last rows of a file against a golden, which may have fewer."""
    (shape, got), (want_shape, want) = npy_floats(out), npy_floats(want)
    assert shape[0] >= want_shape[0] and shape[1] == want_shape[1], (shape, want_shape)
    got = got[len(got) - len(want):]
    assert max(abs(a - b) for a, b in zip(want, got)) <= 1e-4 * max(map(abs, want)), out
    return shape


def one(name, tmp):
    d, out = os.path.join(FAMILIES, name), tmp + "/out.npy"
    has = {f[:-4] for f in os.listdir(d) if f.endswith(".npy")}
    argv = [d, "--dtype", "f32", "--kv", "f32"]
    if "pixels" in has:
        argv += ["--pixels", d + "/pixels.npy"]
    else:
        argv += ["--ids-file", d + "/ids.npy"]
    for file, option in (("types", "--type-ids-file"), ("mask", "--mask-file"), ("decoder_ids", "--decoder-ids-file")):
        if file in has:
            argv += [option, "%s/%s.npy" % (d, file)]
    run("logits", *argv, "-o", out)
    near(out, d + ("/logits.npy" if "logits" in has else "/hidden.npy"))
    run("logits", *argv, "-o", out, "--layer", "1", "--threads", "1")
    near(out, d + "/hidden1.npy")
    if "greedy" not in has:
        assert "makes no tokens" in run("generate", *argv, "--tokens", "2", code=2), name
        return
    greedy = npy_read_ids(d + "/greedy.npy")
    eos = json.load(open(d + "/config.json"))["eos_token_id"]
    if eos in greedy:
        greedy = greedy[:greedy.index(eos) + 1]
    g = json.loads(run("generate", *argv, "--tokens", str(len(greedy)), "--stop-at-eos", "--json"))
    assert g["ids"] == greedy, (name, g["ids"], greedy)
    assert ("encode_ms" in g) == ("decoder_ids" in has)


def trial(r, arm, context, **more):
    return r.call("trial", arm=arm, context=context, sample=SEED, repeat=0, attempt=0, timed=True, **more)


def trials():
    path = lambda name: {"path": os.path.join(FAMILIES, name), "dtype": "f32"}
    models = {m: path(m) for m in ("bert", "flan", "mistral_window", "gpt2")}
    r = Runner(PROGRAM, "serve")
    ask = dict(draft_model=None, arm={"model": "m"}, contexts=[32, 60], tokens=8, data="synthetic")
    told = {m: r.call("describe", model=models[m], **ask) for m in models}
    assert all(d["errors"] == [] for d in told.values()), told
    assert told["bert"]["kv_bytes_per_token"] == 0 and told["flan"]["kv_bytes_per_token"] == 3 * 2 * 4 * 16 * 4
    far = r.call("describe", model=models["bert"], **{**ask, "contexts": [60, 61]})
    assert len(far["errors"]) == 1 and "61 is beyond the model's 60" in far["errors"][0], far
    assert r.call("describe", model=models["flan"], **{**ask, "contexts": [4096]})["errors"] == []
    assert "reads images" in r.call("describe", model=path("clip"), **ask)["errors"][0]
    loaded = r.call("load", **load(models, {m: {"model": m} for m in models}))
    assert loaded["type"] == "loaded", loaded
    for m in models:
        assert loaded["models"][m]["weights_bytes"] == told[m]["weights_bytes"]

    x = trial(r, "bert", 33)
    assert x["generated"] == [0] and x["tokens"] == [[]] and "kv_len" not in x, x
    assert set(x["phases_ns"]) == {"encode", "wait"} and x["ttft_ns"] == x["total_ns"] == x["phases_ns"]["encode"]
    assert x["bytes"]["kv"] == 0 and trial(r, "bert", 33)["logits_hash"] == x["logits_hash"]
    assert trial(r, "bert", 34)["logits_hash"] != x["logits_hash"]
    assert trial(r, "bert", 61)["reason"] == "context"

    x = trial(r, "flan", 40)
    check_times(x)
    assert x["generated"] == [8] and set(x["phases_ns"]) == {"encode", "prefill", "decode", "wait"}
    assert x["kv_len"] == [[[40] * 3]]
    assert x["bytes"]["kv"] == (40 + 8) * told["flan"]["kv_bytes_per_token"]
    assert trial(r, "flan", 300)["prompt_tokens"] == 300  # a longer one than the session was made for
    assert trial(r, "flan", 40)["logits_hash"] == x["logits_hash"]

    x = trial(r, "mistral_window", 200)
    check_times(x)
    assert x["kv_len"] == [[[24] * 2]] and x["bytes"]["kv"] == 24 * told["mistral_window"]["kv_bytes_per_token"]
    check_times(trial(r, "gpt2", 100))
    assert trial(r, "gpt2", 154)["reason"] == "context"
    assert r.end() == 0, r.stderr


def misfits(tmp):
    """A tokenizer of another model; inputs that do not go with the model."""
    d = tmp + "/misfit"
    shutil.copytree(os.path.join(FAMILIES, "gpt2"), d)
    shutil.copy(need(os.path.join(SOURCE, "examples/models/tiny-llama/tokenizer.model")), d)
    assert "another model's tokenizer" in run("logits", d, "--prompt", "Hello", "-o", tmp + "/o.npy", code=2)
    r = Runner(PROGRAM, "serve")
    q = dict(model={"path": d}, draft_model=None, arm={"model": "m"}, contexts=[32], tokens=8)
    assert "another model's tokenizer" in r.call("describe", data="text", **q)["errors"][0]
    assert r.call("describe", data="synthetic", **q)["errors"] == []
    assert r.end() == 0
    ids, out = tmp + "/ids.npy", ["-o", tmp + "/o.npy"]
    npy_ids(ids, [4, 5, 6])
    bert, gpt2, clip = (os.path.join(FAMILIES, m) for m in ("bert", "gpt2", "clip"))
    for says, argv in (("no encoder", [gpt2, "--ids", "1 2 3", "--mask-file", ids]),
                       ("has 2 ids", [bert, "--ids", "1 2", "--mask-file", ids]),
                       ("has 2 ids", [bert, "--ids", "1 2", "--type-ids-file", ids]),
                       ("token type 0 is 4", [bert, "--ids", "1 2 3", "--type-ids-file", ids]),
                       ("--pixels F.npy is needed", [clip, "--ids", "1 2"]),
                       ("does not go with it", [bert, "--pixels", ids]),
                       ("float32 is expected", [clip, "--pixels", ids]),
                       ("the model reads [frames, 3, 20, 20]", [clip, "--pixels", os.path.join(FAMILIES, "clip_gelu/pixels.npy")]),
                       ("60 positions", [bert, "--ids", "1 " * 61])):
        assert says in run("logits", *argv, *out, code=2), (says, argv)


with tempfile.TemporaryDirectory() as tmp:
    for name in sorted(os.listdir(FAMILIES)):
        one(name, tmp)
    trials()
    misfits(tmp)
