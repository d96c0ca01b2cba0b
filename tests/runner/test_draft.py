"""Arms that draft: what `describe` says, two models in one load, trials whose output is the verifier's alone, what is refused."""
import json
import os
import subprocess
import sys
import tempfile

from lib import Runner, need

PROGRAM, SOURCE = sys.argv[1:3]
MODELS = os.path.join(SOURCE, "examples/models")
TEXT = need(os.path.join(SOURCE, "examples/data/heldout.txt"))
BIG, SMALL = ({"path": os.path.join(MODELS, m), "dtype": "f32"} for m in ("small-llama", "tiny-llama"))
OTHER = {"path": os.path.join(MODELS, "small-gpt2"), "dtype": "f32"}  # another tokenizer
ARMS = {
    "base": {"model": "big"},
    "lookup": {"model": "big", "draft": {"method": "prompt_lookup", "gamma": 4}},
    "adaptive": {"model": "big", "draft": {"method": "prompt_lookup", "gamma": 8, "adaptive": True}},
    "small": {"model": "big", "draft": {"model": "small", "gamma": 4}},
    "in turn": {"model": "big", "draft": {"model": "small", "gamma": 3, "overlap": "none"}},
    "medusa": {"model": "big", "draft": {"method": "medusa", "weights": os.path.join(MODELS, "small-llama-heads/medusa.safetensors"), "gamma": 3}},
    "medusa tree": {"model": "big", "draft": {"method": "medusa", "weights": os.path.join(MODELS, "small-llama-heads/medusa.safetensors"), "gamma": 3, "tree": "static"}},
    "eagle": {"model": "big", "draft": {"method": "eagle", "weights": os.path.join(MODELS, "small-llama-heads/eagle.safetensors"), "gamma": 4}},
    "eagle-2": {"model": "big", "draft": {"method": "eagle", "weights": os.path.join(MODELS, "small-llama-heads/eagle.safetensors"), "gamma": 4, "tree": "dynamic", "tree_top": 4, "tree_tokens": 16}},
    "retokenize": {"model": "big", "draft": {"method": "retokenize", "model": "other", "gamma": 5, "overlap": "none"}},
    "retokenize hidden": {"model": "big", "draft": {"method": "retokenize", "model": "other", "gamma": 5}},
    "hidden": {"model": "big", "draft": {"model": "small", "after_prefill": "none"}},
}
TOKENS, CONTEXT = 24, 48
LANE = ("tokenize", "vision", "encode", "prefill", "draft", "adapter", "verify", "decode", "wait")


def describe(r, draft, drafter=None, **more):
    ask = dict(model=BIG, draft_model=drafter, arm={"model": "big", "draft": draft}, contexts=[CONTEXT], tokens=TOKENS, data="text")
    return r.call("describe", **{**ask, **more})


def refused(r, part, draft, drafter=None, **more):
    d = describe(r, draft, drafter, **more)
    assert len(d["errors"]) == 1 and part in d["errors"][0], (part, d["errors"])


