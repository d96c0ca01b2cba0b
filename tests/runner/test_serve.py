"""`paceline-runner serve` as a worker drives it: the real engine, the simulated one's failures, a foreign one."""
import os
import signal
import subprocess
import sys
import tempfile

from lib import Runner, broken_copy, check_times, load, need

PROGRAM, SOURCE = sys.argv[1:3]
MODEL = need(os.path.join(SOURCE, "examples/models/tiny-llama"))
TEXT = need(os.path.join(SOURCE, "examples/data/heldout.txt"))


def text(offset=0, path=TEXT):
    return {"kind": "text", "index": 7, "path": path, "offset": offset}


def trial(r, arm, context=32, sample=None, **more):
    return r.call("trial", arm=arm, context=context, sample=sample or text(), repeat=0, attempt=0, timed=True, **more)


def real_engine(tmp):
    r = Runner(PROGRAM, "serve")
    assert r.hello["protocol"] == 1 and r.hello["devices"][0]["bytes"] > 0
    ask = dict(model={"path": MODEL}, draft_model=None, arm={"model": "m"}, contexts=[32, 64], tokens=8, data="text")
    d = r.call("describe", **ask)
    assert d["errors"] == [] == d["warnings"] and d["layers"] == 4 and len(d["tokenizer"]) == 64, d
    far = r.call("describe", **{**ask, "contexts": [64, 1020]})
    assert len(far["errors"]) == 1 and "1020" in far["errors"][0], far
    assert r.call("describe", **{**ask, "contexts": [1017]})["errors"] == []  # 1017 + 8 − 1 = 1024 positions
    assert len(r.call("describe", **{**ask, "arm": {"draft": {"gamma": 2}}})["errors"]) == 1
    models = {"m": {"path": MODEL}, "full": {"path": MODEL, "dtype": "f32"}, "kv16": {"path": MODEL, "kv": "f16"}}
    arms = {"base": {"model": "m"}, "same": {"model": "m"}, "full": {"model": "full"}, "kv16": {"model": "kv16"}}
    loaded = r.call("load", **load(models, arms))
    assert loaded["type"] == "loaded" and loaded["load_ns"] > 0, loaded
    assert loaded["models"]["m"]["weights_bytes"] == d["weights_bytes"]
    results = {a: trial(r, a) for a in arms}
    for a, x in results.items():
        assert x["type"] == "result", (a, x)
        check_times(x)
        assert x["generated"] == [8] and x["prompt_tokens"] == 32 and x["kv_len"] == [[[32] * 4]]
        assert set(x["phases_ns"]) == {"tokenize", "prefill", "decode", "wait"} and not x["synthetic"]
        b = x["bytes"]
        assert b["kv"] == 39 * {"full": 2, "base": 1, "same": 1, "kv16": 1}[a] * d["kv_bytes_per_token"], b
        assert b["device_peak"] >= b["weights"] > 0 and b["other"] >= 0 and b["workspace"] > 0
    assert len({x["ids_hash"] for x in results.values()}) == 1
    assert results["base"]["logits_hash"] == results["same"]["logits_hash"]
    assert results["base"]["tokens"] == results["same"]["tokens"]
    assert results["base"]["logits_hash"] != results["kv16"]["logits_hash"]
    # where the prompt ends, what comes next, and that a second one changes nothing
    assert trial(r, "base", 33)["ids_hash"] != results["base"]["ids_hash"]
    assert trial(r, "base")["logits_hash"] == results["base"]["logits_hash"]
    bad_trials(r, tmp)
    ids = r.call("ids", model={"path": MODEL}, context=32, sample=text())
    assert len(ids["ids"]) == 32 and ids["ids"][0] == 1 and 31 < ids["bytes"] < 200, ids
    given = trial(r, "base", sample={"kind": "text", "index": 7, "ids": ids["ids"]})
    assert given["ids_hash"] == results["base"]["ids_hash"] and "tokenize" not in given["phases_ns"]
    check_times(given)
    assert r.call("unload", models=["m"])["type"] == "unloaded"
    assert trial(r, "base")["type"] == "error" and trial(r, "full")["type"] == "result"
    assert r.call("unload", models=[])["type"] == "unloaded"
    assert trial(r, "full")["type"] == "error"
    assert r.end() == 0, r.stderr
    return results["base"]


def bad_trials(r, tmp):
    short = os.path.join(tmp, "short.txt")
    with open(short, "w") as f:
        f.write("Too short a text.")
    for want, x in (("context", trial(r, "base", sample=text(path=short))),
                    ("context", trial(r, "base", 1020)),
                    ("data", trial(r, "base", sample=text(path=tmp + "/none.txt"))),
                    ("data", trial(r, "base", sample={"kind": "text", "index": 0, "ids": [1, 99999]})),
                    ("context", trial(r, "base", sample={"kind": "text", "index": 0, "ids": [1, 2]}))):
        assert x["type"] == "error" and x["reason"] == want and not x["fatal"], (want, x)


