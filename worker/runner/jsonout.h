/*
 * JSON written by hand into a pl_buf: the answer of a trial is some 100 numbers and must cost a few
 * µs, which a tree of objects does not. An append that fails (cap, memory) marks the writer; the
 * owner looks at `failed` once, at the end. Commas are the caller's.
 */
#ifndef PL_WORKER_RUNNER_JSONOUT_H
#define PL_WORKER_RUNNER_JSONOUT_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_jsonout {
    struct pl_buf *buf; /* borrowed */
    bool failed;
};

void pl_jsonout_raw(struct pl_jsonout *o, const char *text, size_t n);
/* A string literal. */
#define pl_jsonout_lit(o, s) pl_jsonout_raw((o), "" s, sizeof(s) - 1)
void pl_jsonout_i64(struct pl_jsonout *o, int64_t v);
void pl_jsonout_u64(struct pl_jsonout *o, uint64_t v);
/* The shortest digits that read back as v; null where it is not finite. */
void pl_jsonout_f64(struct pl_jsonout *o, double v);
/* 16 hex digits in quotes */
void pl_jsonout_hex64(struct pl_jsonout *o, uint64_t v);
/* In quotes, escaped; bytes that are not UTF-8 become U+FFFD. */
void pl_jsonout_str(struct pl_jsonout *o, const char *s, size_t n);
/* "[1,2,3]" */
void pl_jsonout_i32s(struct pl_jsonout *o, const int32_t *v, size_t n);
void pl_jsonout_i64s(struct pl_jsonout *o, const int64_t *v, size_t n);
void pl_jsonout_u32s(struct pl_jsonout *o, const uint32_t *v, size_t n);

#endif