def describes(r):
    alone = r.call("describe", model=BIG, draft_model=None, arm={"model": "big"}, contexts=[CONTEXT], tokens=TOKENS, data="text")
    d = describe(r, {"method": "prompt_lookup", "gamma": 4})
    assert d["errors"] == [] and d["max_rounds"] == TOKENS - 1 and d["layers_draft"] == 0, d
    assert d["weights_bytes"] == alone["weights_bytes"] and alone["max_rounds"] == 0
    d = describe(r, {"model": "small", "gamma": 4}, SMALL)
    assert d["errors"] == [] and d["layers_draft"] == 4 and d["weights_bytes"] > alone["weights_bytes"], d
    refused(r, "draft.gamma: expected a whole number from 1 to 255", {"method": "prompt_lookup", "gamma": 0})
    with tempfile.TemporaryDirectory() as tmp:  # a round that is longer than the model's positions
        with open(os.path.join(MODELS, "small-llama/config.json")) as f:
            config = dict(json.load(f), max_position_embeddings=64)
        with open(os.path.join(tmp, "config.json"), "w") as f:
            json.dump(config, f)
        short = {"path": os.path.join(tmp, "config.json"), "weights": "random:1", "dtype": "f32"}
        d = r.call("describe", model=short, draft_model=None, arm={"model": "big", "draft": {"method": "prompt_lookup", "gamma": 100}}, contexts=[16], tokens=8, data="synthetic")
        assert any("draft.gamma: 100 tokens a round, the model has 64 positions" in e for e in d["errors"]), d
    refused(r, "its vocabulary is another one: id", {"model": "x", "gamma": 2}, {"path": os.path.join(MODELS, "small-gpt2")})
    refused(r, "is no decoder", {"model": "x", "gamma": 2}, {"path": os.path.join(MODELS, "small-bert")})
    d = describe(r, {"method": "retokenize", "model": "x"}, {"path": os.path.join(MODELS, "small-gpt2")})
    assert d["errors"] == [] and d["layers_draft"] == 3, d
    refused(r, "expected chain or static", {"method": "medusa", "weights": TEXT, "tree": "dynamic"})
    refused(r, "method prompt_lookup drafts chains", {"method": "prompt_lookup", "tree": "static"})
    refused(r, "expected 2 to 16", {"method": "eagle", "weights": TEXT, "tree": "dynamic", "tree_top": 1})
    refused(r, "expected auto, nccl, peer or host", {"method": "prompt_lookup", "transport": "pigeon"})
    refused(r, "nccl joins two GPUs and the verifier runs on device auto", {"model": "small", "adapter": "L1", "weights": TEXT, "transport": "nccl"}, SMALL)


