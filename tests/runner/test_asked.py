"""Texts with a question: exactly as many ids as were asked for, the question whole, facts where they belong, the middle of what is too long left out; the answer is told."""
import json
import os
import subprocess
import sys
import tempfile

from lib import Runner, need

PROGRAM, SOURCE = sys.argv[1:3]
MODEL = os.path.join(SOURCE, "examples/models/small-llama")
TEXT = need(os.path.join(SOURCE, "examples/data/heldout.txt"))
LLM = {"path": MODEL, "dtype": "f32"}
N = 300


def tokenize(*texts):
    out = subprocess.run([PROGRAM, "tokenize", MODEL], input="".join(json.dumps(t) + "\n" for t in texts), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def place(ids, part):
    at = [i for i in range(len(ids) - len(part) + 1) if ids[i:i + len(part)] == part]
    assert len(at) == 1, (at, part)
    return at[0]


def main():
    r = Runner(PROGRAM, "serve")
    facts = [{"at": 0.1, "text": " The code of the red garden is 10203. "}, {"at": 0.75, "text": " The code of the blue river is 99887. "}]
    question = "\n\nQuestion: What is the code of the red garden?\nAnswer: The code of the red garden is"
    needle = {"kind": "needle", "index": 0, "path": TEXT, "offset": 0, "facts": facts, "end": question}
    body = "".join(f"Sentence number {i}. " for i in range(200))
    bench = {"kind": "longbench", "index": 0, "head": "Read: ", "body": body, "tail": "\n\nQuestion: who?\nAnswer:"}
    plain = [t[1:] for t in tokenize(facts[0]["text"], facts[1]["text"], question, "Read: ", body, bench["tail"])]  # less BOS

    def ids(sample, context=N):
        return r.call("ids", model=LLM, context=context, sample=sample)
    got = ids(needle)["ids"]
    assert len(got) == N and got[0] == 1 and got[-len(plain[2]):] == plain[2]
    first, second = place(got, plain[0]), place(got, plain[1])
    left = N - sum(len(p) for p in plain[:3])
    assert first == 1 + int(0.1 * (left - 1)) and second == len(plain[0]) + 1 + int(0.75 * (left - 1)), (first, second, left)
    rest = got[:first] + got[first + len(plain[0]):second] + got[second + len(plain[1]):N - len(plain[2])]
    assert rest == ids({"kind": "text", "index": 0, "path": TEXT, "offset": 0}, left)["ids"]
    got = ids(bench)["ids"]
    left = N - 1 - len(plain[3]) - len(plain[5])
    assert got == [1] + plain[3] + plain[4][:left - left // 2] + plain[4][len(plain[4]) - left // 2:] + plain[5]
    for sample, context, says in ((needle, 60, "too short"), (bench, 20, "too short"), ({**bench, "body": "few"}, N, f"{N} needed"),
                                  ({**needle, "end": 3}, N, "sample.end is missing")):
        x = ids(sample, context)
        assert x["type"] == "error" and says in x["text"], x
    loaded = r.call("load", models={"m": LLM}, arms={"a": {"model": "m"}}, generate={"tokens": 6}, measure={"mode": "e2e"}, seed=3, threads=1)
    assert loaded["type"] == "loaded", loaded
    for sample in (needle, bench):
        x = r.call("trial", arm="a", context=N, sample=sample, repeat=0, attempt=0, timed=True)
        assert x["prompt_tokens"] == N and len(x["texts"]) == 1 and isinstance(x["texts"][0], str), x
        with tempfile.NamedTemporaryFile("w+") as f:
            f.write(json.dumps(x["tokens"][0]) + "\n")
            f.seek(0)
            said = json.loads(subprocess.run([PROGRAM, "tokenize", MODEL, "--decode"], stdin=f, capture_output=True, text=True, check=True).stdout)
        assert x["texts"][0] == said, (x["texts"], said)
    assert r.end() == 0


main()
