#!/usr/bin/env bash
# Every header compiles alone. headers.sh CC COMPILE-FLAGS…
set -u
cd "$(dirname "$0")/../.." || exit 2
bad=0
for h in $(git ls-files '*.h' 2>/dev/null || find . -name '*.h' -not -path './build*'); do
  out=$("$@" -D_GNU_SOURCE -DPL_SOURCE_DIR='"."' -std=gnu11 -fsyntax-only -Wall -Wextra -Werror  -I. -I"$(dirname "$h")" -include "$h" -x c /dev/null 2>&1) ||
    { echo "$h does not compile alone:"; echo "$out" | head -5; bad=1; }
done
exit $bad
