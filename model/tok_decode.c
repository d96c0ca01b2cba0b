/* Ids back to text, as the tokenizers library does: special tokens vanish, the rest goes through a
 * chain of decoders, each of which maps a list of strings to a list of strings. */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

struct list {
    struct pl_buf text;
    size_t *ends; /* of each string in text */
    size_t n, size;
};

static enum pl_status end_item(struct list *l, struct pl_err *err)
{
    if (l->n == l->size) {
        size_t size = l->size ? l->size * 2 : 64;
        size_t *ends = realloc(l->ends, size * sizeof(*ends));
        if (!ends)
            return pl_fail(err, PL_ENOMEM, "no memory to decode");
        l->ends = ends;
        l->size = size;
    }
    l->ends[l->n++] = l->text.len;
    return PL_OK;
}

static enum pl_status add_item(struct list *l, const char *s, size_t n, struct pl_err *err)
{
    enum pl_status st = pl_buf_add(&l->text, s, n, err);

    return st ? st : end_item(l, err);
}

static struct pl_tok_str item(const struct list *l, size_t i)
{
    size_t begin = i ? l->ends[i - 1] : 0;

    return (struct pl_tok_str){l->text.data ? l->text.data + begin : "",
                               (uint32_t)(l->ends[i] - begin)};
}

/* Bytes of the longest prefix of s that could still have become a character (Unicode 3.9, "maximal
 * subpart"), at least 1; *valid: it is one. */
static size_t subpart(const char *s, size_t len, bool *valid)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char low = 0x80, high = 0xbf;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i = 1;

    *valid = n == 1;
    if (n < 2 || p[0] > 0xf4)
        return 1;
    low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : low;
    high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : high;
    for (; i < n && i < len && p[i] >= low && p[i] <= high; i++) {
        low = 0x80;
        high = 0xbf;
    }
    *valid = i == n;
    return i;
}

static enum pl_status add_lossy(struct pl_buf *out, const char *s, size_t len, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    bool valid;

    for (size_t i = 0, n; i < len && !st; i += n) {
        n = subpart(s + i, len - i, &valid);
        st = valid ? pl_buf_add(out, s + i, n, err) : pl_buf_add(out, PL_TOK_REPLACEMENT, 3, err);
    }
    return st;
}

static enum pl_status byte_level(const struct list *in, struct list *out, struct pl_err *err)
{
    struct pl_buf bytes;
    enum pl_status st = PL_OK;

    pl_buf_init(&bytes, SIZE_MAX / 2);
    for (size_t i = 0; i < in->n && !st; i++) {
        struct pl_tok_str s = item(in, i);
        size_t begin = bytes.len;
        for (size_t at = 0; at < s.len && !st;) {
            uint32_t c;
            at += pl_uni_decode(s.s + at, s.len - at, &c);
            int b = pl_tok_char_byte(c);
            if (b < 0) { /* not all are bytes' characters: the string as it is */
                bytes.len = begin;
                st = pl_buf_add(&bytes, s.s, s.len, err);
                break;
            }
            st = pl_buf_add(&bytes, &(char){(char)b}, 1, err);
        }
    }
    if (!st)
        st = add_lossy(&out->text, bytes.data ? bytes.data : "", bytes.len, err);
    pl_buf_release(&bytes);
    return st ? st : end_item(out, err);
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* A run of <0x..> strings as one if it is well-formed, else U+FFFD for each. */
static enum pl_status flush_bytes(struct pl_buf *bytes, struct list *out, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (!bytes->len)
        return PL_OK;
    if (pl_uni_valid(bytes->data, bytes->len))
        st = add_item(out, bytes->data, bytes->len, err);
    else
        for (size_t k = 0; k < bytes->len && !st; k++)
            st = add_item(out, PL_TOK_REPLACEMENT, 3, err);
    pl_buf_clear(bytes);
    return st;
}

static enum pl_status byte_fallback(const struct list *in, struct list *out, struct pl_err *err)
{
    struct pl_buf bytes;
    enum pl_status st = PL_OK;

    pl_buf_init(&bytes, SIZE_MAX / 2);
    for (size_t i = 0; i < in->n && !st; i++) {
        struct pl_tok_str s = item(in, i);
        if (s.len == 6 && !memcmp(s.s, "<0x", 3) && s.s[5] == '>' && hex(s.s[3]) >= 0 &&
            hex(s.s[4]) >= 0) {
            char b = (char)(hex(s.s[3]) * 16 + hex(s.s[4]));
            st = pl_buf_add(&bytes, &b, 1, err);
            continue;
        }
        st = flush_bytes(&bytes, out, err);
        if (!st)
            st = add_item(out, s.s, s.len, err);
    }
    if (!st)
        st = flush_bytes(&bytes, out, err);
    pl_buf_release(&bytes);
    return st;
}

static enum pl_status add_replaced(struct pl_buf *out, struct pl_tok_str s, struct pl_tok_str from,
                                   const char *to, size_t to_len, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < s.len && !st;) {
        const char *p = memmem(s.s + i, s.len - i, from.s, from.len);
        size_t n = p ? (size_t)(p - s.s) - i : s.len - i;
        st = pl_buf_add(out, s.s + i, n, err);
        if (!st && p)
            st = pl_buf_add(out, to, to_len, err);
        i += n + (p ? from.len : 0);
    }
    return st;
}

