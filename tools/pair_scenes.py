"""Scenes of moving shapes, seen by an event camera and by a video camera.

A scene is one to three shapes of different kinds on a dark ground, each with a size, a colour,
a place, a direction and a speed. From one seed follow

  events(scene)   the stream of the middle 90 ms: a pixel fires when its log brightness has moved
                  by its threshold (mismatched from pixel to pixel) since it last fired; noise
                  events beside; x, y, t (µs from the window's start), p, sorted by t
  clip(scene)     20 RGB frames of one second, with sensor noise
  questions(scene, rng)   (type, question, answer) with the true answer

and what the two published models do with them before their towers: event_frames and pixels.
Numpy and PIL alone.
"""
import subprocess

import numpy as np
from PIL import Image

SIZE = 96  # pixels of the sensor and of the clip, both ways
IMAGE, PATCH = 84, 14
GRID = IMAGE // PATCH
FRAMES, FPS = 20, 20
WINDOW_START, WINDOW_US = 455_000, 90_000  # in the clip's time
VIDEO_FRAMES = [int(i) for i in np.arange(0, FRAMES, FRAMES / 8)]  # as the Hugging Face processor
EVENT_FRAMES = 5
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

KINDS = ["square", "circle", "triangle"]
SIZES = ["small", "large"]
COLORS = {"red": (225, 70, 60), "green": (70, 205, 85), "blue": (80, 125, 245),
          "yellow": (235, 215, 70)}
ROWS, COLUMNS = ["top", "middle", "bottom"], ["left", "center", "right"]
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slowly": (14, 22), "fast": (42, 54)}  # pixels a second
RADII = {"small": (8, 10), "large": (13, 15)}
COUNTS = ["no", "one", "two", "three"]
CONTENT = set(KINDS + SIZES + list(COLORS) + ROWS + COLUMNS + list(WAYS) + list(SPEEDS) + COUNTS)


# ---- a scene -------------------------------------------------------------------------------

def scene(seed):
    """{seed, ground, shapes: [{kind, size, color, row, column, way, speed, r, x, y, vx, vy}]}.

    The shapes stand in the order of KINDS, which is the answers' order; x, y are pixels at the
    middle of the clip, and row and column are where that is.
    """
    rng = np.random.default_rng([20260, seed])
    n = int(rng.integers(1, 4))
    kinds = sorted(rng.permutation(3)[:n])
    cells = rng.permutation(9)[:n]
    shapes = []
    for kind, cell in zip(kinds, cells):
        size = SIZES[rng.integers(2)]
        way = list(WAYS)[rng.integers(4)]
        speed = list(SPEEDS)[rng.integers(2)]
        r = rng.uniform(*RADII[size])
        v = rng.uniform(*SPEEDS[speed])
        jitter = rng.uniform(-4, 4, 2) if size == "small" else rng.uniform(-2, 2, 2)
        row, column = divmod(int(cell), 3)
        shapes.append(dict(
            kind=KINDS[kind], size=size, color=list(COLORS)[rng.integers(4)], row=ROWS[row],
            column=COLUMNS[column], way=way, speed=speed, r=float(r),
            x=float(column * 32 + 15.5 + jitter[0]), y=float(row * 32 + 15.5 + jitter[1]),
            vx=float(v * WAYS[way][0]), vy=float(v * WAYS[way][1])))
    return dict(seed=int(seed), ground=float(rng.uniform(25, 42)), shapes=shapes)


def distance(shape, dx, dy):
    """Signed distance (about) from the shape's edge, negative inside."""
    r = shape["r"]
    if shape["kind"] == "circle":
        return np.hypot(dx, dy) - r
    if shape["kind"] == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - 0.9 * r
    return np.maximum(dy - 0.8 * r, 0.894 * np.abs(dx) - 0.447 * dy - 0.58 * r)


def draw(s, t, image, value):
    """The shapes at t µs into `image` [SIZE, SIZE(, 3)]; value(shape) is the colour."""
    for shape in s["shapes"]:
        cx = shape["x"] + shape["vx"] * (t / 1e6 - 0.5)
        cy = shape["y"] + shape["vy"] * (t / 1e6 - 0.5)
        reach = shape["r"] * 1.4 + 2
        x0, x1 = max(0, int(cx - reach)), min(SIZE, int(cx + reach) + 1)
        y0, y1 = max(0, int(cy - reach)), min(SIZE, int(cy + reach) + 1)
        if x0 >= x1 or y0 >= y1:
            continue
        d = distance(shape, np.arange(x0, x1) - cx, np.arange(y0, y1)[:, None] - cy)
        cover = np.clip(0.5 - d / 1.5, 0, 1)
        box = image[y0:y1, x0:x1]
        if box.ndim == 3:
            cover = cover[:, :, None]
        box += cover * (value(shape) - box)


