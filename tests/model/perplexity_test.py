#!/usr/bin/env python3
"""perplexity_test.py RUNNER TOP: the quantised files of examples/models say about held-out text what the model that they were made
of says: the same ids, and a perplexity within a bound for each format (measured on 10 220 places: q8_0 +0.02 %, q6_k −0.08 %,
q5_k +0.04 %, q4_k +0.17 %, q4_0 +0.7 %; one file's weights swapped for another's, or a scale read wrongly, is far outside)."""
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print(f"SKIP: {sys.executable} has no numpy")
    sys.exit(77)

RUNNER, TOP = sys.argv[1:3]
MODELS = os.path.join(TOP, "examples", "models")
MOST = {"q8_0": 0.002, "q6_k": 0.004, "q5_k": 0.008, "q4_k": 0.015, "q4_0": 0.03}
WINDOW, WINDOWS = 512, 5
TMP = tempfile.mkdtemp(prefix="paceline-")


def ask(*argv, **more):
    return subprocess.run([RUNNER, *argv], check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def nats(model, ids):
    """Of each token of each window, given those before it and BOS."""
    out = []
    for i in range(WINDOWS):
        w = np.concatenate([[1], ids[i * (WINDOW - 1):(i + 1) * (WINDOW - 1)]]).astype(np.int32)
        np.save(f"{TMP}/ids.npy", w)
        ask("logits", model, "--ids-file", f"{TMP}/ids.npy", "-o", f"{TMP}/logits.npy", "--threads", "1")
        x = np.load(f"{TMP}/logits.npy").astype(np.float64)
        x -= x.max(1, keepdims=True)
        x -= np.log(np.exp(x).sum(1, keepdims=True))
        out.append(-x[np.arange(WINDOW - 1), w[1:]])
    return np.mean(out)


with open(os.path.join(TOP, "examples", "data", "heldout.txt"), encoding="utf-8") as f:
    text = json.dumps(f.read()[:40000]) + "\n"
whole = os.path.join(MODELS, "small-llama")
ids = json.loads(ask("tokenize", whole, input=text))
assert ids[0] == 1 and len(ids) > WINDOW * WINDOWS
plain = nats(whole, ids[1:])
print(f"small-llama: perplexity {np.exp(plain):.3f}")
assert 15 < np.exp(plain) < 30
for name, most in MOST.items():
    model = os.path.join(MODELS, f"small-llama-{name}.gguf")
    assert json.loads(ask("tokenize", model, input=text)) == ids, f"{name}: other ids"
    change = np.exp(nats(model, ids[1:]) - plain) - 1
    print(f"{name}: {100 * change:+.3f} % (at most {100 * most:.1f} %)")
    assert abs(change) <= most, f"{name}: perplexity {100 * change:+.2f} %"
