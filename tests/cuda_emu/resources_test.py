"""resources_test.py PROGRAM: what its kernels take of a multiprocessor, as cuobjdump tells it of each architecture in it, allows the launches that the
backend makes: registers of a block, static and dynamic shared memory. A GPU refuses the others."""
import glob
import os
import re
import shutil
import subprocess
import sys

# Threads of a block, and the most dynamic shared memory without asking (PL_BIG_SHARED) for it, by kernel; the launches in model/cuda/*.cu
ATTEND, ONE_ROW = 40 << 10, 32 << 10
LAUNCHES = {"attend": (128, ATTEND), "attend_mma": (128, ATTEND), "attend_few": (128, 0), "attend_sums": (256, 33 << 10), "attend_small": (128, 0), "gemv_mma": (256, 0),
            "gemv_mma_gated": (256, 0), "gemv_mma_qkv": (256, 0), "gemv_packed": (256, 0), "topk": (1024, 0), "draw_row": (1024, 0), "pick_rows": (512, 0), "argmax": (512, 0),
            "norm_rows": (256, 0), "quantise_rows": (256, 0)}
OTHERS = 256  # threads of the rest, at most

places = ["/usr/local/cuda/bin", *glob.glob("/opt/*/lib/python3*/site-packages/triton/backends/nvidia/bin")]
tool = shutil.which("cuobjdump", path=":".join([os.environ["PATH"], *places]))
if not tool:
    print("skipped: no cuobjdump")
    sys.exit(77)
said = subprocess.run([tool, "--dump-resource-usage", sys.argv[1]], capture_output=True, text=True, timeout=100).stdout
wrong, seen, archs = [], set(), set(re.findall(r"arch = (sm_\w+)", said))
for symbol, use in re.findall(r"Function (\S+):\s*\n\s*(.*)", said):
    at = {k: int(v) for k, v in re.findall(r"(REG|SHARED):(\d+)", use)}
    length, rest = re.match(r"_ZN?(\d+)(.*)", symbol).groups() if symbol.startswith("_Z") else (str(len(symbol)), symbol)
    name = rest[:int(length)]
    threads, dynamic = LAUNCHES.get(name, (OTHERS, 0))
    if name == "gemv_packed" and re.search(r"Lb1E", rest):
        dynamic = ONE_ROW
    seen.add(name)
    if -(-at["REG"] // 8) * 8 * threads > 65536:
        wrong.append(f"{symbol}: {at['REG']} registers for {threads} threads")
    if at["SHARED"] + dynamic > 48 << 10:
        wrong.append(f"{symbol}: {at['SHARED']} + {dynamic} bytes of shared memory")
missing = sorted(set(LAUNCHES) - seen)
assert not missing, f"not in {sys.argv[1]}: {missing}"
assert not wrong, "\n".join(wrong)
print(f"{len(seen)} kernels, {', '.join(sorted(archs))}: registers and shared memory of their launches are there")
