#include "model/bpe.h"

#include "base/hash.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct pl_bpe_symbol {
    uint32_t start, len; /* len 0: joined into its left neighbour */
    int32_t prev, next;
    bool frozen; /* a user-defined piece: never joined */
};

static size_t slot_of(const struct pl_vocab *v, const char *text, size_t len)
{
    size_t at = (size_t)pl_hash64(0, text, len) & v->mask;

    for (; v->table[at]; at = (at + 1) & v->mask) {
        const struct pl_spm_piece *p = &v->spm->pieces[v->table[at] - 1];
        if (p->len == len && !memcmp(p->text, text, len))
            break;
    }
    return at;
}

int32_t pl_vocab_find(const struct pl_vocab *v, const char *text, size_t len)
{
    uint32_t e = v->table[slot_of(v, text, len)];

    return e ? (int32_t)(e - 1) : -1;
}

size_t pl_vocab_user_match(const struct pl_vocab *v, const char *text, size_t len)
{
    size_t best = 0;
    uint32_t node = 0;

    for (size_t i = 0; i < len; i++) {
        node = pl_tok_trie_next(&v->user, node, (unsigned char)text[i]);
        if (!node)
            break;
        if (v->user.values[node] >= 0)
            best = i + 1;
    }
    return best;
}

/* Whether a ▁ (e2 96 81) stands behind another character. */
static bool crosses_words(const struct pl_spm_piece *p)
{
    bool other = false;

    for (uint32_t i = 0; i < p->len; i++) {
        if (p->len - i >= 3 && !memcmp(p->text + i, "\xe2\x96\x81", 3)) {
            if (other)
                return true;
            i += 2;
        } else {
            other = true;
        }
    }
    return false;
}

static enum pl_status add_piece(struct pl_vocab *v, const char *file, size_t i, struct pl_err *err)
{
    const struct pl_spm_piece *p = &v->spm->pieces[i];
    unsigned long byte;
    char name[8];

    if (p->type == PL_SPM_BYTE) {
        byte = strtoul(p->text + (p->len == 6 ? 3 : 0), NULL, 16);
        snprintf(name, sizeof(name), "<0x%02lX>", byte & 255);
        if (p->len != 6 || strcasecmp(p->text, name) != 0)
            return pl_fail(err, PL_EFORMAT, "%s: byte piece %zu is called %.20s", file, i, p->text);
        v->bytes[byte] = (int32_t)i;
    }
    if (p->type != PL_SPM_NORMAL && p->type != PL_SPM_USER)
        return PL_OK;
    size_t at = slot_of(v, p->text, p->len);
    if (v->table[at])
        return pl_fail(err, PL_EFORMAT, "%s: pieces %u and %zu are both \"%.40s\"", file,
                       v->table[at] - 1, i, p->text);
    v->table[at] = (uint32_t)i + 1;
    if (p->type == PL_SPM_USER) {
        pl_tok_trie_add(&v->user, p->text, p->len, (int32_t)i);
        v->n_user++;
    }
    if (crosses_words(p))
        v->splits_at_space = false;
    return PL_OK;
}

enum pl_status pl_vocab_init(struct pl_vocab *v, const char *file, const struct pl_spm *spm,
                             struct pl_arena *arena, struct pl_err *err)
{
    size_t size = 16, bytes = 0;
    enum pl_status st;

    memset(v, 0, sizeof(*v));
    v->spm = spm;
    v->splits_at_space = true;
    while (size < spm->n * 2)
        size *= 2;
    v->mask = size - 1;
    v->table = pl_arena_calloc(arena, size, sizeof(*v->table));
    if (!v->table)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its vocabulary", file);
    for (size_t i = 0; i < spm->n; i++)
        bytes += spm->pieces[i].type == PL_SPM_USER ? spm->pieces[i].len : 0;
    st = pl_tok_trie_init(&v->user, arena, bytes, err);
    if (st)
        return pl_err_prefix(err, st, "%s", file);
    for (int i = 0; i < 256; i++)
        v->bytes[i] = -1;
    for (size_t i = 0; i < spm->n; i++) {
        st = add_piece(v, file, i, err);
        if (st)
            return st;
    }
    for (int i = 0; i < 256 && spm->byte_fallback; i++)
        if (v->bytes[i] < 0)
            return pl_fail(err, PL_EFORMAT, "%s: byte fallback without a piece for byte 0x%02X",
                           file, (unsigned)i);
    return PL_OK;
}

