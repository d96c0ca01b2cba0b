/* Splitters. Regular expressions are hand-written scanners: the few that tokenizers in the wild use
 * are all of two families (GPT-2's; cl100k's with Llama 3 and Qwen2). */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <string.h>

static const struct pl_tok_pattern patterns[] = {
    {"gpt-2", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     false, 0},
    {"llama-bpe",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     true, 3},
    {"qwen2",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     true, 1},
};

const struct pl_tok_pattern *pl_tok_pattern_by_regex(const char *regex)
{
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
        if (!strcmp(patterns[i].regex, regex))
            return &patterns[i];
    return NULL;
}

const struct pl_tok_pattern *pl_tok_pattern_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
        if (!strcmp(patterns[i].name, name))
            return &patterns[i];
    return NULL;
}

/* A character and its classes. */
struct at {
    uint32_t c, flags;
    size_t n; /* bytes; 0: the end */
};

static struct at look(const char *s, size_t len, size_t i)
{
    struct at a = {0};

    if (i >= len)
        return a;
    a.n = pl_uni_decode(s + i, len - i, &a.c);
    a.flags = pl_uni_flags(a.c) & (PL_UNI_L | PL_UNI_N | PL_UNI_S);
    return a;
}

/* The end of the run of characters with these classes (0: none of the three) from i on. */
static size_t run_of(const char *s, size_t len, size_t i, uint32_t flags)
{
    struct at a = look(s, len, i);

    while (a.n && a.flags == flags) {
        i += a.n;
        a = look(s, len, i);
    }
    return i;
}

/* Behind an apostrophe at i: the end of 's 't 're 've 'm 'll 'd, 0: none. */
static size_t contraction(const char *s, size_t len, size_t i, bool blind)
{
    char a = i + 1 < len ? s[i + 1] : 0, b = i + 2 < len ? s[i + 2] : 0;

    if (blind && i + 2 < len && !memcmp(s + i + 1, "\xc5\xbf", 2))
        return i + 3; /* ſ is an s to a regular expression that is blind to case */
    if (blind && a >= 'A' && a <= 'Z')
        a = (char)(a + 32);
    if (blind && b >= 'A' && b <= 'Z')
        b = (char)(b + 32);
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return i + 2;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l'))
        return i + 3;
    return 0;
}

static size_t skip_newlines(const char *s, size_t len, size_t i)
{
    while (i < len && (s[i] == '\r' || s[i] == '\n'))
        i++;
    return i;
}

/* The whitespace match at i: \s*[\r\n]+ (where `newlines`), \s+(?!\S), \s+. */
static size_t whitespace(const char *s, size_t len, size_t i, bool newlines)
{
    size_t end = i, newline = 0, last = i; /* behind the last newline; where the last one begins */

    for (struct at a = look(s, len, i); a.n && a.flags == PL_UNI_S; a = look(s, len, end)) {
        last = end;
        end += a.n;
        if (a.c == '\r' || a.c == '\n')
            newline = end;
    }
    if (newlines && newline)
        return newline;
    return end == len || last == i ? end : last;
}

/* The end of the match at i (every character is in one). */
static size_t scan(const struct pl_tok_pattern *p, const char *s, size_t len, size_t i)
{
    struct at a = look(s, len, i), b;
    size_t end = a.c == '\'' ? contraction(s, len, i, p->any_prefix) : 0;
    bool lead;

    if (end)
        return end;
    if (a.flags == PL_UNI_L)
        return run_of(s, len, i + a.n, PL_UNI_L);
    b = look(s, len, i + a.n);
    lead = p->any_prefix ? a.c != '\r' && a.c != '\n' && a.flags != PL_UNI_N : a.c == ' ';
    if (lead && b.n && b.flags == PL_UNI_L)
        return run_of(s, len, i + a.n + b.n, PL_UNI_L);
    if (!p->any_prefix && a.c == ' ' && b.n && b.flags == PL_UNI_N)
        return run_of(s, len, i + a.n + b.n, PL_UNI_N);
    if (a.flags == PL_UNI_N && !p->digits)
        return run_of(s, len, i + a.n, PL_UNI_N);
    if (a.flags == PL_UNI_N) {
        end = i + a.n;
        for (unsigned k = 1; k < p->digits && b.n && b.flags == PL_UNI_N; k++) {
            end += b.n;
            b = look(s, len, end);
        }
        return end;
    }
    if (!a.flags || (a.c == ' ' && b.n && !b.flags)) {
        end = run_of(s, len, i + a.n, 0);
        return p->any_prefix ? skip_newlines(s, len, end) : end;
    }
    return whitespace(s, len, i, p->any_prefix);
}

/* The next match at or behind i: false when there is none. */
static bool find(const struct pl_tok_split *z, const char *s, size_t len, size_t i, size_t *begin,
                 size_t *end)
{
    uint32_t c;

    if (z->kind == PL_TOK_STRING || z->kind == PL_TOK_METASPACE) {
        const char *p = memmem(s + i, len - i, z->string.s, z->string.len);
        *begin = p ? (size_t)(p - s) : len;
        *end = *begin + z->string.len;
        return p != NULL;
    }
    if (z->pattern) {
        *begin = i;
        *end = i < len ? scan(z->pattern, s, len, i) : i;
        return i < len;
    }
    for (size_t k; i < len; i += k) {
        uint32_t flags;
        k = pl_uni_decode(s + i, len - i, &c);
        flags = pl_uni_flags(c);
        if (z->kind == PL_TOK_CLASS ? !(flags & z->flag)
                                    : !(flags & PL_UNI_WORD) && (flags & PL_UNI_SPACE))
            continue;
        *begin = i;
        *end = i + k;
        if (z->kind == PL_TOK_CLASS)
            return true;
        for (bool w = flags & PL_UNI_WORD; *end < len; *end += k) {
            k = pl_uni_decode(s + *end, len - *end, &c);
            flags = pl_uni_flags(c);
            if (!(flags & PL_UNI_WORD) == w || (!w && (flags & PL_UNI_SPACE)))
                break;
        }
        return true;
    }
    return false;
}

