/* The sentencepiece library's normaliser, encoder and decoder around its two models. Special
 * pieces' names in the text are plain text, as they are to the library. */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

#define BATCH (1u << 16) /* normalised bytes that the unigram model takes at a time */

static enum pl_status check_supported(const char *file, const struct pl_spm *s, struct pl_err *err)
{
    static const char *const kinds[] = {"0", "unigram", "bpe", "word", "char"};

    if (s->kind != PL_SPM_BPE && s->kind != PL_SPM_UNIGRAM)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "%s: SentencePiece model type %s is not supported (bpe and unigram are)",
                       file, s->kind >= 0 && s->kind <= 4 ? kinds[s->kind] : "(unknown)");
    if (s->whitespace_as_suffix || !s->escape_whitespace)
        return pl_fail(
            err, PL_EUNSUPPORTED,
            "%s: SentencePiece's treat_whitespace_as_suffix and unescaped whitespace are "
            "not supported",
            file);
    for (size_t i = 0; i < s->n && s->kind == PL_SPM_BPE; i++)
        if (s->pieces[i].type == PL_SPM_UNUSED)
            return pl_fail(err, PL_EUNSUPPORTED,
                           "%s: piece %zu is of type UNUSED, which is not supported", file, i);
    return PL_OK;
}

/* An id that trainer_spec names, when there is such a piece of such a type. */
static int32_t special(const struct pl_spm *s, int32_t id, enum pl_spm_type type)
{
    return id >= 0 && (size_t)id < s->n && s->pieces[id].type == type ? id : -1;
}

enum pl_status pl_tok_spm_finish(struct pl_tokenizer *t, struct pl_err *err)
{
    const char *file = t->info.file;
    enum pl_status st = pl_vocab_init(&t->spm_vocab, file, &t->spm, &t->arena, err);

    if (!st)
        st =
            pl_tok_charsmap_init(&t->charsmap, file, t->spm.rules, t->spm.charsmap, &t->arena, err);
    if (st)
        return st;
    t->family = &pl_tok_spm_family;
    t->info.kind = t->spm.kind == PL_SPM_BPE ? "sentencepiece-bpe" : "sentencepiece-unigram";
    t->info.vocab = (int32_t)t->spm.n;
    t->info.bos = special(&t->spm, t->spm.bos, PL_SPM_CONTROL);
    t->info.eos = special(&t->spm, t->spm.eos, PL_SPM_CONTROL);
    t->info.pad = special(&t->spm, t->spm.pad, PL_SPM_CONTROL);
    t->info.unk = special(&t->spm, t->spm.unk, PL_SPM_UNKNOWN);
    if (t->info.unk < 0)
        return pl_fail(err, PL_EFORMAT, "%s: unk_id %d is not the unknown piece", file, t->spm.unk);
    return t->spm.kind == PL_SPM_UNIGRAM ? pl_tok_unigram_spm(t, err) : PL_OK;
}

enum pl_status pl_tok_load_spm(struct pl_tokenizer *t, const void *data, size_t len,
                               struct pl_err *err)
{
    enum pl_status st = pl_spm_parse(t->info.file, data, len, &t->arena, &t->spm, err);

    if (!st)
        st = check_supported(t->info.file, &t->spm, err);
    return st ? st : pl_tok_spm_finish(t, err);
}

/* An encode on its way: normalised characters gather in r->normal, which is tokenised whenever the
 * next one cannot join with it. */
struct encoder {
    struct pl_tok_run *r;
    bool in_word; /* the word has a character that is not ▁ */
    size_t held;  /* ▁s that only stand if more text follows (remove_extra_whitespace) */
    size_t batch; /* bytes that make the unigram model run */
};

static enum pl_status flush(struct encoder *e, bool final, struct pl_err *err)
{
    struct pl_tok_run *r = e->r;
    struct pl_buf *b = &r->normal;
    enum pl_status st;

    e->in_word = false;
    if (r->t->spm.kind == PL_SPM_UNIGRAM) {
        size_t done = 0;
        st = pl_tok_unigram_encode(r, b->data, b->len, final, &done, err);
        pl_buf_consume(b, done);
        e->batch = b->len * 2 > BATCH ? b->len * 2 : BATCH; /* never quadratic */
        return st;
    }
    st = pl_bpe_encode(&r->spm_bpe, &r->t->spm_vocab, b->data, b->len, &r->was_unk, r->out, err);
    pl_buf_clear(b);
    return st;
}

static enum pl_status put(struct encoder *e, const char *s, size_t n, bool space,
                          struct pl_err *err)
{
    const struct pl_tokenizer *t = e->r->t;
    enum pl_status st = PL_OK;

    if (space && e->in_word &&
        (t->spm.kind == PL_SPM_UNIGRAM ? e->r->normal.len >= e->batch
                                       : t->spm_vocab.splits_at_space))
        st = flush(e, false, err);
    e->in_word = e->in_word || !space;
    return st ? st : pl_buf_add(&e->r->normal, s, n, err);
}

/* A stretch of normalised text, characters whole. */
static enum pl_status put_all(struct encoder *e, const char *s, size_t n, struct pl_err *err)
{
    bool squeeze = e->r->t->spm.remove_extra_whitespace;
    enum pl_status st = PL_OK;
    uint32_t c;

