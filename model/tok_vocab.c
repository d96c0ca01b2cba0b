#include "base/hash.h"
#include "model/tok_impl.h"

#include <string.h>

enum pl_status pl_tok_vocab_init(struct pl_tok_vocab *v, struct pl_arena *arena, size_t n,
                                 size_t count, struct pl_err *err)
{
    size_t slots = 64;

    memset(v, 0, sizeof(*v));
    if (n > PL_TOK_MAX_IDS || count > PL_TOK_MAX_IDS)
        return pl_fail(err, PL_ERANGE, "a vocabulary of %zu pieces: at most %u",
                       n > count ? n : count, PL_TOK_MAX_IDS);
    while (slots < count * 2)
        slots *= 2;
    v->n = n;
    v->mask = slots - 1;
    v->pieces = pl_arena_calloc(arena, n, sizeof(*v->pieces));
    v->table = pl_arena_calloc(arena, slots, sizeof(*v->table));
    if ((n && !v->pieces) || !v->table)
        return pl_fail(err, PL_ENOMEM, "no memory for a vocabulary of %zu pieces", n);
    return PL_OK;
}

static size_t slot_of(const struct pl_tok_vocab *v, const char *s, size_t len)
{
    size_t at = (size_t)pl_hash64(0, s, len) & v->mask;

    for (; v->table[at]; at = (at + 1) & v->mask) {
        const struct pl_tok_str *p = &v->pieces[v->table[at] - 1];
        if (p->len == len && !memcmp(p->s, s, len))
            break;
    }
    return at;
}

enum pl_status pl_tok_vocab_add(struct pl_tok_vocab *v, const char *file, uint32_t id,
                                struct pl_tok_str s, bool replaces, struct pl_err *err)
{
    size_t at;

    if (id >= v->n)
        return pl_fail(err, PL_EFORMAT, "%s: piece \"%.40s\" has id %u, out of range", file, s.s,
                       id);
    if (v->pieces[id].s)
        return pl_fail(err, PL_EFORMAT, "%s: pieces \"%.40s\" and \"%.40s\" both have id %u", file,
                       v->pieces[id].s, s.s, id);
    v->pieces[id] = s;
    at = slot_of(v, s.s, s.len);
    if (v->table[at] && !replaces)
        return pl_fail(err, PL_EFORMAT, "%s: pieces %u and %u are both \"%.40s\"", file,
                       v->table[at] - 1, id, s.s);
    v->count += !v->table[at];
    v->table[at] = id + 1;
    return PL_OK;
}

int32_t pl_tok_vocab_find(const struct pl_tok_vocab *v, const char *s, size_t len)
{
    return v->table ? (int32_t)v->table[slot_of(v, s, len)] - 1 : -1;
}
