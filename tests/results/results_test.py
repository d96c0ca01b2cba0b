#!/usr/bin/env python3
"""results_test.py crc|docs MAKE_RESULTS [RESULTS_FILE.md]: reads the fixture's file with h5py alone.

crc:  the CRC of every row, computed here bit by bit from cell.tobytes(), is the marker's; shapes and types are the page's.
docs: the page's python examples run as they stand.
Exit code 77, with a line that says why, where h5py or pandas is missing.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c


def need(module):
    try:
        return __import__(module)
    except ImportError:
        print(f"SKIP: {sys.executable} has no {module}")
        sys.exit(77)


def check_crcs(path):
    h5py, np = need("h5py"), need("numpy")
    assert crc32c(b"123456789") == 0xE3069283
    counts = {0: 0, 1: 0, 2: 0}
    with h5py.File(path, "r") as f:
        commit = f["commit"][...]
        assert commit.dtype.itemsize == 8 and commit.shape == (2, 2, 3, 2), commit.dtype
        assert f["trials"].dtype.itemsize == 270, f["trials"].dtype.itemsize
        assert f["tokens"].shape == (2, 2, 3, 2, 1, 8) and f["tokens"].dtype == np.dtype("<i4")
        assert f["kv_len"].shape == (2, 2, 3, 2, 2, 1, 4)
        assert f["rounds"].shape == (2, 2, 3, 2, 1, 4)
        assert f["quality"].shape == (2, 2, 3, 2, 1)
        cells = [f[n][...] for n in ("trials", "tokens", "token_ms", "kv_len", "rounds", "quality")]
        for index, at in enumerate(np.ndindex(commit.shape)):
            mark = commit[at]
            counts[int(mark["state"])] += 1
            if mark["state"] == 0:
                continue
            data = index.to_bytes(8, "little") + b"".join(c[at].tobytes() for c in cells)
            assert crc32c(data) == mark["crc"], f"row {index}: crc {crc32c(data):08x}, marker {mark['crc']:08x}"
        assert counts == {0: 2, 1: 19, 2: 3}, counts
        check_labels(f)
        check_logs(f)
        f.visititems(check_layout)


def check_labels(f):
    assert list(f["axes/arm"].asstr()) == ["baseline", "drafted-γ3"]
    assert list(f["axes/sample"].asstr()) == ["text@0", "text@1", "text@2"]
    assert list(f["axes/context"]) == [64, 512]
    assert list(f["axes/reason"].asstr())[:4] == ["none", "crash", "oom", "timeout"]
    assert f["sweep/text"].asstr()[()] == "name: fixture\nseed: 1\n"
    attrs = f["sweep"].attrs
    assert attrs["format_version"] == 2 and attrs["cores"] == 2 and attrs["ghz"] == 2.5
    assert len(attrs["sha256"]) == 64


def check_logs(f):
    blocks = f["blocks"][...]
    assert list(blocks["used"]) == [1, 0, 0, 1]
    assert f["failures"][2]["detail"] == b"no answer in 60 s"
    assert f["ceilings"][0]["read_bytes_per_s"] == 2e10 and f["ceilings"][0]["kind"] == b"f32 avx2"
    assert list(f["log_overflow"]) == [0, 0, 0, 5, 0, 0, 0, 0]


def check_layout(name, obj):
    if not hasattr(obj, "dtype"):
        return
    assert obj.chunks is None and not obj.compression, f"{name} is not contiguous"
    assert obj.id.get_create_plist().get_layout() == 1 and obj.id.get_offset() is not None, name


def run_examples(path, page):
    need("h5py"), need("pandas")
    with open(page, encoding="utf-8") as f:
        examples = re.findall(r"^```python\n(.*?)^```", f.read(), re.S | re.M)
    assert len(examples) == 2, f"{len(examples)} python examples in {page}"
    assert len(examples[0].splitlines()) == 3
    out = []
    for code in examples:
        run = subprocess.run([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code],
                             cwd=os.path.dirname(path), capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        out.append(run.stdout)
    with need("h5py").File(path, "r") as f:
        done = f["commit"]["state"] == 1
        mean = f["trials"]["total_ms"][done].mean()
    assert abs(float(out[0]) - mean) < 1e-9, out[0]
    assert "baseline" in out[1] and "drafted-γ3" in out[1] and "512" in out[1], out[1]


def main():
    need("h5py")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.h5")
        subprocess.run([sys.argv[2], path], check=True)
        if sys.argv[1] == "crc":
            check_crcs(path)
        else:
            run_examples(path, sys.argv[3])


main()