static enum pl_status run_step(struct pl_tok_run *r, size_t k, const char *s, size_t len,
                               bool first, struct pl_err *err);

/* Stretches of a text, matches and what lies between them, in order. */
struct stretch {
    size_t begin, end;
    bool match;
};

struct walk {
    const struct pl_tok_split *z;
    const char *s;
    size_t len, at, begin, end; /* of the next match */
    bool known;                 /* begin and end are of this place */
};

static bool next_stretch(struct walk *w, struct stretch *out)
{
    if (w->at >= w->len)
        return false;
    if (!w->known && !find(w->z, w->s, w->len, w->at, &w->begin, &w->end))
        w->begin = w->end = w->len;
    w->known = w->begin > w->at;
    *out = w->known ? (struct stretch){w->at, w->begin, false}
                    : (struct stretch){w->begin, w->end, true};
    w->at = out->end;
    if (w->z->invert)
        out->match = !out->match;
    return true;
}

/* Whether b belongs to the piece that ends with a. */
static bool joins(enum pl_tok_behaviour how, const struct stretch *a, const struct stretch *b)
{
    switch (how) {
    case PL_TOK_CONTIGUOUS:
        return a->match == b->match;
    case PL_TOK_MERGED_PREVIOUS:
        return b->match && !a->match;
    case PL_TOK_MERGED_NEXT:
        return a->match && !b->match;
    default:
        return false;
    }
}

static enum pl_status split(struct pl_tok_run *r, size_t k, const char *s, size_t len, bool first,
                            struct pl_err *err)
{
    const struct pl_tok_split *z = &r->t->splits[k];
    struct walk w = {.z = z, .s = s, .len = len};
    enum pl_tok_behaviour how = z->behaviour;
    struct stretch piece, next;
    enum pl_status st = PL_OK;
    bool more = next_stretch(&w, &piece);

    while (more && !st && r->out->n < r->stop) {
        struct stretch last = piece;
        while ((more = next_stretch(&w, &next)) && joins(how, &last, &next)) {
            piece.end = next.end;
            last = next;
        }
        if (how != PL_TOK_REMOVED || !piece.match)
            st = run_step(r, k + 1, s + piece.begin, piece.end - piece.begin, first && !piece.begin,
                          err);
        piece = next;
    }
    return st;
}

static enum pl_status byte_level(struct pl_tok_run *r, size_t k, const char *s, size_t len,
                                 bool first, struct pl_err *err)
{
    struct pl_buf *b = &r->step[k];
    enum pl_status st = PL_OK;

    pl_buf_clear(b);
    for (size_t i = 0; i < len && !st; i++)
        st = pl_uni_add(b, pl_tok_byte_char((unsigned char)s[i]), err);
    return st ? st : run_step(r, k + 1, b->data, b->len, first, err);
}

/* ▁ for each space, perhaps one in front. */
static enum pl_status mark_spaces(struct pl_tok_run *r, size_t k, const char *s, size_t len,
                                  bool first, struct pl_err *err)
{
    const struct pl_tok_split *z = &r->t->splits[k];
    const struct pl_tok_str m = z->string;
    struct pl_buf *b = &r->step[k];
    bool marked = (len && s[0] == ' ') || (len >= m.len && !memcmp(s, m.s, m.len));
    enum pl_status st = PL_OK;

    pl_buf_clear(b);
    if (!marked && (z->prepend == PL_TOK_ALWAYS || (z->prepend == PL_TOK_FIRST && first)))
        st = pl_buf_add(b, m.s, m.len, err);
    for (size_t i = 0; i < len && !st;) {
        const char *next = memchr(s + i, ' ', len - i);
        size_t n = next ? (size_t)(next - s) - i : len - i;
        st = pl_buf_add(b, s + i, n, err);
        if (!st && next)
            st = pl_buf_add(b, m.s, m.len, err);
        i += n + (next != NULL);
    }
    if (st)
        return st;
    return z->splits ? split(r, k, b->data, b->len, first, err)
                     : run_step(r, k + 1, b->data, b->len, first, err);
}

static enum pl_status run_step(struct pl_tok_run *r, size_t k, const char *s, size_t len,
                               bool first, struct pl_err *err)
{
    const struct pl_tok_split *z = &r->t->splits[k];
    enum pl_status st;

    if (!len || r->out->n >= r->stop)
        return PL_OK;
    if (k == r->t->n_splits)
        return r->t->model->word(r, s, len, err);
    if (z->kind == PL_TOK_METASPACE)
        return mark_spaces(r, k, s, len, first, err);
    if (z->kind == PL_TOK_BYTE_LEVEL)
        return r->t->bpe.raw ? run_step(r, k + 1, s, len, first, err)
                             : byte_level(r, k, s, len, first, err);
    if (z->kind != PL_TOK_PREFIX_SPACE)
        return split(r, k, s, len, first, err);
    if (s[0] == ' ')
        return run_step(r, k + 1, s, len, first, err);
    pl_buf_clear(&r->step[k]);
    st = pl_buf_add(&r->step[k], " ", 1, err);
    if (!st)
        st = pl_buf_add(&r->step[k], s, len, err);
    return st ? st : run_step(r, k + 1, r->step[k].data, r->step[k].len, first, err);
}

enum pl_status pl_tok_split_words(struct pl_tok_run *r, const char *text, size_t len, bool first,
                                  struct pl_err *err)
{
    return run_step(r, 0, text, len, first, err);
}
