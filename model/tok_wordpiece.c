/* WordPiece: the longest piece that a word begins with, again and again; a word that cannot be
 * covered, or is too long, is unknown as a whole. */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <string.h>

/* The longest piece at `at`: its bytes, 0: none. */
static size_t longest(struct pl_tok_run *r, const char *w, size_t n, size_t at, int32_t *id)
{
    const struct pl_tokenizer *t = r->t;
    size_t skip = at ? t->wordpiece.prefix.len : 0, end = n;

    if (end - at > t->wordpiece.longest)
        end = at + t->wordpiece.longest;
    for (; end > at; end--) {
        if (end < n && ((unsigned char)w[end] & 0xc0) == 0x80)
            continue; /* within a character */
        char *s = r->mapped.data;
        if (skip)
            memcpy(s + skip, w + at, end - at);
        *id = skip ? pl_tok_vocab_find(&t->vocab, s, skip + end - at)
                   : pl_tok_vocab_find(&t->vocab, w + at, end - at);
        if (*id >= 0)
            return end - at;
    }
    return 0;
}

static enum pl_status word(struct pl_tok_run *r, const char *w, size_t n, struct pl_err *err)
{
    const struct pl_tok_wordpiece *p = &r->t->wordpiece;
    size_t before = r->out->n, chars = 0, m;
    enum pl_status st = PL_OK;
    uint32_t c;

    for (size_t i = 0; i < n && chars <= p->max_chars; chars++)
        i += pl_uni_decode(w + i, n - i, &c);
    pl_buf_clear(&r->mapped);
    st = pl_buf_add(&r->mapped, p->prefix.s, p->prefix.len, err);
    if (!st && !pl_buf_reserve(&r->mapped, p->longest))
        st = pl_fail(err, PL_ENOMEM, "no memory to tokenise");
    for (size_t at = 0; at < n && !st; at += m) {
        int32_t id = -1;
        m = chars > p->max_chars ? 0 : longest(r, w, n, at, &id);
        if (m) {
            st = pl_ids_add(r->out, id, err);
            continue;
        }
        r->out->n = before;
        if (p->unk < 0)
            return pl_fail(err, PL_EFORMAT, "%s: its unknown piece is not in its vocabulary",
                           r->t->info.file);
        return pl_ids_add(r->out, p->unk, err);
    }
    return st;
}

const struct pl_tok_model pl_tok_wordpiece_model = {"wordpiece", word};
