#!/usr/bin/env python3
"""Makes tests/model/vision: event files of every kind, what the published rasterisation and Pillow make of them, clips with
what FFmpeg decodes, and tiny random EventGPT and Video-LLaVA models with what torch and transformers say about them.
Everything is seeded; run it again after changing it and commit what it writes.

    python3 tools/make_vision_goldens.py [OUT]    needs torch, transformers, safetensors, numpy, Pillow; the program ffmpeg
"""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (CLIPVisionConfig, LlamaConfig, VideoLlavaConfig,
                          VideoLlavaForConditionalGeneration)

from eventgpt_reference import EVENT, EventGPT

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


# ---- clips ----

def ffmpeg(*args):
    return subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *args], check=True, capture_output=True).stdout


def clips():
    """One second at 20 fps, and what its frames decode to; clips that are short, of uneven times, of other colours, of
    sound alone."""
    def path(name):
        return os.path.join(OUT, "clips", name)
    os.makedirs(path(""), exist_ok=True)
    test = ["-f", "lavfi", "-i", "testsrc=duration=1:size=64x48:rate=20"]
    x264 = ["-c:v", "libx264", "-bitexact", "-map_metadata", "-1"]
    ffmpeg(*test, "-pix_fmt", "yuv420p", *x264, path("second.mp4"))
    ffmpeg(*test, "-frames:v", "5", "-pix_fmt", "yuv420p", *x264, path("five.mp4"))
    ffmpeg(*test, "-vf", "select='not(mod(n,3))+lt(n,4)'", "-vsync", "vfr", "-pix_fmt", "yuv420p", *x264, path("uneven.mp4"))
    ffmpeg(*test, "-vf", "scale=out_color_matrix=bt709:out_range=pc,format=yuv444p10le", "-colorspace", "bt709", "-color_range",
           "pc", *x264, path("bt709.mp4"))
    ffmpeg(*test, "-pix_fmt", "gray", *x264, path("grey.mp4"))
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", "-c:a", "aac", "-bitexact", path("sound.mp4"))
    with open(path("frames.txt"), "w") as f:
        for name in ("second", "five", "uneven", "grey"):
            raw = np.frombuffer(ffmpeg("-i", path(name + ".mp4"), "-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
            frames = raw.reshape(-1, 48, 64, 3)
            taken = sorted(set(np.arange(0, len(frames), len(frames) / 8).astype(int)))
            f.write(f"{name}.mp4 {len(frames)} {len(taken)} {sha(frames[taken])}\n")


# ---- models ----

VOCAB, IMAGE, VIDEO = 61, 57, 58
LLAMA = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=4, max_position_embeddings=512, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
             initializer_range=0.25, tie_word_embeddings=False)
TOWER = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, image_size=28, patch_size=7,
             num_channels=3, initializer_range=0.3, hidden_act="quick_gelu", layer_norm_eps=1e-5)
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PREPROCESS = dict(crop_size=dict(height=28, width=28), do_center_crop=True, do_normalize=True, do_rescale=True, do_resize=True,
                  image_mean=MEAN, image_std=STD, resample=3, rescale_factor=1 / 255, size=dict(shortest_edge=28))
GREEDY = 12


