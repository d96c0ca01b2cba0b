#!/usr/bin/env bash
# Compares this engine with its peers on this machine: bench/peers.sh [--quick] [--only NAME] [--tests pp512,tg128,tg32@d4096] [--settings 0,1] [--rounds N] [--out FILE [--again]] [BUILD]
#
# Builds llama.cpp (from the PyPI sdist of llama-cpp-python, pinned), makes a Python environment with CTranslate2, transformers and torch (pinned;
# about 5 GB), writes models with random weights, then runs everybody in turn (peers.py) and prints the table. All of it is kept in
# $XDG_CACHE_HOME/paceline/peers (~/.cache/…) and made once; delete the folder to start anew. PACELINE_PEERS_PYTHON names a Python that has the
# three already. --quick takes about ten minutes once everything is there. With --out, models that already stand in FILE are not run again, so
# that a table can be made piece by piece (--only; --tests for some of the GGUF files' tests, --settings for llama.cpp with --repack 0 or 1 alone) in
# quiet minutes.
set -euo pipefail

LLAMA=llama_cpp_python-0.3.36
PIP=(torch==2.15.0 transformers==5.23.0 ctranslate2==4.8.0 gguf==0.19.0 numpy)
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paceline
peers=$cache/peers
build=$here/build/release
args=()
while [ $# -gt 0 ]; do
  case $1 in
  --quick | --again) args+=("$1") ;;
  --only | --tests | --settings | --rounds | --threads | --out) args+=("$1" "$2") && shift ;;
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 0 ;;
  -*) echo "peers.sh: unknown option $1 (--quick, --only NAME, --tests LIST, --settings LIST, --rounds N, --threads N, --out FILE, --again)" >&2 && exit 2 ;;
  *) build=$1 ;;
  esac
  shift
done
runner=$build/cli/runner/paceline-runner
[ -x "$runner" ] || { echo "peers.sh: $runner is not there; build first: cmake --preset release && cmake --build build/release" >&2 && exit 6; }
mkdir -p "$peers"

llama_bench=$peers/llama-build/bin/llama-bench
if [ ! -x "$llama_bench" ]; then
  echo "peers.sh: building llama.cpp (minutes), log in $peers/llama.log" >&2
  [ -e "$peers/$LLAMA.tar.gz" ] || python3 -m pip download -q --no-deps --no-binary :all: -d "$peers" "llama-cpp-python==${LLAMA##*-}"
  tar xzf "$peers/$LLAMA.tar.gz" -C "$peers"
  {
    cmake -S "$peers/$LLAMA/vendor/llama.cpp" -B "$peers/llama-build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
      -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_OPENSSL=OFF
    cmake --build "$peers/llama-build" --target llama-bench -j "$(nproc)"
  } >"$peers/llama.log" 2>&1
fi

python=${PACELINE_PEERS_PYTHON:-$peers/venv/bin/python}
if [ ! -x "$python" ]; then
  echo "peers.sh: installing ${PIP[*]} into $peers/venv" >&2
  python3 -m venv "$peers/venv"
  "$python" -m pip install -q "${PIP[@]}"
fi
"$python" "$here/bench/peers_models.py" "$peers/models" gguf
"$python" "$here/bench/peers_models.py" "$peers/models" hf 2>&1 | tail -1 >&2

exec python3 "$here/bench/peers.py" --runner "$runner" --llama-bench "$llama_bench" --python "$python" --models "$peers/models" \
  --real "$cache/models/smollm2-135m.gguf" "$cache/models/qwen2.5-0.5b.gguf" "${args[@]}"
