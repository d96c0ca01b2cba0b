#include "model/merge_heap.h"

#include <stdlib.h>
#include <string.h>

uint32_t pl_merge_rank(float score)
{
    uint32_t bits;
    score += 0.0f; /* −0 → 0 */
    memcpy(&bits, &score, sizeof(bits));
    /* the bits of positive floats grow with them, those of negative ones against them */
    return bits & 0x80000000u ? bits : 0x7fffffffu - bits;
}

void pl_merge_release(struct pl_merge_heap *h)
{
    free(h->items);
    *h = (struct pl_merge_heap){0};
}

enum pl_status pl_merge_push(struct pl_merge_heap *h, struct pl_merge m, struct pl_err *err)
{
    size_t at = h->n;

    if (h->n == h->size) {
        size_t size = h->size ? h->size * 2 : 256;
        struct pl_merge *items = realloc(h->items, size * sizeof(*items));
        if (!items)
            return pl_fail(err, PL_ENOMEM, "no memory to tokenise");
        h->items = items;
        h->size = size;
    }
    h->n++;
    for (; at && m.order < h->items[(at - 1) / 2].order; at = (at - 1) / 2)
        h->items[at] = h->items[(at - 1) / 2];
    h->items[at] = m;
    return PL_OK;
}

struct pl_merge pl_merge_pop(struct pl_merge_heap *h)
{
    struct pl_merge top = h->items[0], last = h->items[--h->n];
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->items[child + 1].order < h->items[child].order)
            child++;
        if (h->items[child].order >= last.order)
            break;
        h->items[at] = h->items[child];
        at = child;
    }
    if (h->n)
        h->items[at] = last;
    return top;
}