def trials(r):
    loaded = r.call("load", models={"big": BIG, "small": SMALL, "other": OTHER}, arms=ARMS, generate={"tokens": TOKENS}, threads=2, max_context=CONTEXT)
    assert loaded["type"] == "loaded", loaded
    out = {}
    for arm in ARMS:
        for offset in (0, 5000):
            sample = {"kind": "text", "index": 0, "path": TEXT, "offset": offset}
            x = r.call("trial", arm=arm, context=CONTEXT, sample=sample, repeat=0, attempt=0, timed=True)
            assert x["type"] == "result", (arm, x)
            out[arm, offset] = x
            base = out["base", offset]
            assert x["tokens"] == base["tokens"] and x["ids_hash"] == base["ids_hash"], arm
            check(arm, x)
    trees = [out["eagle-2", k]["counts"] for k in (0, 5000)]
    chains = [out["eagle", k]["counts"] for k in (0, 5000)]
    assert sum(c["rounds"] for c in trees) < sum(c["rounds"] for c in chains) < 2 * (TOKENS - 1), (trees, chains)
    assert all(v["drafted"] <= 16 and v["accepted"] <= 4 for k in (0, 5000) for v in out["eagle-2", k]["rounds"][0])
    other = [out["retokenize", k]["counts"] for k in (0, 5000)]
    assert sum(c["accepted"] for c in other) >= 4, other  # its words are often the verifier's
    heads = [out["medusa", k]["counts"] for k in (0, 5000)]
    assert sum(c["accepted"] for c in heads) > 0 and sum(c["drafted"] for c in heads) > 60, heads
    bad = {"b": {"model": "big", "draft": {"method": "medusa", "weights": os.path.join(MODELS, "small-llama-heads/eagle.safetensors")}}}
    x = r.call("load", models={"big": BIG}, arms=bad, generate={"tokens": TOKENS}, threads=2, max_context=CONTEXT)
    assert x["type"] == "error" and "0.0.linear.weight misses, expected Medusa heads" in x["text"], x
    bad["b"]["draft"] = {"method": "eagle", "weights": os.path.join(MODELS, "small-llama-heads/medusa.safetensors")}
    x = r.call("load", models={"big": BIG}, arms=bad, generate={"tokens": TOKENS}, threads=2, max_context=CONTEXT)
    assert x["type"] == "error" and "misses, expected an EAGLE head" in x["text"], x
    bad["b"] = {"model": "small", "draft": {"method": "eagle", "weights": os.path.join(MODELS, "small-llama-heads/eagle.safetensors")}}
    x = r.call("load", models={"small": SMALL}, arms=bad, generate={"tokens": TOKENS}, threads=2, max_context=CONTEXT)
    assert x["type"] == "error" and "expected rows of" in x["text"], x
    hidden = out["hidden", 0]["counts"]
    assert hidden["rounds"] <= 1 and hidden["drafted"] == hidden["free_tokens"], hidden
    assert out["small", 0]["phases_ns"]["d_prefill"] > 0 and out["in turn", 0]["counts"]["free_tokens"] == 0
    def beside():
        """Whether the drafter's prefill began before the verifier's ended: on a machine that is busy, not every time."""
        x = r.call("trial", arm="hidden", context=CONTEXT, sample=sample, repeat=0, attempt=0, timed=True)
        return [s for s in x["spans"] if s[0] == 1][0][2] < x["ttft_ns"] and x["counts"]["free_tokens"] > 0

    assert any(beside() for _ in range(50))
    # one token needs no draft; fewer than the load said are allowed
    x = r.call("trial", arm="small", context=CONTEXT, tokens=1, sample=sample, repeat=0, attempt=0, timed=True)
    assert x["generated"] == [1] and x["counts"]["rounds"] == 0, x
    # a context longer than foreseen gets its room
    x = r.call("trial", arm="small", context=300, sample=sample, repeat=0, attempt=0, timed=True)
    y = r.call("trial", arm="base", context=300, sample=sample, repeat=0, attempt=0, timed=True)
    assert x["tokens"] == y["tokens"]
    # up to the models' last position: drafts and trees that would run past it are cut, and one token more is refused
    last = {}
    for arm in ("base", "small", "hidden", "eagle", "eagle-2", "medusa tree", "retokenize hidden"):
        x = last[arm] = r.call("trial", arm=arm, context=1024 - TOKENS + 1, sample=sample, repeat=0, attempt=0, timed=True)
        assert x["type"] == "result" and x["tokens"] == last["base"]["tokens"] and len(x["tokens"][0]) == TOKENS, (arm, x)
        check(arm, x)
    x = r.call("trial", arm="eagle-2", context=1024 - TOKENS + 2, sample=sample, repeat=0, attempt=0, timed=True)
    assert x["type"] == "error" and x["reason"] == "context", x
    # without its drafter an arm is gone; the others are not
    assert r.call("unload", models=["small"])["type"] == "unloaded"
    x = r.call("trial", arm="small", context=CONTEXT, sample=sample, repeat=0, attempt=0, timed=True)
    assert x["type"] == "error" and "not loaded" in x["text"], x
    assert r.call("trial", arm="lookup", context=CONTEXT, sample=sample, repeat=0, attempt=0, timed=True)["type"] == "result"
    x = r.call("load", models={"big": BIG}, arms={"small": ARMS["small"]}, generate={"tokens": TOKENS}, threads=1)
    assert x["type"] == "error" and x["reason"] == "load" and "small is not loaded" in x["text"], x


