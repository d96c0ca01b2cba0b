"""answers_test.py ANSWERS: LongBench's scores, as its metrics.py defines them, written plainly here, on fixed and random answers."""
import collections
import json
import random
import re
import string
import subprocess
import sys


def normalize(s):
    s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


def f1(answer, right):
    a, b = normalize(answer).split(), normalize(right).split()
    same = sum((collections.Counter(a) & collections.Counter(b)).values())
    if same == 0:
        return 0
    precision, recall = same / len(a), same / len(b)
    return 2 * precision * recall / (precision + recall)


def rouge_l(answer, right):
    a, b = normalize(answer).split(), normalize(right).split()
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for k, y in enumerate(b):
            table[i + 1][k + 1] = table[i][k] + 1 if x == y else max(table[i][k + 1], table[i + 1][k])
    return 2 * table[-1][-1] / (len(a) + len(b)) if table[-1][-1] else 0


def classification(answer, right, classes):
    first = answer.lstrip("\r\n").split("\n")[0]
    named = [c for c in classes if c in first]
    named = [c for c in named if not (c in right and c != right)]
    return 1 / len(named) if right in named else 0


def holds(answer, right):
    return float(bool(re.search(r"(?<![^\W_])" + re.escape(right) + r"(?![^\W_])", answer)))


def cases():
    yield "The red, RED garden!", ["a red garden", "blue"], []
    yield "", [""], []
    yield "an the a", ["the"], []
    yield "\n\nDescription of something\nNumber", ["Number"], ["Number", "Description", "Description of something"]
    yield "Location: city", ["city"], ["city", "Location", "Location: city"]
    yield "Other location", ["Other location"], ["location", "Other location", "Other"]
    yield " 48213.", ["48213"], []
    yield "148213 48213x 48213", ["48213"], []
    yield "it's well-known", ["its wellknown"], []
    draw = random.Random(7)
    words = ["a", "the", "cat", "Cat,", "dog", "dogs", "on", "mat.", "mat", "An", "über", "12", "-", "sat\tdown", "x y"]
    for _ in range(400):
        def text(n):
            return " ".join(draw.choice(words) for _ in range(draw.randrange(n)))
        yield text(14), [text(9) or "cat" for _ in range(draw.randrange(1, 4))], draw.sample(words, draw.randrange(6))


def main():
    asked = list(cases())
    lines = "".join(json.dumps({"answer": a, "right": r, "classes": c}) + "\n" for a, r, c in asked)
    out = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(out) == len(asked)
    seen = collections.Counter()
    for (answer, right, classes), line in zip(asked, out):
        got = json.loads(line)
        want = [max(f1(answer, r) for r in right), max(rouge_l(answer, r) for r in right),
                max(float(normalize(answer) == normalize(r)) for r in right), max(classification(answer, r, classes) for r in right),
                holds(answer, right[0]) if right[0] else 0.0]
        assert all(abs(g - w) < 1e-12 for g, w in zip(got, want)), (answer, right, classes, got, want)
        for i, v in enumerate(want):
            seen[i, 0 if v == 0 else 1 if v == 1 else 2] += 1
    assert all(seen[i, k] for i in range(5) for k in (0, 1)) and seen[0, 2] and seen[1, 2] and seen[3, 2], seen


main()
