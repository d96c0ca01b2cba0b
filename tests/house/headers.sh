#!/usr/bin/env bash
# Every header compiles alone. headers.sh CC COMPILE-FLAGS…
set -u
cd "$(dirname "$0")/../.." || exit 2
bad=0
# CUDA's are the stand-ins of tests/cuda_emu, one of which is C++ and compiled there.
for h in $(git ls-files '*.h' 2>/dev/null || find . -name '*.h' -not -path './build*'); do
  [ "$h" = tests/cuda_emu/cuda_runtime.h ] && continue
  out=$("$@" -D_GNU_SOURCE -DPL_SOURCE_DIR='"."' -std=gnu11 -fsyntax-only -Wall -Wextra -Werror  -I. -Itests/cuda_emu -I"$(dirname "$h")" -include "$h" -x c /dev/null 2>&1) ||
    { echo "$h does not compile alone:"; echo "$out" | head -5; bad=1; }
done
exit $bad
