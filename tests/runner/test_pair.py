"""The tiny EventGPT and Video-LLaVA answer truly about held-out scenes, from the stored event files
and clips, and otherwise when another scene's file is put in their place."""
import json
import os
import subprocess
import sys

from lib import need

PROGRAM, SOURCE = sys.argv[1:3]
DATA = need(os.path.join(SOURCE, "examples/data/pair"))
MODELS = {name: need(os.path.join(SOURCE, "examples/models", name))
          for name in ("tiny-eventgpt", "tiny-video-llava")}


def ask(name, scene, question):
    option, folder, ending = (("--events", "event_npy", "npy") if name == "tiny-eventgpt" else
                              ("--video", "mp4", "mp4"))
    p = subprocess.run([PROGRAM, "generate", MODELS[name], option,
                        f"{DATA}/{folder}/shapes/{scene}.{ending}", "--prompt", question,
                        "--tokens", "72", "--stop-at-eos", "--json", "--dtype", "f32"],
                       capture_output=True, text=True, timeout=60)
    if p.returncode and "FFmpeg" in p.stderr:
        print("the clips need FFmpeg, which this build lacks:", p.stderr.strip())
        sys.exit(77)
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout)["text"].strip()


items = json.load(open(f"{DATA}/instruction.json"))
for name in MODELS:
    right = {True: 0, False: 0}
    for k in range(4):
        turns = items[k]["conversations"]
        for q, a in list(zip(turns[::2], turns[1::2]))[:2]:
            question = q["value"].removeprefix("<event>\n")
            for own in right:
                right[own] += ask(name, k if own else k + 4, question) == a["value"]
    assert right[True] == 8, f"{name}: {right[True]} of 8 answers right, expected all"
    assert right[False] <= 4, f"{name}: {right[False]} of 8 right with another scene's file"
