#include "spec_decode/tree.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

const char pl_draft_shape_medusa[] =
    "0 00 1 01 2 000 10 02 3 03 4 04 20 05 001 5 06 6 07 010 11 7 08 002 30 09 8 9 100 020 12 003 "
    "40 21 004 005 0000 011 006 030 50 13 007 008 009 60 040 14 70 012 200 31 22 80 050 15 101 021 "
    "90 060 0001 16 070";
const char pl_draft_shape_eagle[] =
    "0 1 2 3 00 01 02 10 11 20 21 30 000 001 002 010 011 020 021 100 0000 "
    "0001 0002 00000 00001";

/* The node at the end of the word's first n ranks; −1: the root; −2: none. */
static int32_t find(const struct pl_draft_shape *s, const char *word, size_t n)
{
    int32_t node = -1;

    for (size_t d = 0; d < n; d++) {
        int32_t next = -2;
        for (size_t i = 0; i < s->n && next == -2; i++)
            if (s->parent[i] == node && s->rank[i] == word[d] - '0')
                next = (int32_t)i;
        if (next == -2)
            return next;
        node = next;
    }
    return node;
}

void pl_draft_shape_make(const char *choices, size_t top, size_t depth, size_t most,
                         struct pl_draft_shape *out)
{
    size_t n;

    out->n = 0;
    for (const char *w = choices; *w && out->n < most; w += n + (w[n] == ' ')) {
        n = strcspn(w, " ");
        int32_t parent = find(out, w, n - 1);
        if (parent == -2 || n > depth || (size_t)(w[n - 1] - '0') >= top)
            continue;
        out->parent[out->n] = parent;
        out->rank[out->n] = (uint8_t)(w[n - 1] - '0');
        out->depth[out->n++] = (uint8_t)(n - 1);
    }
}

static bool is_masked(const int32_t *masked, size_t n, size_t id)
{
    for (size_t i = 0; i < n; i++)
        if (masked[i] == (int32_t)id)
            return true;
    return false;
}

size_t pl_draft_top(const float *logits, size_t vocab, const int32_t *masked, size_t n_masked,
                    size_t k, int32_t *ids)
{
    float best[PL_TREE_MAX_TOP], least = -INFINITY;
    size_t n = 0;

    for (size_t v = 0; v < vocab; v++) {
        if (!(logits[v] > least) || !isfinite(logits[v]) || is_masked(masked, n_masked, v))
            continue;
        size_t at = n < k ? n++ : k - 1;
        for (; at && logits[v] > best[at - 1]; at--) {
            best[at] = best[at - 1];
            ids[at] = ids[at - 1];
        }
        best[at] = logits[v];
        ids[at] = (int32_t)v;
        least = n < k ? -INFINITY : best[k - 1];
    }
    return n;
}

double pl_draft_log_sum(const float *logits, size_t vocab, const int32_t *masked, size_t n_masked)
{
    float max = -INFINITY;
    double sum = 0;

    for (size_t v = 0; v < vocab; v++)
        max = logits[v] > max ? logits[v] : max;
    for (size_t v = 0; v < vocab; v++)
        sum += (double)expf(logits[v] - max);
    for (size_t i = 0; i < n_masked; i++)
        sum -= (double)expf(logits[masked[i]] - max);
    return (double)max + log(sum);
}