def owners(s, t):
    """[GRID, GRID] u1: which shape a patch's middle shows at t µs, or 255. For training alone."""
    at = (np.arange(GRID) + 0.5) * PATCH * SIZE / IMAGE - 0.5
    out = np.full((GRID, GRID), 255, np.uint8)
    for k, shape in enumerate(s["shapes"]):
        cx = shape["x"] + shape["vx"] * (t / 1e6 - 0.5)
        cy = shape["y"] + shape["vy"] * (t / 1e6 - 0.5)
        out[distance(shape, at - cx, at[:, None] - cy) < 3] = k
    return out


# ---- the two cameras -----------------------------------------------------------------------

def clip(s):
    """[FRAMES, SIZE, SIZE, 3] u1."""
    rng = np.random.default_rng([20261, s["seed"]])
    out = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    for k in range(FRAMES):
        image = np.full((SIZE, SIZE, 3), s["ground"])
        draw(s, k * 1e6 / FPS, image, lambda shape: np.array(COLORS[shape["color"]], float))
        out[k] = np.clip(np.rint(image + rng.normal(0, 1.5, image.shape)), 0, 255)
    return out


def events(s, threshold=0.25, mismatch=0.03, noise_hz=0.3, step_us=3000):
    """{x, y: u2, t: u4, p: u1}, sorted by t.

    Contrast threshold: a pixel keeps the log brightness at which it last fired and fires once
    for each threshold that the brightness has passed since, the time interpolated within the
    step; it starts somewhere inside its band. Noise: a Poisson process in every pixel.
    """
    rng = np.random.default_rng([20262, s["seed"]])
    theta = np.clip(rng.normal(threshold, mismatch, (SIZE, SIZE)), 0.1, None)

    def log_brightness(t):
        image = np.full((SIZE, SIZE), s["ground"])
        draw(s, t, image, lambda shape: float(np.dot(COLORS[shape["color"]],
                                                     (0.299, 0.587, 0.114))))
        return np.log(image + 10)

    last = log_brightness(WINDOW_START)
    ref = last + rng.uniform(-1, 1, last.shape) * theta * 0.5
    xs, ys, ts, ps = [], [], [], []
    for t in range(step_us, WINDOW_US + 1, step_us):
        now = log_brightness(WINDOW_START + t)
        while True:
            y, x = np.nonzero(np.abs(now - ref) >= theta)
            if not len(y):
                break
            up = now[y, x] > ref[y, x]
            ref[y, x] += np.where(up, theta[y, x], -theta[y, x])
            moved = now[y, x] - last[y, x]
            part = np.divide(ref[y, x] - last[y, x], moved, out=np.ones_like(moved),
                             where=np.abs(moved) > 1e-9)
            xs.append(x), ys.append(y), ps.append(up)
            ts.append(t - step_us + np.clip(part, 0, 1) * step_us)
        last = now
    n = rng.poisson(noise_hz * SIZE * SIZE * WINDOW_US / 1e6)
    xs.append(rng.integers(0, SIZE, n)), ys.append(rng.integers(0, SIZE, n))
    ts.append(rng.uniform(0, WINDOW_US, n)), ps.append(rng.integers(0, 2, n))
    t = np.clip(np.concatenate(ts), 0, WINDOW_US - 1).astype(np.uint32)
    order = np.argsort(t, kind="stable")
    return dict(x=np.concatenate(xs)[order].astype(np.uint16),
                y=np.concatenate(ys)[order].astype(np.uint16), t=t[order],
                p=np.concatenate(ps)[order].astype(np.uint8))


def encode(frames, path=None):
    """[clips * FRAMES, SIZE, SIZE, 3] u1 as H.264, every clip from a key frame on.

    Returns the frames that a player sees; with `path`, the mp4 stays there."""
    shape = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE}x{SIZE}"]
    quiet = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-threads", "1"]
    x264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-g", str(FRAMES),
            "-keyint_min", str(FRAMES), "-sc_threshold", "0", "-pix_fmt", "yuv420p",
            "-threads", "1"]
    if path:
        where = ["-movflags", "+faststart", "-fflags", "+bitexact", "-y", str(path)]
    else:
        where = ["-f", "h264", "-"]
    done = subprocess.run(quiet + shape + ["-r", str(FPS), "-i", "-"] + x264 + where,
                          input=frames.tobytes(), stdout=subprocess.PIPE, check=True)
    source = ["-i", str(path)] if path else ["-f", "h264", "-i", "-"]
    raw = subprocess.run(quiet + source + ["-f", "rawvideo", "-pix_fmt", "rgb24", "-vsync", "0",
                                           "-"],
                         input=None if path else done.stdout, stdout=subprocess.PIPE,
                         check=True).stdout
    seen = np.frombuffer(raw, np.uint8).reshape(-1, SIZE, SIZE, 3)
    if len(seen) != len(frames):
        raise SystemExit(f"ffmpeg gave back {len(seen)} of {len(frames)} frames")
    return seen


# ---- what the towers get -------------------------------------------------------------------

