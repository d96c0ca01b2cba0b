#!/usr/bin/env bash
# Drafting against the verifier alone. Greedy, f32 on the CPU: token for token, every drafter, gamma and tree shape. Sampling: χ² of
# what comes out against the verifier's own distribution, chains and trees (below the 99.9 % point).
# bench/lossless.sh [PROMPTS] [DRAWS]   (default 10000 and 1000000; make test: 1000 and 100000, of whole sequences 10000)
set -eu
cd "$(dirname "$0")/.."
PACELINE_DRAWS=${2:-1000000} build/release/tests/spec_decode/spec_accept
PACELINE_DRAWS=${2:-1000000} build/release/tests/spec_decode/spec_sampling # whole rounds, by who drafts
build/release/tests/spec_decode/spec_lossless "${1:-10000}"
# The same engine in bf16, and with 8-bit activations: as bit-exact, by design.
build/release/tests/spec_decode/spec_lossless $((${1:-10000} / 10)) bf16
build/release/tests/spec_decode/spec_lossless $((${1:-10000} / 10)) int8
