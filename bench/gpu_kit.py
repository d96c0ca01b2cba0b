"""What the parts of bench/gpu.sh are made with: programs and children with a deadline, figures, models of random weights. Standard Python."""
import glob
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TOP, "tests", "runner")]
from lib import Runner, load  # noqa: E402

LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=1,
             eos_token_id=2, tie_word_embeddings=False, torch_dtype="bfloat16", max_position_embeddings=40960, vocab_size=32000)
SIZES = {False: dict(LLAMA, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32),
         True: dict(LLAMA, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, vocab_size=500)}
MISTRAL = {False: dict(SIZES[False], intermediate_size=14336, num_key_value_heads=8), True: dict(SIZES[True], num_key_value_heads=1)}


class Failed(Exception):
    pass


class Bench:
    def __init__(self, a, report):
        self.report, self.small, self.device, self.out, self.notes = report, a.small, a.device, report.out, report.notes
        self.tmp = tempfile.mkdtemp(prefix="paceline-gpu-", dir=roomy())
        self.children, self.ends = [], time.monotonic() + 60  # a driver's first start may take long
        unpacked = os.path.join(TOP, ".gpu", "unpacked")
        self.bin = os.path.join(unpacked, "bin") if os.path.isdir(os.path.join(unpacked, "bin")) and not a.emulated else None
        self.env, self.libraries, self.emulated = dict(os.environ), libraries(), a.emulated and os.path.abspath(a.emulated)
        if self.bin:
            self.env["OPAL_PREFIX"] = os.path.join(unpacked, "openmpi")
        was = os.environ.get("LD_LIBRARY_PATH", "")
        folders = [os.path.join(unpacked, "lib") if self.bin else "", was, *(os.path.dirname(p) for p in self.libraries.values())]
        self.env["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(p for p in folders if p))
        # torch brings libraries of its own: ours must not stand before them
        self.python = ["env", f"LD_LIBRARY_PATH={was}" if was else "-uLD_LIBRARY_PATH", os.environ.get("PACELINE_PEERS_PYTHON", "python3")]
        self.runner = os.environ.get("PACELINE_RUNNER") or self.program("paceline-runner", "cli/runner")
        if self.emulated:
            folder = os.path.join(self.emulated, "tests/cuda_emu")
            self.runner = self.env["PACELINE_RUNNER"] = os.path.join(folder, "paceline-runner-emu")
            self.env.update(PACELINE_CUPTI=os.path.join(folder, "libfake_cupti.so"), PACELINE_NCCL=os.path.join(folder, "libfake_nccl.so"))
        os.environ.update(self.env)

    def program(self, name, folder):
        """A built program: packed, or in the build tree; None."""
        if self.emulated:  # what has kernels in it; else the build's own
            at = os.path.join(self.emulated, "tests/cuda_emu", name + "-emu")
            at = at if os.access(at, os.X_OK) else os.path.join(self.emulated, folder, name)
            return at if os.access(at, os.X_OK) else None
        for at in ([os.path.join(self.bin, name)] if self.bin else []) + [os.path.join(TOP, "build/release", folder, name)]:
            if os.access(at, os.X_OK):
                return at
        return None

    def tests(self, names=None):
        """Paths of the backend's test programs, in the order of `names`, or all."""
        if self.emulated:  # the others take minutes there
            folder, kind, names = os.path.join(self.emulated, "tests/cuda_emu"), "test_cuda_", ("ops", "stage")
        else:
            folder, kind = self.bin or os.path.join(TOP, "build/release/tests/cuda_emu"), "test_gpu_"
        there = {p.rpartition(kind)[2]: p for p in sorted(glob.glob(os.path.join(folder, kind + "*"))) if os.access(p, os.X_OK)}
        return [there[n] for n in (names or there) if n in there]

    def left(self):
        return max(1.0, self.ends - time.monotonic())

    def figure(self, name, value, unit, aim=None, note=""):
        """aim: (">=" or "<=", number)."""
        aim = None if self.small else aim
        if value is None or value != value:
            raise Failed(f"{name}: no number")
        ok = None if aim is None else value >= aim[1] if aim[0] == ">=" else value <= aim[1]
        self.report.figures.append(dict(part=self.part, name=name, value=value, unit=unit, aim="" if aim is None else f"{aim[0]} {aim[1]:g}", met=ok, note=note))
        self.report.write()
        print(f"  {name}: {value:.6g} {unit}" + ("" if ok is None else " (met)" if ok else f" (aim {aim[0]} {aim[1]:g})"), flush=True)

    def sh(self, argv, limit=None, check=True):
        limit = min(limit or self.left(), self.left())
        p = subprocess.Popen(argv, cwd=TOP, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace", start_new_session=True)
        try:
            done = subprocess.CompletedProcess(argv, None, *p.communicate(timeout=limit))
            done.returncode = p.returncode
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{os.path.basename(argv[0])}: over its {limit:.0f} s") from e
        finally:  # with all that it started, which would disturb the parts behind it
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
        if check and done.returncode:
            raise Failed(f"{os.path.basename(argv[0])}: exit code {done.returncode}: {last_word(done)}")
        return done

    def model(self, name, config):
        path = os.path.join(self.tmp, name)
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, "config.json"), "w") as f:
            json.dump(config, f)
        return path

    def bench(self, path, *argv, weights=("--weights", "random:1", "--dtype", "bf16"), env=()):
        done = self.sh(["env", *env, self.runner, "bench", path, *weights, "--device", self.device, "--format", "json", *argv])
        return json.loads(done.stdout)

    def serve(self, *argv, most=3600):
        return Child(self, *(argv or (self.runner, "serve")), most=most)

    def stop_children(self):
        """Those that a part which failed left behind."""
        for r in self.children:
            if r.p.poll() is None:
                r.p.kill()
                r.p.wait()
        self.children = []