def event_frames(e, n=EVENT_FRAMES):
    """Parts of equal count, the rest in the last; white ground, p 0 blue, else red, last wins."""
    out, count = [], len(e["t"])
    for k in range(n):
        part = slice(k * (count // n), count if k == n - 1 else (k + 1) * (count // n))
        x, y, p = e["x"][part].astype(int), e["y"][part].astype(int), e["p"][part]
        image = np.full((y.max() + 1, x.max() + 1, 3), 255, np.uint8)
        # Numpy's fancy assignment leaves open which of two wins, so keep each pixel's last.
        at = y * image.shape[1] + x
        keep = len(at) - 1 - np.unique(at[::-1], return_index=True)[1]
        image[y[keep], x[keep]] = np.where(p[keep, None] == 0, (0, 0, 255), (255, 0, 0))
        out.append(image)
    return out


def shrink(image):
    """CLIP's: the short side to IMAGE by PIL's bicubic, then the middle. u1 in and out."""
    h, w = image.shape[:2]
    short = min(h, w)
    size = (int(w * IMAGE / short), int(h * IMAGE / short))
    small = np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC))
    top, left = (small.shape[0] - IMAGE) // 2, (small.shape[1] - IMAGE) // 2
    return small[top:top + IMAGE, left:left + IMAGE]


def pixels(images):
    """[n, IMAGE, IMAGE, 3] u1 → [n, 3, IMAGE, IMAGE] f4."""
    return ((images.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)


# ---- questions -----------------------------------------------------------------------------

DESCRIBE = ["Describe the scene.", "Describe the following scene.", "What is this scene about?",
            "What elements are present in the scene?", "What do you see happening in this scene?"]
MOTION = ["How do the shapes move?", "Describe the motion of every shape."]
LAYOUT = ["Where are the shapes?", "Describe the layout of the scene."]
COUNT = ["How many shapes are there?"]
WHICH = ["Which shapes are there?"]
ONE = {  # about one shape, {k} its kind, maybe with its colour
    "way": ["Which way does the {k} move?"],
    "place": ["Where is the {k}?"],
    "speed": ["How fast does the {k} move?"],
    "size": ["Is the {k} small or large?"],
    "color": ["What color is the {k}?"],
}
SCENE_FREE = [  # a question file for scene × question: none of these names what must be there
    "Describe the scene.", "What elements are present in the scene?", "How do the shapes move?",
    "Where are the shapes?", "How many shapes are there?", "Which shapes are there?",
    "Which way does the square move?", "Where is the circle?", "How fast does the triangle move?",
    "What color is the square?",
]


def way_text(shape):
    return f"to the {shape['way']}" if shape["vx"] else shape["way"]


def one_answer(kind, shape, what):
    if shape is None:
        return f"There is no {kind}."
    return {"way": f"The {kind} moves {way_text(shape)}.",
            "place": f"The {kind} is at the {shape['row']} {shape['column']}.",
            "speed": f"The {kind} moves {shape['speed']}.",
            "size": f"The {kind} is {shape['size']}.",
            "color": f"The {kind} is {shape['color']}."}[what]


def answer(s, question):
    """(type, the true answer)."""
    shapes = s["shapes"]
    n = len(shapes)
    if question in DESCRIBE:
        parts = [f"A {q['size']} {q['kind']} is at the {q['row']} {q['column']}, and it moves "
                 f"{q['speed']} {way_text(q)}." for q in shapes]
        return "describe", " ".join([f"The scene shows {COUNTS[n]} shape{'s' * (n > 1)}."] + parts)
    if question in MOTION:
        return "motion", " ".join(f"The {q['kind']} moves {q['speed']} {way_text(q)}."
                                  for q in shapes)
    if question in LAYOUT:
        return "layout", " ".join(f"The {q['kind']} is at the {q['row']} {q['column']}."
                                  for q in shapes)
    if question in COUNT:
        return "count", f"There {'are' if n > 1 else 'is'} {COUNTS[n]} shape{'s' * (n > 1)}."
    if question in WHICH:
        names = [f"a {q['kind']}" for q in shapes]
        text = names[0] if n == 1 else ", ".join(names[:-1]) + " and " + names[-1]
        return "which", f"There {'are' if n > 1 else 'is'} {text}."
    words = question.rstrip("?").split()
    kind = next(k for k in KINDS if k in words)
    starts = {"Which": "way", "Where": "place", "How": "speed", "Is": "size", "What": "color"}
    what = starts[words[0]]
    shape = next((q for q in shapes if q["kind"] == kind), None)
    return what, one_answer(kind, shape, what)


def ask(s, rng, what):
    """A question of the type."""
    lists = dict(describe=DESCRIBE, motion=MOTION, layout=LAYOUT, count=COUNT, which=WHICH)
    if what in lists:
        return lists[what][rng.integers(len(lists[what]))]
    present = rng.random() < 0.8
    shape = s["shapes"][rng.integers(len(s["shapes"]))] if present else None
    kind = shape["kind"] if present else KINDS[rng.integers(3)]
    if present and what != "color" and rng.random() < 0.3:
        kind = f"{shape['color']} {kind}"
    return ONE[what][0].format(k=kind)


TYPES = ["describe", "motion", "layout", "count", "which", "way", "place", "speed", "size",
         "color"]
