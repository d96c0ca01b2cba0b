/*
 * What this machine can do at most, measured here and now with as many threads as the engine has:
 * the yardsticks that `bench` and the report's limit_pct give a share of.
 *
 *   read_bytes_per_s: each thread sums its own part of a buffer of ≥ 256 MiB (out of every cache),
 *                     again and again; bytes / time of the best pass
 *   f32_flop_per_s:   multiply-adds (2 operations each) on registers alone, in the widest vectors
 *                     that this CPU has; best of several runs
 *   int8_op_per_s:    the same for products of bytes summed in 32 bits: vpdpbusd, or without it
 *                     vpmaddubsw, vpmaddwd and vpaddd, or plain C. Kernels that sum several
 *                     products in 16 bits first may pass it
 *   bf16_flop_per_s:  the same for products of bf16 summed in f32: vdpbf16ps; 0 on a CPU without
 */
#ifndef PL_WORKER_RUNNER_LIMITS_H
#define PL_WORKER_RUNNER_LIMITS_H

#include "base/status.h"

struct pl_limits {
    double read_bytes_per_s, f32_flop_per_s, int8_op_per_s, bf16_flop_per_s;
    char vectors[16]; /* "avx512", "avx2" or "portable": what the second was measured with */
};

/* About a second, 2 s at most. threads ≥ 1. */
PL_MUST_CHECK
enum pl_status pl_limits_measure(int threads, struct pl_limits *out, struct pl_err *err);
/* The same in a child process, so that the buffer is no part of this one's memory or of its peak.
 */
PL_MUST_CHECK
enum pl_status pl_limits_measure_apart(int threads, struct pl_limits *out, struct pl_err *err);

#endif
