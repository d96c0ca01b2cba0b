"""The commands of `paceline-runner` on a small trained model: outputs, agreement with each other, exit codes."""
import json
import math
import os
import subprocess
import sys
import tempfile

from lib import broken_copy, need, npy_floats, npy_ids, npy_read_ids

PROGRAM, SOURCE = sys.argv[1:3]
MODEL = need(os.path.join(SOURCE, "examples/models/tiny-llama"))


def run(*argv, input=None, code=0):
    p = subprocess.run([PROGRAM, *argv], input=input, capture_output=True, text=True, timeout=60)
    assert p.returncode == code, (argv, p.returncode, p.stderr)
    if code:
        assert p.stderr.count("\n") == 1 and p.stderr.startswith("paceline-runner"), p.stderr
    return p.stderr if code else p.stdout


def tokenize():
    texts = ["Hello world", "", "naïve — 鯨 🐋", "two\nlines\tand a tab", " spaced  out ", "nul\0in"]
    lines = run("tokenize", MODEL, input="".join(json.dumps(t) + "\n" for t in texts)).splitlines()
    ids = [json.loads(x) for x in lines]
    assert len(ids) == len(texts) and all(i[0] == 1 for i in ids)  # BOS
    back = run("tokenize", MODEL, "--decode", input="\n".join(lines) + "\n").splitlines()
    assert [json.loads(x) for x in back] == texts, back
    p = subprocess.Popen([PROGRAM, "tokenize", MODEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for t in texts[:2]:  # an answer before the next question
        p.stdin.write(json.dumps(t) + "\n")
        p.stdin.flush()
        assert json.loads(p.stdout.readline()) == ids[texts.index(t)]
    p.stdin.close()
    assert p.wait(10) == 0
    p.stdout.close()
    assert "line 2" in run("tokenize", MODEL, input='"a"\n[1]\n', code=2)
    assert "line 1" in run("tokenize", MODEL, input="a\n", code=2)
    run("tokenize", MODEL, "--decode", input="[99999]\n", code=2)
    return ids[0]


def logits(ids, tmp):
    out = tmp + "/out.npy"
    text = " ".join(map(str, ids))
    run("logits", MODEL, "--ids", text, "-o", out, "--dtype", "f32")
    shape, a = npy_floats(out)
    assert shape == (len(ids), 1024) and all(map(math.isfinite, a))
    for name, dtype in (("i4.npy", "<i4"), ("i8.npy", "<i8")):
        npy_ids(tmp + "/" + name, ids, dtype)
        run("logits", MODEL, "--ids-file", tmp + "/" + name, "-o", out, "--dtype", "f32", "--threads", "1")
        assert npy_floats(out)[1] == a  # bit for bit, whatever the threads
    run("logits", MODEL, "--prompt", "Hello world", "-o", out, "--dtype", "f32")
    assert npy_floats(out)[1] == a
    run("logits", MODEL, "--ids", text, "-o", out, "--layer", "4")
    assert npy_floats(out)[0] == (len(ids), 64)
    last = a[-1024:]
    return max((i for i in range(1024) if i != 2), key=lambda i: last[i])


def generate(ids, first):
    argv = ["generate", MODEL, "--ids", " ".join(map(str, ids)), "--tokens", "12", "--dtype", "f32"]
    g = json.loads(run(*argv, "--json"))
    assert len(g["ids"]) == 12 == len(g["token_ms"]) and g["ids"][0] == first and 2 not in g["ids"]
    assert g["prompt_tokens"] == len(ids) and g["token_ms"] == sorted(g["token_ms"]) and not g["synthetic"]
    assert abs(g["token_ms"][-1] - g["ttft_ms"] - g["decode_ms"]) < 1e-5 and g["prefill_ms"] <= g["ttft_ms"]
    assert json.loads(run(*argv, "--json", "--threads", "1"))["ids"] == g["ids"]
    assert run(*argv) == g["text"] + "\n"
    r = json.loads(run(*argv, "--json", "--weights", "random:1"))
    assert r["synthetic"] and r["ids"] != g["ids"]


def goldens(tmp):
    """What transformers computed (tools/make_goldens.py), through the commands and their files."""
    top = os.path.join(SOURCE, "tests/model/goldens")
    for name in sorted(os.listdir(top) if os.path.isdir(top) else []):
        model = os.path.join(top, name)
        if not os.path.exists(model + "/logits.npy"):
            continue
        argv = [model, "--ids-file", model + "/ids.npy", "--dtype", "f32"]
        run("logits", *argv, "-o", tmp + "/g.npy")
        (shape, want), (got_shape, got) = npy_floats(model + "/logits.npy"), npy_floats(tmp + "/g.npy")
        scale = max(map(abs, want))
        assert tuple(got_shape) == tuple(shape), name
        assert max(abs(a - b) for a, b in zip(want, got)) <= 1e-4 * scale, name
        greedy = npy_read_ids(model + "/greedy.npy")
        g = json.loads(run("generate", *argv, "--tokens", str(len(greedy)), "--json"))
        assert g["ids"] == greedy and g["text"] is None, name


def bench():
    j = json.loads(run("bench", MODEL, "-p", "16,32", "-n", "8", "-r", "3", "-d", "4", "--format", "json"))
    assert [r["test"] for r in j["rows"]] == ["pp16@d4", "pp32@d4", "tg8@d4"]
    assert all(r["tokens_per_s"] > 0 and r["sd"] >= 0 and r["limit_pct"] > 0 for r in j["rows"])
    assert j["limits"]["read_gb_per_s"] > 0 and j["limits"]["f32_gflop_per_s"] > 0 and j["limits"]["int8_gop_per_s"] > 0
    bf16 = "avx512_bf16" in open("/proc/cpuinfo").read()
    assert (j["limits"]["bf16_gflop_per_s"] > 0) == bf16
    assert all(r["gflop_per_s"] > 0 and r["arithmetic_pct"] > 0 for r in j["rows"]), j["rows"]
    for r in j["rows"]:
        kind = "arithmetic_pct" if r["kind"] == "prompt" else "read_pct"
        assert r["limit_pct"] == r[kind] and (r["read_pct"] is None) == (r["kind"] == "prompt")
    assert j["load_s"] > 0 and j["peak_bytes"] >= j["loaded_bytes"] > 2 * j["params"]
    assert j["activations"] == ("bf16" if bf16 else "f32") and "profile" not in j
    j = json.loads(run("bench", MODEL, "-p", "16", "-n", "4", "-r", "1", "-t", "1", "--format", "json", "--profile"))  # of two threads one may do all of a short operation
    assert [p["test"] for p in j["profile"]] == ["pp16", "tg4"]
    for p in j["profile"]:
        assert {"attention", "head", "norm"} <= {o["name"] for o in p["ops"]}, p
        assert all(o["ms"] > 0 for o in p["ops"]) and abs(sum(o["pct"] for o in p["ops"]) - 100) < 1e-6
    j = json.loads(run("bench", "--transport", "--device", "cpu", "--format", "json"))
    assert [(x["transport"], x["bytes"]) for x in j["rows"]] == [("host", 8192 << 2 * i) for i in range(6)], j
    assert all(0 < x["least_us"] <= x["median_us"] and abs(x["gb_per_s"] * x["median_us"] * 1e3 / x["bytes"] - 1) < 1e-9 and x["runs"] >= 5 for x in j["rows"]), j
    assert sorted(j["unsupported"]) == ["nccl", "peer"] and not any(x["shared_device"] for x in j["rows"])
    assert len(run("bench", "--transport", "--device", "cpu", "--format", "csv").splitlines()) == 7
    run("bench", MODEL, "--transport", code=2)
    run("bench", code=2)
    run("bench", MODEL, "--to", "cpu", code=2)
    run("bench", "--transport", "--device", "cuda:x", code=2)
    assert "| attention |" in run("bench", MODEL, "-p", "16", "-n", "", "-r", "1", "--profile")
    run("bench", MODEL, "--profile", "--format", "csv", code=2)
    csv = run("bench", MODEL, "-p", "", "-n", "4", "-r", "1", "--format", "csv").splitlines()
    assert len(csv) == 2 and csv[0].count(",") == csv[1].count(",") == 28
    j = json.loads(run("bench", MODEL, "-p", "8", "-n", "4", "-k", "5", "-b", "3", "-d", "4,40", "-r", "2", "--format", "json"))
    assert [r["test"] for r in j["rows"]] == [t + d for d in ("@d4", "@d40") for t in ("pp8", "tg4x3", "vr5")], j["rows"]
    assert all(abs(r["tokens_per_s"] * r["ms"] / 1e3 / n - 1) < 1e-9 for r, n in zip(j["rows"], (8, 3, 5) * 2)), j["rows"]
    for r in j["rows"]:
        assert (r["steps"] is None) == (r["steps_sd"] is None) == (r["kind"] != "verify"), r
    verifies = json.loads(run("bench", MODEL, "-p", "", "-n", "", "-k", "1,32", "-r", "3", "--format", "json"))["rows"]
    assert [r["test"] for r in verifies] == ["vr1", "vr32"] and all(r["steps"] > 0 for r in verifies), verifies
    assert "| vr4 |" in run("bench", MODEL, "-p", "", "-n", "", "-k", "4", "-r", "1")
    run("bench", MODEL, "-b", "1000", code=2)
    assert "| tg4 |" in run("bench", MODEL, "-p", "", "-n", "4", "-r", "2")
    run("bench", MODEL, "-p", "99999", code=2)
    run("bench", MODEL, "-p", "1,x", code=2)


def inspect(tmp):
    j = json.loads(run("inspect", MODEL, "--json"))
    assert j["config"]["layers"] == 4 and j["tokenizer"]["vocab"] == 1024 and j["nan"] == j["inf"] == 0
    assert sum(t["bytes"] for t in j["tensors"]) == j["tensor_bytes"]
    assert "lm_head.weight" in run("inspect", MODEL)
    bad = broken_copy(MODEL, tmp + "/nan")
    j = json.loads(run("inspect", bad, "--json"))
    assert j["nan"] == 1 and [t["name"] for t in j["tensors"] if t["nan"]] == ["model.norm.weight"]
    assert "1 NaN" in run("inspect", bad)
    b = json.loads(run("inspect", "--build", "--json"))
    assert isinstance(b["cuda"], bool) and "portable" in b["isa"] and b["version"]
    c = json.loads(run("check", MODEL, "--json"))["models"][0]
    assert c["ok"] and c["kv_bytes_per_token"] > 0 and "verify" in c["capabilities"]
    assert "NaN" in run("generate", bad, "--ids", "1 2", "--tokens", "2", code=2)


def mistakes(tmp):
    with open(tmp + "/bad.npy", "wb") as f:
        f.write(b"\x93NUMPY\x01\x00\xff\x7f{'descr'")
    os.mkdir(tmp + "/empty")
    for word, argv in (("did you mean --tokens", ["generate", MODEL, "--tokns", "3"]),
                       ("did you mean generate", ["genrate", MODEL]),
                       ("an argument is missing", ["generate"]),
                       ("needs a value", ["generate", MODEL, "--tokens"]),
                       ("not a whole number", ["generate", MODEL, "--tokens", "x"]),
                       ("--tokens N", ["generate", MODEL, "--ids", "1"]),
                       ("one of --ids", ["generate", MODEL, "--tokens", "1"]),
                       ("empty", ["generate", MODEL, "--prompt", "", "--tokens", "1"]),
                       ("CUDA", ["generate", MODEL, "--ids", "1", "--tokens", "1", "--device", "cuda:1"]),
                       ("vocabulary", ["generate", MODEL, "--ids", "1 4096", "--tokens", "1"]),
                       ("not an id", ["generate", MODEL, "--ids", "1 a", "--tokens", "1"]),
                       ("1024 positions", ["generate", MODEL, "--ids", "1", "--tokens", "1025"]),
                       ("4 blocks", ["logits", MODEL, "--ids", "1", "--layer", "5", "-o", tmp + "/x"]),
                       ("-o OUT.npy", ["logits", MODEL, "--ids", "1"]),
                       ("header", ["logits", MODEL, "--ids-file", tmp + "/bad.npy", "-o", tmp + "/x"]),
                       ("No such file", ["logits", MODEL, "--ids-file", tmp + "/none.npy", "-o", tmp + "/x"]),
                       ("No such file", ["logits", MODEL, "--ids", "1", "-o", tmp + "/none/x.npy"]),
                       ("config.json", ["check", tmp + "/empty"]),
                       ("bf16", ["check", MODEL, "--dtype", "f33"]),
                       ("random:SEED", ["check", MODEL, "--weights", "random"]),
                       ("PATH", ["inspect"]),
                       ("unexpected argument", ["inspect", "--json", "a", "b"])):
        said = run(*argv, code=2)
        assert word in said, (word, said)
    assert "No space left" in run("logits", MODEL, "--ids", "1", "-o", "/dev/full", code=6)
    with open("/dev/full", "w") as full:
        p = subprocess.run([PROGRAM, "inspect", MODEL], stdout=full, stderr=subprocess.PIPE, text=True)
    assert p.returncode == 6 and "stdout" in p.stderr
    assert run("--version").startswith("paceline-runner ")
    for command in ("serve", "logits", "generate", "tokenize", "bench", "inspect", "check"):
        assert command in run("--help") and run(command, "--help").startswith("usage: paceline-runner " + command)


with tempfile.TemporaryDirectory() as tmp:
    ids = tokenize()
    generate(ids, logits(ids, tmp))
    goldens(tmp)
    bench()
    inspect(tmp)
    mistakes(tmp)
print("ok")
