#!/usr/bin/env bash
# Every shell script passes shellcheck.
set -u
cd "$(dirname "$0")/../.." || exit 2
command -v shellcheck >/dev/null || { echo "SKIP: shellcheck is not installed"; exit 77; }
grep -lE '^#!.*\b(ba)?sh\b' $(git ls-files 2>/dev/null || find . -type f -not -path './build*') 2>/dev/null | xargs -r shellcheck -S warning
