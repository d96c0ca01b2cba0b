#!/usr/bin/env bash
# demo.sh BUILD: the demo sweep on this machine's CPU under mpirun (rank 0 and two workers), then its tables and report.html.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
out=${PACELINE_DEMO_OUT:-demo}
ranks=${PACELINE_DEMO_RANKS:-3}

mkdir -p "$out"
rm -rf "$out/report" "$out/sweep.h5"*
launch=(mpirun --oversubscribe -n "$ranks")
[ "$(id -u)" -eq 0 ] && launch+=(--allow-run-as-root)

"$build/cli/paceline" validate examples/sweeps/demo.yaml
"${launch[@]}" "$build/cli/paceline" run examples/sweeps/demo.yaml -o "$out/sweep.h5"
"$build/cli/paceline" verify "$out/sweep.h5"
"$build/cli/paceline" report "$out/sweep.h5" -o "$PWD/$out/report"
