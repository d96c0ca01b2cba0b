#!/usr/bin/env bash
# bench/vision.sh [EVENTS.npy] [CLIP.mp4] [RUNS]: what it takes on one core from an event file to 5 × 336² pixels and from a clip to
# 8 × 224². Without files: a stream of 132 268 events at 640 × 480 and a clip of 20 frames, both made here (ffmpeg, python3-numpy).
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
events=${1:-$work/events.npy}
clip=${2:-$work/clip.mp4}
runs=${3:-100}
if [ "$events" = "$work/events.npy" ]; then
  "${PYTHON:-/usr/bin/python3}" - "$events" <<'PY'
import sys
import numpy as np
g, n = np.random.default_rng(1), 132268
np.save(sys.argv[1], {"x": g.integers(0, 640, n).astype(np.uint16), "y": g.integers(0, 480, n).astype(np.uint16),
                      "t": np.sort(g.integers(0, 49595, n)).astype(np.uint16), "p": g.integers(0, 2, n).astype(np.uint8)}, allow_pickle=True)
PY
fi
if [ "$clip" = "$work/clip.mp4" ]; then
  ffmpeg -loglevel error -f lavfi -i testsrc=duration=1:size=640x480:rate=20 -pix_fmt yuv420p "$clip"
fi
taskset -c "${CORE:-0}" build/release/tests/model/bench_vision "$events" "$clip" "$runs"
