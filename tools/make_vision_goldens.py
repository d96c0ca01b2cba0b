#!/usr/bin/env python3
"""Makes tests/model/vision: event files of every kind, what the published rasterisation and Pillow make of them, clips with
what FFmpeg decodes, and tiny random EventGPT and Video-LLaVA models with what torch and transformers say about them.
Everything is seeded; run it again after changing it and commit what it writes.

    python3 tools/make_vision_goldens.py [OUT]    needs torch, transformers, safetensors, numpy, Pillow; the program ffmpeg
"""

import hashlib
import io
import os
import pickle
import sys

import numpy as np
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "tests", "model", "vision")
# Large, and not part of the repository: its frames are remembered by their hash.
REAL = os.path.join(ROOT, "..", "shared", "data", "events", "eventgpt_sample1.npy")


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


# ---- EventGPT's published rasterisation, and CLIP's preprocessing as transformers does it with Pillow ----

def event_frames(e, n):
    """Parts of equal count, the rest to the last; white, p = 0 blue, else red; the last event at a pixel wins."""
    total, frames = len(e["t"]), []
    for i in range(n):
        part = slice(i * (total // n), (i + 1) * (total // n) if i < n - 1 else total)
        x, y, p = e["x"][part], e["y"][part], e["p"][part]
        image = np.full((int(y.max()) + 1, int(x.max()) + 1, 3), 255, np.uint8)
        for a, b, c in zip(x, y, p):
            image[int(b), int(a)] = (0, 0, 255) if c == 0 else (255, 0, 0)
        frames.append(image)
    return frames


def resize_crop(image, resize, crop):
    h, w = image.shape[:2]
    short, long = min(h, w), max(h, w)
    other = int(resize * long / short)
    a = np.asarray(Image.fromarray(image).resize((resize, other) if w <= h else (other, resize), Image.BICUBIC))
    out = np.zeros((max(crop, a.shape[0]), max(crop, a.shape[1]), 3), np.uint8)
    top, left = (-((a.shape[0] - crop) // 2) if a.shape[0] < crop else 0), (-((a.shape[1] - crop) // 2) if a.shape[1] < crop else 0)
    out[top:top + a.shape[0], left:left + a.shape[1]] = a
    y, x = max(0, (a.shape[0] - crop) // 2), max(0, (a.shape[1] - crop) // 2)
    return out[y:y + crop, x:x + crop]


def noise(w, h, seed):
    """The bytes that test_image.c draws, too."""
    v, out = seed, np.empty(w * h * 3, np.uint8)
    for i in range(out.size):
        v = (v * 1664525 + 1013904223) & 0xffffffff
        out[i] = v >> 24
    return out.reshape(h, w, 3)


RESIZES = [(64, 48, 24, 24), (48, 64, 24, 24), (33, 7, 50, 50), (7, 33, 50, 31), (24, 24, 24, 24), (100, 100, 37, 60),
           (1, 1, 5, 5), (3, 200, 8, 8), (200, 3, 8, 8), (129, 65, 64, 17), (31, 30, 61, 64), (640, 480, 336, 336), (57, 83, 16, 33)]


def images():
    lines = []
    for i, (w, h, resize, crop) in enumerate(RESIZES):
        lines.append(f"{w} {h} {resize} {crop} {sha(resize_crop(noise(w, h, i + 1), resize, crop))}\n")
    with open(os.path.join(OUT, "resize.txt"), "w") as f:
        f.writelines(lines)
    Image.fromarray(noise(19, 11, 5)).save(os.path.join(OUT, "rgb.png"))
    grey = noise(19, 11, 5)[:, :, 0]
    Image.fromarray(np.dstack([noise(19, 11, 5), grey])).save(os.path.join(OUT, "rgba.png"))
    Image.fromarray(grey).save(os.path.join(OUT, "grey.png"))
    Image.fromarray(grey).convert("P").save(os.path.join(OUT, "palette.png"))


# ---- event files ----

def stream(n=203, w=40, h=31):
    g = np.random.default_rng(1)
    return {"x": g.integers(0, w, n).astype(np.uint16), "y": g.integers(0, h, n).astype(np.uint16),
            "t": np.sort(g.integers(1000, 50000, n)).astype(np.int64), "p": g.integers(0, 2, n).astype(np.uint8)}


def save_pickled(name, e, protocol, module):
    """np.save of a dict, as the NumPy of that module name (numpy.core before 2.0, numpy._core since) writes it."""
    body = pickle.dumps(np.array(e, dtype=object), protocol=protocol)
    other = b"numpy._core" if module == b"numpy.core" else b"numpy.core"
    if protocol < 4:  # the name is a line of text
        body = body.replace(b"c" + other + b".", b"c" + module + b".")
    else:  # a length stands before it
        for tail in (b".multiarray", b".numeric"):
            old, new = other + tail, module + tail
            body = body.replace(bytes([0x8c, len(old)]) + old, bytes([0x8c, len(new)]) + new)
        if body[2:3] == b"\x95":  # the frame is no longer of that length; it may be left out
            body = body[:2] + body[11:]
    assert sorted(np.load(io.BytesIO(header() + body), allow_pickle=True).item()) == sorted(e)
    with open(os.path.join(OUT, "events", name), "wb") as f:
        f.write(header() + body)


def header():
    text = "{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def events():
    os.makedirs(os.path.join(OUT, "events"), exist_ok=True)
    e = stream()
    extra = dict(e, time_start=np.int64(1000), duration_ms=49.0, name="a/b", none=None, flags=[True, (1, 2), {"k": b"v"}],
                 big=-70000, long=1 << 40)
    for protocol in (2, 3, 4, 5):
        for module, tag in ((b"numpy.core", "core"), (b"numpy._core", "_core")):
            save_pickled(f"p{protocol}{tag}.npy", extra, protocol, module)
    kinds = {"i8": np.int64, "u4": np.uint32, "i2": np.int16, "f4": np.float32, "f8": np.float64, "big": ">i4"}
    for tag, kind in kinds.items():
        save_pickled(f"{tag}.npy", {k: v.astype(kind) if tag != "i2" or k != "t" else v for k, v in e.items()}, 4, b"numpy._core")
    save_pickled("bool.npy", dict(e, p=e["p"].astype(bool)), 4, b"numpy._core")
    save_pickled("fortran.npy", {k: np.asfortranarray(v) for k, v in e.items()}, 5, b"numpy._core")
    table = np.zeros(len(e["t"]), dtype=[("t", "<i8"), ("x", "<u2"), ("y", "<i4"), ("pad", "<f4", (3,)), ("p", "?")])
    for k in "xytp":
        table[k] = e[k]
    np.save(os.path.join(OUT, "events", "structured.npy"), table)
    np.savez(os.path.join(OUT, "events", "stored.npz"), **e)
    np.savez_compressed(os.path.join(OUT, "events", "deflated.npz"), **e, other=np.zeros(3))
    frames = event_frames(e, 5)
    with open(os.path.join(OUT, "events", "frames.txt"), "w") as f:
        for i, a in enumerate(frames):
            f.write(f"{a.shape[1]} {a.shape[0]} {sha(a)}\n")
    save_real()


def save_real():
    if not os.path.exists(REAL):
        print("left alone: real.txt (no", REAL + ")")
        return
    real = np.load(REAL, allow_pickle=True).item()
    with open(os.path.join(OUT, "events", "real.txt"), "w") as f:
        for a in event_frames(real, 5):
            f.write(f"{a.shape[1]} {a.shape[0]} {sha(a)} {sha(resize_crop(a, 336, 336))}\n")


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    images()
    events()
