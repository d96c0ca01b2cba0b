#!/usr/bin/env python3
"""A runner in standard Python (docs/RUNNER.md): words are its tokens, a bigram table its model."""
import collections
import json
import sys
import time

out, sys.stdout = sys.stdout, sys.stderr  # whatever prints from now on does not disturb answers
arms, want = {}, {"tokens": 128, "prefill": False}


def say(**answer):
    out.write(json.dumps(answer) + "\n")
    out.flush()


def trial(q):
    t0 = time.perf_counter_ns()
    words = q["sample"].get("ids") or q["sample"]["text"].split()
    prompt = words[: q["context"]]
    if len(prompt) < q["context"]:
        return dict(type="error", reason="context", fatal=False,
                    text=f"{len(prompt)} tokens in the text, {q['context']} needed")
    t1 = time.perf_counter_ns()
    ids = {w: i for i, w in enumerate(dict.fromkeys(prompt))}
    follows = collections.defaultdict(collections.Counter)  # the "KV cache": counts of pairs
    for a, b in zip(prompt, prompt[1:]):
        follows[ids[a]][ids[b]] += 1
    tokens, stamps, last = [], [], ids[prompt[-1]]
    most = q.get("tokens", want["tokens"])
    while not tokens or (len(tokens) < most and not want["prefill"]):
        after = follows[last].most_common(1)
        last = after[0][0] if after else (last + 1) % len(ids)
        tokens.append(last)
        stamps.append(time.perf_counter_ns() - t0)
    phases = {"tokenize": t1 - t0, "prefill": stamps[0] - (t1 - t0), "wait": 0}
    if not want["prefill"]:
        phases["decode"] = stamps[-1] - stamps[0]
    return dict(type="result", prompt_tokens=len(prompt), generated=[len(tokens)], tokens=[tokens],
                token_ns=[stamps], phases_ns=phases, ttft_ns=stamps[0], total_ns=stamps[-1],
                synthetic=False)


def answer(q):
    if q["type"] == "describe":
        several = max(q["arm"].get("batch", 1), q["arm"].get("concurrency", 1)) > 1
        return dict(type="described", layers=1, vocab=0, max_rounds=0, warnings=[],
                    errors=["batch, concurrency: this runner runs one sequence"] if several else [])
    if q["type"] == "load":
        arms.update(q["arms"])
        want.update(tokens=q["generate"]["tokens"], prefill=q["measure"].get("mode") == "prefill")
        return dict(type="loaded", load_ns=0, models={})
    if q["type"] == "trial" and q["arm"] in arms:
        return trial(q)
    return dict(type="unloaded") if q["type"] == "unload" else dict(
        type="error", reason="runner", text=f"cannot {q['type']}", fatal=False)


say(type="hello", protocol=1, runner="simple_runner", version="1", synthetic=False, devices=[])
for line in sys.stdin:
    request = json.loads(line)
    say(id=request["id"], **answer(request))