class Child(Runner):
    """A runner that is waited for as long as its part may run, or `most` seconds."""

    def __init__(self, bench, *argv, most=3600):
        self.bench, self.ends = bench, time.monotonic() + most
        super().__init__(*argv)
        bench.children.append(self)

    def line(self, timeout=None):
        return super().line(min(self.bench.left(), max(1.0, self.ends - time.monotonic())))


def last_word(done):
    """Of what a program said: the line with its error (mpirun has the last word, with frames), or the last one."""
    said = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line.strip("-= ")]
    return next((line for line in said if "error:" in line.lower()), said[-1] if said else "no word")


def roomy():
    """Where tens of megabytes to gigabytes are written: memory where it has room (a container's often has 64 MiB), else the disk."""
    try:
        v = os.statvfs("/dev/shm")
        return "/dev/shm" if os.access("/dev/shm", os.W_OK) and v.f_bavail * v.f_frsize > 8 << 30 else None
    except OSError:
        return None


def libraries():
    """{library: its path} of those that are opened at run time, in the toolkit's folders or in the wheels that torch comes with; the loader may
    know none of these. The driver's folder is there for where it is mounted and the loader was not told."""
    site = [os.path.join(p, "lib/python3*/*-packages/nvidia/*/lib") for p in dict.fromkeys((sys.prefix, "/opt/*/.venv", "/usr/local", "/usr"))]
    folders = [f for pattern in ["/usr/local/cuda/lib64", "/usr/local/cuda/extras/CUPTI/lib64", "/usr/local/cuda/targets/*/lib", *site, "/usr/local/nvidia/lib64"]
               for f in sorted(glob.glob(pattern))]
    found = {}
    for name in ("libcublasLt.so.13", "libcupti.so.13", "libnccl.so.2", "libcuda.so.1"):
        for f in folders:
            if os.path.exists(os.path.join(f, name)):
                found[name] = os.path.join(f, name)
                break
    return found


def key(i):
    return {"kind": "synthetic", "index": i, "key": "%016x" % (0x5eed0000 + i)}


def trial(r, arm, context, i, **more):
    x = r.call("trial", arm=arm, context=context, sample=key(i), repeat=0, attempt=0, timed=True, **more)
    if x["type"] != "result":
        raise Failed(f"{arm} at {context}: {x.get('reason')}: {x.get('text')}")
    return x


def must_load(r, device, models, arms, **more):
    x = r.call("load", **dict(load(models, arms, **more), device={"kind": "cuda" if device != "cpu" else "cpu"}))
    if x["type"] != "loaded":
        raise Failed(f"load: {x.get('text')}")
    return x


def medians(r, arms, contexts, repeats, what, **more):
    """{(arm, context): median of what(result)}, arms interleaved in random order, one trial before to warm up."""
    draw, out = random.Random(1), {}
    for context in contexts:
        got = {arm: [] for arm in arms}
        for arm in arms:
            trial(r, arm, context, 99, **more)
        for i in range(repeats):
            for arm in draw.sample(arms, len(arms)):
                got[arm].append(what(trial(r, arm, context, i, **more)))
        out.update({(arm, context): statistics.median(v) for arm, v in got.items()})
    return out


def ms(phase):
    return lambda x: x["phases_ns"][phase] / 1e6


def write_tensors(path, shapes, scale=0.02):
    """A safetensors file of bf16 numbers drawn in ±scale; norms and scalars are 1."""
    head, at = {}, 0
    for name, shape in shapes.items():
        n = 2
        for s in shape:
            n *= s
        head[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(3)
    pool = b"".join(struct.pack("<f", draw.uniform(-scale, scale))[2:] for _ in range(1 << 16))
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            n = head[name]["data_offsets"][1] - head[name]["data_offsets"][0]
            one = len(shape) == 1 and not name.endswith("bias")
            source = b"\x80\x3f" * (1 << 16) if one else pool
            while n:
                f.write(source[:n])
                n -= min(n, len(source))
    return path
