"""Arms that prune: what `describe` refuses, keep 1 as the baseline bit for bit, staircases in the answer, perplexity beside them; --prune and --trace."""
import json
import os
import subprocess
import sys
import tempfile

from lib import Runner, need

PROGRAM, SOURCE = sys.argv[1:3]
MODEL = os.path.join(SOURCE, "examples/models/small-llama")
SCORERS = need(os.path.join(SOURCE, "examples/models/small-llama-sdtp.safetensors"))
TEXT = need(os.path.join(SOURCE, "examples/data/heldout.txt"))
LLM = {"path": MODEL, "dtype": "f32"}
SDTP = {"method": "sdtp", "weights": SCORERS}
ARMS = {
    "base": None,
    "one": {**SDTP, "keep": 1},
    "keep07": {**SDTP, "keep": 0.7, "layers": None, "total_keep": None},
    "total": {"method": "random", "layers": [0, 1], "total_keep": 0.5},
    "renumbered": {**SDTP, "keep": 0.5, "positions": "renumbered"},
    "snap": {"method": "snapkv", "keep": 0.25},
    "stream": {"method": "streamingllm", "keep": 0.25},
}
N, TOKENS = 200, 8
LENGTHS = {"base": [200, 200, 200], "one": [200, 200, 200], "keep07": [200, 140, 98], "renumbered": [200, 100, 50],
           "snap": [50, 50, 50], "stream": [50, 50, 50]}


C = json.load(open(os.path.join(MODEL, "config.json")))
H, FFN, VOCAB, Q = C["hidden_size"], C["intermediate_size"], C["vocab_size"], C["num_attention_heads"]
HEAD = H // Q
BLOCK = H * (2 * H + 2 * C["num_key_value_heads"] * HEAD) + 3 * H * FFN  # weights of a block


