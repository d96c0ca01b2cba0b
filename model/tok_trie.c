#include "model/tok_trie.h"

enum pl_status pl_tok_trie_init(struct pl_tok_trie *t, struct pl_arena *arena, size_t bytes,
                                struct pl_err *err)
{
    size_t slots = 64;

    *t = (struct pl_tok_trie){.n = 1};
    if (bytes >= PL_TOK_TRIE_MAX)
        return pl_fail(err, PL_ERANGE, "a vocabulary of %zu bytes: at most %u", bytes,
                       PL_TOK_TRIE_MAX);
    while (slots < bytes + bytes / 2)
        slots *= 2;
    t->size = (uint32_t)bytes + 1;
    t->mask = slots - 1;
    t->slots = pl_arena_calloc(arena, slots, sizeof(*t->slots));
    t->values = pl_arena_calloc(arena, t->size, sizeof(*t->values));
    if (!t->slots || !t->values)
        return pl_fail(err, PL_ENOMEM, "no memory for a vocabulary of %zu bytes", bytes);
    t->values[0] = -1;
    return PL_OK;
}

void pl_tok_trie_add(struct pl_tok_trie *t, const char *key, size_t len, int32_t value)
{
    uint32_t node = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)key[i];
        uint32_t child = pl_tok_trie_next(t, node, byte);
        if (!child) {
            child = t->n++;
            t->values[child] = -1;
            if (!node) {
                t->root[byte] = child;
            } else {
                uint64_t k = (uint64_t)node << 8 | byte;
                size_t at = (size_t)(k * 0x9e3779b97f4a7c15ull >> 32) & t->mask;
                while (t->slots[at])
                    at = (at + 1) & t->mask;
                t->slots[at] = k << 24 | child;
            }
        }
        node = child;
    }
    t->values[node] = value;
}
