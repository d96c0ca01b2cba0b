"""Trials of several sequences: the same tokens and bits as one by one, times of each, bad requests."""
import sys

from lib import Runner, load, need

exe, root = sys.argv[1:3]
models = {name: {"path": need("%s/examples/models/%s" % (root, path)), "dtype": "f32"}
          for name, path in {"llama": "small-llama", "gpt2": "small-gpt2", "t5": "small-t5", "bert": "small-bert"}.items()}
corpus = need(root + "/examples/data/heldout.txt")
arms = {}
for m in models:
    arms[m] = {"model": m}
    arms[m + "-b4"] = {"model": m, "batch": 4, "concurrency": 1}
    arms[m + "-c3"] = {"model": m, "batch": 1, "concurrency": 3, "requests": 7}
    arms[m + "-c1x"] = {"model": m, "concurrency": 2}


def text(i):
    return {"kind": "text", "index": i, "path": corpus, "offset": i * 3000}


def trial(r, arm, context, samples, **more):
    members = dict(arm=arm, context=context, sample=samples[0], repeat=0, attempt=0, timed=True, **more)
    if len(samples) > 1:
        members["samples"] = samples
    return r.call("trial", **members)


def identities(a, n, tokens):
    assert a["type"] == "result", a
    assert len(a["generated"]) == len(a["tokens"]) == len(a["token_ns"]) == n
    assert sum(a["phases_ns"].values()) <= a["total_ns"] <= sum(a["phases_ns"].values()) * 1.01 + 2000, a
    for ids, ns, g in zip(a["tokens"], a["token_ns"], a["generated"]):
        assert len(ids) == len(ns) == g == tokens
        assert ns == sorted(ns) and ns[-1] <= a["total_ns"]
    assert max(ns[-1] for ns in a["token_ns"]) == a["total_ns"]


r = Runner(exe, "serve")
a = r.call("load", **load(models, arms, tokens=9, max_context=300))
assert a["type"] == "loaded", a
for m in ("llama", "gpt2", "t5"):
    for context in (1, 300) if m != "t5" else (20, 300):
        alone = [trial(r, m, context, [text(i)]) for i in range(7)]
        b4 = trial(r, m + "-b4", context, [text(i) for i in range(4)])
        identities(b4, 4, 9)
        assert b4["tokens"] == [x["tokens"][0] for x in alone[:4]], (m, context)
        assert b4["logits_hash"] == alone[0]["logits_hash"] and b4["ids_hash"] == alone[0]["ids_hash"]
        assert b4["kv_len"][0] == [x["kv_len"][0][0] for x in alone[:4]]
        assert b4["prompt_tokens"] == 4 * context
        assert b4["bytes"]["kv"] == 4 * alone[0]["bytes"]["kv"], (b4["bytes"], alone[0]["bytes"])
        assert abs(b4["ttft_ns"] - sum(ns[0] for ns in b4["token_ns"]) / 4) < 2
        # the batch decodes together: token i of all before token i + 1 of any
        for i in range(1, 9):
            assert max(ns[i - 1] for ns in b4["token_ns"]) < min(ns[i] for ns in b4["token_ns"])
        c3 = trial(r, m + "-c3", context, [text(i) for i in range(7)])
        identities(c3, 7, 9)
        assert c3["tokens"] == [x["tokens"][0] for x in alone], (m, context)
        first, last = [ns[0] for ns in c3["token_ns"]], [ns[-1] for ns in c3["token_ns"]]
        begin = c3["phases_ns"]["tokenize"]
        came = [begin] * 3 + last[:4]  # client i mod 3 asks again when it was answered
        assert all(f > c for f, c in zip(first, came))
        assert abs(c3["ttft_ns"] - sum(f - c for f, c in zip(first, came)) / 7) < 2
        assert first == sorted(first)  # admitted in the order in which they came
        for i in range(7):  # never more than three are served
            assert sum(f < first[i] < l for f, l in zip(first, last)) <= 2
        assert c3["bytes"]["kv"] == 3 * alone[0]["bytes"]["kv"]
        c2 = trial(r, m + "-c1x", context, [text(0), text(1)])
        identities(c2, 2, 9)
        assert c2["tokens"] == [x["tokens"][0] for x in alone[:2]]
        # again, the same: nothing of a trial stays
        assert trial(r, m + "-b4", context, [text(i) for i in range(4)])["tokens"] == b4["tokens"]
        assert trial(r, m, context, [text(0)])["logits_hash"] == alone[0]["logits_hash"]
for context in (16, 200):
    alone = trial(r, "bert", context, [text(0)])
    b4 = trial(r, "bert-b4", context, [text(i) for i in range(4)])
    assert b4["generated"] == [0] * 4 and b4["tokens"] == [[]] * 4 and b4["ttft_ns"] == b4["total_ns"]
    assert b4["logits_hash"] == alone["logits_hash"] and b4["prompt_tokens"] == 4 * context
    assert set(b4["phases_ns"]) == {"tokenize", "encode", "wait"}
    c3 = trial(r, "bert-c3", context, [text(i) for i in range(7)])
    assert c3["generated"] == [0] * 7 and 0 < c3["ttft_ns"] < c3["total_ns"]
    assert c3["ttft_ns"] >= (c3["total_ns"] - c3["phases_ns"]["tokenize"]) / 3 * 0.3

