#!/usr/bin/env bash
# bench/gpu-pack.sh [--arch 90] [--no-mpi]: prepares here what bench/gpu.sh wants on a machine that has a GPU and nothing else: .gpu/pack.tar.xz,
# in a folder that git ignores. Inside: paceline-runner, bench_ops and the CUDA tests built for that architecture alone, paceline with Open MPI and
# HDF5, and every shared library that they need beyond the C and C++ runtime of a distribution as new as this one. cudart is linked in; cuBLASLt
# comes from the machine (toolkit, or torch's packages). Carry the folder .gpu/ with the tree; the script says how large that is.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=90 mpi=1
while [ $# -gt 0 ]; do
  case $1 in
  --arch) arch=$2 && shift ;;
  --no-mpi) mpi= ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done
build=build/gpu-pack out=.gpu/pack
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DPACELINE_TESTS=ON -DPACELINE_CUDA=ON -DPACELINE_FFMPEG=OFF \
  -DCMAKE_CUDA_ARCHITECTURES="$arch-real" -DCMAKE_BUILD_RPATH="\$ORIGIN/../lib" -DCMAKE_EXE_LINKER_FLAGS="-Wl,--disable-new-dtags" >/dev/null
mapfile -t tests < <(cmake --build $build --target help | grep -oE '^test_gpu_[a-z]+' | sort -u)
cmake --build $build --target paceline-runner bench_ops "${tests[@]}" ${mpi:+paceline}
rm -rf $out && mkdir -p $out/bin $out/lib
programs=("$build/cli/runner/paceline-runner" "$build/tests/model/bench_ops")
for t in "${tests[@]}"; do programs+=("$build/tests/cuda_emu/$t"); done
[ -n "$mpi" ] && programs+=("$build/cli/paceline")
cp "${programs[@]}" $out/bin/
strip $out/bin/*

# What ldd names, but for the C and C++ runtime.
libraries() { ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libutil|libstdc\+\+|libgcc_s|ld-linux[^/]*)\.so' | sort -u; }
if [ -n "$mpi" ]; then
  # Open MPI as Debian lays it out, under one prefix: programs, help texts, its modules and PMIx's.
  lib=/usr/lib/$(gcc -dumpmachine)
  mkdir -p $out/openmpi/bin $out/openmpi/lib/openmpi $out/openmpi/lib/pmix $out/openmpi/share $out/openmpi/etc
  cp "$(readlink -f "$(command -v mpirun)")" $out/openmpi/bin/orterun
  cp "$(readlink -f "$(command -v orted)")" $out/openmpi/bin/orted
  cp -rL "$lib"/openmpi/lib/openmpi*/*.so $out/openmpi/lib/openmpi/
  cp -rL "$lib"/pmix*/lib/pmix/*.so $out/openmpi/lib/pmix/ 2>/dev/null || true
  cp -rL /usr/share/openmpi $out/openmpi/share/
  [ -d /etc/openmpi ] && cp -rL /etc/openmpi $out/openmpi/etc/
  # No fabric, CUDA or profiling modules: they want libraries of their own, and one machine needs shared memory and TCP alone. Files are
  # opened through ompio.
  find $out/openmpi/lib/openmpi -name '*.so' | grep -E 'ofi|ucx|psm|usnic|openib|portals|ucc|hcoll|gds|libompitrace|romio|lustre|pvfs|gpfs|hwloc_' | xargs -r rm -f
  libraries $out/openmpi/bin/* $out/openmpi/lib/openmpi/*.so $out/openmpi/lib/pmix/*.so | xargs -r -I{} cp -L {} $out/lib/
  cat >$out/openmpi/bin/mpirun <<'MPIRUN'
#!/bin/sh
# Open MPI from this folder, wherever it lies, on this machine alone: no remote shell is asked for.
here=$(cd "$(dirname "$0")/.." && pwd)
export OPAL_PREFIX="$here" PMIX_INSTALL_PREFIX="$here" OMPI_MCA_mca_base_component_path="$here/lib/openmpi" PMIX_MCA_mca_base_component_path="$here/lib/pmix"
export OMPI_MCA_mca_base_component_show_load_errors=0 PMIX_MCA_mca_base_component_show_load_errors=0 OMPI_MCA_btl=self,vader,tcp OMPI_MCA_plm=isolated
export LD_LIBRARY_PATH="$here/../lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" PATH="$here/bin:$PATH"
exec "$here/bin/orterun" "$@"
MPIRUN
  chmod +x $out/openmpi/bin/mpirun
fi
libraries "${programs[@]}" | { grep -v "/$out/" || true; } | xargs -r -I{} cp -L {} $out/lib/
# Whatever a program needs lies in the pack or is the C and C++ runtime: nothing else may be taken for granted there.
outside=$(LD_LIBRARY_PATH=$out/lib ldd $out/bin/* $out/openmpi/bin/or* 2>/dev/null | awk '$2 == "=>" {print $3 == "not" ? $1 " (not found)" : $3}' |
  grep -vE "^($PWD/)?$out/|/(libc|libm|libdl|librt|libpthread|libresolv|libutil|libstdc\+\+|libgcc_s|ld-linux[^/]*)\.so" | sort -u) || true
if [ -n "$outside" ]; then
  echo "gpu-pack.sh: the pack lacks $outside" >&2
  exit 1
fi
# The programs hold the same kernels, 5 MB each: a dictionary as large as the pack keeps them once.
tar cf - -C $out . | xz --lzma2=preset=6,dict=64MiB >.gpu/pack.tar.xz
rm -f .gpu/pack.tar.gz
rm -rf .gpu/unpacked
tree=$(git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb 2>/dev/null | awk '/total$/ {s += $1} END {print s}')
pack=$(stat -c %s .gpu/pack.tar.xz)
rm -rf $out
echo "gpu-pack.sh: .gpu/pack.tar.xz $((pack >> 20)) MiB, the tree beside it $((tree >> 20)) MiB, sm_$arch"
if [ $((pack + tree)) -gt $((64 << 20)) ]; then
  echo "gpu-pack.sh: together more than 64 MiB: --no-mpi makes it smaller" >&2
  exit 1
fi
