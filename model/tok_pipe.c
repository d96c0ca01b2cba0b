/* The tokenizers library's pipeline: added tokens are cut out of the text, the rest is normalised,
 * normalised added tokens are cut out of that, the rest is split into words for the model. */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

/* What a text of len bytes may become on its way: rules that blow it up further are hostile. */
static size_t most(size_t len)
{
    return (len < PL_TOKENIZER_MAX_TEXT ? len : PL_TOKENIZER_MAX_TEXT) * 64 + (1u << 20);
}

void pl_tok_run_init(struct pl_tok_run *r, const struct pl_tokenizer *t, size_t len, size_t stop,
                     struct pl_ids *out)
{
    memset(r, 0, sizeof(*r));
    r->t = t;
    r->stop = stop;
    r->out = out;
    pl_buf_init(&r->text, most(len));
    pl_buf_init(&r->normal, most(len));
    pl_buf_init(&r->tmp, most(len));
    pl_buf_init(&r->mapped, most(len) * 2);
    for (size_t i = 0; i < PL_TOK_MAX_STEPS; i++)
        pl_buf_init(&r->step[i], most(len) * 4);
}

void pl_tok_run_release(struct pl_tok_run *r)
{
    pl_bpe_release(&r->spm_bpe);
    pl_buf_release(&r->text);
    pl_buf_release(&r->normal);
    pl_buf_release(&r->tmp);
    pl_buf_release(&r->mapped);
    for (size_t i = 0; i < PL_TOK_MAX_STEPS; i++)
        pl_buf_release(&r->step[i]);
    free(r->syms);
    pl_merge_release(&r->heap);
    free(r->nodes);
}

/* The value of the longest key that s begins with and its bytes; −1: none. */
static int32_t longest(const struct pl_tok_trie *t, const char *s, size_t len, size_t *n)
{
    int32_t found = -1;
    uint32_t node = 0;

    for (size_t i = 0; i < len; i++) {
        node = pl_tok_trie_next(t, node, (unsigned char)s[i]);
        if (!node)
            break;
        if (t->values[node] >= 0) {
            found = t->values[node];
            *n = i + 1;
        }
    }
    return found;
}

static uint32_t flags_at(const char *s, size_t len)
{
    uint32_t c;

    if (!len)
        return 0;
    pl_uni_decode(s, len, &c);
    return pl_uni_flags(c);
}

/* Where the last character of s (len ≥ 1) begins. */
static size_t last_char(const char *s, size_t len)
{
    size_t at = len - 1;

    while (at && ((unsigned char)s[at] & 0xc0) == 0x80)
        at--;
    return at;
}

/* Grows a match over the whitespace that its token swallows; false: the token only stands as a word
 * of its own and this is none. */
static bool fit(const struct pl_tok_added *a, const char *s, size_t len, size_t done, size_t *begin,
                size_t *end)
{
    uint32_t c;

    if (a->single_word &&
        ((*begin &&
          (flags_at(s + last_char(s, *begin), *begin - last_char(s, *begin)) & PL_UNI_WORD)) ||
         (flags_at(s + *end, len - *end) & PL_UNI_WORD)))
        return false;
    while (a->lstrip && *begin > done) {
        size_t at = last_char(s, *begin);
        if (!(flags_at(s + at, *begin - at) & PL_UNI_SPACE))
            break;
        *begin = at;
    }
    while (a->rstrip && (flags_at(s + *end, len - *end) & PL_UNI_SPACE))
        *end += pl_uni_decode(s + *end, len - *end, &c);
    return true;
}

typedef enum pl_status rest_fn(struct pl_tok_run *r, const char *s, size_t len, bool first,
                               struct pl_err *err);

/* Ids for the added tokens in s, `rest` for what lies between them. */
static enum pl_status cut_added(struct pl_tok_run *r, const struct pl_tok_trie *trie, const char *s,
                                size_t len, bool first, rest_fn *rest, struct pl_err *err)
{
    size_t done = 0, n = 0;
    enum pl_status st = PL_OK;

    for (size_t at = 0; at < len && trie->n > 1 && !st && r->out->n < r->stop;) {
        int32_t k = trie->root[(unsigned char)s[at]] ? longest(trie, s + at, len - at, &n) : -1;
        size_t begin = at, end = at + n;
        if (k < 0) {
            at++;
            continue;
        }
        at += n;
        if (!fit(&r->t->added[k], s, len, done, &begin, &end))
            continue;
        if (begin > done)
            st = rest(r, s + done, begin - done, first && !done, err);
        if (!st && r->out->n < r->stop)
            st = pl_ids_add(r->out, r->t->added[k].id, err);
        done = end;
    }
    if (!st && done < len && r->out->n < r->stop)
        st = rest(r, s + done, len - done, first && !done, err);
    return st;
}

