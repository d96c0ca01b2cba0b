/* A tokenizer from arrays that another file format holds. */
#include "model/tok_json.h"
#include "model/unicode.h"

#include <string.h>

static struct pl_tok_str piece(const struct pl_tokenizer_parts *p, size_t i)
{
    return (struct pl_tok_str){p->pieces[i],
                               p->lengths ? p->lengths[i] : (uint32_t)strlen(p->pieces[i])};
}

static int type_of(const struct pl_tokenizer_parts *p, size_t i)
{
    return p->types ? p->types[i] : PL_SPM_NORMAL;
}

static enum pl_status load_spm(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                               struct pl_err *err)
{
    struct pl_spm *s = &t->spm;
    size_t bytes = 0;
    enum pl_status st = PL_OK;

    *s = (struct pl_spm){.kind = p->kind == PL_TOKENIZER_SPM_BPE ? PL_SPM_BPE : PL_SPM_UNIGRAM,
                         .unk = p->unk,
                         .bos = p->bos,
                         .eos = p->eos,
                         .pad = p->pad,
                         .unk_surface = " \xe2\x81\x87 ",
                         .normaliser = "",
                         .charsmap = p->charsmap_len,
                         .rules = p->charsmap,
                         .dummy_prefix = p->dummy_prefix,
                         .remove_extra_whitespace = p->remove_extra_whitespace,
                         .escape_whitespace = true};
    s->pieces = pl_arena_calloc(&t->arena, p->n, sizeof(*s->pieces));
    if (!s->pieces)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its pieces", t->info.file);
    for (size_t i = 0; i < p->n && !st; i++) {
        struct pl_tok_str copy = {"", 0};
        int type = type_of(p, i);
        if (type < PL_SPM_NORMAL || type > PL_SPM_BYTE)
            return pl_fail(err, PL_EFORMAT, "%s: piece %zu has unknown type %d", t->info.file, i,
                           type);
        st = pl_tok_copy(t, piece(p, i).s, piece(p, i).len, &copy, err);
        if (!st && !copy.len && type == PL_SPM_NORMAL)
            type = PL_SPM_UNUSED; /* a hole */
        s->pieces[i] = (struct pl_spm_piece){copy.s, copy.len, p->scores ? p->scores[i] : 0,
                                             (enum pl_spm_type)type};
        bytes += type == PL_SPM_BYTE;
    }
    s->n = p->n;
    s->byte_fallback = bytes > 0;
    if (!st)
        st = pl_tok_spm_finish(t, err);
    if (!st && p->add_bos && t->info.bos >= 0)
        t->prefix[t->n_prefix++] = t->info.bos;
    if (!st && p->add_eos && t->info.eos >= 0)
        t->suffix[t->n_suffix++] = t->info.eos;
    return st;
}

/* GGUF's WordPiece marks the pieces that begin a word by ▁, BERT's vocabularies the others by ##.
 */
static enum pl_status copy_piece(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                                 size_t i, struct pl_tok_str *out, struct pl_err *err)
{
    struct pl_tok_str s = piece(p, i);
    struct pl_buf b;
    enum pl_status st;

    if (p->kind != PL_TOKENIZER_WORDPIECE || !p->word_starts || type_of(p, i) != PL_SPM_NORMAL)
        return pl_tok_copy(t, s.s, s.len, out, err);
    if (s.len >= 3 && !memcmp(s.s, PL_TOK_SPACE, 3))
        return pl_tok_copy(t, s.s + 3, s.len - 3, out, err);
    pl_buf_init(&b, PL_TOK_MAX_PIECE);
    st = pl_buf_add(&b, "##", 2, err);
    if (!st)
        st = pl_buf_add(&b, s.s, s.len, err);
    if (!st)
        st = pl_tok_copy(t, b.data, b.len, out, err);
    pl_buf_release(&b);
    return st;
}

static enum pl_status load_vocab(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                                 struct pl_err *err)
{
    enum pl_status st = pl_tok_vocab_init(&t->vocab, &t->arena, p->n, p->n, err);
    size_t bytes = 0, n = 0;

    if (st)
        return pl_err_prefix(err, st, "%s", t->info.file);
    for (size_t i = 0; i < p->n && !st; i++) {
        struct pl_tok_str copy;
        bool added = type_of(p, i) == PL_SPM_CONTROL || type_of(p, i) == PL_SPM_USER;
        st = copy_piece(t, p, i, &copy, err);
        if (!st)
            st = pl_tok_vocab_add(&t->vocab, t->info.file, (uint32_t)i, copy, true, err);
        if (!st && copy.len > t->wordpiece.longest)
            t->wordpiece.longest = copy.len;
        bytes += added && !st ? copy.len : 0;
        n += added;
    }
    if (!st)
        st = pl_tok_added_init(t, n, bytes, err);
    for (size_t i = 0; i < p->n && !st; i++) {
        struct pl_tok_added a = {.text = t->vocab.pieces[i],
                                 .special = type_of(p, i) == PL_SPM_CONTROL};
        if (a.special || type_of(p, i) == PL_SPM_USER)
            st = pl_tok_add_token(t, &a, err);
    }
    return st;
}

