/*
 * Generated data behind model/unicode.c (tools/make_unicode_tables.py says from what). Each array
 * has its length beside it.
 */
#ifndef PL_MODEL_UNICODE_TABLES_H
#define PL_MODEL_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

extern const uint32_t pl_uni_kinds[]; /* the combinations of pl_uni flags that occur */
extern const size_t pl_uni_kinds_n;
extern const uint32_t pl_uni_runs[]; /* first code point << 8 | index of its kind; up to the next */
extern const size_t pl_uni_runs_n;
extern const uint32_t
    pl_uni_combining[]; /* pairs: first code point, count << 8 | combining class */
extern const size_t pl_uni_combining_n;
/* Full decompositions: code point | length << 21 | primary composite << 30 | compatibility << 31,
 * then the code points. */
extern const uint32_t pl_uni_decomposed[];
extern const size_t pl_uni_decomposed_n;
extern const int32_t pl_uni_lower[]; /* quadruples: first, last, step, what to add */
extern const size_t pl_uni_lower_n;

#endif
