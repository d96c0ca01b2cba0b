#!/usr/bin/env python3
"""Runs this engine and its peers in turn on the same files and prints the table of ratios; bench/peers.sh calls it.

A round is one run of everybody on one file, in an order that turns from round to round; a ratio is taken within a round, and
the table gives its median and its least and most. Above 1: this engine is quicker.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys


def run(argv, timeout, env=None):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, env={**os.environ, **(env or {})})
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def our_bench(a, path, prompts, steps, depth, extra=(), repeats=1):
    argv = [a.runner, "bench", path, "-t", str(a.threads), "-p", prompts, "-n", steps, "-r", str(repeats), "--format", "json", *extra]
    return run(argv + (["-d", str(depth)] if depth else []), a.timeout)


def ours_gguf(a, path, tests):
    out = {}
    for depth in sorted({t[2] for t in tests}):
        here = [t for t in tests if t[2] == depth]
        answer = our_bench(a, path, ",".join(str(t[1]) for t in here if t[0] == "pp"), ",".join(str(t[1]) for t in here if t[0] == "tg"), depth)
        for row in answer["rows"]:
            out[row["test"]] = row["tokens_per_s"]
            a.limits.setdefault((path, row["test"]), []).append(row["limit_pct"])
    return out


def llama(a, path, tests, repack):
    out = {}
    for depth in sorted({t[2] for t in tests}):
        argv = [a.llama_bench, "-m", path, "-t", str(a.threads), "-r", "1", "-o", "json", "--repack", str(repack), "-d", str(depth)]
        for kind, flag in (("pp", "-p"), ("tg", "-n")):
            argv += [flag, ",".join(str(t[1]) for t in tests if t[2] == depth and t[0] == kind) or "0"]
        for row in run(argv, a.timeout):
            kind, n = ("tg", row["n_gen"]) if row["n_gen"] else ("pp", row["n_prompt"])
            out[f"{kind}{n}" + (f"@d{depth}" if depth else "")] = row["avg_ts"]
    return out


def ours_hf(a, path, dtype):
    name, more = os.path.basename(path), ["--dtype", dtype]

    def rate(prompts, steps, depth):  # the best of three, as peers_hf.py has it
        return our_bench(a, path, prompts, steps, depth, more, repeats=3)["rows"][0]["best"]

    if name.startswith("bert"):
        return {"encode512": rate("512", "", 0) / 512}
    if name.startswith("t5"):
        return {"encode512+33": 1 / (512 / rate("512", "", 0) + 33 / rate("", "33", 512))}
    return {"prefill512": rate("512", "", 0) / 512, "decode@16": rate("", "16", 16), "decode@512": rate("", "16", 512)}


def peer_hf(a, peer, path, dtype, env=None):
    argv = [a.python, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers_hf.py"), peer, path, str(a.threads), dtype]
    return {k: 1e3 / v for k, v in run(argv, a.timeout, env).items()}


def contest(a, label, subjects, rounds):
    """subjects: {name: call}, "ours" among them. → rows of the table."""
    got, names = {s: [] for s in subjects}, list(subjects)
    for r in range(rounds):
        for s in names[r % len(names) :] + names[: r % len(names)]:
            print(f"{label}: round {r + 1} of {rounds}, {s}", file=sys.stderr)
            try:
                got[s].append(subjects[s]())
            except (RuntimeError, subprocess.TimeoutExpired, json.JSONDecodeError) as e:
                print(f"{label}: {s} failed: {e}", file=sys.stderr)
                got[s].append({})
    rows = []
    for test in dict.fromkeys(t for o in got["ours"] for t in o):
        def speeds(s):
            return [o[test] for o in got[s] if test in o]
        peers = [s for s in names if s != "ours" and speeds(s)]
        if not peers:
            rows.append((label, test, statistics.median(speeds("ours")), "none ran", None, None))
            continue
        best = max(peers, key=lambda s: statistics.median(speeds(s)))
        ratios = [o[test] / p[test] for o, p in zip(got["ours"], got[best]) if test in o and test in p]
        rows.append((label, test, statistics.median(speeds("ours")), best, statistics.median(speeds(best)), ratios))
    return rows


def read_args():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runner", required=True)
    p.add_argument("--llama-bench")
    p.add_argument("--python", help="one that has torch, transformers and ctranslate2")
    p.add_argument("--models", required=True)
    p.add_argument("--real", nargs="*", default=[], help="further GGUF files")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--quick", action="store_true", help="short runs, two rounds: a look, not a measurement")
    p.add_argument("--rounds", type=int)
    p.add_argument("--only", default="", help="models whose name holds one of these (commas between)")
    p.add_argument("--tests", help="of GGUF files, these: pp512,tg128,tg32@d4096")
    p.add_argument("--settings", default="0,1", help="of llama.cpp, these values of --repack")
    p.add_argument("--timeout", type=float, default=600)
    p.add_argument("--out", help="the table as JSON; what an earlier run left there of other models stays")
    p.add_argument("--again", action="store_true", help="with --out: models that stand there are measured again")
    a = p.parse_args()
    a.rounds = a.rounds or (2 if a.quick else 5)
    a.limits = {}
    return a


def named_tests(text):
    """"pp512,tg32@d4096" → [(kind, tokens, depth)]"""
    found = [re.fullmatch(r"(pp|tg)(\d+)(?:@d(\d+))?", t) for t in text.split(",")]
    if None in found:
        sys.exit(f"peers.py: --tests {text}: expected names as pp512, tg128 or tg32@d4096")
    return [(m[1], int(m[2]), int(m[3] or 0)) for m in found]


def gguf_rows(a):
    tests = named_tests(a.tests) if a.tests else [("pp", 128, 0), ("tg", 32, 0)] if a.quick else [("pp", 512, 0), ("tg", 128, 0)]
    files = sorted(os.path.join(a.models, f) for f in os.listdir(a.models) if f.endswith(".gguf")) + [f for f in a.real if os.path.exists(f)]
    for path in files if a.llama_bench else []:
        name = os.path.basename(path).removesuffix(".gguf")
        if not wanted(a, name):
            continue
        here = tests + ([("tg", 32, 4096)] if not a.quick and not a.tests and "Q4_K_M" in name else [])
        peers = {"llama.cpp": lambda: llama(a, path, here, 0), "llama.cpp repacked": lambda: llama(a, path, here, 1)}
        asked = {k: v for i, (k, v) in enumerate(peers.items()) if str(i) in a.settings.split(",")}
        more = contest(a, name, {"ours": lambda: ours_gguf(a, path, here), **asked}, a.rounds)
        yield [r + (statistics.median(a.limits.get((path, r[1]), [float("nan")])),) for r in more]


def hf_rows(a):
    forced = {"CT2_FORCE_CPU_ISA": "AVX512"} if "avx512f" in open("/proc/cpuinfo").read() else None
    for name in ("gpt2", "t5-small", "bert-base") if a.python else ():
        path = os.path.join(a.models, name)
        for dtype in ("f32",) if a.quick else ("f32", "bf16"):
            if not wanted(a, f"{name} {dtype}") or not os.path.exists(path):
                continue
            subjects = {"ours": lambda: ours_hf(a, path, dtype), "transformers": lambda: peer_hf(a, "transformers", path, dtype)}
            if dtype == "f32":
                subjects["ctranslate2"] = lambda: peer_hf(a, "ctranslate2", path, dtype)
                if forced:
                    subjects["ctranslate2 AVX512"] = lambda: peer_hf(a, "ctranslate2", path, dtype, forced)
            yield [r + (None,) for r in contest(a, f"{name} {dtype}", subjects, 1 if a.quick else min(a.rounds, 3))]


KEYS = ("model", "test", "ours", "peer", "peer_speed", "ratios", "limit_pct")


def load_rows(path):
    """Rows of earlier pieces: a full run takes long, and quiet minutes come one at a time."""
    if not path or not os.path.exists(path):
        return []
    with open(path) as f:
        return [tuple(r[k] for k in KEYS) for r in json.load(f)]


def save_rows(path, rows):
    if path:
        with open(path + ".new", "w") as f:
            json.dump([dict(zip(KEYS, r)) for r in rows], f, indent=1)
        os.replace(path + ".new", path)


def wanted(a, name):
    return any(o in name for o in a.only.split(",")) and name not in a.done


def cells(row):
    label, test, ours, best, peer, ratios, limit = row
    ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""
    return [label, test, f"{ours:.2f}", "" if limit is None else f"{limit:.0f}", best, "" if peer is None else f"{peer:.2f}", ratio]


def show(rows):
    for r in rows:
        print("| " + " | ".join(cells(r)) + " |", flush=True)


def main():
    a = read_args()
    load = os.getloadavg()[0]
    rows = load_rows(a.out)
    a.done = set() if a.again else {r[0] for r in rows}
    new = set()
    print("| model | test | ours | % of limit | best peer | it | ratio: median [least, most] |\n|---|---|---:|---:|---|---:|---:|", flush=True)
    for more in (r for kind in (gguf_rows, hf_rows) for r in kind(a)):
        rows = [r for r in rows if r[0] not in {m[0] for m in more}] + more
        save_rows(a.out, rows)
        show(more)  # a run that is cut off has shown what it had
        new.update(m[0] for m in more)
    show(r for r in rows if r[0] not in new)
    print(f"\n{a.threads} threads, load average {load:.1f} before and {os.getloadavg()[0]:.1f} after, {'quick' if a.quick else 'full'}, {a.rounds} rounds; "
          "GGUF in tokens/s, else in runs or tokens/s; % of limit: of the read rate (tg) or the arithmetic rate (pp) measured beside")
    if not rows:
        print(f"peers.py: nothing was measured: no model's name holds {a.only!r}", file=sys.stderr)
    return 0 if rows else 1


sys.exit(main())
