#!/usr/bin/env bash
# setup.sh demo|test: installs the Debian or Ubuntu packages that are missing, says which, and asks first when it is not root.
# On a machine without apt (a cluster with modules) it only says what it would need and lets CMake find what is there.
set -euo pipefail
what=${1:-demo}

packages=(gcc cmake ninja-build pkg-config git libopenmpi-dev openmpi-bin libhdf5-openmpi-dev libjansson-dev libyaml-dev
  libhwloc-dev libssl-dev gnuplot-nox libpng-dev zlib1g-dev libavformat-dev libavcodec-dev libswscale-dev)
if [ "$what" = test ]; then
  packages+=(libcmocka-dev libhdf5-dev hdf5-tools python3 python3-h5py python3-numpy python3-pandas shellcheck iproute2 slurm-wlm munge)
  if [ "${CI:-}" = true ]; then # the fuzz targets; elsewhere they run where a clang is
    packages+=(clang)
    apt-cache show libclang-rt-dev >/dev/null 2>&1 && packages+=(libclang-rt-dev)
  fi
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: no apt here; expecting from modules: C compiler, CMake, Ninja, pkg-config, MPI, HDF5, jansson, libyaml, hwloc, OpenSSL, cmocka, gnuplot; for pictures and clips libpng, zlib and FFmpeg's libraries" >&2
  exit 0
fi

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "setup: missing packages: ${missing[*]}" >&2
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: not root and no sudo; as root: apt-get install ${missing[*]}" >&2
    exit 6
  fi
  if [ -t 0 ]; then
    read -r -p "setup: install them with sudo apt-get? [Y/n] " answer
    case "$answer" in [nN]*) exit 6 ;; esac
  else
    echo "setup: no terminal to ask on; as root: apt-get install ${missing[*]}" >&2
    exit 6
  fi
  sudo=(sudo)
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1
}
# Old package lists fail on versions that are gone: refresh, then try once more.
if ! install; then
  "${sudo[@]}" apt-get update >>"$log" 2>&1 || true
  install || { cat "$log" >&2; echo "setup: apt-get install failed" >&2; exit 6; }
fi
echo "setup: installed ${#missing[@]} packages" >&2
