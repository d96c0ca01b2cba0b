#!/usr/bin/env bash
# demo.sh BUILD: two sweeps on this machine's CPU under mpirun (rank 0 and two workers), then their tables and report.html: small
# language models on text, and the pair of models with eyes on scenes.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
out=${PACELINE_DEMO_OUT:-demo}
ranks=${PACELINE_DEMO_RANKS:-3}

mkdir -p "$out"
rm -rf "$out/report" "$out/sweep.h5"* "$out/pair" "$out/pair.h5"*
launch=(mpirun --oversubscribe -n "$ranks")
[ "$(id -u)" -eq 0 ] && launch+=(--allow-run-as-root)

# demo SWEEP FILE REPORT
demo() {
  "$build/cli/paceline" validate "examples/sweeps/$1.yaml"
  "${launch[@]}" "$build/cli/paceline" run "examples/sweeps/$1.yaml" -o "$out/$2"
  "$build/cli/paceline" verify "$out/$2"
  "$build/cli/paceline" report "$out/$2" -o "$(cd "$out" && pwd)/$3"
}

demo demo sweep.h5 report
if "$build/cli/paceline" inspect --build | grep -Eq '^ *ffmpeg +no$'; then
  echo "no second sweep: this build has no FFmpeg, which reads its clips" >&2
  exit 0
fi
echo
demo pair pair.h5 pair