def check(arm, x):
    c, ns, total = x["counts"], x["phases_ns"], x["total_ns"]
    for ids, stamps in zip(x["tokens"], x["token_ns"]):
        assert len(ids) == len(stamps) == x["generated"][0] and stamps == sorted(stamps)
        assert stamps[0] == x["ttft_ns"] and stamps[-1] == total
    rounds = x["rounds"][0] if x["rounds"] else []
    assert c["rounds"] == len(rounds) and c["drafted"] == sum(v["drafted"] for v in rounds)
    assert c["accepted"] == sum(v["accepted"] for v in rounds)
    plain = x["generated"][0] + c["cut"] - 1 - sum(v["accepted"] + 1 for v in rounds)
    assert plain >= 0 and c["cut"] == 0, (arm, plain)
    assert abs(sum(ns.get(k, 0) for k in LANE) - total) <= max(total / 100, 2000), (arm, ns, total)
    if "d_prefill" in ns:  # the drafter's lane, too
        assert abs(sum(ns.get(k, 0) for k in ("d_vision", "d_prefill", "d_decode", "d_wait")) - total) <= max(total / 100, 2000), (arm, ns, total)
    assert ("d_wait" in ns) == ("d_prefill" in ns), (arm, ns)
    spans = x.get("spans", [])
    assert (arm == "base") == (spans == []), arm
    for lane, kind, start, end in spans:
        assert lane in (0, 1) and (kind >= 9) == (lane == 1) and 0 <= start <= end <= total + 1000, (arm, lane, kind, start, end)
    first = [s for s in spans if s[0] == 0]
    assert not first or first[0][1:3] == [0, 0], (arm, first[:2])  # tokenising
    assert all(a[3] == b[2] for a, b in zip(first[1:], first[2:])), arm  # from the prefill on the verifier's lane has no gap
    assert all(0 <= b[2] - a[3] <= max(total / 100, 2000) for a, b in zip(first[:1], first[1:])), (arm, first[:2])


def adapters(r):
    """Every kind of adapter, with random weights: drafts that are mostly wrong cost time and change nothing."""
    weights = {k: os.path.join(SOURCE, f"tests/spec_decode/goldens/{k}.safetensors") for k in ("L1", "L3", "L4", "L5", "L5F", "B1")}
    tiny = {"path": os.path.join(MODELS, "tiny-llama"), "dtype": "f32"}
    arms = {"vl_baseline": {"model": "v"}}
    for k in ("L1", "L3", "L4"):
        arms[k + "+VL"] = {"model": "v", "draft": {"model": "d", "adapter": k, "weights": weights[k]}}
    for k in ("L1", "L4", "L5", "L5F"):
        arms[k + "_decode"] = {"model": "v", "draft": {"model": "d", "adapter": k, "weights": weights[k], "gamma": 5, "overlap": "none"}}
    arms["L5F+VL"] = {"model": "v", "draft": {"model": "d", "adapter": "L5F", "weights": weights["L5F"], "gamma": 3}}
    arms["B1_decode"] = {"model": "v", "draft": {"adapter": "B1", "weights": weights["B1"], "gamma": 5}}
    assert r.call("load", models={"v": tiny, "d": tiny}, arms=arms, generate={"tokens": TOKENS}, threads=2, max_context=CONTEXT)["type"] == "loaded"
    sample = {"kind": "text", "index": 0, "path": TEXT, "offset": 777}
    out = {a: r.call("trial", arm=a, context=CONTEXT, sample=sample, repeat=0, attempt=0, timed=True) for a in arms}
    for a, x in out.items():
        assert x["type"] == "result" and x["tokens"] == out["vl_baseline"]["tokens"], (a, x)
        check("base" if a == "vl_baseline" else a, x)
        assert "adapter" in x["phases_ns"] or a in ("vl_baseline", "B1_decode"), (a, x["phases_ns"])  # B1's drafts are its own
    for a in ("L1_decode", "L5F_decode", "B1_decode"):
        assert out[a]["counts"]["drafted"] > 20, out[a]["counts"]
    # an adapter of another width
    big = {"a": {"model": "v", "draft": {"model": "d", "adapter": "L4", "weights": weights["L4"]}}}
    x = r.call("load", models={"v": BIG, "d": tiny}, arms=big, generate={"tokens": 4}, threads=1, max_context=16)
    assert x["type"] == "error" and x["reason"] == "load" and "is 64 wide, the verifier's states 256" in x["text"], x
    # a file that is another adapter's, or nowhere: the load says so
    for k, part in (("L4", "misses, expected adapter L1"), ("no", "no")):
        bad = {"a": {"model": "v", "draft": {"model": "d", "adapter": "L1", "weights": weights.get(k, "/no/such.safetensors")}}}
        x = r.call("load", models={"v": tiny, "d": tiny}, arms=bad, generate={"tokens": 4}, threads=1, max_context=16)
        assert x["type"] == "error" and x["reason"] == "load" and part in x["text"], x


