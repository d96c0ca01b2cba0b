#!/usr/bin/env bash
# The rooms and arrows of ARCHITECTURE.md, read off the #include lines; which outside headers may stand where; banned calls.
# arrows.sh [TREE]; prints each line that breaks a rule, exits 1 when there is one.
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 2
bad=0
report() { # report MESSAGE LINES
  [ -z "$2" ] && return
  printf '%s:\n%s\n' "$1" "$2"
  bad=1
}
sources() { find "$@" -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null | sort; }
arrow() { # arrow ROOM FORBIDDEN-ROOMS (an extended regular expression)
  [ -d "$1" ] || return
  report "$1/ may not include these" "$(sources "$1" | xargs -r grep -HnE "#include *\"($2)/")"
}
only() { # only WHAT HEADER-PATTERN ALLOWED-PATHS
  report "$1" "$(sources base data results model pruning spec_decode worker orchestrator analysis cli |
    grep -Ev "$3" | xargs -r grep -HnE "#include *[<\"]$2")"
}

arrow base 'data|results|model|pruning|spec_decode|worker|analysis|orchestrator|cli'
arrow data 'results|model|pruning|spec_decode|worker|analysis|orchestrator|cli'
arrow results 'data|model|pruning|spec_decode|worker|analysis|orchestrator|cli'
arrow model 'data|results|pruning|spec_decode|worker|analysis|orchestrator|cli'
arrow pruning 'data|results|spec_decode|worker|analysis|orchestrator|cli'
arrow spec_decode 'data|results|pruning|worker|analysis|orchestrator|cli'
arrow worker/rank 'worker/runner|model|pruning|spec_decode|analysis|orchestrator|cli'
arrow worker/runner 'worker/rank|results|analysis|orchestrator|cli'
arrow analysis 'data|model|pruning|spec_decode|worker|orchestrator|cli'
arrow orchestrator 'worker/runner|model|pruning|spec_decode|analysis|cli'
arrow cli/runner 'worker/rank|results|analysis|orchestrator'
only '<mpi.h> outside *_mpi.c' 'mpi\.h' '_mpi\.[ch]$'
only '<hdf5.h> outside results/' 'hdf5' '^results/'
only 'CUDA or NCCL headers outside model/cuda/ and spec_decode/*_nccl.*' '(cuda|nccl|cublas|cudnn)' '^model/cuda/|^spec_decode/.*_nccl\.'
report 'paceline (cli/) holds no model code' "$(find cli -maxdepth 1 -name '*.[ch]' -exec grep -HnE '#include *"(model|pruning|spec_decode|worker/runner)/' {} +)"
report 'banned calls' "$(sources base data results model pruning spec_decode worker orchestrator analysis cli |
  xargs -r grep -HnE '(^|[^_a-zA-Z0-9])(strcpy|strcat|sprintf|vsprintf|atoi|atof|gets|alloca) *\(')"
exit $bad
