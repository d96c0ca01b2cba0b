#!/usr/bin/env bash
# fuzz-smoke.sh BUILD [SECONDS]: each libFuzzer target of BUILD (preset fuzz) for so long over its committed corpus, as many at a time as there
# are cores. A finding is left in BUILD/found and fails the run; so does a build without targets. make fuzz runs them for longer.
# fuzz-smoke.sh --there: whether a clang with libFuzzer is.
set -uo pipefail
if [ "${1:-}" = --there ]; then
  echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n > 1u << 30; }' |
    clang -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null
  exit
fi
build=${1:?BUILD} seconds=${2:-3}
top=$(cd "$(dirname "$0")/.." && pwd)
mapfile -t targets < <(cd "$top/tests/fuzz" && basename -a -s .c fuzz_*.c)
mkdir -p "$build/found"

one() { # one TARGET: its own inputs go to a folder that is thrown away
  local grown log rc
  grown=$(mktemp -d) log=$(mktemp)
  "$build/tests/fuzz/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$build/found/$1-" "$grown" "$top/tests/fuzz/corpus/$1" \
    >"$log" 2>&1
  rc=$?
  if [ $rc -eq 0 ]; then
    echo "$1: $(grep -oE 'Done [0-9]+ runs' "$log" | tail -1) over $(find "$top/tests/fuzz/corpus/$1" -type f | wc -l) seeds"
  else
    echo "$1: exit code $rc"
    tail -40 "$log"
  fi
  rm -rf "$grown" "$log"
  return $rc
}
export -f one
export build seconds top
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'one {}'
