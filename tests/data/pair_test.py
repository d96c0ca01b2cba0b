#!/usr/bin/env python3
"""The tiny pair, its adapters and held-out scenes, and small-llama's drafting heads, as committed:
shapes, sizes, and that the labels are true of the files. Needs numpy alone.
Usage: pair_test.py SOURCE_DIR"""
import json
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(sys.argv[1])
DATA, MODELS = ROOT / "examples/data/pair", ROOT / "examples/models"
SIZE, FPS, FRAMES, PARTS, WINDOW_US = 96, 20, 20, 5, 90_000
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TEXT = {1: "one", 2: "two", 3: "three"}
faults = []


def check(ok, what):
    if not ok:
        faults.append(what)


# ---- events --------------------------------------------------------------------------------

def read_events(path):
    array = np.load(path, allow_pickle=True)
    check(array.shape == () and array.dtype == object, f"{path}: not a 0-d object array")
    return array.item()


def check_events(e, scene, where):
    x, y, t, p = (e[k].astype(np.int64) for k in "xytp")
    check(len(x) == len(y) == len(t) == len(p) and len(t) >= 100, f"{where}: lengths")
    check(x.max() < SIZE and y.max() < SIZE and set(np.unique(p)) == {0, 1}, f"{where}: ranges")
    check((np.diff(t) >= 0).all() and 0 <= t[0] and t[-1] < WINDOW_US, f"{where}: times")
    # A bright shape: the edge in front brightens (p = 1), the one behind darkens.
    for s in scene["shapes"]:
        near = (np.abs(x - s["x"]) < s["r"] + 1) & (np.abs(y - s["y"]) < s["r"] + 1)
        way = WAYS[s["way"]]
        ahead = (x - s["x"]) * way[0] + (y - s["y"]) * way[1]
        lead = ahead[near & (p == 1)].mean() - ahead[near & (p == 0)].mean()
        others = [q for q in scene["shapes"] if q is not s
                  and abs(q["x"] - s["x"]) < 40 and abs(q["y"] - s["y"]) < 40]
        check(others or lead > 0.25 * s["r"], f"{where}: the {s['kind']} seems to move another way")


