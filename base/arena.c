#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64u
#define FIRST_CHUNK ((size_t)16 << 10)
#define GROWTH_LIMIT ((size_t)1 << 20) /* chunks double up to here; larger pieces get their own */

struct pl_arena_chunk {
    struct pl_arena_chunk *next;
    size_t size, used; /* of the bytes behind the header */
};

/* The header takes one aligned slot, so that the bytes behind it are aligned too. */
static char *chunk_bytes(struct pl_arena_chunk *c)
{
    return (char *)c + ALIGN;
}

void pl_arena_init(struct pl_arena *a)
{
    a->head = NULL;
    a->used = 0;
}

static struct pl_arena_chunk *chunk_new(struct pl_arena *a, size_t need)
{
    size_t size = FIRST_CHUNK;

    if (a->head && a->head->size >= FIRST_CHUNK)
        size = a->head->size >= GROWTH_LIMIT / 2 ? GROWTH_LIMIT : a->head->size * 2;
    if (size < need)
        size = need;
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    struct pl_arena_chunk *c = aligned_alloc(ALIGN, size + ALIGN);
    if (!c)
        return NULL;
    c->next = a->head;
    c->size = size;
    c->used = 0;
    a->head = c;
    return c;
}

void *pl_arena_alloc(struct pl_arena *a, size_t size)
{
    size_t align = size >= ALIGN ? ALIGN : 16;
    struct pl_arena_chunk *c = a->head;
    size_t at = 0;

    if (size > PTRDIFF_MAX - 4 * ALIGN)
        return NULL;
    size_t take = size ? size : 1; /* so that two pieces never share an address */
    if (c)
        at = pl_round_up(c->used, align);
    if (!c || at > c->size || c->size - at < take) {
        c = chunk_new(a, take);
        at = 0;
        if (!c)
            return NULL;
    }
    c->used = at + take;
    a->used += size;
    return memset(chunk_bytes(c) + at, 0, take);
}

void *pl_arena_calloc(struct pl_arena *a, size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes))
        return NULL;
    return pl_arena_alloc(a, bytes);
}

static char *dup_bytes(struct pl_arena *a, const char *s, size_t len)
{
    char *p = pl_arena_alloc(a, len + 1);

    if (p)
        memcpy(p, s, len);
    return p;
}

char *pl_arena_strndup(struct pl_arena *a, const char *s, size_t n)
{
    return dup_bytes(a, s, strnlen(s, n));
}

char *pl_arena_strdup(struct pl_arena *a, const char *s)
{
    return dup_bytes(a, s, strlen(s));
}

char *pl_arena_printf(struct pl_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    char *p = NULL;

    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0)
        p = pl_arena_alloc(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p;
}

void pl_arena_clear(struct pl_arena *a)
{
    struct pl_arena_chunk *best = a->head;

    for (struct pl_arena_chunk *c = a->head; c; c = c->next) {
        if (c->size > best->size)
            best = c;
    }
    for (struct pl_arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        if (c != best)
            free(c);
    }
    if (best) {
        best->next = NULL;
        best->used = 0;
    }
    a->head = best;
    a->used = 0;
}

void pl_arena_release(struct pl_arena *a)
{
    for (struct pl_arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    pl_arena_init(a);
}