static enum pl_status read_merges(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                                  struct pl_err *err)
{
    enum pl_status st = pl_tok_bpe_init(t, p->n_merges, err);

    for (size_t i = 0; i < p->n_merges && !st; i++) {
        const char *s = p->merges[i], *space = *s ? strchr(s + 1, ' ') : NULL;
        if (!space)
            return pl_fail(err, PL_EFORMAT, "%s: merge %zu is no pair", t->info.file, i);
        st = pl_tok_bpe_merge(t, (uint32_t)i, (struct pl_tok_str){s, (uint32_t)(space - s)},
                              (struct pl_tok_str){space + 1, (uint32_t)strlen(space + 1)}, err);
    }
    return st;
}

/* The pre-tokenizers by the names that GGUF files use. */
static const struct {
    const char *name, *pattern;
    bool digits, nfc, whole_words;
} pres[] = {
    {"gpt-2", "gpt-2", false, false, false},       {"default", "gpt-2", false, false, false},
    {"roberta-bpe", "gpt-2", false, false, false}, {"phi-2", "gpt-2", false, false, false},
    {"olmo", "gpt-2", false, false, false},        {"smollm", "gpt-2", true, false, false},
    {"starcoder", "gpt-2", true, false, false},    {"llama-bpe", "llama-bpe", false, false, true},
    {"llama3", "llama-bpe", false, false, true},   {"llama-v3", "llama-bpe", false, false, true},
    {"qwen2", "qwen2", false, true, false},
};

static enum pl_status load_bpe(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                               struct pl_err *err)
{
    struct pl_tok_split digits = {.kind = PL_TOK_CLASS, .flag = PL_UNI_NUMERIC};
    const char *pre = p->pre ? p->pre : "gpt-2";
    size_t k = 0, n = sizeof(pres) / sizeof(pres[0]);
    enum pl_status st = PL_OK;

    while (k < n && strcmp(pres[k].name, pre) != 0)
        k++;
    if (k == n)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: pre-tokenizer %.40s is not supported",
                       t->info.file, pre);
    t->model = &pl_tok_bpe_model;
    t->bpe.ignore_merges = pres[k].whole_words;
    if (pres[k].nfc)
        st = pl_tok_add_normal(t, &(struct pl_tok_normal){.kind = PL_TOK_NFC}, err);
    if (!st && pres[k].digits)
        st = pl_tok_add_split(t, &digits, err);
    if (!st)
        st = pl_tok_add_byte_level(t, false, pl_tok_pattern_by_name(pres[k].pattern), err);
    if (!st)
        st = pl_tok_add_decoder(t, &(struct pl_tok_decoder){.kind = PL_TOK_D_BYTE_LEVEL}, err);
    if (!st)
        st = load_vocab(t, p, err);
    if (!st)
        st = read_merges(t, p, err);
    if (!st)
        pl_tok_try_raw(t);
    return st;
}

static enum pl_status load_wordpiece(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                                     struct pl_err *err)
{
    enum pl_status st = pl_tok_add_bert(t, p->lowercase, p->lowercase, true, err);

    if (!st)
        st = load_vocab(t, p, err);
    t->wordpiece.unk = p->unk >= 0 && (size_t)p->unk < p->n ? p->unk : -1;
    if (!st && t->wordpiece.unk < 0)
        st = pl_fail(err, PL_EFORMAT, "%s: its vocabulary has no unknown piece", t->info.file);
    return st;
}

enum pl_status pl_tok_load_parts(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                                 struct pl_err *err)
{
    const int32_t ids[] = {p->bos, p->eos, p->unk, p->pad};
    enum pl_status st;

    if (!p->n || p->n > PL_TOK_MAX_IDS)
        return pl_fail(err, PL_EFORMAT, "%s: a vocabulary of %zu pieces: 1 to %u", t->info.file,
                       p->n, PL_TOK_MAX_IDS);
    for (size_t i = 0; i < 4; i++)
        if (ids[i] < -1 || (ids[i] >= 0 && (size_t)ids[i] >= p->n))
            return pl_fail(err, PL_EFORMAT, "%s: special token %d is out of range", t->info.file,
                           ids[i]);
    if (p->kind == PL_TOKENIZER_SPM_BPE || p->kind == PL_TOKENIZER_SPM_UNIGRAM)
        return load_spm(t, p, err);
    st = p->kind == PL_TOKENIZER_BYTE_BPE ? load_bpe(t, p, err) : load_wordpiece(t, p, err);
    if (!st)
        st = pl_tok_pipe_finish(t, err);
    t->info.bos = p->bos;
    t->info.eos = p->eos;
    t->info.pad = p->pad;
    t->info.unk = p->unk;
    if (p->add_bos && p->bos >= 0)
        t->prefix[t->n_prefix++] = p->bos;
    if (p->add_eos && p->eos >= 0)
        t->suffix[t->n_suffix++] = p->eos;
    return st;
}
