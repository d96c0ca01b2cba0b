/*
 * A map from byte strings to numbers that finds all prefixes of a text: the children of a node are
 * found by hash, so a step costs one probe whatever the vocabulary's size.
 */
#ifndef PL_MODEL_TOK_TRIE_H
#define PL_MODEL_TOK_TRIE_H

#include "base/arena.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_TOK_TRIE_MAX (1u << 24) /* nodes */

struct pl_tok_trie {
    uint64_t *slots; /* (node << 8 | byte) << 24 | child; 0: empty */
    size_t mask;
    int32_t *values; /* by node; −1: none ends here */
    uint32_t n, size;
    uint32_t root[256]; /* children of the root, 0: none */
};

/* bytes: the sum of the lengths of all keys to come. PL_ERANGE: too many. */
PL_MUST_CHECK
enum pl_status pl_tok_trie_init(struct pl_tok_trie *t, struct pl_arena *arena, size_t bytes,
                                struct pl_err *err);
/* A key of the same bytes takes the new value. */
void pl_tok_trie_add(struct pl_tok_trie *t, const char *key, size_t len, int32_t value);

static inline uint32_t pl_tok_trie_next(const struct pl_tok_trie *t, uint32_t node,
                                        unsigned char byte)
{
    uint64_t key = (uint64_t)node << 8 | byte;

    if (!node)
        return t->root[byte];
    for (size_t at = (size_t)(key * 0x9e3779b97f4a7c15ull >> 32) & t->mask; t->slots[at];
         at = (at + 1) & t->mask)
        if (t->slots[at] >> 24 == key)
            return (uint32_t)(t->slots[at] & 0xffffff);
    return 0;
}

#endif