def command(tmp):
    """generate --draft: the same ids, and a trace of its rounds."""
    def generate(*more):
        p = subprocess.run([PROGRAM, "generate", BIG["path"], "--dtype", "f32", "--prompt", "Once upon a time", "--tokens", "20", "--json", *more],
                           capture_output=True, text=True, timeout=60)
        return p.returncode, p.stdout, p.stderr

    ids = json.loads(generate()[1])["ids"]
    trace = os.path.join(tmp, "trace.json")
    for draft in ({"method": "prompt_lookup", "gamma": 4}, {"model": SMALL["path"], "gamma": 4}, {"model": SMALL["path"], "overlap": "none", "gamma": 2}):
        code, stdout, stderr = generate("--draft", json.dumps(draft), "--trace", trace)
        assert code == 0 and json.loads(stdout)["ids"] == ids, (draft, stderr)
        with open(trace) as f:
            t = json.load(f)
        assert len(ids) == 1 + sum(v["accepted"] + 1 for v in t["rounds"]) + t["plain"] - t["cut"], t
        assert all(v["accepted"] <= v["drafted"] <= max(4, t["free_tokens"]) for v in t["rounds"]) and len(set(t["kv_len"])) == 1, t
    for draft, part in (('{"method": "x"}', "expected prompt_lookup"), ("{bad", "as JSON"), ('{"method": "prompt_lookup", "gamma": 0}', "1 to 255"), ('{"method": "prompt_lookup", "gama": 2}', 'unknown key "gama"'),
                        (json.dumps({"model": os.path.join(MODELS, "small-gpt2")}), "vocabulary"), ('{"model": "/no/where"}', "/no/where")):
        code, _, stderr = generate("--draft", draft)
        assert code != 0 and part in stderr and stderr.count("\n") == 1, (draft, code, stderr)


def pair(tmp):
    """The trained pair: an event stream drafts for a clip, through every adapter, and changes nothing."""
    adapters, data = os.path.join(MODELS, "pair-adapters"), os.path.join(SOURCE, "examples/data/pair")
    trace, ask = os.path.join(tmp, "trace.json"), ["--prompt", "Describe the scene.", "--tokens", "24", "--stop-at-eos", "--json", "--dtype", "f32"]

    def run(scene, *more):
        return subprocess.run([PROGRAM, "generate", os.path.join(MODELS, "tiny-video-llava"), "--video", f"{data}/mp4/shapes/{scene}.mp4", *ask, *more],
                              capture_output=True, text=True, timeout=100)

    def generate(scene, draft=None):
        more = ["--draft", json.dumps(draft), "--trace", trace] if draft else []
        events = ["--events", f"{data}/event_npy/shapes/{scene}.npy"] if draft and "model" in draft else []
        p = run(scene, *events, *more)
        if p.returncode != 0 and "video" in p.stderr and not draft:
            return None  # a build without a decoder of clips
        assert p.returncode == 0, p.stderr
        return json.loads(p.stdout)["ids"]

    ids = generate(3)
    if ids is None:
        return
    for kind in ("L1", "L2", "L3", "L4", "L5", "L5F", "B1"):
        draft = {"adapter": kind, "weights": os.path.join(adapters, kind + ".safetensors"), "gamma": 4}
        if kind != "B1":
            draft |= {"model": os.path.join(MODELS, "tiny-eventgpt"), "overlap": "none"}
        assert generate(3, draft) == ids, kind
        with open(trace) as f:
            t = json.load(f)
        drafted, accepted = (sum(v[k] for v in t["rounds"]) for k in ("drafted", "accepted"))
        assert accepted > 0.3 * drafted > 0, (kind, drafted, accepted)  # a trained one, unlike a random one
    hidden = {"model": os.path.join(MODELS, "tiny-eventgpt"), "adapter": "L4", "weights": os.path.join(adapters, "L4.safetensors")}
    assert generate(3, hidden) == ids
    blind = run(3, "--draft", json.dumps(hidden))
    assert blind.returncode == 2 and "--events is needed" in blind.stderr and blind.stderr.count("\n") == 1, blind.stderr


