/*
 * Memory by lifetime: an arena hands out zeroed pieces that all die together (process, model, run,
 * step). Not thread-safe: one owner. A failed allocation returns NULL.
 */
#ifndef PL_BASE_ARENA_H
#define PL_BASE_ARENA_H

#include "base/status.h"

#include <stddef.h>

/* n, or the next multiple of `to` behind it. */
static inline size_t pl_round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

struct pl_arena {
    struct pl_arena_chunk *head; /* newest first */
    size_t used;                 /* bytes handed out since init or clear */
};

void pl_arena_init(struct pl_arena *a);
/* 64-byte aligned when size ≥ 64, else 16; zero-filled; NULL when memory is out or size overflows.
 */
void *pl_arena_alloc(struct pl_arena *a, size_t size);
void *pl_arena_calloc(struct pl_arena *a, size_t n, size_t size);
char *pl_arena_strdup(struct pl_arena *a, const char *s);
char *pl_arena_strndup(struct pl_arena *a, const char *s, size_t n);
char *pl_arena_printf(struct pl_arena *a, const char *fmt, ...) PL_PRINTF(2, 3);
/* Keeps the largest chunk for re-use; everything handed out becomes invalid. */
void pl_arena_clear(struct pl_arena *a);
void pl_arena_release(struct pl_arena *a);

#endif
