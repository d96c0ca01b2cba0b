"""Events, clips and pictures through the program: `pixels`, `logits`, `generate` and `inspect` on the golden models and the
trained pair, DSEC's windows by tools/, and what is refused."""
import json
import os
import subprocess
import sys
import tempfile

from lib import npy_floats, npy_read_ids

PROGRAM, SOURCE = sys.argv[1:3]
VISION = os.path.join(SOURCE, "tests/model/vision")
EVENTS, CLIP = VISION + "/events/p4core.npy", VISION + "/clips/second.mp4"
QUESTION = "Describe the scene."


def run(*argv, code=0):
    p = subprocess.run([PROGRAM, *argv], capture_output=True, text=True, timeout=120)
    assert p.returncode == code, (argv, p.returncode, p.stderr)
    return p.stderr if code else p.stdout


def near(out, want, tolerance):
    (shape, got), (want_shape, numbers) = npy_floats(out), npy_floats(want)
    assert shape == want_shape, (shape, want_shape)
    assert max(abs(a - b) for a, b in zip(numbers, got)) <= tolerance * max(map(abs, numbers)), out


def build():
    return json.loads(run("inspect", "--build", "--json"))


def test_commands(tmp, has):
    out, egpt, vl = tmp + "/out.npy", VISION + "/eventgpt", VISION + "/video-llava"
    run("pixels", egpt, "--events", EVENTS, "-o", out)
    near(out, egpt + "/pixels.npy", 1e-5)
    for model, picture in ((egpt, ["--events", EVENTS]), (vl, ["--pixels", vl + "/pixels.npy"])):
        ids = ["--ids-file", model + "/ids.npy"]
        run("logits", model, *ids, *picture, "-o", out)
        near(out, model + "/logits.npy", 1e-4)
        greedy = npy_read_ids(model + "/greedy.npy")
        g = json.loads(run("generate", model, *ids, *picture, "--tokens", str(len(greedy)), "--json"))
        assert g["ids"] == greedy, g
        assert g["tower_ms"] > 0 and g["vision_ms"] >= g["tower_ms"] and g["ttft_ms"] > g["vision_ms"], g
    if has["ffmpeg"]:
        run("pixels", vl, "--video", CLIP, "-o", out)
        assert npy_floats(out)[0] == (8, 3, 28, 28)


def test_pair(tmp, has):
    data, models = SOURCE + "/examples/data/pair", SOURCE + "/examples/models"
    if not os.path.isdir(data):
        return
    g = json.loads(run("generate", models + "/tiny-eventgpt", "--events", data + "/event_npy/shapes/0.npy", "--prompt", QUESTION,
                       "--tokens", "40", "--stop-at-eos", "--json"))
    assert g["text"].startswith("The scene shows one shape. A large circle"), g["text"]
    assert g["prompt_tokens"] == 87 and g["raster_ms"] > 0, g
    if has["ffmpeg"]:
        v = json.loads(run("generate", models + "/tiny-video-llava", "--video", data + "/mp4/shapes/0.mp4", "--prompt", QUESTION,
                           "--tokens", "40", "--stop-at-eos", "--json"))
        assert v["text"].startswith("The scene shows one shape. A large circle"), v["text"]


def test_inspect(tmp, has):
    png = tmp + "/out.png"
    e = json.loads(run("inspect", EVENTS, "--json", *(["-o", png] if has["png"] else [])))
    assert (e["format"], e["events"], e["positive"] + e["negative"], e["width"], e["height"]) == ("events", 203, 203, 40, 31), e
    assert e["sorted"] and e["span_ms"] > 40 and e["events_per_s"] > 1000
    if has["png"]:
        with open(png, "rb") as f:
            assert f.read(8) == b"\x89PNG\r\n\x1a\n"
        assert json.loads(run("inspect", png, "--json"))["width"] > 5 * 30
    if has["ffmpeg"]:
        c = json.loads(run("inspect", CLIP, "--json"))
        assert (c["format"], c["frames"], c["width"], c["height"], c["codec"], c["fps"]) == ("clip", 20, 64, 48, "h264", 20), c
        assert "no video stream" in run("inspect", VISION + "/clips/sound.mp4", code=2)
    m = json.loads(run("inspect", VISION + "/eventgpt", "--json"))
    assert m["vision"]["kind"] == "eventgpt" and m["vision"]["rows"] == 22 and "config_error" not in m


