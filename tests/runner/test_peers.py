"""test_peers.py PROGRAM SOURCE hf|llama: the runners of foreign engines (tools/runners) on the small models of examples/. Each speaks the
protocol, makes exactly the tokens that paceline-runner makes in f32 from the same ids, adds up its phases, and refuses what it cannot."""
import os
import sys

from lib import Runner, check_times, load, need, python_with

PROGRAM, SOURCE, WHICH = sys.argv[1:4]
MODELS = os.path.join(SOURCE, "examples/models")
TEXT = {"kind": "text", "index": 7, "path": need(os.path.join(SOURCE, "examples/data/heldout.txt")), "offset": 0}
NEEDS = {"hf": "torch, transformers", "llama": "llama_cpp, numpy"}[WHICH]


def trial(r, arm, sample, context=48, **more):
    return r.call("trial", arm=arm, context=context, sample=sample, repeat=0, attempt=0, timed=True, **more)


def given(own, entry, context=48):
    return {"kind": "text", "index": 7, "ids": own.call("ids", model=entry, context=context, sample=TEXT)["ids"]}


def same_as_ours(r, own, ours, entry, sample, tokens=8):
    """The runner's trial against ours, both loaded with the one model: tokens, hash of what went in, lengths, times."""
    assert own.call("load", **load({"m": ours}, {"a": {"model": "m"}}, tokens=tokens))["type"] == "loaded"
    said = r.call("load", **load({"m": entry}, {"a": {"model": "m"}}, tokens=tokens))
    assert said["type"] == "loaded" and said["models"]["m"]["weights_bytes"] > 0, said
    a, b = trial(r, "a", sample), trial(own, "a", sample)
    assert a["type"] == "result", a
    if a["tokens"][0]:  # an encoder makes none
        check_times(a)
    assert sum(a["phases_ns"].values()) == a["total_ns"] > 0, a
    assert set(a["phases_ns"]) == set(b["phases_ns"]), (a["phases_ns"], b["phases_ns"])
    assert a["ids_hash"] == b["ids_hash"] and a["prompt_tokens"] == b["prompt_tokens"]
    assert a["generated"] == b["generated"] and a["tokens"] == b["tokens"], (entry, a["tokens"], b["tokens"])
    assert a.get("kv_len") == b.get("kv_len"), (a.get("kv_len"), b.get("kv_len"))
    assert a["bytes"]["weights"] > 0 and a["bytes"]["device_peak"] > a["bytes"]["weights"], a["bytes"]
    again = trial(r, "a", sample)
    assert again.get("tokens") == a["tokens"], ("a second trial is another one", again)
    return a


def what_is_refused(r, own, entry, sample):
    ask = dict(model=entry, draft_model=None, contexts=[64], tokens=8, data="text")
    for arm, word in (({"model": "m", "draft": {"method": "prompt_lookup"}}, "draft"), ({"model": "m", "concurrency": 2}, "concurrency")):
        errors = r.call("describe", **ask, arm=arm)["errors"]
        assert len(errors) == 1 and word in errors[0], errors
    assert "beyond" in r.call("describe", **{**ask, "contexts": [64, 99999]}, arm={"model": "m"})["errors"][0]
    assert len(r.call("describe", **{**ask, "model": {**entry, "path": "/nowhere"}}, arm={"model": "m"})["errors"]) == 1
    for bad in ({**entry, "path": "/nowhere"}, {**entry, "device": "tpu"}):
        x = r.call("load", **load({"bad": bad}, {"bad": {"model": "bad"}}))
        assert x["type"] == "error" and x["reason"] == "load" and not x["fatal"], x
    for reason, x in (("context", trial(r, "a", {**sample, "ids": sample["ids"][:5]})), ("data", trial(r, "a", {**sample, "ids": [1 << 20] * 48})),
                      ("runner", trial(r, "nobody", sample)), ("runner", r.call("dance"))):
        assert x["type"] == "error" and x["reason"] == reason, (reason, x)
    r.p.stdin.write(b"no json\n")
    r.p.stdin.flush()
    assert r.line()["type"] == "error"
    assert trial(r, "a", sample)["type"] == "result"
    prefill = r.call("load", **load({"m": entry}, {"a": {"model": "m"}}, mode="prefill"))
    one = trial(r, "a", sample)
    assert prefill["type"] == "loaded" and one["generated"] == [1] and "decode" not in one["phases_ns"], one
    assert r.call("unload", models=["m"])["type"] == "unloaded" and trial(r, "a", sample)["type"] == "error"


def several(r, own, ours, entry):
    samples = [given(own, ours), {"kind": "text", "index": 8, "ids": own.call("ids", model=ours, context=48, sample={**TEXT, "offset": 4000})["ids"]}]
    assert r.call("load", **load({"m": entry}, {"b": {"model": "m", "batch": 2}, "one": {"model": "m"}}, tokens=6))["type"] == "loaded"
    both = trial(r, "b", samples[0], samples=samples)
    alone = [trial(r, "one", s)["tokens"][0] for s in samples]
    assert both["generated"] == [6, 6] and both["tokens"] == alone and len(both["token_ns"]) == 2 and both["prompt_tokens"] == 96, both
    short = trial(r, "one", samples[0], tokens=3)
    assert short["generated"] == [3] and short["tokens"][0] == alone[0][:3]


