"""What the runners of foreign engines share: the protocol of docs/RUNNER.md, a sample's ids, and how a trial's times are taken.

An engine is a class with `name`, `version`, `devices()`, `describe(model, problems)`, `load(name, entry, want)`, `unload(name)` and
`generate(model, prompts, tokens, stop)`; serve() does the rest. Anything but answers that a library prints goes to stderr.
"""
import json
import os
import struct
import sys
import time

# Answers go to what was stdout; stdout itself is stderr from here on, before any engine's library is imported: some print, in C too.
ANSWERS = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15


class Fault(Exception):
    """An error answer: reason is one of docs/RUNNER.md's."""

    def __init__(self, reason, text):
        super().__init__(text)
        self.reason = reason


class Clock:
    """A trial's: when it began, when its prompts were ids, when each token of the sequences was known."""

    def __init__(self):
        self.start = time.perf_counter_ns()
        self.marks, self.stamps = {}, []

    def now(self):
        return time.perf_counter_ns() - self.start

    def mark(self, phase):
        """`phase` is over; it began where the one before it ended."""
        self.marks[phase] = self.now()

    def token(self):
        self.stamps.append(self.now())

    def phases(self, decodes):
        out, last = {}, 0
        for phase, end in self.marks.items():
            out[phase], last = end - last, end
        if self.stamps:
            out["prefill"] = self.stamps[0] - last
        if decodes:
            out["decode"] = self.stamps[-1] - self.stamps[0]
        out["wait"] = 0
        return out


def mixed(x):
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def ids_hash(ids):
    """As paceline-runner makes it, so that rows of one input are seen to be that."""
    data = struct.pack(f"<{len(ids)}i", *ids)
    h = mixed(STEP)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at:at + 8], "little")
        h = mixed((h + STEP) & MASK ^ mixed((word + STEP) & MASK))
    return "%016x" % mixed(h ^ len(data))


def synthetic_ids(sample, vocab, n):
    """paceline-runner's draw for this key: below(vocab) without bias."""
    state, out = int(sample["key"], 16), []
    while len(out) < n:
        state = (state + STEP) & MASK
        m = mixed(state) * vocab
        if m & MASK >= ((1 << 64) - vocab) % vocab:
            out.append(m >> 64)
    return out


