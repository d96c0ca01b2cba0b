"""coming_from_test.py PACELINE SOURCE: every sweep in docs/COMING_FROM.md is valid, with our small models under the names that stand there, and has
the published configurations; every example sweep is valid, too."""
import os
import re
import subprocess
import sys
import tempfile

PACELINE, SOURCE = sys.argv[1:3]
MODELS = os.path.join(SOURCE, "examples/models")
NAMES = {"Video-LLaVA-7B-hf": "tiny-video-llava", "EventGPT-7b": "tiny-eventgpt", "adapters": "pair-adapters", "mistral-7b": "small-llama", "sdtp.safetensors":
         "small-llama-sdtp.safetensors", "gpt2": "small-gpt2", "t5-base": "small-t5", "bert-base-uncased": "small-bert", "model-q4_0.gguf":
         "small-llama-q4_0.gguf", "model-q8_0.gguf": "small-llama-q8_0.gguf", "dsec": "../data/pair", "corpus.txt": "../data/heldout.txt"}
PUBLISHED = {"vl_baseline", *(f"L{i}+VL" for i in range(1, 5)), *(f"L{i}_decode" for i in range(1, 6)), "B1_decode", "L5F_decode",
             *(f"L4+VL-g{g}" for g in (1, 2, 4, 8, 16))}


def validate(path, *more):
    p = subprocess.run([PACELINE, "validate", path, *more], capture_output=True, text=True, timeout=60)
    if p.returncode and "FFmpeg" in p.stderr:  # a build without a decoder of clips
        return None
    assert p.returncode == 0 and p.stdout.endswith("\nok\n"), (path, p.stdout, p.stderr)
    return {line.split()[0] for line in p.stdout.splitlines() if line.startswith("  ")}


def main():
    with open(os.path.join(SOURCE, "docs/COMING_FROM.md"), encoding="utf-8") as f:
        sweeps = re.findall(r"^```yaml\n(.*?)^```", f.read(), re.S | re.M)
    arms = {}
    with tempfile.TemporaryDirectory() as tmp:
        for name, target in NAMES.items():
            os.symlink(os.path.join(MODELS, target), os.path.join(tmp, name))
        for text in sweeps:
            name = re.match(r"name: (.*)\n", text).group(1)
            path = os.path.join(tmp, name + ".yaml")
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            arms[name] = validate(path)
            print(name, "ok")
    assert set(arms) == {"e2e-wallclock", "sdtp", "e3", "rocmforge"}, arms
    assert arms["e2e-wallclock"] in (PUBLISHED, None), arms["e2e-wallclock"] ^ PUBLISHED
    assert arms["sdtp"] == {"baseline", "keep09", "keep08", "keep07"}, arms
    assert validate(os.path.join(SOURCE, "examples/sweeps/pair-drafting.yaml")) in (PUBLISHED, None)
    gammas = validate(os.path.join(SOURCE, "examples/sweeps/verify-cost.yaml")) - {"baseline"}
    assert gammas == {f"g{g}" for g in range(1, 32)}, gammas
    for name in ("drafting", "pair", "pair-text", "pair-verify-cost", "text-drafters"):
        path = os.path.join(SOURCE, f"examples/sweeps/{name}.yaml")
        os.chdir(SOURCE)
        validate(path)


main()