def ends(r):
    """stop_at_eos: the same text, which ends where the verifier's does."""
    sample = {"kind": "text", "index": 0, "path": TEXT, "offset": 0}
    arms = {k: ARMS[k] for k in ("base", "lookup", "small")}
    assert r.call("load", models={"big": BIG, "small": SMALL}, arms=arms, generate={"tokens": TOKENS, "stop_at_eos": True},
                  threads=1)["type"] == "loaded"
    out = [r.call("trial", arm=a, context=16, sample=sample, repeat=0, attempt=0, timed=True) for a in arms]
    assert out[0]["tokens"] == out[1]["tokens"] == out[2]["tokens"]


def main():
    r = Runner(PROGRAM, "serve")
    describes(r)
    trials(r)
    adapters(r)
    ends(r)
    assert r.end() == 0
    with tempfile.TemporaryDirectory() as tmp:
        command(tmp)
        pair(tmp)
    # sampling is the arm's own affair: another seed, another text
    texts = []
    for seed in (1, 1, 2):
        r = Runner(PROGRAM, "serve")
        arms = {"hot": {"model": "big", "draft": {"model": "small", "gamma": 4, "temperature": 1.0, "overlap": "none"}}}
        r.call("load", models={"big": BIG, "small": SMALL}, arms=arms, generate={"tokens": TOKENS}, threads=1, seed=seed)
        sample = {"kind": "text", "index": 0, "path": TEXT, "offset": 0}
        texts.append(r.call("trial", arm="hot", context=16, sample=sample, repeat=0, attempt=0, timed=True)["tokens"])
        assert r.end() == 0
    assert texts[0] == texts[1] != texts[2]
    sampled()


def sampled():
    """generate.temperature: drafts that propose without chance leave every token as the model draws it alone, by the same numbers."""
    r = Runner(PROGRAM, "serve")
    arms = {k: ARMS[k] for k in ("base", "lookup", "medusa tree", "eagle", "eagle-2", "retokenize", "small")}
    x = r.call("load", models={"big": BIG, "small": SMALL, "other": OTHER}, arms=arms, generate={"tokens": TOKENS, "temperature": 0.8}, threads=1, seed=5)
    assert x["type"] == "loaded", x
    sample = {"kind": "text", "index": 0, "path": TEXT, "offset": 4000}
    out = {a: r.call("trial", arm=a, context=CONTEXT, sample=sample, repeat=0, attempt=0, timed=True) for a in arms}
    for a in ("lookup", "medusa tree", "eagle-2", "retokenize"):
        assert out[a]["tokens"] == out["base"]["tokens"], a
    for a in ("eagle", "small"):
        check(a, out[a])
    greedy = {"base": ARMS["base"], "two": {"model": "big", "batch": 2}}
    x = r.call("load", models={"big": BIG}, arms=greedy, generate={"tokens": TOKENS, "temperature": 0.8}, threads=1, seed=5)
    assert x["type"] == "error" and "several sequences at temperature 0.8" in x["text"], x
    x = r.call("load", models={"big": BIG}, arms={"base": ARMS["base"]}, generate={"tokens": TOKENS}, threads=1, seed=5)
    y = r.call("trial", arm="base", context=CONTEXT, sample=sample, repeat=0, attempt=0, timed=True)
    assert y["tokens"] != out["base"]["tokens"]
    assert r.end() == 0


main()
