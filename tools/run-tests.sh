#!/usr/bin/env bash
# run-tests.sh RELEASE-BUILD ASAN-BUILD FUZZ-BUILD: all tests of the release build, then the unit tests again under address + undefined
# sanitizers, then the fuzz targets, three seconds each. A skipped test is printed as skipped; with CI=true a skip that tests/allowed-skips does not list fails the run.
set -uo pipefail
release=$1
asan=$2
fuzz=$3
top=$(cd "$(dirname "$0")/.." && pwd)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=0

run() { # run NAME DIR ctest-arguments…
  local name=$1 dir=$2
  shift 2
  echo "== $name"
  ctest --test-dir "$dir" --no-tests=error --output-on-failure "$@" 2>&1 | tee "$logs/$name.log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
}
# Tests share the cores, but for those that fill the machine (RUN_SERIAL).
run release "$release" -j "$(nproc)"
# Open MPI, HDF5 and Python are not ours to sanitize: the labels say which tests are unit tests.
ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 run asan "$asan" -L unit -j "$(nproc)"
echo "== fuzz"
if [ -x "$fuzz/tests/fuzz/fuzz_sweep" ]; then
  "$top/tools/fuzz-smoke.sh" "$fuzz" || failed=1
else
  echo "1/1 Test #1: fuzz .....***Skipped" | tee "$logs/fuzz.log"
fi

skips=$(grep -hoE '[A-Za-z0-9_./-]+ \.+\*+Skipped' "$logs"/*.log | awk '{print $1}' | sort -u)
unlisted=0
for s in $skips; do
  reason=$(awk -v t="$s" '$1 == t {sub(/^[^ ]+ +/, ""); print; exit}' "$top/tests/allowed-skips")
  if [ -n "$reason" ]; then
    echo "skipped: $s (allowed: $reason)"
  else
    echo "skipped: $s (not listed in tests/allowed-skips)"
    unlisted=$((unlisted + 1))
  fi
done
if [ "${CI:-}" = true ] && [ "$unlisted" -gt 0 ]; then
  echo "run-tests: $unlisted skips are not allowed in CI"
  failed=1
fi
passed=$(cat "$logs"/*.log | grep -cE ' Passed +[0-9.]+ sec')
broken=$(cat "$logs"/*.log | grep -cE '\*\*\*(Failed|Timeout|Exception|Not Run)')
echo "$passed passed, $broken failed, $(echo "$skips" | grep -c .) skipped"
exit $failed
