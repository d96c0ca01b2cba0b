#!/usr/bin/env bash
# What drafting costs and hides (bench/drafting.c): overlap of two prefills, one core a lane; the cost of a round; adapters.
set -eu
cd "$(dirname "$0")/.."
exec build/release/tests/spec_decode/bench_drafting
