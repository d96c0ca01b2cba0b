#!/usr/bin/env bash
# Every shell script passes shellcheck.
set -u
cd "$(dirname "$0")/../.." || exit 2
command -v shellcheck >/dev/null || { echo "SKIP: shellcheck is not installed"; exit 77; }
{ git ls-files -z 2>/dev/null || find . -type f -not -path './build*' -print0; } |
  xargs -0 grep -lE '^#!.*\b(ba)?sh\b' | xargs -r shellcheck -S warning