def flops(lengths, scored=()):
    """Of a prefill whose layers see so many rows: blocks, attention of each row to those before it, the last row's head, scorers [rows]; and of the decode
    after it."""
    prefill = sum(2 * BLOCK * n + 4 * H * n * (n + 1) // 2 for n in lengths) + 2 * H * VOCAB + sum(2 * n * (H * M + M) for n, M in scored)
    decode = sum(2 * (BLOCK * len(lengths) + H * VOCAB) + sum(4 * H * (n + t) for n in lengths) for t in range(1, TOKENS))
    return prefill, decode


def read_bytes(lengths):
    row = 2 * C["num_key_value_heads"] * HEAD * 4
    return sum(4 * (BLOCK * len(lengths) + H * VOCAB) + row * sum(n + t for n in lengths) for t in range(1, TOKENS))


def run(*args, code=0):
    p = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
    assert p.returncode == code, (args, p.stderr)
    return p.stdout if code == 0 else p.stderr


def arm(prune):
    return {"model": "m", "prune": prune}


def scorer_middle(layer):
    with open(SCORERS, "rb") as f:
        head = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return head[f"{layer}.scorer.0.weight"]["shape"][0]


def refuses(r):
    for prune, part in (({**SDTP, "keep": 0}, "prune.keep is 0"), ({**SDTP, "keep": 0.5, "layers": [3]}, "3 is not a layer"),
                        ({**SDTP, "keep": 0.5, "layers": [2]}, "no 2.scorer.0.weight"), ({"method": "sdtp", "keep": 0.5}, "weights is missing"),
                        ({"method": "h2o", "keep": 0.5, "window": 4}, "not an option of h2o"), ({**SDTP, "keep": 0.5}, None)):
        d = r.call("describe", model=LLM, draft_model=None, arm=arm(prune), contexts=[N], tokens=TOKENS, data="text")
        assert (len(d["errors"]) == 1 and part in d["errors"][0]) if part else d["errors"] == [], (prune, d["errors"])


def trials(r):
    sample = {"kind": "text", "index": 0, "path": TEXT, "offset": 0}
    loaded = r.call("load", models={"m": LLM}, arms={k: arm(v) for k, v in ARMS.items()}, generate={"tokens": TOKENS},
                    measure={"mode": "e2e", "quality": 40}, seed=3, threads=1)
    assert loaded["type"] == "loaded", loaded
    out = {}
    for _ in range(2):  # any order, again and again: the same answers
        for name in ("keep07", "base", "total", "snap", "one", "renumbered", "stream"):
            x = r.call("trial", arm=name, context=N, sample=sample, repeat=0, attempt=0, timed=True)
            assert x["type"] == "result", x
            said = (x["tokens"], x["kv_len"], x["quality"], x["logits_hash"])
            assert out.setdefault(name, (said, x))[0] == said, name
    for name, want in LENGTHS.items():
        assert out[name][1]["kv_len"] == [[want]], (name, out[name][1]["kv_len"])
    assert out["total"][1]["kv_len"][0][0][2] == 100
    assert out["one"][0] == out["base"][0]
    assert out["keep07"][1]["logits_hash"] != out["base"][1]["logits_hash"]
    assert out["snap"][1]["logits_hash"] == out["base"][1]["logits_hash"]  # KV goes after the prefill
    ppl = {k: v[1]["quality"]["perplexity"] for k, v in out.items()}
    assert all(1 < v < 200 for v in ppl.values()) and len(set(ppl.values())) == len(ppl) - 1, ppl
    row = out["base"][1]["bytes"]["kv"] / (3 * (N + TOKENS - 1))
    for name in ("keep07", "snap"):
        assert out[name][1]["bytes"]["kv"] == row * sum(v + TOKENS - 1 for v in LENGTHS[name]), name
    middle = {0: scorer_middle(0), 1: scorer_middle(1)}
    for name, scored in (("base", []), ("one", []), ("keep07", [(200, middle[0]), (140, middle[1])]), ("stream", []),
                         ("renumbered", [(200, middle[0]), (100, middle[1])])):
        before = [200, 200, 200] if name == "stream" else LENGTHS[name]  # reduced after the prefill
        work = out[name][1]["work"]
        assert work["prefill_flops"] == flops(before, scored)[0], (name, work, flops(before, scored))
        assert work["decode_flops"] == flops(LENGTHS[name])[1], (name, work, flops(LENGTHS[name]))
        assert work["decode_bytes"] == read_bytes(LENGTHS[name]), (name, work, read_bytes(LENGTHS[name]))
    snap = out["snap"][1]["work"]["prefill_flops"] - out["base"][1]["work"]["prefill_flops"]
    assert snap == 3 * 2 * H * sum(n + 1 for n in range(200 - 32, 200)), snap  # the window's rows are asked once more
    warm = r.call("trial", arm="base", context=N, sample=sample, repeat=0, attempt=0, timed=False)
    assert warm["quality"] == {}


def several(r):
    """Sequences of a batch and of a closed loop keep each their own tokens, and say what they say alone."""
    samples = [{"kind": "text", "index": i, "path": TEXT, "offset": 900 * i} for i in range(5)]
    shapes = {"": {}, "/batch": {"batch": 5}, "/loop": {"concurrency": 2, "requests": 5}}
    arms = {name + k: {**arm(ARMS[name]), **v} for name in ("keep07", "total", "snap", "stream", "base") for k, v in shapes.items()}
    loaded = r.call("load", models={"m": LLM}, arms=arms, generate={"tokens": TOKENS}, measure={"mode": "e2e", "quality": 0}, seed=3, threads=2, max_context=N)
    assert loaded["type"] == "loaded", loaded

    def trial(name, **more):
        x = r.call("trial", arm=name, context=N, repeat=0, attempt=0, timed=True, **more)
        assert x["type"] == "result", (name, x)
        return x
    for name in ("keep07", "total", "snap", "stream", "base"):
        alone = [trial(name, sample=s) for s in samples]
        for k in ("/batch", "/loop"):
            x = trial(name + k, sample=samples[0], samples=samples)
            assert x["tokens"] == [a["tokens"][0] for a in alone], (name, k)
            assert x["kv_len"] == [[a["kv_len"][0][0] for a in alone]], (name, k, x["kv_len"])
            assert x["logits_hash"] == alone[0]["logits_hash"], (name, k)
            assert k == "/loop" or x["work"]["prefill_flops"] == sum(a["work"]["prefill_flops"] for a in alone), name
            assert k == "/loop" or x["work"]["decode_flops"] == sum(a["work"]["decode_flops"] for a in alone), name
    assert len({tuple(a["tokens"][0]) for a in alone}) > 1


def drafting(r):
    """Verify and rollback on what pruning left: the tokens of the pruned arm, whatever drafts."""
    sample = {"kind": "text", "index": 0, "path": TEXT, "offset": 0}
    lookup = {"method": "prompt_lookup", "gamma": 4}
    drafts = {name + "/draft": {**arm(ARMS[name]), "draft": lookup} for name in ("keep07", "renumbered", "snap", "stream", "total")}
    loaded = r.call("load", models={"m": LLM}, arms={**{k: arm(v) for k, v in ARMS.items()}, **drafts}, generate={"tokens": 24},
                    measure={"mode": "e2e", "quality": 0}, seed=3, threads=2, max_context=N)
    assert loaded["type"] == "loaded", loaded
    accepted = 0
    for name in drafts:
        plain, x = (r.call("trial", arm=a, context=N, sample=sample, repeat=0, attempt=0, timed=True) for a in (name.split("/")[0], name))
        assert x["type"] == "result", x
        assert x["tokens"] == plain["tokens"] and x["kv_len"] == plain["kv_len"], (name, x["tokens"], plain["tokens"])
        assert x["counts"]["rounds"] > 0, x["counts"]
        accepted += x["counts"]["accepted"]
    assert accepted > 0
    heads = os.path.join(SOURCE, "examples/models/small-llama-heads/medusa.safetensors")
    d = r.call("describe", model=LLM, draft_model=None, contexts=[N], tokens=8, data="text",
               arm={**arm(ARMS["keep07"]), "draft": {"method": "medusa", "weights": heads, "gamma": 3}})
    assert len(d["errors"]) == 1 and "the states of the whole prompt" in d["errors"][0], d


def commands():
    """logits gives the tokens that are left; generate says the same after keep 1; the trace says where they stood."""
    with tempfile.TemporaryDirectory() as d:
        ids = " ".join(str(3 + i * 7 % 900) for i in range(120))
        trace = os.path.join(d, "t.json")
        plain = json.loads(run("generate", MODEL, "--ids", ids, "--tokens", "8", "--json", "--dtype", "f32"))
        one = json.loads(run("generate", MODEL, "--ids", ids, "--tokens", "8", "--json", "--dtype", "f32", "--prune", json.dumps({**SDTP, "keep": 1})))
        assert plain["ids"] == one["ids"]
        run("logits", MODEL, "--ids", ids, "-o", os.path.join(d, "o.npy"), "--prune", json.dumps({**SDTP, "keep": 0.5}), "--trace", trace)
        t = json.load(open(trace))
        assert t["kv_len"] == [120, 60, 30] and [s["layer"] for s in t["stages"]] == [0, 1], t["kv_len"]
        first, last = (s["kept"] for s in t["stages"])
        assert len(first) == 60 and len(last) == 30 and set(last) < set(first) and last == sorted(last)
        assert last[:4] == [0, 1, 2, 3] and last[-16:] == list(range(104, 120)) and len(t["stages"][0]["scores"]) == 120
        with open(os.path.join(d, "o.npy"), "rb") as f:
            assert b"(30, 1024)" in f.read(128)
        run("logits", MODEL, "--ids", ids, "-o", os.path.join(d, "o.npy"), "--prune", '{"method": "tova", "keep": 0.1}', "--trace", trace)
        t = json.load(open(trace))
        assert t["kv_len"] == [12] * 3 and [[len(h) for h in layer] for layer in t["kept_kv"]] == [[12, 12]] * 3 and t["stages"] == []
        fastv = '{"method": "fastv", "keep": 0.5}'
        run("logits", MODEL, "--ids", ids, "-o", os.path.join(d, "o.npy"), "--prune", fastv, "--visual", "10:40", "--trace", trace)
        assert json.load(open(trace))["kv_len"] == [120, 120, 100]
        assert "this prompt has none" in run("logits", MODEL, "--ids", ids, "-o", os.path.join(d, "o.npy"), "--prune", fastv, code=2)
        assert "unknown key" in run("generate", MODEL, "--ids", ids, "--tokens", "2", "--prune", '{"method": "h2o", "keep": 0.5, "x": 1}', code=2)


def last_row(path):
    """The last row of a float32 .npy [n, m]."""
    with open(path, "rb") as f:
        raw = f.read()
    head = 10 + int.from_bytes(raw[8:10], "little")
    rows, cols = (int(v) for v in raw[10:head].decode().split("'shape': (")[1].split(")")[0].split(","))
    return rows, list(memoryview(raw[head:]).cast("f"))[(rows - 1) * cols:]


def prumerge():
    """Patches that stay and logits behind them, beside a torch reference's."""
    vision = os.path.join(SOURCE, "tests/model/vision")
    with open(os.path.join(SOURCE, "tests/pruning/goldens/prumerge.json")) as f:
        cases = json.load(f)
    assert len(cases) == 10
    with tempfile.TemporaryDirectory() as d:
        out, trace = os.path.join(d, "o.npy"), os.path.join(d, "t.json")
        for c in cases:
            model = os.path.join(vision, c["model"])
            run("logits", model, "--ids-file", model + "/ids.npy", "--pixels", model + "/pixels.npy", "-o", out, "--trace", trace,
                "--prune", json.dumps(c["prune"]))
            with open(trace) as f:
                t = json.load(f)
            assert t["merged"] == c["merged"] and set(t["kv_len"]) == {c["rows"]}, (c["model"], c["prune"], t["merged"], c["merged"])
            rows, last = last_row(out)
            assert rows == c["rows"] and max(abs(a - b) for a, b in zip(last, c["last"])) <= 1e-4 * max(map(abs, c["last"])), c["prune"]
        model = os.path.join(vision, "eventgpt")
        picture = ("--ids-file", model + "/ids.npy", "--pixels", model + "/pixels.npy", "-o", out)
        run("logits", model, *picture)
        plain = last_row(out)
        run("logits", model, *picture, "--prune", '{"method": "prumerge", "keep": 1}')
        assert last_row(out) == plain
        run("logits", model, *picture, "--prune", '{"method": "fastv", "layers": [0], "keep": 0.5}', "--trace", trace)  # the picture's rows go
        with open(trace) as f:
            t = json.load(f)
        assert t["kv_len"] == [29, 18] and {0, 1, 2} | set(range(25, 29)) < set(t["stages"][0]["kept"]), t
        assert "the model reads text alone" in run("logits", MODEL, "--ids", "1 2 3", "-o", out, "--prune", '{"method": "prumerge"}', code=2)
        assert "not an option of prumerge" in run("logits", model, *picture, "--prune", '{"method": "prumerge", "layers": [1]}', code=2)


def main():
    r = Runner(PROGRAM, "serve")
    refuses(r)
    trials(r)
    several(r)
    drafting(r)
    assert r.end() == 0
    commands()
    prumerge()


main()