static enum pl_status plain(struct pl_tok_run *r, const char *s, size_t len, bool first,
                            struct pl_err *err)
{
    return pl_tok_split_words(r, s, len, first, err);
}

static enum pl_status raw(struct pl_tok_run *r, const char *s, size_t len, bool first,
                          struct pl_err *err)
{
    const struct pl_tokenizer *t = r->t;
    enum pl_status st;

    if (t->n_normals) {
        st = pl_tok_normalise(t->normals, t->n_normals, s, len, &r->normal, &r->tmp, err);
        if (st)
            return st;
        s = r->normal.data ? r->normal.data : "";
        len = r->normal.len;
    }
    return cut_added(r, &t->added_normal, s, len, first, plain, err);
}

static enum pl_status encode_valid(struct pl_tok_run *r, const char *text, size_t len,
                                   struct pl_err *err)
{
    return cut_added(r, &r->t->added_raw, text, len, true, raw, err);
}

/* The first place behind `from` where the text can be cut: behind a lone newline between a
 * character and a letter. len: there is none. */
static size_t cut_at(const char *s, size_t len, size_t from)
{
    for (size_t i = from; i + 1 < len; i++) {
        const char *p = memchr(s + i, '\n', len - i - 1);
        if (!p)
            break;
        i = (size_t)(p - s);
        char a = i ? s[i - 1] : ' ', b = s[i + 1];
        if (a > ' ' && a < 127 && ((b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z')))
            return i + 1;
    }
    return len;
}

static enum pl_status encode(struct pl_tok_run *r, const char *text, size_t len, struct pl_err *err)
{
    size_t begin = r->out->n, want = r->stop - begin;
    enum pl_status st = PL_OK;
    uint32_t c;

    if (!pl_uni_valid(text, len)) {
        pl_buf_clear(&r->text);
        for (size_t i = 0; i < len && !st;) {
            i += pl_uni_decode(text + i, len - i, &c);
            st = pl_uni_add(&r->text, c, err);
        }
        if (st)
            return st;
        text = r->text.data;
        len = r->text.len;
    }
    /* A few ids of a long text: try a prefix that the rest cannot change, twice as long each time.
     */
    for (size_t some = want < len / 64 ? want * 16 + 4096 : len; some < len / 2; some *= 2) {
        size_t cut = r->t->cuts_at_newline ? cut_at(text, len, some) : len;
        if (cut > len / 2)
            break;
        st = encode_valid(r, text, cut, err);
        if (st || r->out->n >= r->stop)
            return st;
        r->out->n = begin;
    }
    return encode_valid(r, text, len, err);
}

const struct pl_tok_family pl_tok_pipe_family = {encode, pl_tok_pipe_decode};

const struct pl_tok_added *pl_tok_added_find(const struct pl_tokenizer *t, const char *s,
                                             size_t len)
{
    size_t n = 0;
    int32_t k = t->added_text.n > 1 ? longest(&t->added_text, s, len, &n) : -1;

    return k >= 0 && n == len ? &t->added[k] : NULL;
}

int32_t pl_tok_id_of(const struct pl_tokenizer *t, const char *s, size_t len)
{
    const struct pl_tok_added *a = pl_tok_added_find(t, s, len);

    return a ? a->id : pl_tok_vocab_find(&t->vocab, s, len);
}

enum pl_status pl_tok_added_init(struct pl_tokenizer *t, size_t n, size_t bytes, struct pl_err *err)
{
    enum pl_status st;

    if (n > PL_TOK_MAX_IDS)
        return pl_fail(err, PL_ERANGE, "%s: %zu added tokens: at most %u", t->info.file, n,
                       PL_TOK_MAX_IDS);
    t->added = pl_arena_calloc(&t->arena, n, sizeof(*t->added));
    if (n && !t->added)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its added tokens", t->info.file);
    t->added_size = n;
    t->next_added = (int32_t)t->vocab.count;
    st = pl_tok_trie_init(&t->added_text, &t->arena, bytes, err);
    return st ? pl_err_prefix(err, st, "%s: added tokens", t->info.file) : PL_OK;
}

enum pl_status pl_tok_add_token(struct pl_tokenizer *t, const struct pl_tok_added *a,
                                struct pl_err *err)
{
    struct pl_tok_added *to = NULL;
    const struct pl_tok_added *old = pl_tok_added_find(t, a->text.s, a->text.len);

    if (!a->text.len)
        return PL_OK;
    if (old) {
        to = &t->added[old - t->added];
        int32_t id = to->id;
        *to = *a;
        to->id = id;
        return PL_OK;
    }
    if (t->n_added == t->added_size)
        return pl_fail(err, PL_ERANGE, "%s: too many added tokens", t->info.file);
    to = &t->added[t->n_added];
    *to = *a;
    to->id = pl_tok_vocab_find(&t->vocab, a->text.s, a->text.len);
    if (to->id < 0)
        to->id = t->next_added++;
    pl_tok_trie_add(&t->added_text, a->text.s, a->text.len, (int32_t)t->n_added++);
    return PL_OK;
}

/* What a normalised added token is looked for as. */
static enum pl_status find_pattern(struct pl_tokenizer *t, struct pl_tok_added *a,
                                   struct pl_err *err)
{
    struct pl_buf out, tmp;
    enum pl_status st;
    char *copy;

    a->pattern = a->text;
    if (!a->normalized || !t->n_normals)
        return PL_OK;
    pl_buf_init(&out, PL_TOK_MAX_PIECE * 8u);
    pl_buf_init(&tmp, PL_TOK_MAX_PIECE * 8u);
    st = pl_tok_normalise(t->normals, t->n_normals, a->text.s, a->text.len, &out, &tmp, err);
    copy = pl_arena_alloc(&t->arena, out.len + 1);
    if (!st && !copy)
        st = pl_fail(err, PL_ENOMEM, "%s: no memory for its added tokens", t->info.file);
    if (!st && out.len)
        memcpy(copy, out.data, out.len);
    a->pattern = (struct pl_tok_str){copy, (uint32_t)out.len};
    pl_buf_release(&out);
    pl_buf_release(&tmp);
    return st;
}

static enum pl_status index_added(struct pl_tokenizer *t, struct pl_err *err)
{
    size_t bytes[2] = {0, 0};
    int32_t most = (int32_t)t->vocab.n - 1;
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < t->n_added && !st; i++) {
        st = find_pattern(t, &t->added[i], err);
        bytes[t->added[i].normalized] += t->added[i].pattern.len;
        most = t->added[i].id > most ? t->added[i].id : most;
    }
    t->info.vocab = most + 1;
    t->added_of = pl_arena_calloc(&t->arena, (size_t)most + 1, sizeof(*t->added_of));
    if (!st && most >= 0 && !t->added_of)
        st = pl_fail(err, PL_ENOMEM, "%s: no memory for its added tokens", t->info.file);
    if (!st)
        st = pl_tok_trie_init(&t->added_raw, &t->arena, bytes[0], err);
    if (!st)
        st = pl_tok_trie_init(&t->added_normal, &t->arena, bytes[1], err);
    for (size_t i = 0; i < t->n_added && !st; i++) {
        const struct pl_tok_added *a = &t->added[i];
        t->added_of[a->id] = (int32_t)i + 1;
        if (a->pattern.len)
            pl_tok_trie_add(a->normalized ? &t->added_normal : &t->added_raw, a->pattern.s,
                            a->pattern.len, (int32_t)i);
    }
    return st;
}

/* Whether x\ny may be cut behind the newline: some splitter ends a word there, no normaliser and no
 * added token looks across. */
static bool can_cut(const struct pl_tokenizer *t)
{
    bool splits = false;

    for (size_t i = 0; i < t->n_normals; i++)
        if (t->normals[i].kind > PL_TOK_BERT)
            return false;
    for (size_t i = 0; i < t->n_splits; i++) {
        const struct pl_tok_split *z = &t->splits[i];
        if (z->kind == PL_TOK_STRING || z->kind == PL_TOK_METASPACE || z->kind == PL_TOK_WORDS ||
            (z->kind == PL_TOK_CLASS && z->behaviour != PL_TOK_ISOLATED &&
             z->behaviour != PL_TOK_REMOVED))
            return false;
        splits = splits || (z->kind == PL_TOK_PATTERN && z->behaviour == PL_TOK_ISOLATED) ||
                 (z->kind == PL_TOK_CLASS && z->flag == PL_UNI_SPACE);
        if (z->kind == PL_TOK_PREFIX_SPACE)
            return false;
    }
    for (size_t i = 0; i < t->n_added; i++) {
        const struct pl_tok_str p = t->added[i].text;
        if (memchr(p.s, '\n', p.len) || (p.s[0] >= 'a' && p.s[0] <= 'z') ||
            (p.s[0] >= 'A' && p.s[0] <= 'Z') || t->added[i].normalized)
            return false;
    }
    return splits;
}

enum pl_status pl_tok_pipe_finish(struct pl_tokenizer *t, struct pl_err *err)
{
    enum pl_status st = index_added(t, err);

    t->family = &pl_tok_pipe_family;
    t->cuts_at_newline = can_cut(t);
    return st;
}