# bad requests
a = trial(r, "llama-b4", 20, [text(0), text(1)])
assert a["type"] == "error" and "2 samples for an arm of 4" in a["text"], a
a = trial(r, "llama-b4", 20, [text(0)])
assert a["type"] == "error" and "0 samples for an arm of 4" in a["text"], a
a = trial(r, "llama-b4", 20, [text(0), text(1), text(2), dict(text(3), offset=10**9)])
assert a["type"] == "error" and a["reason"] == "data", a
a = trial(r, "llama-b4", 2047, [text(i) for i in range(4)])
assert a["type"] == "error" and a["reason"] == "context", a
assert trial(r, "llama-b4", 20, [text(i) for i in range(4)])["type"] == "result"
a = r.call("trial", arm="llama-b4", context=20, sample=text(0), samples=3, repeat=0, attempt=0, timed=True)
assert a["type"] == "error" and "samples" in a["text"], a
for arm, said in (({"batch": 300}, "at most 256"), ({"batch": 2, "concurrency": 2}, "one of batch"),
                  ({"concurrency": 4, "requests": 3}, "requests")):
    a = r.call("describe", model=models["llama"], arm=dict(arm, model="llama"), contexts=[20], tokens=9, data="text")
    assert any(said in e for e in a["errors"]), a
one = r.call("describe", model=models["llama"], arm={"model": "llama"}, contexts=[20], tokens=9)
four = r.call("describe", model=models["llama"], arm={"model": "llama", "batch": 4}, contexts=[20], tokens=9)
assert one["errors"] == four["errors"] == [] and one["kv_bytes_per_token"] == four["kv_bytes_per_token"]
assert one["workspace_bytes"] <= four["workspace_bytes"] < 4 * one["workspace_bytes"]
assert r.end() == 0, r.stderr

# stop_at_eos: sequences end at places of their own; prefill mode: one token each
r = Runner(exe, "serve")
q = load(models, arms, tokens=200, max_context=64)
q["generate"]["stop_at_eos"] = True
assert r.call("load", **q)["type"] == "loaded"
alone = [trial(r, "gpt2", 64, [text(i)]) for i in range(7)]
for arm, n in (("gpt2-b4", 4), ("gpt2-c3", 7)):
    a = trial(r, arm, 64, [text(i) for i in range(n)])
    assert a["tokens"] == [x["tokens"][0] for x in alone[:n]], arm
    assert a["generated"] == [x["generated"][0] for x in alone[:n]]
assert r.call("load", **load(models, arms, tokens=5, mode="prefill", max_context=64))["type"] == "loaded"
for arm, n in (("llama-b4", 4), ("llama-c3", 7)):
    a = trial(r, arm, 64, [text(i) for i in range(n)])
    identities(a, n, 1)
    assert "decode" not in a["phases_ns"], a["phases_ns"]
assert r.end() == 0, r.stderr

# the simulated engine plants the truths of docs/METRICS.md
r = Runner(exe, "serve")
sim = {"engine": "sim", "prefill_us_per_token": 10, "decode_us": 100, "virtual": True, "batch_cost": 0.1}
arms = {"one": {"model": "sim"}, "four": {"model": "sim", "batch": 4}, "loop": {"model": "sim", "concurrency": 2, "requests": 3}}
assert r.call("load", **load({"sim": sim}, arms, tokens=3))["type"] == "loaded"
s = [{"kind": "synthetic", "index": i, "key": i} for i in range(4)]
one, four = trial(r, "one", 50, s[:1]), trial(r, "four", 50, s)
identities(four, 4, 3)
assert [ns[0] for ns in four["token_ns"]] == [500000, 1000000, 1500000, 2000000]
assert all(ns[1:] == [2130000, 2260000] for ns in four["token_ns"])
assert four["ttft_ns"] == 1250000 and four["tokens"][0] == one["tokens"][0]
assert four["tokens"][1] == trial(r, "one", 50, s[1:2])["tokens"][0]
loop = trial(r, "loop", 50, s[:3])
identities(loop, 3, 3)
# turns: prompt 0 · prompt 1 beside a token of 0 · tokens of both: 0 is answered · prompt 2 beside the last token of 1
assert loop["token_ns"][0] == [500000, 1100000, 1210000]
assert loop["token_ns"][1] == [1100000, 1210000, 1810000]
assert loop["token_ns"][2] == [1810000, 1910000, 2010000]
assert loop["ttft_ns"] == (500000 + 1100000 + 600000) // 3
assert loop["phases_ns"]["prefill"] == 1700000 and loop["phases_ns"]["decode"] == 310000
a = r.call("describe", model=sim, arm={"model": "sim", "batch": 2, "acceptance": 0.5}, contexts=[50], tokens=3)
assert "one sequence" in a["errors"][0], a
assert r.end() == 0, r.stderr
print("ok")
