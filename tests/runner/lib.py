"""What the tests of the program share: a child that speaks the protocol, files made wrong on purpose."""
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile


class Runner:
    """A runner child: call() sends one request and gives its answer."""

    def __init__(self, *argv, timeout=60):
        self.said = tempfile.TemporaryFile()  # no pipe: nobody reads it while the child runs
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said)
        self.timeout = timeout
        self.argv = argv
        self.id = 0
        self.hello = self.line()

    def line(self, timeout=None):
        ready, _, _ = select.select([self.p.stdout], [], [], timeout or self.timeout)
        if not ready:
            raise TimeoutError("no answer")
        return json.loads(self.p.stdout.readline())

    def send(self, type, **members):
        self.id += 1
        self.p.stdin.write((json.dumps({"type": type, "id": self.id, **members}) + "\n").encode())
        self.p.stdin.flush()

    def call(self, type, **members):
        self.send(type, **members)
        answer = self.line()
        assert answer["id"] == self.id, answer
        return answer

    def end(self):
        """Closes stdin; the exit status."""
        self.p.stdin.close()
        code = self.p.wait(self.timeout)
        self.said.seek(0)
        self.stderr = self.said.read().decode(errors="replace")
        self.p.stdout.close()
        self.said.close()
        return code


def load(models, arms, tokens=8, mode="e2e", max_context=64, threads=2, **more):
    return dict(models=models, arms=arms, generate={"tokens": tokens, "stop_at_eos": False, "temperature": 0},
                measure={"mode": mode}, seed=1, device={"kind": "cpu"}, threads=threads, max_context=max_context,
                **more)


def check_times(r):
    """The identities of docs/METRICS.md on one result."""
    for tokens, stamps, n in zip(r["tokens"], r["token_ns"], r["generated"]):
        assert len(tokens) == len(stamps) == n
        assert stamps == sorted(stamps) and stamps[0] > 0
        assert stamps[0] == r["ttft_ns"] and stamps[-1] == r["total_ns"]
    assert sum(r["phases_ns"].values()) == r["total_ns"], r["phases_ns"]


def npy_ids(path, ids, dtype="<i4"):
    head = "{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }" % (dtype, len(ids))
    head += " " * (117 - len(head)) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
        f.write(struct.pack("<%d%s" % (len(ids), "i" if dtype == "<i4" else "q"), *ids))


def npy_floats(path):
    """Shape and numbers of a float32 file (int32 and int64 too)."""
    data = open(path, "rb").read()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    n = struct.unpack("<H", data[8:10])[0]
    assert (10 + n) % 64 == 0
    head = eval(data[10:10 + n], {"__builtins__": {}}, {})
    assert not head["fortran_order"]
    code, size = {"<f4": ("f", 4), "<i4": ("i", 4), "<i8": ("q", 8)}[head["descr"]]
    return head["shape"], struct.unpack("<%d%s" % ((len(data) - 10 - n) // size, code), data[10 + n:])


def npy_read_ids(path):
    return list(npy_floats(path)[1])


def broken_copy(model, to, tensor="model.norm.weight"):
    """A model whose `tensor` begins with a NaN (bf16)."""
    shutil.copytree(model, to)
    path = os.path.join(to, "model.safetensors")
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        at = json.loads(f.read(n))[tensor]
        assert at["dtype"] == "BF16"
        f.seek(8 + n + at["data_offsets"][0])
        f.write(b"\xc0\x7f")
    return to


def need(path):
    if not os.path.exists(path):
        print("skipped: %s is not there" % path)
        sys.exit(77)
    return path


def python_with(packages):
    """A Python that has them ("torch, transformers"): named, or where bench/peers.sh makes it, or the first one; else a skip."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for python in (os.environ.get("PACELINE_PEERS_PYTHON"), os.path.join(cache, "paceline/peers/venv/bin/python"), "python3"):
        try:
            if python and subprocess.run([python, "-c", f"import {packages}"], capture_output=True, timeout=100).returncode == 0:
                return python
        except (OSError, subprocess.TimeoutExpired):
            pass
    print(f"skipped: no python3 that imports {packages} within 100 s (PACELINE_PEERS_PYTHON names one)")
    sys.exit(77)
