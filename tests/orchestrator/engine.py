"""A foreign engine for the tests: python3 engine.py HOW. It says how many ids or bytes it was given as prompt_tokens."""
import json
import os
import sys

HOW = sys.argv[1]


def say(**answer):
    print(json.dumps(answer), flush=True)


def load(q):
    cpus = q.get("cpus") or [0]
    if HOW == "no-load" or (HOW == "odd-core" and cpus[0] % 2 == 1):
        print("weights are not for this machine", file=sys.stderr)
        return {"type": "error", "reason": "load", "text": "cannot load here", "fatal": False}
    if HOW == "load-dies":
        os._exit(7)
    return {"type": "loaded", "load_ns": 1000, "models": {m: {"weights_bytes": 10} for m in q["models"]}}


def trial(q):
    s = q["sample"]
    n = len(s["ids"]) if "ids" in s else len(s.get("text", "").encode())
    if "ids" in s and n != q["context"]:
        return {"type": "error", "reason": "runner", "text": f"{n} ids for context {q['context']}", "fatal": False}
    return {"type": "result", "prompt_tokens": n, "generated": [4], "tokens": [[5, 6, 7, 8]],
            "token_ns": [[1000, 2000, 3000, 4000]], "phases_ns": {"prefill": 1000, "decode": 3000}, "ttft_ns": 1000,
            "total_ns": 4000}


say(type="hello", protocol=1, runner="engine.py", version="1", devices=[{"kind": "cpu", "uuid": "cpu"}])
for line in sys.stdin:
    q = json.loads(line)
    a = {"describe": lambda q: {"type": "described", "layers": 1, "vocab": 10}, "load": load, "trial": trial,
         "unload": lambda q: {"type": "unloaded"}}[q["type"]](q)
    say(id=q["id"], **a)