def threads_and_modes(base):
    r = Runner(PROGRAM, "serve")
    for threads in (1, 3):
        assert r.call("load", **load({"m": {"path": MODEL, "threads": threads}}, {"base": {"model": "m"}},
                                     cpus=[0]))["type"] == "loaded"
        x = trial(r, "base")
        assert (x["logits_hash"], x["tokens"]) == (base["logits_hash"], base["tokens"]), threads
    r.call("load", **load({"m": {"path": MODEL}}, {"base": {"model": "m"}}, mode="prefill", tokens=99, max_context=32))
    x = trial(r, "base")
    check_times(x)
    assert x["generated"] == [1] and "decode" not in x["phases_ns"] and x["tokens"][0][0] == base["tokens"][0][0]
    assert r.end() == 0


def random_weights_and_failed_loads(tmp):
    r = Runner(PROGRAM, "serve")
    only = os.path.join(tmp, "only-config")
    os.mkdir(only)
    with open(os.path.join(MODEL, "config.json")) as f, open(only + "/config.json", "w") as g:
        g.write(f.read())
    entry = {"path": only, "weights": "random:3"}
    assert r.call("describe", model=entry, arm={}, contexts=[8], tokens=4)["synthetic"] is True
    assert r.call("describe", model=entry, arm={}, contexts=[8], tokens=4, data="text")["errors"] != []
    assert r.call("load", **load({"r": entry}, {"rand": {"model": "r"}}))["type"] == "loaded"
    samples = [{"kind": "synthetic", "index": i, "key": "%016x" % (i + 1)} for i in range(2)]
    one, two = (trial(r, "rand", sample=s) for s in samples)
    assert one["type"] == "result" and one["synthetic"] and one["ids_hash"] != two["ids_hash"], one
    check_times(one)
    assert trial(r, "rand", sample=samples[0])["logits_hash"] == one["logits_hash"]
    assert trial(r, "rand")["reason"] == "data"  # a text and no tokenizer
    for bad in ({"path": tmp + "/none"}, {"path": only}, {"path": MODEL, "device": "cuda"},
                {"path": MODEL, "dtype": "f8"}, {"path": only, "weights": "random:x"}):
        x = r.call("load", **load({"bad": bad}, {"worse": {"model": "bad"}}))
        assert x["type"] == "error" and x["reason"] == "load" and not x["fatal"], (bad, x)
        assert trial(r, "worse", sample=samples[0])["type"] == "error"
    assert trial(r, "rand", sample=samples[0])["logits_hash"] == one["logits_hash"]
    assert r.call("load", **load({"nan": {"path": broken_copy(MODEL, tmp + "/nan")}},
                                 {"nan": {"model": "nan"}}))["type"] == "loaded"
    x = trial(r, "nan")
    assert x["type"] == "error" and x["reason"] == "numeric", x
    assert r.end() == 0


def sim(fail):
    r = Runner(PROGRAM, "serve")
    r.call("load", **load({"s": {"engine": "sim", "virtual": True, "fail": {fail: 1}}}, {"a": {"model": "s"}}))
    r.send("trial", arm="a", context=8, sample={"index": 0}, repeat=0, attempt=0, timed=True)
    return r


def planted_failures():
    r = sim("crash")
    assert r.p.wait(10) == -signal.SIGABRT
    r = sim("oom")
    x = r.line()
    assert x["reason"] == "oom" and x["fatal"] and r.p.wait(10) not in (0, None)
    r = sim("garbage")
    try:
        x = r.line()
        assert x.get("id") != r.id
    except ValueError:
        pass
    assert r.end() == 0
    r = sim("hang")
    try:
        r.line(0.3)
        raise AssertionError("a hanging runner answered")
    except TimeoutError:
        pass
    r.p.stdin.close()
    assert r.p.wait(10) != 0  # it goes with the other side


def cap():
    p = subprocess.run([PROGRAM, "serve"], input=b"{" + b" " * (9 << 20) + b"}\n" + b'{"type":"unload","id":5}\n',
                       capture_output=True, timeout=60)
    lines = p.stdout.splitlines()
    assert p.returncode == 0 and len(lines) == 3 and b'"id":0' in lines[1] and b"unloaded" in lines[2], lines


def foreign():
    r = Runner(sys.executable, os.path.join(SOURCE, "examples/runners/simple_runner.py"))
    assert r.hello["protocol"] == 1
    assert r.call("describe", model={}, arm={"model": "m"}, contexts=[16], tokens=8)["errors"] == []
    assert r.call("load", **load({"m": {}}, {"x": {"model": "m"}}))["type"] == "loaded"
    x = trial(r, "x", 16, {"index": 1, "text": "the cat and the dog and the cow " * 4})
    assert x["generated"] == [8] and x["prompt_tokens"] == 16, x
    check_times(x)
    x = trial(r, "x", 16, {"index": 1, "ids": list(range(16))})
    assert x["generated"] == [8], x
    assert trial(r, "x", 16, {"index": 1, "text": "too short"})["reason"] == "context"
    assert r.call("unload", models=[])["type"] == "unloaded"
    assert r.end() == 0


with tempfile.TemporaryDirectory() as tmp:
    threads_and_modes(real_engine(tmp))
    random_weights_and_failed_loads(tmp)
planted_failures()
cap()
foreign()
print("ok")
