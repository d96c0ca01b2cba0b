#!/usr/bin/env python3
"""Cuts a DSEC recording's events.h5 into windows as paceline reads them: OUT/N.npy, a pickled dict of arrays x, y, t, p.

    python3 tools/dsec_to_npy.py EVENTS.h5 OUT [--window-ms 50] [--stride-ms 50] [--start-ms 0] [--count N]

t is in µs on the recording's own clock (add t_offset, which is printed, for the images' clock). A window is [t0, t0 + window):
ms_to_idx finds the millisecond, then it is cut to the microsecond. Needs h5py and numpy (Debian: python3-h5py). DSEC's files
are compressed with Blosc (HDF5 filter 32001): where HDF5 has no such plugin this says so and stops.
"""

import argparse
import os
import sys

import numpy as np

BLOSC = 32001


def fail(text):
    sys.exit(f"dsec_to_npy: {text}")


def check_filters(path, h5py, d):
    """Names a filter that is not there, before h5py fails with a number."""
    plist = d.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code, name = plist.get_filter(i)[0], plist.get_filter(i)[3]
        if not h5py.h5z.filter_avail(code):
            name = name.decode(errors="replace") if isinstance(name, bytes) else name
            fail(f"{path}: {d.name} is compressed with HDF5 filter {code} ({'Blosc' if code == BLOSC else name}), and this HDF5 has "
                 "no plugin for it: install one (pip install hdf5plugin, or put libH5Zblosc.so where HDF5_PLUGIN_PATH says)")


def open_events(path):
    try:
        import h5py
    except ImportError:
        fail("h5py is needed (Debian: python3-h5py)")
    try:
        import hdf5plugin  # noqa: F401  registers Blosc, where it is installed
    except ImportError:
        pass
    try:
        f = h5py.File(path, "r")
    except OSError as e:
        fail(f"{path}: {e}")
    for key in ("events/x", "events/y", "events/p", "events/t", "ms_to_idx"):
        if key not in f:
            fail(f"{path}: no /{key}: not a DSEC events.h5")
        check_filters(path, h5py, f[key])
    return f


def window(f, start_us, end_us):
    """Indices [a, b) of the events with start_us ≤ t < end_us. t[ms_to_idx[ms]] ≥ 1000 · ms."""
    index, t, n = f["ms_to_idx"], f["events/t"], f["events/t"].shape[0]
    a = int(index[min(start_us // 1000, len(index) - 1)]) if start_us // 1000 < len(index) else n
    last = -(-end_us // 1000)  # the first whole millisecond not before the end
    b = int(index[last]) if last < len(index) else n
    part = t[a:b].astype(np.int64)
    lo, hi = np.searchsorted(part, [start_us, end_us], side="left")
    return a + int(lo), a + int(hi)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("events")
    p.add_argument("out")
    p.add_argument("--window-ms", type=float, default=50)
    p.add_argument("--stride-ms", type=float, default=None, help="from one start to the next (the window)")
    p.add_argument("--start-ms", type=float, default=0)
    p.add_argument("--count", type=int, default=None, help="windows (all)")
    a = p.parse_args()
    if a.window_ms <= 0 or (a.stride_ms is not None and a.stride_ms <= 0):
        fail("--window-ms and --stride-ms are above 0")
    f = open_events(a.events)
    stride = round(1000 * (a.stride_ms or a.window_ms))
    span, t = round(1000 * a.window_ms), f["events/t"]
    if not t.shape[0]:
        fail(f"{a.events}: it holds no events")
    end = int(t[-1]) + 1
    os.makedirs(a.out, exist_ok=True)
    written = empty = 0
    start = round(1000 * a.start_ms)
    while start < end and (a.count is None or written + empty < a.count):
        i, j = window(f, start, start + span)
        if i == j:
            empty += 1  # its number is left out: N.npy is always window N
        else:
            e = f["events"]
            np.save(os.path.join(a.out, f"{written + empty}.npy"),
                    {"x": e["x"][i:j], "y": e["y"][i:j], "t": e["t"][i:j].astype(np.int64), "p": e["p"][i:j]}, allow_pickle=True)
            written += 1
        start += stride
    offset = int(f["t_offset"][()]) if "t_offset" in f else 0
    print(f"{written} windows of {a.window_ms:g} ms in {a.out}, {empty} without events left out; t_offset {offset} us")


if __name__ == "__main__":
    main()
