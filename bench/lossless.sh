#!/usr/bin/env bash
# Drafting against the verifier alone, token for token: every drafter, gamma and tree shape, f32 on the CPU.
# bench/lossless.sh [PROMPTS]   (default 10000; make test runs 1000)
set -eu
cd "$(dirname "$0")/.."
exec build/release/tests/spec_decode/spec_lossless "${1:-10000}"
