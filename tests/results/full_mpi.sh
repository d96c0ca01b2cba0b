#!/bin/sh
# full_mpi.sh PROGRAM: its --full on a tmpfs of 2 MiB, in a mount namespace that ends with the test. 77: nothing can be mounted.
program=$1
dir=$(mktemp -d) || exit 1
trap 'rmdir "$dir"' EXIT
if ! unshare -m mount -t tmpfs -o size=2m tmpfs "$dir" 2>/dev/null; then
  echo "SKIP: a small tmpfs cannot be mounted here"
  exit 77
fi
# shellcheck disable=SC2016  # expanded inside
unshare -m sh -c 'mount -t tmpfs -o size=2m tmpfs "$2" && "$1" --full "$2"' sh "$program" "$dir"
