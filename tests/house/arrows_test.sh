#!/usr/bin/env bash
# The check itself is checked: a planted wrong include must be found.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
bash "$top/tests/house/arrows.sh" "$top"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/base" "$tmp/orchestrator" "$tmp/cli"
plant() { # plant FILE LINE
  printf '%s\n' "$2" >"$tmp/$1"
  if bash "$top/tests/house/arrows.sh" "$tmp" >/dev/null; then
    echo "not found: $2 in $1"
    exit 1
  fi
  rm "$tmp/$1"
}
plant base/a.c '#include "results/record.h"'
plant orchestrator/a.c '#include <mpi.h>'
plant orchestrator/a.h '#include "model/model.h"'
plant base/b.c '#include <hdf5.h>'
plant cli/c.c '#include "model/model.h"'
plant base/d.c 'x = atoi(s);'
bash "$top/tests/house/arrows.sh" "$tmp"