class Peer:
    """The requests, for one engine."""

    def __init__(self, engine):
        self.engine, self.arms, self.models = engine, {}, {}
        self.want = {"tokens": 128, "stop": False, "prefill": False, "threads": 1, "max_context": 0}

    def describe(self, q):
        arm, errors, warnings = q["arm"], [], []
        for key in ("draft", "prune"):
            if arm.get(key):
                errors.append(f"{key}: {self.engine.name} cannot")
        if arm.get("concurrency", 1) > 1:
            errors.append(f"concurrency: {self.engine.name} cannot; batch it can")
        if any(not isinstance(c, int) for c in q["contexts"]):
            errors.append(f"contexts: {self.engine.name} reads text alone")
            return dict(type="described", layers=1, errors=errors, warnings=warnings)
        try:
            d = self.engine.describe(q["model"])
        except Fault as e:
            return dict(type="described", layers=1, errors=errors + [str(e)], warnings=warnings)
        errors += d.pop("errors", [])
        behind = 0 if d.pop("encoder", False) else 1
        for context, tokens in zip(q["contexts"], q.get("context_tokens") or [q["tokens"]] * len(q["contexts"])):
            most = d.get("max_positions", 0)
            if most and context + behind * (tokens - 1) > most:
                errors.append(f"context {context} + {tokens} tokens is beyond the model's {most} positions")
        return dict(d, type="described", max_rounds=0, errors=errors, warnings=warnings + d.get("warnings", []))

    def load(self, q):
        generate = q.get("generate", {})
        if generate.get("temperature"):
            raise Fault("load", f"generate.temperature: {self.engine.name} is greedy here")
        self.want.update(tokens=generate.get("tokens", 128), stop=bool(generate.get("stop_at_eos")), threads=q.get("threads", 1) or 1,
                         prefill=q.get("measure", {}).get("mode") == "prefill", max_context=q.get("max_context", 0))
        begin, said = time.perf_counter_ns(), {}
        for name, entry in q["models"].items():
            self.forget([name])
            batch = max([a.get("batch", 1) for a in q["arms"].values() if a.get("model") == name] or [1])
            self.models[name] = self.engine.load(entry, dict(self.want, batch=batch))
            said[name] = self.models[name].bytes()
        self.arms.update(q["arms"])
        return dict(type="loaded", load_ns=time.perf_counter_ns() - begin, models=said)

    def forget(self, names):
        for name in names or list(self.models):
            model = self.models.pop(name, None)
            self.arms = {k: a for k, a in self.arms.items() if a.get("model") != name}
            if model:
                model.close()

    def prompts(self, q, model):
        """A list of `context` ids for each sequence."""
        out, context = [], q["context"]
        for sample in q.get("samples") or [q["sample"]]:
            ids = sample.get("ids")
            if ids is None and sample.get("kind") == "synthetic":
                ids = synthetic_ids(sample, model.vocab, context)
            elif ids is None and "text" not in sample:
                raise Fault("data", f"a sample of kind {sample.get('kind')} without text cannot be read by {self.engine.name}")
            elif ids is None:
                ids = model.tokenize(sample["text"], context)
            if len(ids) < context:
                raise Fault("context", f"sample {sample.get('index')}: {len(ids)} tokens, {context} needed")
            ids = ids[:context]
            if min(ids) < 0 or max(ids) >= model.vocab:
                raise Fault("data", f"sample {sample.get('index')}: an id that is not in the vocabulary of {model.vocab}")
            out.append(ids)
        return out

    def trial(self, q):
        arm = self.arms.get(q["arm"])
        model = self.models.get(arm["model"]) if arm else None
        if not model:
            raise Fault("runner", f"arm {q['arm']} is not loaded")
        tokens = 1 if self.want["prefill"] else q.get("tokens", self.want["tokens"])
        samples = q.get("samples") or [q["sample"]]
        model.ready(len(samples), q["context"], tokens)
        clock = Clock()
        prompts = self.prompts(q, model)
        if "ids" in samples[0] or samples[0].get("kind") == "synthetic":
            clock = Clock()  # they were given
        else:
            clock.mark("tokenize")
        made = model.generate(prompts, tokens, self.want["stop"], clock)
        total = clock.stamps[-1] if clock.stamps else clock.now() if not clock.marks else max(clock.marks.values())
        stamps = [clock.stamps[:len(one)] for one in made]
        first = clock.stamps[0] if clock.stamps else total
        out = dict(type="result", prompt_tokens=sum(map(len, prompts)), generated=[len(one) for one in made], tokens=made, token_ns=stamps,
                   phases_ns=clock.phases(bool(clock.stamps) and not self.want["prefill"]), ttft_ns=first, total_ns=total,
                   ids_hash=ids_hash(prompts[0]), synthetic=model.synthetic, bytes=model.memory(prompts, made))
        kv_len = model.kv_len(prompts)
        return dict(out, kv_len=[kv_len]) if kv_len else out

    def answer(self, q):
        kind = q.get("type")
        if kind == "describe":
            return self.describe(q)
        if kind == "load":
            return self.load(q)
        if kind == "trial":
            return self.trial(q)
        if kind == "unload":
            self.forget(q.get("models"))
            return dict(type="unloaded")
        raise Fault("runner", f"{self.engine.name} cannot {kind}")


def resident():
    """This process's resident memory now and at its peak since reset_peak()."""
    out = {"VmRSS": 0, "VmHWM": 0}
    with open("/proc/self/status", encoding="ascii", errors="replace") as f:
        for line in f:
            key, _, rest = line.partition(":")
            if key in out:
                out[key] = int(rest.split()[0]) * 1024
    return out["VmRSS"], out["VmHWM"]


def reset_peak():
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as f:
            f.write("5")
    except OSError:
        pass


def out_of_memory(e):
    return isinstance(e, MemoryError) or "out of memory" in str(e).lower() or "OutOfMemory" in type(e).__name__


def serve(engine):
    """Answers requests until there are no more."""

    def say(**answer):
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()

    peer = Peer(engine)
    say(type="hello", protocol=1, runner=engine.name, version=engine.version, synthetic=False, devices=engine.devices())
    for line in sys.stdin:
        q = {}
        try:
            q = json.loads(line)
            answer = peer.answer(q)
        except Fault as e:
            answer = dict(type="error", reason=e.reason, text=str(e), fatal=False)
        except Exception as e:  # whatever a library raises is this trial's, not the sweep's
            loading = isinstance(q, dict) and q.get("type") == "load"
            reason = "oom" if out_of_memory(e) else "load" if loading else "runner"
            text = f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"
            answer = dict(type="error", reason=reason, text=text[:400], fatal="CUDA error" in str(e))
        say(id=q.get("id", 0) if isinstance(q, dict) else 0, **answer)
        if answer.get("fatal"):
            sys.exit(1)
