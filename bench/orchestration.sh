#!/usr/bin/env bash
# bench/orchestration.sh [BUILD] [TRIALS]: what orchestration costs, with the virtual simulated engine (trials take no time, so all that is
# left is ours): µs a trial end to end with 3 ranks, committed rows a second from the writers alone, what a waiting rank takes of a core,
# rank 0's memory. BUILD: a build folder (default build/release), TRIALS: default 100000 (and 1000000 for the flatness).
set -eu
build=${1:-build/release}
trials=${2:-100000}
paceline=$(cd "$build/cli" && pwd)/paceline
export PACELINE_RUNNER=${PACELINE_RUNNER:-$(cd "$build/cli/runner" && pwd)/paceline-runner}
export OMPI_MCA_rmaps_base_oversubscribe=1 NO_COLOR=1
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sweep() { # sweep VIRTUAL DECODE_US SAMPLES
  cat <<YAML
name: orchestration
seed: 1
data: {kind: synthetic}
models: {sim: {engine: sim, virtual: $1, decode_us: $2, noise: 0.05}}
arms:
  base: {model: sim}
  fast: {model: sim, scale: 0.98}
baseline: base
grid: {contexts: [1024], samples: $3, repeats: 10}
generate: {tokens: 128}
measure: {warmup: 3}
YAML
}
ticks() { # ticks PID: CPU time in clock ticks, user + system
  sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'
}
ranks_of() { # ranks_of MPIRUN: process ids of its ranks, in order
  tr ' ' '\n' < "/proc/$1/task/$1/children" | sort -n | sed '/^$/d'
}

echo "machine: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, load $(cut -d' ' -f1-3 /proc/loadavg)"

sweep true 300 $((trials / 20)) > "$work/a.yaml"
begin=$(date +%s%N)
(
  TIMEFORMAT='%U %S'
  time mpirun -n 3 "$paceline" run "$work/a.yaml" -o "$work/a.h5" 2> "$work/log"
) 2> "$work/cpu" &
job=$!
rss=0
while kill -0 $job 2> /dev/null; do
  launcher=$(ranks_of $job 2> /dev/null | head -n 1) || true
  first=$(ranks_of "${launcher:-0}" 2> /dev/null | head -n 1) || true
  if [ -n "${first:-}" ]; then
    now=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$first/status" 2> /dev/null) || true
    rss=$((${now:-0} > rss ? ${now:-0} : rss))
  fi
  sleep 0.2
done
wait $job
end=$(date +%s%N)
awk -v ns=$((end - begin)) -v n="$trials" -v rss="$rss" -v cpu="$(cat "$work/cpu")" 'BEGIN {
  printf "end to end, 3 ranks: %d trials of 128 tokens in %.1f s, start and end included: %.1f us a trial, %.0f trials/s\n", n, ns / 1e9, ns / 1e3 / n, n / (ns / 1e9)
  split(cpu, t, " ")
  printf "CPU of all five processes: %.1f us a trial\n", (t[1] + t[2]) * 1e6 / n
  printf "rank 0 resident: %.1f MiB\n", rss / 1024 }'
"$paceline" verify "$work/a.h5" | tail -n 1
rm -f "$work/a.h5"

# A rank with nothing to do: rank 0 while the workers measure long trials, and a worker that found no block.
sweep false 20000 1 | sed 's/repeats: 10/repeats: 2/; s/\[1024\]/[16]/' > "$work/w.yaml"
mpirun -n 3 "$paceline" run "$work/w.yaml" -o "$work/w.h5" 2> "$work/log" &
job=$!
sleep 3
for who in "0 (coordinator, workers measure)" "2 (worker without a block)"; do
  pid=$(ranks_of $job | sed -n "$((${who%% *} + 1))p")
  before=$(ticks "$pid")
  sleep 5
  after=$(ticks "$pid")
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v who="$who" \
    'BEGIN { printf "waiting rank %s: %.1f %% of a core\n", who, 100 * t / hz / 5 }'
done
kill -TERM $job
wait $job || true

if [ -x "$build/tests/results/bench_rows" ]; then
  echo "writers alone:"
  "$build/tests/results/bench_rows" -p 2 -n 50000 -t 128 -o "$work/r.h5"
fi