    for (size_t i = 0, m; i < n && !st; i += m) {
        m = pl_uni_decode(s + i, n - i, &c);
        bool space = c == ' ' || c == 0x2581;
        if (space && squeeze) {
            e->held++;
            continue;
        }
        for (; e->held && !st; e->held--)
            st = put(e, PL_TOK_SPACE, 3, true, err);
        if (!st)
            st = put(e, space ? PL_TOK_SPACE : s + i, space ? 3 : m, space, err);
    }
    return st;
}

/* What the text at hand begins with: its normalised form and its bytes (NormalizePrefix). */
static size_t normal_prefix(const struct pl_tokenizer *t, const char *text, size_t len,
                            const char **to, size_t *n)
{
    size_t found = t->spm_vocab.n_user ? pl_vocab_user_match(&t->spm_vocab, text, len) : 0;
    uint32_t c;

    *to = text;
    *n = found;
    if (!found && t->charsmap.trie) {
        found = pl_tok_charsmap_find(&t->charsmap, text, len, false, to);
        *n = found ? strlen(*to) : 0;
    }
    if (found)
        return found;
    found = pl_uni_decode(text, len, &c);
    *n = found;
    if (found == 1 && c == 0xfffd) {
        *to = PL_TOK_REPLACEMENT;
        *n = 3;
    }
    return found;
}

/* Normalises and tokenises until the text or the wanted number of ids is reached
 * (Normalizer::Normalize). */
static enum pl_status encode(struct pl_tok_run *r, const char *text, size_t len, struct pl_err *err)
{
    const struct pl_spm *spm = &r->t->spm;
    struct encoder e = {.r = r, .batch = BATCH};
    bool prefix = spm->dummy_prefix && (!r->inside || r->t->legacy);
    bool squeeze = spm->remove_extra_whitespace, after_space = squeeze, begun = false;
    enum pl_status st = PL_OK;

    for (size_t at = 0; at < len && !st && r->out->n < r->stop;) {
        const char *s;
        size_t n;
        at += normal_prefix(r->t, text + at, len - at, &s, &n);
        if (squeeze && !begun && n == 1 && s[0] == ' ')
            continue;
        if (!begun && prefix && squeeze)
            e.held++; /* squeezed whitespace at the end takes the prefix with it */
        else if (!begun && prefix)
            st = put(&e, PL_TOK_SPACE, 3, true, err);
        begun = true;
        for (; after_space && n && s[0] == ' '; n--)
            s++;
        if (!n)
            continue;
        after_space = squeeze && s[n - 1] == ' ';
        if (!st)
            st = put_all(&e, s, n, err);
    }
    if (!st && r->normal.len && r->out->n < r->stop)
        st = flush(&e, true, err);
    return st;
}

/* The text of a run of byte pieces: valid characters as they are, each other byte as U+FFFD. */
static enum pl_status put_bytes(struct pl_buf *out, const char *bytes, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    uint32_t c;

    for (size_t i = 0; i < n && !st;) {
        i += pl_uni_decode(bytes + i, n - i, &c);
        st = pl_uni_add(out, c, err);
    }
    return st;
}

static enum pl_status put_piece(struct pl_buf *out, const char *s, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st;) {
        bool mark = n - i >= 3 && !memcmp(s + i, PL_TOK_SPACE, 3);
        st = pl_buf_add(out, mark ? " " : s + i, 1, err);
        i += mark ? 3 : 1;
    }
    return st;
}

/* SentencePieceProcessor::Decode. */
static enum pl_status decode(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                             struct pl_buf *out, struct pl_err *err)
{
    bool strip = t->spm.dummy_prefix || t->spm.remove_extra_whitespace;
    bool at_start = true, stripped = false;
    struct pl_buf bytes;
    enum pl_status st = PL_OK;
    size_t begin = out->len;

    pl_buf_init(&bytes, SIZE_MAX / 2);
    for (size_t i = 0; i <= n && !st; i++) {
        const struct pl_spm_piece *p = i < n ? &t->spm.pieces[ids[i]] : NULL;
        if (p && p->type == PL_SPM_BYTE) {
            char byte = (char)strtol(p->text + 3, NULL, 16);
            st = pl_buf_add(&bytes, &byte, 1, err);
            continue;
        }
        if (bytes.len) {
            st = put_bytes(out, bytes.data, bytes.len, err);
            pl_buf_clear(&bytes);
        }
        if (!p || st)
            break;
        if (stripped || out->len > begin)
            at_start = false;
        stripped = false;
        if (p->type == PL_SPM_UNKNOWN) {
            st = pl_buf_add(out, t->spm.unk_surface, strlen(t->spm.unk_surface), err);
        } else if (p->type != PL_SPM_CONTROL) {
            size_t skip =
                at_start && strip && p->len >= 3 && !memcmp(p->text, PL_TOK_SPACE, 3) ? 3 : 0;
            stripped = skip && !t->spm.remove_extra_whitespace;
            st = put_piece(out, p->text + skip, p->len - skip, err);
        }
    }
    pl_buf_release(&bytes);
    return st;
}

const struct pl_tok_family pl_tok_spm_family = {encode, decode};
