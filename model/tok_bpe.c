/* BPE by a list of merges, as the tokenizers library's: again and again the pair of lowest rank is
 * joined, the leftmost of equal ones. */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL 24u /* symbols up to which looking for the lowest rank beats a heap */

struct pl_tok_sym {
    int32_t id; /* −1: joined into its left neighbour */
    int32_t prev, next;
    uint32_t rank, joined; /* of the pair with the next one; UINT32_MAX: there is none */
};

uint32_t pl_tok_byte_char(unsigned char b)
{
    if ((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
        return b;
    return b <= ' ' ? 256u + b : b == 0xad ? 323u : 256u + 33 + (b - 0x7fu);
}

int pl_tok_char_byte(uint32_t c)
{
    if (c >= 324 || (c < 256 && pl_tok_byte_char((unsigned char)c) != c))
        return -1;
    return (int)(c < 256 ? c : c <= 288 ? c - 256 : c == 323 ? 0xad : c - 289 + 0x7f);
}

static size_t merge_slot(const struct pl_tok_bpe *b, uint64_t pair)
{
    size_t at = (size_t)(pair * 0x9e3779b97f4a7c15ull >> 32) & b->mask;

    while (b->merges[at].id != UINT32_MAX && b->merges[at].pair != pair)
        at = (at + 1) & b->mask;
    return at;
}

enum pl_status pl_tok_bpe_init(struct pl_tokenizer *t, size_t n, struct pl_err *err)
{
    struct pl_tok_bpe *b = &t->bpe;
    size_t slots = 64;

    if (n > PL_TOK_MAX_IDS * 4u)
        return pl_fail(err, PL_ERANGE, "%s: %zu merges: too many", t->info.file, n);
    while (slots < 2 * n)
        slots *= 2;
    b->mask = slots - 1;
    b->merges = pl_arena_calloc(&t->arena, slots, sizeof(*b->merges));
    if (!b->merges)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for %zu merges", t->info.file, n);
    for (size_t i = 0; i < slots; i++)
        b->merges[i].id = UINT32_MAX;
    b->splits_at_space = true;
    return PL_OK;
}

/* Whether a ▁ stands behind another character. */
static bool crosses_words(const char *s, size_t n)
{
    bool other = false;

    for (size_t i = 0; i < n; i++) {
        if (n - i >= 3 && !memcmp(s + i, PL_TOK_SPACE, 3)) {
            if (other)
                return true;
            i += 2;
        } else {
            other = true;
        }
    }
    return false;
}

enum pl_status pl_tok_bpe_merge(struct pl_tokenizer *t, uint32_t rank, struct pl_tok_str a,
                                struct pl_tok_str b, struct pl_err *err)
{
    size_t skip = t->bpe.prefix.s ? t->bpe.prefix.len : 0, at;
    int32_t left = pl_tok_vocab_find(&t->vocab, a.s, a.len);
    int32_t right = pl_tok_vocab_find(&t->vocab, b.s, b.len), id;
    char small[256], *both = small;

    if (left < 0 || right < 0)
        return pl_fail(err, PL_EFORMAT, "%s: merge %u names \"%.40s\", which is no piece",
                       t->info.file, rank, left < 0 ? a.s : b.s);
    if (b.len < skip || a.len + b.len > PL_TOK_MAX_PIECE)
        return pl_fail(err, PL_EFORMAT, "%s: merge %u: \"%.40s\" is too short or too long",
                       t->info.file, rank, b.s);
    if (a.len + b.len > sizeof(small))
        both = pl_arena_alloc(&t->arena, a.len + b.len);
    if (!both)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its merges", t->info.file);
    memcpy(both, a.s, a.len);
    memcpy(both + a.len, b.s + skip, b.len - skip);
    id = pl_tok_vocab_find(&t->vocab, both, a.len + b.len - skip);
    if (id < 0)
        return pl_fail(err, PL_EFORMAT, "%s: merge %u makes \"%.*s\", which is no piece",
                       t->info.file, rank,
                       (int)(a.len + b.len - skip < 80 ? a.len + b.len - skip : 80), both);
    if (crosses_words(both, a.len + b.len - skip))
        t->bpe.splits_at_space = false;
    at = merge_slot(&t->bpe, (uint64_t)left << 32 | (uint32_t)right);
    t->bpe.merges[at] =
        (struct pl_tok_merge){(uint64_t)left << 32 | (uint32_t)right, rank, (uint32_t)id};
    return PL_OK;
}

void pl_tok_bpe_finish(struct pl_tokenizer *t)
{
    struct pl_tok_bpe *b = &t->bpe;
    char s[8];

    for (int i = 0; i < 256; i++) {
        size_t n = b->raw ? pl_uni_encode(pl_tok_byte_char((unsigned char)i), s)
                          : (size_t)snprintf(s, sizeof(s), "<0x%02X>", (unsigned)i);
        b->byte_id[i] = pl_tok_vocab_find(&t->vocab, s, n);
    }
    for (int i = 0; i < 128; i++)
        b->ascii_id[i] = pl_tok_vocab_find(&t->vocab, &(char){(char)i}, 1);
    if (b->prefix.s || b->suffix.s || b->ignore_merges || b->raw ||
        pl_tok_vocab_find(&t->vocab, PL_TOK_SPACE, 3) < 0)
        b->splits_at_space = false;
}

static void lookup(const struct pl_tok_bpe *b, struct pl_tok_sym *s, int32_t right)
{
    const struct pl_tok_merge *m =
        &b->merges[merge_slot(b, (uint64_t)s->id << 32 | (uint32_t)right)];

    s->rank = m->id == UINT32_MAX ? UINT32_MAX : m->rank;
    s->joined = m->id;
}

static void lookup_next(const struct pl_tok_bpe *b, struct pl_tok_sym *syms, int32_t at)
{
    if (syms[at].next < 0)
        syms[at].rank = UINT32_MAX;
    else
        lookup(b, &syms[at], syms[syms[at].next].id);
}

static void join(struct pl_tok_sym *syms, int32_t at)
{
    int32_t right = syms[at].next;

    syms[at].id = (int32_t)syms[at].joined;
    syms[at].next = syms[right].next;
    if (syms[right].next >= 0)
        syms[syms[right].next].prev = at;
    syms[right].id = -1;
}

static void merge_small(const struct pl_tok_bpe *b, struct pl_tok_sym *syms, size_t n)
{
    for (size_t left = n; left > 1; left--) {
        uint32_t best = UINT32_MAX;
        int32_t at = -1;
        for (int32_t i = 0; i >= 0; i = syms[i].next)
            if (syms[i].rank < best) {
                best = syms[i].rank;
                at = i;
            }
        if (at < 0)
            return;
        join(syms, at);
        lookup_next(b, syms, at);
        if (syms[at].prev >= 0)
            lookup_next(b, syms, syms[at].prev);
    }
}

static enum pl_status push(struct pl_tok_run *r, const struct pl_tok_sym *s, int32_t left,
                           struct pl_err *err)
{
    if (s->rank == UINT32_MAX)
        return PL_OK;
    return pl_merge_push(
        &r->heap, (struct pl_merge){.order = pl_merge_order(s->rank, left), .tag = s->joined}, err);
}

static enum pl_status merge_large(struct pl_tok_run *r, struct pl_tok_sym *syms, size_t n,
                                  struct pl_err *err)
{
    enum pl_status st = PL_OK;

    r->heap.n = 0;
    for (size_t i = 0; i + 1 < n && !st; i++)
        st = push(r, &syms[i], (int32_t)i, err);
    while (r->heap.n && !st) {
        const struct pl_merge m = pl_merge_pop(&r->heap);
        const int32_t left = pl_merge_left(&m);
        struct pl_tok_sym *s = &syms[left];
        /* stale: joined away, or another pair by now */
        if (s->id < 0 || s->rank != m.order >> 32 || s->joined != m.tag)
            continue;
        join(syms, left);
        lookup_next(&r->t->bpe, syms, left);
        st = push(r, s, left, err);
        if (!st && s->prev >= 0) {
            lookup_next(&r->t->bpe, syms, s->prev);
            st = push(r, &syms[s->prev], s->prev, err);
        }
    }
    return st;
}

/* The symbols that merging begins with, and unknown characters on their way. */
struct start {
    struct pl_tok_run *r;
    size_t n;
    bool unk; /* one is waiting */
};

static void add_sym(struct start *s, int32_t id)
{
    s->r->syms[s->n++].id = id;
}

static enum pl_status unknown(struct start *s, const char *c, size_t n, struct pl_err *err)
{
    const struct pl_tok_bpe *b = &s->r->t->bpe;

    if (b->byte_fallback && !b->raw) {
        size_t i = 0;
        while (i < n && b->byte_id[(unsigned char)c[i]] >= 0)
            i++;
        if (i == n) {
            for (i = 0; i < n; i++)
                add_sym(s, b->byte_id[(unsigned char)c[i]]);
            return PL_OK;
        }
    }
    if (b->unk == -2)
        return pl_fail(err, PL_EFORMAT, "%s: its unknown piece is not in its vocabulary",
                       s->r->t->info.file);
    if (b->unk < 0)
        return PL_OK; /* it vanishes */
    if (s->unk && !b->fuse_unk)
        add_sym(s, b->unk);
    s->unk = true;
    return PL_OK;
}

static void known(struct start *s, int32_t id)
{
    if (s->unk)
        add_sym(s, s->r->t->bpe.unk);
    s->unk = false;
    add_sym(s, id);
}

/* A character between the prefix and the suffix that pieces may have. */
static enum pl_status affixed(struct start *s, const char *c, size_t n, bool first, bool last,
                              struct pl_err *err)
{
    const struct pl_tok_bpe *b = &s->r->t->bpe;
    struct pl_buf *m = &s->r->mapped;
    enum pl_status st = PL_OK;
    int32_t id;

    pl_buf_clear(m);
    if (!first && b->prefix.s)
        st = pl_buf_add(m, b->prefix.s, b->prefix.len, err);
    if (!st)
        st = pl_buf_add(m, c, n, err);
    if (!st && last && b->suffix.s)
        st = pl_buf_add(m, b->suffix.s, b->suffix.len, err);
    if (st)
        return st;
    id = pl_tok_vocab_find(&s->r->t->vocab, m->data, m->len);
    if (id < 0)
        return unknown(s, m->data, m->len, err);
    known(s, id);
    return PL_OK;
}

static enum pl_status start(struct start *s, const char *w, size_t n, struct pl_err *err)
{
    const struct pl_tokenizer *t = s->r->t;
    const struct pl_tok_bpe *b = &t->bpe;
    size_t affixes = (b->prefix.s ? n * b->prefix.len : 0) + (b->suffix.s ? b->suffix.len : 0);
    size_t most = n + 1 + (b->byte_fallback ? affixes : 0);
    enum pl_status st = PL_OK;

    if (most > s->r->syms_size) {
        struct pl_tok_sym *syms = realloc(s->r->syms, (most + 64) * sizeof(*syms));
        if (!syms)
            return pl_fail(err, PL_ENOMEM, "no memory to tokenise %zu bytes", n);
        s->r->syms = syms;
        s->r->syms_size = most + 64;
    }
    for (size_t i = 0, m; i < n && !st; i += m) {
        uint32_t c = 0;
        int32_t id;
        m = b->raw ? 1 : pl_uni_decode(w + i, n - i, &c);
        if (b->prefix.s || b->suffix.s) {
            st = affixed(s, w + i, m, !i, i + m == n, err);
            continue;
        }
        if (b->raw)
            id = b->byte_id[(unsigned char)w[i]];
        else
            id = c < 128 ? b->ascii_id[c] : pl_tok_vocab_find(&t->vocab, w + i, m);
        if (id < 0)
            st = unknown(s, w + i, m, err);
        else
            known(s, id);
    }
    if (s->unk && !st)
        add_sym(s, b->unk);
    return st;
}

static enum pl_status whole_word(struct pl_tok_run *r, const char *w, size_t n, int32_t *id,
                                 struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (r->t->bpe.raw) {
        pl_buf_clear(&r->mapped);
        for (size_t i = 0; i < n && !st; i++)
            st = pl_uni_add(&r->mapped, pl_tok_byte_char((unsigned char)w[i]), err);
        w = r->mapped.data;
        n = r->mapped.len;
    }
    if (!st)
        *id = n <= PL_TOK_MAX_PIECE ? pl_tok_vocab_find(&r->t->vocab, w, n) : -1;
    return st;
}

static enum pl_status one_word(struct pl_tok_run *r, const char *w, size_t n, struct pl_err *err)
{
    const struct pl_tok_bpe *b = &r->t->bpe;
    struct start s = {.r = r};
    enum pl_status st;
    int32_t id = -1;

    if (b->ignore_merges) {
        st = whole_word(r, w, n, &id, err);
        if (st || id >= 0)
            return st ? st : pl_ids_add(r->out, id, err);
    }
    st = start(&s, w, n, err);
    if (st || !s.n)
        return st;
    for (size_t i = 0; i < s.n; i++) {
        r->syms[i].prev = (int32_t)i - 1;
        r->syms[i].next = i + 1 < s.n ? (int32_t)i + 1 : -1;
        lookup_next(b, r->syms, (int32_t)i);
    }
    if (s.n <= SMALL)
        merge_small(b, r->syms, s.n);
    else
        st = merge_large(r, r->syms, s.n, err);
    for (int32_t i = 0; i >= 0 && !st; i = r->syms[i].next)
        st = pl_ids_add(r->out, r->syms[i].id, err);
    return st;
}

static enum pl_status word(struct pl_tok_run *r, const char *w, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (!r->t->bpe.splits_at_space)
        return one_word(r, w, n, err);
    for (size_t at = 0, end; at < n && !st && r->out->n < r->stop; at = end) {
        bool text = false; /* something else than ▁ */
        for (end = at; end < n; end++) {
            bool mark = n - end >= 3 && !memcmp(w + end, PL_TOK_SPACE, 3);
            if (mark && text)
                break;
            text = text || !mark;
            end += mark ? 2 : 0;
        }
        st = one_word(r, w + at, end - at, err);
    }
    return st;
}

const struct pl_tok_model pl_tok_bpe_model = {"bpe", word};