def pixels_of(frames):
    small = np.stack([resize_crop(a, 28, 28) for a in frames]).astype(np.float64) / 255
    return ((small - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)


def put(folder, **files):
    os.makedirs(os.path.join(OUT, folder), exist_ok=True)
    for name, what in files.items():
        path = os.path.join(OUT, folder, name)
        if isinstance(what, dict):
            with open(path + ".json", "w") as f:
                json.dump(what, f, indent=1)
                f.write("\n")
        else:
            np.save(path + ".npy", np.ascontiguousarray(what))


def randomize(model, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        wide = 0.3 if p.ndim > 1 else 0.1
        base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        with torch.no_grad():
            p.copy_(base + wide * torch.randn(p.shape, generator=g) / (1 if p.ndim < 2 else p.shape[-1] ** 0.5 * 0.3))


def eventgpt():
    model = EventGPT(LlamaConfig(**LLAMA), CLIPVisionConfig(**TOWER)).eval()
    randomize(model, 3)
    pixels = pixels_of(event_frames(stream(), 5))
    ids = [1, 20, 7, EVENT, 33, 8, 41, 19]
    put("eventgpt", ids=np.array(ids, np.int32), pixels=pixels, logits=model.logits(torch.tensor(ids), torch.tensor(pixels)),
        greedy=np.array(model.greedy(torch.tensor(ids), torch.tensor(pixels), GREEDY, 2), np.int32),
        rows=model.rows(torch.tensor(pixels)).detach(),
        rows1=model.rows(torch.tensor(pixels[:1])).detach(),
        config=dict(LLAMA, architectures=["EventChatModel"], model_type="EventChat_llama", hidden_act="silu", torch_dtype="float32",
                    mm_visual_tower="/somewhere/else/tower", event_feature_adaptor=True))
    put("eventgpt/tower", config=dict(TOWER, architectures=["CLIPVisionModel"], model_type="clip_vision_model"), preprocessor_config=PREPROCESS)
    save_file(model.official(), os.path.join(OUT, "eventgpt", "model.safetensors"), metadata={"format": "pt"})


def hub_names(state):
    """The names of files on the Hub, from those of today's class."""
    out = {}
    for k, v in state.items():
        if k.startswith("lm_head."):
            k = "language_model." + k
        elif k.startswith("model.language_model."):
            k = "language_model.model." + k[len("model.language_model."):]
        else:
            k = k[len("model."):]
            for tower in ("video_tower.", "image_tower."):
                if k.startswith(tower) and not k.startswith(tower + "vision_model."):
                    k = tower + "vision_model." + k[len(tower):]
        out[k] = v.contiguous()
    return out


def masked_greedy(model, ids, n, **inputs):
    out = []
    for _ in range(n):
        logits = model(input_ids=torch.tensor([ids + out]), **inputs).logits[0, -1]
        logits[2] = -torch.inf
        out.append(int(logits.argmax()))
    return np.array(out, np.int32)


@torch.no_grad()
def video_llava():
    config = VideoLlavaConfig(vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**LLAMA), image_token_index=IMAGE,
                              video_token_index=VIDEO)
    model = VideoLlavaForConditionalGeneration(config).eval()
    g = np.random.default_rng(8)
    pixels = g.standard_normal((8, 3, 28, 28)).astype(np.float32)
    head, tail = [1, 20, 7], [33, 8, 41]
    for seed in range(4, 100):  # one that does not say the same thing over and over
        randomize(model, seed)
        said = masked_greedy(model, head + [VIDEO] * (8 * 17) + tail, GREEDY, pixel_values_videos=torch.tensor(pixels)[None])
        if len(set(said.tolist())) >= 5:
            break
    ids, still = head + [VIDEO] * (8 * 17) + tail, head + [IMAGE] * 16 + tail
    video = dict(pixel_values_videos=torch.tensor(pixels)[None])
    image = dict(pixel_values=torch.tensor(pixels[:1]))
    json_config = dict(architectures=["VideoLlavaForConditionalGeneration"], model_type="video_llava", image_token_index=IMAGE,
                       video_token_index=VIDEO, projector_hidden_act="gelu", vision_feature_layer=-2,
                       vision_feature_select_strategy="default", torch_dtype="float32",
                       text_config=dict(LLAMA, model_type="llama", architectures=["LlamaForCausalLM"]),
                       vision_config=dict(TOWER, model_type="clip_vision_model"))
    put("video-llava", ids=np.array(head + [VIDEO] + tail, np.int32), still_ids=np.array(head + [IMAGE] + tail, np.int32),
        pixels=pixels, logits=model(input_ids=torch.tensor([ids]), **video).logits[0],
        still_logits=model(input_ids=torch.tensor([still]), **image).logits[0],
        greedy=masked_greedy(model, ids, GREEDY, **video), config=json_config, preprocessor_config=PREPROCESS)
    state = hub_names(model.state_dict())
    save_file(state, os.path.join(OUT, "video-llava", "model.safetensors"), metadata={"format": "pt"})
    # The newer names, exactly as the class saves them, and its own config.json
    model.save_pretrained(os.path.join(OUT, "video-llava-v5"))
    leave = os.path.join(OUT, "video-llava-v5", "generation_config.json")
    if os.path.exists(leave):
        os.remove(leave)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    images()
    events()
    clips()
    eventgpt()
    video_llava()
