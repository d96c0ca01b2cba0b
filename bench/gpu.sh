#!/usr/bin/env bash
# Everything that wants a GPU, in one command of at most eight minutes: bench/gpu.sh [OPTION…]
#
#   --out DIR       where report.json, report.md and logs go (build/gpu-report)
#   --budget S      seconds for everything (480): each part has a share, and what it leaves over goes to the next; building, where nothing is
#                   built, takes at most 150 of them, and the parts share the rest. --dry-run prints who may run from when to when
#   --only A,B      these parts alone; --list prints them in their order, the most worth first
#   --device D      cuda (default), cuda:N, or cpu with --small: the same parts at toy sizes, to try this script itself
#   --small         toy sizes
#   --emulated DIR  a rehearsal: toy sizes on the emulated GPU that the build folder DIR has (targets paceline-runner-emu, bench_ops-emu,
#                   test_cuda_ops, test_cuda_stage, paceline), every part but the sanitizer's; what it writes says so
#
# Nothing is built that can be found built: the folder that bench/gpu-pack.sh makes (.gpu/), or build/release. Where there is neither but a
# toolkit and libraries are, paceline-runner is built. Every part's failure is in the report, which is on disk after each figure; none stops the others. Exit code: 0 all parts
# ran, 1 some failed, 6 there is no GPU (the report is written all the same). It leaves the card's settings alone.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here" || exit 6
began=$SECONDS
case " $* " in *" --list "* | *" --dry-run "*) exec python3 bench/gpu.py "$@" ;; esac
case " $* " in *" --emulated "*) exec python3 bench/gpu.py "$@" ;; esac
if [ -f .gpu/pack.tar.xz ] && [ ! .gpu/unpacked/stamp -nt .gpu/pack.tar.xz ]; then # xz may be missing: Python has its own
  rm -rf .gpu/unpacked && mkdir -p .gpu/unpacked &&
    { tar xJf .gpu/pack.tar.xz -C .gpu/unpacked 2>/dev/null ||
      python3 -c 'import tarfile; tarfile.open(".gpu/pack.tar.xz").extractall(".gpu/unpacked")'; } && touch .gpu/unpacked/stamp
fi
if [ ! -x .gpu/unpacked/bin/paceline-runner ] && [ ! -x build/release/cli/runner/paceline-runner ] && [ -z "${PACELINE_RUNNER:-}" ]; then
  echo "gpu.sh: nothing is built; building paceline-runner (bench/gpu-pack.sh elsewhere spares this)" >&2
  { cmake -S . -B build/release -DCMAKE_BUILD_TYPE=Release -DPACELINE_ORCHESTRATOR=OFF -DPACELINE_TESTS=OFF -DCMAKE_CUDA_ARCHITECTURES=native &&
    timeout 150 cmake --build build/release -j "$(nproc)"; } >build-gpu.log 2>&1 || tail -5 build-gpu.log >&2
fi
PACELINE_GPU_SPENT=$((SECONDS - began)) exec python3 bench/gpu.py "$@"