void pl_bpe_release(struct pl_bpe *b)
{
    free(b->symbols);
    pl_merge_release(&b->heap);
    memset(b, 0, sizeof(*b));
}

/* Queues the pair (left, right) when the vocabulary has a piece for it. */
static enum pl_status consider(struct pl_bpe *b, const struct pl_vocab *v, const char *text,
                               int32_t left, int32_t right, struct pl_err *err)
{
    const struct pl_bpe_symbol *l = &b->symbols[left < 0 ? 0 : left];
    const struct pl_bpe_symbol *r = &b->symbols[right < 0 ? 0 : right];
    int32_t id;

    if (left < 0 || right < 0 || l->frozen || r->frozen)
        return PL_OK;
    id = pl_vocab_find(v, text + l->start, l->len + r->len);
    if (id < 0)
        return PL_OK;
    return pl_merge_push(
        &b->heap,
        (struct pl_merge){.order = pl_merge_order(pl_merge_rank(v->spm->pieces[id].score), left),
                          .right = right,
                          .tag = l->len + r->len},
        err);
}

static enum pl_status split_symbols(struct pl_bpe *b, const struct pl_vocab *v, const char *text,
                                    size_t len, struct pl_err *err)
{
    uint32_t c;

    if (len > b->symbols_size) {
        struct pl_bpe_symbol *s = realloc(b->symbols, len * sizeof(*s));
        if (!s)
            return pl_fail(err, PL_ENOMEM, "no memory to tokenise %zu bytes", len);
        b->symbols = s;
        b->symbols_size = len;
    }
    b->n_symbols = 0;
    for (size_t at = 0; at < len;) {
        size_t user = v->n_user ? pl_vocab_user_match(v, text + at, len - at) : 0;
        size_t n = user ? user : pl_utf8_char(text + at, len - at, &c);
        int32_t i = (int32_t)b->n_symbols++;
        n = n ? n : 1; /* malformed: byte by byte */
        b->symbols[i] = (struct pl_bpe_symbol){.start = (uint32_t)at,
                                               .len = (uint32_t)n,
                                               .prev = i - 1,
                                               .next = at + n < len ? i + 1 : -1,
                                               .frozen = user > 0};
        at += n;
    }
    return PL_OK;
}

static enum pl_status join_all(struct pl_bpe *b, const struct pl_vocab *v, const char *text,
                               struct pl_err *err)
{
    enum pl_status st = PL_OK;

    b->heap.n = 0;
    for (size_t i = 1; i < b->n_symbols && !st; i++)
        st = consider(b, v, text, (int32_t)i - 1, (int32_t)i, err);
    while (b->heap.n && !st) {
        const struct pl_merge m = pl_merge_pop(&b->heap);
        const int32_t left = pl_merge_left(&m);
        struct pl_bpe_symbol *l = &b->symbols[left], *r = &b->symbols[m.right];
        /* stale: another sum than when it was queued */
        if (!l->len || !r->len || l->len + r->len != m.tag)
            continue;
        l->len += r->len;
        l->next = r->next;
        if (r->next >= 0)
            b->symbols[r->next].prev = left;
        r->len = 0;
        st = consider(b, v, text, l->prev, left, err);
        if (!st)
            st = consider(b, v, text, left, l->next, err);
    }
    return st;
}

enum pl_status pl_bpe_encode(struct pl_bpe *b, const struct pl_vocab *v, const char *text,
                             size_t len, bool *was_unk, struct pl_ids *out, struct pl_err *err)
{
    enum pl_status st;

    if (!len)
        return PL_OK;
    st = split_symbols(b, v, text, len, err);
    if (!st)
        st = join_all(b, v, text, err);
    for (int32_t i = 0; i >= 0 && !st; i = b->symbols[i].next) {
        const char *piece = text + b->symbols[i].start;
        size_t n = b->symbols[i].len;
        int32_t id = pl_vocab_find(v, piece, n);
        bool unk = id < 0 && !v->spm->byte_fallback;
        for (size_t j = 0; id < 0 && !unk && j < n && !st; j++)
            st = pl_ids_add(out, v->bytes[(unsigned char)piece[j]], err);
        if (id >= 0 && !st)
            st = pl_ids_add(out, id, err);
        else if (unk && !*was_unk && !st)
            st = pl_ids_add(out, v->spm->unk, err);
        *was_unk = unk;
    }
    return st;
}