/* WordPiece's tidying of English punctuation, replacement by replacement. */
static enum pl_status add_tidy(struct pl_buf *out, struct pl_tok_str s, struct pl_err *err)
{
    static const char *const rules[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                           {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                           {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    struct pl_buf a, b;
    enum pl_status st;

    pl_buf_init(&a, SIZE_MAX / 2);
    pl_buf_init(&b, SIZE_MAX / 2);
    st = pl_buf_add(&a, s.s, s.len, err);
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]) && !st; i++) {
        struct pl_tok_str now = {a.data, (uint32_t)a.len};
        struct pl_tok_str from = {rules[i][0], (uint32_t)strlen(rules[i][0])};
        if (!memmem(now.s, now.len, from.s, from.len))
            continue;
        pl_buf_clear(&b);
        st = add_replaced(&b, now, from, rules[i][1], strlen(rules[i][1]), err);
        struct pl_buf swap = a;
        a = b;
        b = swap;
    }
    if (!st)
        st = pl_buf_add(out, a.data, a.len, err);
    pl_buf_release(&a);
    pl_buf_release(&b);
    return st;
}

static enum pl_status wordpiece(const struct pl_tok_decoder *d, size_t i, struct pl_tok_str s,
                                struct pl_buf *tmp, struct pl_buf *out, struct pl_err *err)
{
    bool joins = d->from.len <= s.len && !memcmp(s.s, d->from.s, d->from.len);
    enum pl_status st = PL_OK;

    pl_buf_clear(tmp);
    if (i && joins) {
        s.s += d->from.len;
        s.len -= d->from.len;
    } else if (i) {
        st = pl_buf_add(tmp, " ", 1, err);
    }
    if (!st)
        st = pl_buf_add(tmp, s.s, s.len, err);
    if (st)
        return st;
    return d->cleanup ? add_tidy(out, (struct pl_tok_str){tmp->data, (uint32_t)tmp->len}, err)
                      : pl_buf_add(out, tmp->data, tmp->len, err);
}

/* The one character of d->from, off both ends of s so many times at most. */
static struct pl_tok_str stripped(const struct pl_tok_decoder *d, struct pl_tok_str s)
{
    size_t n = d->from.len;

    for (size_t k = 0; k < d->start && s.len >= n && !memcmp(s.s, d->from.s, n); k++) {
        s.s += n;
        s.len -= (uint32_t)n;
    }
    for (size_t k = 0; k < d->stop && s.len >= n && !memcmp(s.s + s.len - n, d->from.s, n); k++)
        s.len -= (uint32_t)n;
    return s;
}

/* The decoders that map string by string. */
static enum pl_status each(const struct pl_tok_decoder *d, const struct list *in, struct list *out,
                           struct pl_err *err)
{
    struct pl_buf tmp;
    enum pl_status st = PL_OK;

    pl_buf_init(&tmp, SIZE_MAX / 2);
    for (size_t i = 0; i < in->n && !st; i++) {
        struct pl_tok_str s = item(in, i);
        bool end = i + 1 == in->n, gone = !i && d->prefix;
        switch (d->kind) {
        case PL_TOK_D_WORDPIECE:
            st = wordpiece(d, i, s, &tmp, &out->text, err);
            break;
        case PL_TOK_D_METASPACE:
            st = add_replaced(&out->text, s, d->from, " ", !gone, err);
            break;
        case PL_TOK_D_BPE:
            st = add_replaced(&out->text, s, d->from, " ", !end, err);
            break;
        case PL_TOK_D_STRIP:
            s = stripped(d, s);
            st = pl_buf_add(&out->text, s.s, s.len, err);
            break;
        default:
            st = add_replaced(&out->text, s, d->from, d->to.s, d->to.len, err);
            break;
        }
        if (!st)
            st = end_item(out, err);
    }
    pl_buf_release(&tmp);
    return st;
}

static enum pl_status step(const struct pl_tok_decoder *d, const struct list *in, struct list *out,
                           struct pl_err *err)
{
    switch (d->kind) {
    case PL_TOK_D_BYTE_LEVEL:
        return byte_level(in, out, err);
    case PL_TOK_D_BYTES:
        return byte_fallback(in, out, err);
    case PL_TOK_D_FUSE:
        return add_item(out, in->text.data ? in->text.data : "", in->text.len, err);
    default:
        return each(d, in, out, err);
    }
}

static enum pl_status tokens(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                             struct list *out, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st; i++) {
        int32_t k = t->added_of[ids[i]];
        struct pl_tok_str s = {NULL, 0};
        if (k)
            s = t->added[k - 1].pattern;
        else if ((size_t)ids[i] < t->vocab.n)
            s = t->vocab.pieces[ids[i]];
        const struct pl_tok_added *a = s.s ? pl_tok_added_find(t, s.s, s.len) : NULL;
        if (s.s && !(a && a->special))
            st = add_item(out, s.s, s.len, err);
    }
    return st;
}

enum pl_status pl_tok_pipe_decode(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                                  struct pl_buf *out, struct pl_err *err)
{
    struct list a = {0}, b = {0};
    enum pl_status st;

    pl_buf_init(&a.text, n * 4096 + (1u << 24)); /* rules that need more are hostile */
    pl_buf_init(&b.text, n * 4096 + (1u << 24));
    st = tokens(t, ids, n, &a, err);
    for (size_t i = 0; i < t->n_decoders && !st; i++) {
        pl_buf_clear(&b.text);
        b.n = 0;
        st = step(&t->decoders[i], &a, &b, err);
        struct list swap = a;
        a = b;
        b = swap;
    }
    for (size_t i = 0; i < a.n && !st; i++) {
        struct pl_tok_str s = item(&a, i);
        if (i && t->joins_with_space)
            st = pl_buf_add(out, " ", 1, err);
        if (!st)
            st = pl_buf_add(out, s.s, s.len, err);
    }
    pl_buf_release(&a.text);
    pl_buf_release(&b.text);
    free(a.ends);
    free(b.ends);
    return st;
}