def raster(e):
    """The event frames as EventGPT has them, event by event."""
    count = len(e["t"])
    for k in range(PARTS):
        part = slice(k * (count // PARTS), count if k == PARTS - 1 else (k + 1) * (count // PARTS))
        x, y, p = (e[key][part].astype(int) for key in "xyp")
        image = np.full((y.max() + 1, x.max() + 1, 3), 255, np.uint8)
        for i in range(len(x)):
            image[y[i], x[i]] = (255, 0, 0) if p[i] else (0, 0, 255)
        yield image


def read_png(path):
    """8-bit truecolour or palette, not interlaced."""
    raw, at, data, palette = path.read_bytes(), 8, b"", None
    while at < len(raw):
        (n,), kind = struct.unpack_from(">I", raw, at), raw[at + 4:at + 8]
        body = raw[at + 8:at + 8 + n]
        if kind == b"IHDR":
            w, h, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
        elif kind == b"PLTE":
            palette = np.frombuffer(body, np.uint8).reshape(-1, 3)
        elif kind == b"IDAT":
            data += body
        at += 12 + n
    if depth != 8 or colour not in (2, 3) or interlace:
        raise SystemExit(f"{path}: a PNG of another kind: depth {depth}, colour {colour}")
    wide = 3 if colour == 2 else 1
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(h, 1 + w * wide)
    out, above = np.zeros((h, w * wide), np.int64), np.zeros(w * wide, np.int64)
    for r in range(h):
        kind, line = lines[r, 0], lines[r, 1:].astype(np.int64)
        if kind in (0, 2):
            out[r] = line + above * (kind == 2) & 255
        for i in range(w * wide if kind not in (0, 2) else 0):
            left, up = (out[r, i - wide], above[i]) if i >= wide else (0, above[i])
            corner = above[i - wide] if i >= wide else 0
            guess = left + up - corner
            near = min((abs(guess - v), k) for k, v in enumerate((left, up, corner)))[1]
            add = (0, left, up, (left + up) // 2, (left, up, corner)[near])[kind]
            out[r, i] = (line[i] + add) & 255
        above = out[r]
    return palette[out] if colour == 3 else out.reshape(h, w, 3).astype(np.uint8)


# ---- clips ---------------------------------------------------------------------------------

def boxes(raw, path):
    """The bodies of the boxes at `path` (b"moov/trak")."""
    name, _, rest = path.partition(b"/")
    at = 0
    while at + 8 <= len(raw):
        n, kind = struct.unpack_from(">I4s", raw, at)
        if n < 8:
            return
        if kind == name:
            body = raw[at + 8:at + n]
            yield from boxes(body, rest) if rest else [body]
        at += n


def check_clip(path):
    raw = path.read_bytes()
    inside = b"moov/trak/mdia/minf/stbl/"
    (head,), (sizes,) = boxes(raw, b"moov/trak/mdia/mdhd"), boxes(raw, inside + b"stsz")
    (kinds,) = boxes(raw, inside + b"stsd")
    scale, length = struct.unpack_from(">II", head, 12)
    check(length == scale * FRAMES // FPS, f"{path}: {length / scale} s, expected 1 s")
    check(struct.unpack_from(">I", sizes, 8)[0] == FRAMES, f"{path}: not {FRAMES} frames")
    check(kinds[12:16] == b"avc1", f"{path}: not H.264")
    check(struct.unpack_from(">HH", kinds, 40) == (SIZE, SIZE), f"{path}: not {SIZE} × {SIZE}")


# ---- questions -----------------------------------------------------------------------------

def place(s):
    return f"at the {s['row']} {s['column']}"


def move(s):
    return f"{s['speed']} " + ({"left": "to the left", "right": "to the right"}.get(s["way"],
                                                                                    s["way"]))


def true_answer(question, shapes):
    """Written anew from the scene's truth, not with the generator's code."""
    kinds = [s["kind"] for s in shapes]
    n = f"{TEXT[len(shapes)]} shape" + "s" * (len(shapes) > 1)
    be = "are" if len(shapes) > 1 else "is"
    if question == "Describe the scene.":
        return " ".join([f"The scene shows {n}."] + [
            f"A {s['size']} {s['kind']} is {place(s)}, and it moves {move(s)}." for s in shapes])
    if question == "How many shapes are there?":
        return f"There {be} {n}."
    if question == "How do the shapes move?":
        return " ".join(f"The {s['kind']} moves {move(s)}." for s in shapes)
    if question == "Where are the shapes?":
        return " ".join(f"The {s['kind']} is {place(s)}." for s in shapes)
    if question == "Which shapes are there?":
        text = re.sub(r", ([^,]*)$", r" and \1", ", ".join(f"a {k}" for k in kinds))
        return f"There {be} {text}."
    kind = re.search("square|circle|triangle", question)[0]
    if kind not in kinds:
        return f"There is no {kind}."
    s = shapes[kinds.index(kind)]
    ends = {"Which way": "moves " + move(s).split(" ", 1)[1], "Where is": f"is {place(s)}",
            "How fast": f"moves {s['speed']}", "Is the": f"is {s['size']}",
            "What color": f"is {s['color']}"}
    return f"The {kind} " + next(v for k, v in ends.items() if question.startswith(k)) + "."


def check_scenes():
    items = json.loads((DATA / "instruction.json").read_text())
    scenes = [json.loads(line) for line in (DATA / "scenes.jsonl").read_text().splitlines()]
    check(len(items) == len(scenes) == 24, "not 24 scenes")
    check(len((DATA / "questions.txt").read_text().splitlines()) == 10, "not 10 questions")
    lengths = []
    for k, (item, scene) in enumerate(zip(items, scenes)):
        check(item["event_data"] == f"event_npy/shapes/{k}.npy", f"scene {k}: its event file")
        e = read_events(DATA / item["event_data"])
        check_events(e, scene, f"scene {k}")
        for j, image in enumerate(raster(e)):
            stored = read_png(DATA / f"event_image/shapes/{k}_{j}.png")
            check(np.array_equal(stored, image), f"scene {k}: event image {j}")
        check_clip(DATA / f"mp4/shapes/{k}.mp4")
        turns = item["conversations"]
        check([t["from"] for t in turns] == ["human", "gpt"] * 10, f"scene {k}: turns")
        for q, a in zip(turns[::2], turns[1::2]):
            question = q["value"].removeprefix("<event>\n")
            want = true_answer(question, scene["shapes"])
            check(a["value"] == want, f"scene {k}: {question} {a['value']}, expected {want}")
        lengths.append(len(re.findall(r"\w+|[.,]", turns[1]["value"])))
    check(min(lengths) >= 20 and max(lengths) <= 60, f"descriptions of {min(lengths)} to "
          f"{max(lengths)} words and stops")
    total = sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file())
    check(total <= 3_000_000, f"{total} bytes of scenes, expected at most 3,000,000")


# ---- models --------------------------------------------------------------------------------

def tensors(path):
    raw = path.read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    head = json.loads(raw[8:8 + n])
    head.pop("__metadata__", None)
    for name, t in head.items():
        begin, end = t["data_offsets"]
        values = np.frombuffer(raw[8 + n + begin:8 + n + end], "<u2").astype(np.uint32) << 16
        check(t["dtype"] == "BF16" and np.isfinite(values.view(np.float32)).all(),
              f"{path}: {name}: not finite bf16")
    return {name: tuple(t["shape"]) for name, t in head.items()}


def check_model(name, tower, projector, language, head):
    folder = MODELS / name
    shapes = tensors(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    params = sum(int(np.prod(s)) for s in shapes.values())
    check(params <= 1_200_000, f"{name}: {params} parameters, expected at most 1,200,000")
    eyes = config.get("vision_config")
    if not eyes:
        eyes = json.loads((folder / config["mm_visual_tower"] / "config.json").read_text())
    w, d, vocab = eyes["hidden_size"], text["hidden_size"], text["vocab_size"]
    check((eyes["image_size"], eyes["patch_size"]) == (84, 14), f"{name}: the picture's size")
    want = {tower + "embeddings.position_embedding.weight": (37, w),
            tower + "embeddings.patch_embedding.weight": (w, 3, 14, 14),
            tower + f"encoder.layers.{eyes['num_hidden_layers'] - 1}.mlp.fc1.weight":
                (eyes["intermediate_size"], w),
            projector[0] + ".weight": (d, w), projector[1] + ".weight": (d, d),
            language + "embed_tokens.weight": (vocab, d), head: (vocab, d),
            language + f"layers.{text['num_hidden_layers'] - 1}.mlp.down_proj.weight":
                (d, text["intermediate_size"])}
    for key, shape in want.items():
        check(shapes.get(key) == shape, f"{name}: {key} is {shapes.get(key)}, expected {shape}")
    fast = json.loads((folder / "tokenizer.json").read_text())
    ids = {t["content"]: t["id"] for t in fast["added_tokens"]}
    check(max(ids.values()) == vocab - 1 and len(fast["model"]["vocab"]) + 6 == vocab,
          f"{name}: {vocab} words, other tokens")
    return ids, config


def check_models():
    eg, _ = check_model("tiny-eventgpt", "model.visual_tower.visual_tower.vision_model.",
                        ("model.visual_projector.0", "model.visual_projector.2"), "model.",
                        "lm_head.weight")
    vl, config = check_model("tiny-video-llava", "video_tower.vision_model.",
                             ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2"),
                             "language_model.model.", "language_model.lm_head.weight")
    check(eg == vl, "the two tokenizers differ")
    check((config["video_token_index"], config["image_token_index"]) ==
          (vl["<video>"], vl["<image>"]), "tiny-video-llava: the vision tokens' ids")
    files = [MODELS / n / "model.safetensors" for n in ("tiny-eventgpt", "tiny-video-llava")]
    total = sum(f.stat().st_size for f in files)
    check(total <= 5_000_000, f"{total} bytes of weights, expected at most 5,000,000")
    a, b = ((f.parent / "tokenizer.json").read_bytes() for f in files)
    check(a == b, "the two tokenizer.json differ")


def check_adapters():
    """The published modules' names; alpha a scalar. L5, B1 and L5F know 512 places."""
    d, total = 128, 0
    norm, attn = "layers.0.attn_norm.weight", "layers.0.attn.in_proj_weight"
    want = {"L1": {"layers.0.down_proj.weight": (32, d), "layers.0.alpha_param": (),
                   "final_norm.bias": (d,)},
            "L2": {"blocks.2.up_proj.weight": (d, 32), "final_norm.weight": (d,)},
            "L3": {"input_norm.weight": (d,), "blocks.1.4.weight": (d, 64), "alphas.1": ()},
            "L4": {norm: (d,), attn: (3 * d, d), "output_proj.1.weight": (d, d), "alpha": ()},
            "L5": {"pos_embed": (1, 512, d), attn: (3 * d, d), "output_norm.bias": (d,)},
            "L5F": {"gate.0.weight": (d, 2 * d), "fusion_proj.bias": (d,), "alpha": ()}}
    want["B1"] = want["L5"]
    for name, keys in want.items():
        path = MODELS / "pair-adapters" / f"{name}.safetensors"
        shapes, total = tensors(path), total + path.stat().st_size
        for key, shape in keys.items():
            check(shapes.get(key) == shape, f"{name}: {key} is {shapes.get(key)}, not {shape}")
    check(total <= 2_000_000, f"{total} bytes of adapters, expected at most 2,000,000")


def check_heads():
    """small-llama's: EAGLE without its copy of the embedding, Medusa with one block a head."""
    d, folder = 256, MODELS / "small-llama-heads"
    eagle, medusa = (tensors(folder / f"{n}.safetensors") for n in ("eagle", "medusa"))
    want = {"fc.weight": (d, 2 * d), "fc.bias": (d,), "layers.0.self_attn.k_proj.weight": (64, d),
            "layers.0.mlp.down_proj.weight": (d, 128),
            "layers.0.post_attention_layernorm.weight": (d,)}
    for key, shape in want.items():
        check(eagle.get(key) == shape, f"eagle: {key} is {eagle.get(key)}, not {shape}")
    check("layers.0.input_layernorm.weight" not in eagle, "eagle: an input norm")
    check(medusa == {f"{k}.0.linear.{part}": shape for k in range(3)
                     for part, shape in (("weight", (d, d)), ("bias", (d,)))}, "medusa: its shapes")


check_scenes()
check_models()
check_adapters()
check_heads()
for fault in faults:
    print(fault, file=sys.stderr)
sys.exit(bool(faults))