def hf(r, own):
    described = {}
    for name in ("small-llama", "small-gpt2", "small-t5", "small-bert"):
        entry = {"path": need(os.path.join(MODELS, name)), "dtype": "f32"}
        ask = dict(model=entry, draft_model=None, arm={"model": "m"}, contexts=[48], tokens=8, data="text")
        ours, theirs = own.call("describe", **ask), r.call("describe", **ask)
        assert theirs["errors"] == [] and not theirs["synthetic"], theirs
        for key in ("layers", "vocab"):
            assert theirs[key] == ours[key], (name, key, theirs, ours)
        described[name] = theirs
        x = same_as_ours(r, own, entry, entry, given(own, entry))
        print(f"{name}: {x['generated'][0]} tokens, those of paceline-runner; {sorted(x['phases_ns'])}")
    llama = {"path": os.path.join(MODELS, "small-llama"), "dtype": "f32"}
    ours = own.call("describe", model=llama, draft_model=None, arm={"model": "m"}, contexts=[48], tokens=8, data="text")
    for key in ("kv_bytes_per_token", "max_positions", "weights_bytes"):
        assert described["small-llama"][key] == ours[key], (key, described["small-llama"], ours)
    # text goes through the model's own tokenizer
    gpt2 = {"path": os.path.join(MODELS, "small-gpt2"), "dtype": "f32"}
    with open(TEXT["path"], encoding="utf-8") as f:
        words = {"kind": "text", "index": 7, "text": f.read(4000)}
    r.call("load", **load({"m": gpt2}, {"a": {"model": "m"}}))
    x = trial(r, "a", words)
    assert x["type"] == "result" and x["phases_ns"]["tokenize"] > 0 and x["prompt_tokens"] == 48, x
    check_times(x)
    several(r, own, llama, llama)
    shape = {"path": llama["path"], "weights": "random:3", "dtype": "f32"}
    r.call("load", **load({"m": shape}, {"a": {"model": "m"}}))
    own.call("load", **load({"m": shape}, {"a": {"model": "m"}}))
    drawn = {"kind": "synthetic", "index": 0, "key": "00000000deadbeef"}
    x = trial(r, "a", drawn)
    assert x["synthetic"] and x["ids_hash"] == trial(own, "a", drawn)["ids_hash"], x
    r.call("load", **load({"m": llama}, {"a": {"model": "m"}}))
    what_is_refused(r, own, llama, given(own, llama))
    # a compiled step and a static cache
    compiled = Runner(r.argv[0], r.argv[1], "--compile", "decode", timeout=220)
    same_as_ours(compiled, own, llama, llama, given(own, llama))
    assert "--compile" in compiled.call("describe", **{**ask, "model": {"path": os.path.join(MODELS, "small-t5")}})["errors"][0]
    assert compiled.end() == 0, compiled.stderr


def llama(r, own):
    # its 8-bit activations are not ours: f32 activations on our side, and greedy tokens of a model that is sure of itself
    for name in ("small-llama-q8_0.gguf", "small-llama-q4_k.gguf"):
        entry = {"path": need(os.path.join(MODELS, name))}
        ask = dict(model=entry, draft_model=None, arm={"model": "m"}, contexts=[48], tokens=8, data="text")
        ours, theirs = own.call("describe", **ask), r.call("describe", **ask)
        for key in ("layers", "vocab", "max_positions", "kv_bytes_per_token"):
            assert theirs[key] == ours[key], (name, key, theirs, ours)
        same_as_ours(r, own, entry, entry, given(own, entry))
        print(f"{name}: the tokens of paceline-runner")
    with open(TEXT["path"], encoding="utf-8") as f:
        words = {"kind": "text", "index": 7, "text": f.read(4000)}
    x = trial(r, "a", words)
    assert x["ids_hash"] == trial(own, "a", TEXT)["ids_hash"] and x["phases_ns"]["tokenize"] > 0, x
    several(r, own, entry, entry)
    r.call("load", **load({"m": entry}, {"a": {"model": "m"}}))
    what_is_refused(r, own, entry, given(own, entry))


def main():
    python = python_with(NEEDS)
    r = Runner(python, os.path.join(SOURCE, "tools/runners", f"{WHICH}_runner.py"), timeout=220)
    own = Runner(PROGRAM, "serve")
    assert r.hello["protocol"] == 1 and r.hello["runner"] == f"{WHICH}_runner" and r.hello["devices"][0]["kind"] == "cpu", r.hello
    print(r.hello["version"])
    {"hf": hf, "llama": llama}[WHICH](r, own)
    assert r.end() == 0, r.stderr
    own.end()


main()
