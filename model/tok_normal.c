/* What a text goes through before it is split: normal forms, BERT's cleaning, replacements, and the
 * rules that SentencePiece models carry (precompiled_charsmap: a Darts double-array trie). */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <string.h>

enum pl_status pl_tok_charsmap_init(struct pl_tok_charsmap *m, const char *file, const void *data,
                                    size_t len, struct pl_arena *arena, struct pl_err *err)
{
    const unsigned char *p = data;
    unsigned char *copy;
    size_t trie;

    memset(m, 0, sizeof(*m));
    if (!len)
        return PL_OK;
    trie = len > 4 ? (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24 : 0;
    if (trie < 4 || trie % 4 || trie >= len - 4)
        return pl_fail(err, PL_EFORMAT, "%s: its normaliser's rules are malformed", file);
    copy = pl_arena_alloc(arena, len - 3); /* a NUL behind the last string */
    if (!copy)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its normaliser's rules", file);
    memcpy(copy, p + 4, len - 4);
    m->trie = copy;
    m->units = trie / 4;
    m->text = (const char *)copy + trie;
    m->size = len - 4 - trie;
    return PL_OK;
}

/* A unit of the double array: bits 0–7 its label (with bit 31), 8 has a leaf, 9 and 10–30 the
 * offset of its children; a leaf's bits 0–30 are its value. */
static uint32_t unit(const struct pl_tok_charsmap *m, size_t at)
{
    const unsigned char *p = m->trie + 4 * at;

    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static size_t offset(uint32_t u)
{
    return (size_t)(u >> 10) << ((u & 1u << 9) >> 6);
}

size_t pl_tok_charsmap_find(const struct pl_tok_charsmap *m, const char *s, size_t len,
                            bool shortest, const char **to)
{
    size_t at = offset(unit(m, 0)), found = 0;

    for (size_t i = 0; i < len; i++) {
        at ^= (unsigned char)s[i];
        if (!s[i] || at >= m->units)
            break;
        uint32_t u = unit(m, at);
        if ((u & (1u << 31 | 0xff)) != (unsigned char)s[i])
            break;
        at ^= offset(u);
        if (!(u >> 8 & 1) || at >= m->units)
            continue;
        uint32_t value = unit(m, at) & 0x7fffffff;
        if (value >= m->size)
            continue;
        found = i + 1;
        *to = m->text + value;
        if (shortest)
            break;
    }
    return found;
}

/* As the tokenizers library applies the rules: to clusters of less than 6 bytes as wholes, else to
 * characters, taking the rule for the shortest prefix. */
static enum pl_status apply_charsmap(const struct pl_tok_charsmap *m, const char *s, size_t n,
                                     struct pl_buf *out, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    const char *to;
    uint32_t c;

    for (size_t i = 0, g; i < n && !st; i += g) {
        g = pl_uni_grapheme(s + i, n - i);
        if (g < 6 && pl_tok_charsmap_find(m, s + i, g, true, &to)) {
            st = pl_buf_add(out, to, strlen(to), err);
            continue;
        }
        for (size_t j = i, k; j < i + g && !st; j += k) {
            k = pl_uni_decode(s + j, n - j, &c);
            if (pl_tok_charsmap_find(m, s + j, k, true, &to))
                st = pl_buf_add(out, to, strlen(to), err);
            else
                st = pl_buf_add(out, s + j, k, err);
        }
    }
    return st;
}

static enum pl_status add_lower(struct pl_buf *out, uint32_t c, struct pl_err *err)
{
    enum pl_status st = pl_uni_add(out, pl_uni_lower_of(c), err);

    return st || c != 0x130 ? st : pl_uni_add(out, 0x307, err);
}

static bool is_chinese(uint32_t c)
{
    static const uint32_t ranges[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                         {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                         {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

static enum pl_status clean_char(const struct pl_tok_normal *z, struct pl_buf *out, uint32_t c,
                                 struct pl_err *err)
{
    uint32_t flags = pl_uni_flags(c);
    bool chinese = z->chinese && is_chinese(c);
    enum pl_status st = PL_OK;

    if (z->clean && (flags & PL_UNI_CLEANED))
        return PL_OK;
    if (z->clean && (flags & PL_UNI_SPACE))
        c = ' ';
    if (chinese)
        st = pl_buf_add(out, " ", 1, err);
    if (!st)
        st = z->lower && !z->accents ? add_lower(out, c, err) : pl_uni_add(out, c, err);
    return st || !chinese ? st : pl_buf_add(out, " ", 1, err);
}

/* Each character on its own, by the kind of step. */
static enum pl_status map_chars(const struct pl_tok_normal *z, const char *s, size_t n,
                                struct pl_buf *out, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    uint32_t c;

    for (size_t i = 0; i < n && !st;) {
        i += pl_uni_decode(s + i, n - i, &c);
        if (z->kind == PL_TOK_BERT)
            st = clean_char(z, out, c, err);
        else if (z->kind == PL_TOK_LOWERCASE)
            st = add_lower(out, c, err);
        else if (!(pl_uni_flags(c) & PL_UNI_MARK))
            st = pl_uni_add(out, c, err);
    }
    return st;
}

static enum pl_status bert(const struct pl_tok_normal *z, const char *s, size_t n,
                           struct pl_buf *out, struct pl_err *err)
{
    size_t begin = out->len;
    struct pl_buf plain;
    enum pl_status st = map_chars(z, s, n, out, err);

    if (st || !z->accents)
        return st;
    pl_buf_init(&plain, out->cap);
    st = pl_uni_normal(PL_UNI_NFD, out->data ? out->data + begin : "", out->len - begin, &plain,
                       err);
    out->len = begin;
    for (size_t i = 0; i < plain.len && !st;) {
        uint32_t c;
        i += pl_uni_decode(plain.data + i, plain.len - i, &c);
        if (!(pl_uni_flags(c) & PL_UNI_MN))
            st = z->lower ? add_lower(out, c, err) : pl_uni_add(out, c, err);
    }
    pl_buf_release(&plain);
    return st;
}

/* Bytes of the match of `from` at s; 0: none. */
static size_t match(const struct pl_tok_normal *z, const char *s, size_t n)
{
    size_t k = 0;

    if (z->from.s)
        return n >= z->from.len && !memcmp(s, z->from.s, z->from.len) ? z->from.len : 0;
    while (k < n && s[k] == ' ')
        k++;
    return k > 1 ? k : 0;
}

static enum pl_status replace(const struct pl_tok_normal *z, const char *s, size_t n,
                              struct pl_buf *out, struct pl_err *err)
{
    char first = z->from.s ? z->from.s[0] : ' ';
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st;) {
        const char *next = memchr(s + i, first, n - i);
        size_t plain = next ? (size_t)(next - s) - i : n - i, k;
        st = pl_buf_add(out, s + i, plain, err);
        i += plain;
        if (st || i == n)
            break;
        k = match(z, s + i, n - i);
        st = k ? pl_buf_add(out, z->to.s, z->to.len, err) : pl_buf_add(out, s + i, 1, err);
        i += k ? k : 1;
    }
    return st;
}

static enum pl_status strip(const struct pl_tok_normal *z, const char *s, size_t n,
                            struct pl_buf *out, struct pl_err *err)
{
    size_t begin = 0, end = n, kept = 0;
    uint32_t c;

    for (size_t i = 0, k; i < n; i += k) {
        k = pl_uni_decode(s + i, n - i, &c);
        if (pl_uni_flags(c) & PL_UNI_SPACE) {
            if (z->left && begin == i)
                begin = i + k;
        } else {
            kept = i + k;
        }
    }
    if (z->right)
        end = kept > begin ? kept : begin;
    return pl_buf_add(out, s + begin, end - begin, err);
}

static enum pl_status step(const struct pl_tok_normal *z, const char *s, size_t n,
                           struct pl_buf *out, struct pl_err *err)
{
    enum pl_status st;

    switch (z->kind) {
    case PL_TOK_NFD:
    case PL_TOK_NFC:
    case PL_TOK_NFKD:
    case PL_TOK_NFKC:
        return pl_uni_normal((enum pl_uni_form)z->kind, s, n, out, err);
    case PL_TOK_BERT:
        return bert(z, s, n, out, err);
    case PL_TOK_PREPEND:
        st = n ? pl_buf_add(out, z->to.s, z->to.len, err) : PL_OK;
        return st ? st : pl_buf_add(out, s, n, err);
    case PL_TOK_REPLACE:
        return replace(z, s, n, out, err);
    case PL_TOK_STRIP:
        return strip(z, s, n, out, err);
    case PL_TOK_CHARSMAP:
        return apply_charsmap(&z->map, s, n, out, err);
    default:
        return map_chars(z, s, n, out, err);
    }
}

enum pl_status pl_tok_normalise(const struct pl_tok_normal *steps, size_t n, const char *text,
                                size_t len, struct pl_buf *out, struct pl_buf *tmp,
                                struct pl_err *err)
{
    /* The last step has to write to out. */
    struct pl_buf *to = n % 2 ? out : tmp;
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st; i++) {
        pl_buf_clear(to);
        st = step(&steps[i], text, len, to, err);
        text = to->data ? to->data : "";
        len = to->len;
        to = to == out ? tmp : out;
    }
    return st;
}