def test_refused(tmp, has):
    egpt, vl, out = VISION + "/eventgpt", VISION + "/video-llava", tmp + "/x.npy"
    ids = ["--ids", "1 20 -200 4"]
    assert "once" in run("logits", egpt, "--ids", "1 2", "--events", EVENTS, "-o", out, code=2)
    assert "outside the vocabulary" in run("logits", egpt, "--ids", "1 61 -200", "--events", EVENTS, "-o", out, code=2)
    assert "-200" in run("logits", egpt, *ids, "-o", out, code=2)
    assert "one of --events" in run("logits", egpt, *ids, "--events", EVENTS, "--pixels", egpt + "/pixels.npy", "-o", out, code=2)
    assert "clips, not events" in run("logits", vl, "--ids", "1 58", "--events", EVENTS, "-o", out, code=2)
    assert "max_window_ms" in run("pixels", egpt, "--events", EVENTS, "--max-window-ms", "40", "-o", out, code=2)
    run("pixels", egpt, "--events", EVENTS, "--max-window-ms", "0", "-o", out)
    assert "text alone" in run("pixels", SOURCE + "/examples/models/tiny-llama", "--events", EVENTS, "-o", out, code=2)
    assert "does not go with it" in run("logits", SOURCE + "/examples/models/tiny-llama", "--ids", "1", "--events", EVENTS, "-o", out, code=2)
    assert "[5, 3, 28, 28]" not in run("pixels", egpt, "--pixels", vl + "/pixels.npy", "-o", out, code=2)
    broken = tmp + "/broken.npy"
    with open(EVENTS, "rb") as f, open(broken, "wb") as g:
        g.write(f.read(700))
    assert "broken.npy" in run("pixels", egpt, "--events", broken, "-o", out, code=2)
    assert "broken.npy" in run("inspect", broken, code=2)


def test_dsec(tmp, has):
    """A recording as DSEC's are, uncompressed, cut by the tool and read again."""
    try:
        import h5py
        import numpy as np
    except ImportError:
        print("skipped: DSEC windows (no h5py)")
        return
    g = np.random.default_rng(2)
    t = np.sort(g.integers(0, 120000, 5000)).astype(np.uint32)
    e = dict(x=g.integers(0, 640, 5000).astype(np.uint16), y=g.integers(0, 480, 5000).astype(np.uint16), p=g.integers(0, 2, 5000).astype(np.uint8), t=t)
    with h5py.File(tmp + "/events.h5", "w") as f:
        for k, v in e.items():
            f["events/" + k] = v
        f["ms_to_idx"] = np.searchsorted(t, 1000 * np.arange(121)).astype(np.uint64)
        f["t_offset"] = np.int64(49599300523)
    tool = [sys.executable, SOURCE + "/tools/dsec_to_npy.py"]
    p = subprocess.run([*tool, tmp + "/events.h5", tmp + "/w"], capture_output=True, text=True)
    assert p.returncode == 0 and p.stdout.startswith("3 windows of 50 ms") and "49599300523" in p.stdout, (p.stdout, p.stderr)
    counts = []
    for i in range(3):
        j = json.loads(run("inspect", f"{tmp}/w/{i}.npy", "--json"))
        want = int(((t >= 50000 * i) & (t < 50000 * (i + 1))).sum())
        assert j["events"] == want and j["t_min_us"] >= 50000 * i and j["t_max_us"] < 50000 * (i + 1), j
        counts.append(want)
    assert sum(counts) == 5000
    p = subprocess.run([*tool, EVENTS, tmp + "/w2"], capture_output=True, text=True)
    assert p.returncode and "dsec_to_npy:" in p.stderr, p.stderr


def main():
    has = build()
    with tempfile.TemporaryDirectory() as tmp:
        for name, test in sorted(globals().items()):
            if name.startswith("test_"):
                test(tmp, has)
                print("ok", name)


main()
