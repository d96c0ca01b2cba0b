#!/usr/bin/env bash
# demo.sh BUILD: two sweeps on this machine's CPU under mpirun, then their tables and report.html: small language models on text (rank 0
# and two workers), and one model with eyes that drafts for another on scenes (rank 0 and one worker, whose lanes share all the cores).
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
out=${PACELINE_DEMO_OUT:-demo}
ranks=${PACELINE_DEMO_RANKS:-3}

mkdir -p "$out"
rm -rf "$out/report" "$out/sweep.h5"* "$out/pair" "$out/pair.h5"*
launch=(mpirun --oversubscribe)
[ "$(id -u)" -eq 0 ] && launch+=(--allow-run-as-root)

# demo SWEEP FILE REPORT RANKS
demo() {
  "$build/cli/paceline" validate "examples/sweeps/$1.yaml"
  "${launch[@]}" -n "$4" "$build/cli/paceline" run "examples/sweeps/$1.yaml" -o "$out/$2"
  "$build/cli/paceline" verify "$out/$2"
  "$build/cli/paceline" report "$out/$2" -o "$(cd "$out" && pwd)/$3"
}

demo demo sweep.h5 report "$ranks"
if "$build/cli/paceline" inspect --build | grep -Eq '^ *ffmpeg +no$'; then
  echo "no second sweep: this build has no FFmpeg, which reads its clips" >&2
  exit 0
fi
echo
demo pair pair.h5 pair 2
