#include "model/gguf_tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KEY "tokenizer.ggml."

struct kind {
    const char *name;
    enum pl_tokenizer_kind kind;
    int32_t bos, eos, unk; /* where the file does not say */
    bool add_bos, add_eos;
};

static const struct kind kinds[] = {
    {"llama", PL_TOKENIZER_SPM_BPE, 1, 2, 0, true, false},
    {"t5", PL_TOKENIZER_SPM_UNIGRAM, -1, 1, 2, false, true},
    {"gpt2", PL_TOKENIZER_BYTE_BPE, -1, -1, -1, false, false},
    {"bert", PL_TOKENIZER_WORDPIECE, 101, 102, 100, true, true},
};

static enum pl_status find_kind(const struct pl_gguf *g, const struct kind **out,
                                struct pl_err *err)
{
    struct pl_gguf_str s;
    enum pl_status st = pl_gguf_string(g, KEY "model", &s, err);
    char text[41];

    if (!st && !s.s)
        st = pl_fail(err, PL_ENOENT, "%s holds no tokenizer (no " KEY "model)", pl_gguf_file(g));
    if (st)
        return st;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (s.len == strlen(kinds[i].name) && !memcmp(s.s, kinds[i].name, s.len)) {
            *out = &kinds[i];
            return PL_OK;
        }
    return pl_fail(err, PL_EUNSUPPORTED,
                   "%s: tokenizer model \"%s\" is not supported (llama, gpt2, bert, t5 are)",
                   pl_gguf_file(g), pl_gguf_printable(s, text, sizeof(text)));
}

/* A list beside the tokens, of their length. */
static enum pl_status check_length(const struct pl_gguf *g, const char *key, const void *list,
                                   size_t n, size_t tokens, struct pl_err *err)
{
    if (list && n != tokens)
        return pl_fail(err, PL_EFORMAT, "%s: %s has %zu elements for %zu tokens", pl_gguf_file(g),
                       key, n, tokens);
    return PL_OK;
}

static enum pl_status get_id(const struct pl_gguf *g, const char *key, int32_t dflt, size_t n,
                             int32_t *out, struct pl_err *err)
{
    int64_t v = dflt;
    enum pl_status st = pl_gguf_int(g, key, dflt, INT32_MIN, UINT32_MAX, &v, err);

    if (!st)
        *out = v >= 0 && (uint64_t)v < n ? (int32_t)v : -1; /* all ones: none */
    return st;
}

static enum pl_status get_ids(const struct pl_gguf *g, const struct kind *k,
                              struct pl_tokenizer_parts *p, struct pl_err *err)
{
    bool bert = p->kind == PL_TOKENIZER_WORDPIECE;
    enum pl_status st = get_id(g, KEY "bos_token_id", k->bos, p->n, &p->bos, err);

    if (!st)
        st = get_id(g, KEY "eos_token_id", k->eos, p->n, &p->eos, err);
    if (!st && bert)
        st = get_id(g, KEY "cls_token_id", p->bos, p->n, &p->bos, err);
    if (!st && bert)
        st = get_id(g, KEY "seperator_token_id", k->eos, p->n, &p->eos, err);
    if (!st)
        st = get_id(g, KEY "unknown_token_id", k->unk, p->n, &p->unk, err);
    if (!st)
        st = get_id(g, KEY "padding_token_id", -1, p->n, &p->pad, err);
    if (!st)
        st = pl_gguf_bool(g, KEY "add_bos_token", k->add_bos, &p->add_bos, err);
    if (!st)
        st = pl_gguf_bool(g, KEY "add_eos_token", k->add_eos, &p->add_eos, err);
    if (bert)
        p->add_bos = p->add_eos = true;
    return st;
}

/* The pieces with what stands beside them. */
static enum pl_status get_pieces(const struct pl_gguf *g, struct pl_arena *arena,
                                 struct pl_tokenizer_parts *p, struct pl_err *err)
{
    struct pl_gguf_str *tokens = NULL;
    size_t n = 0;
    float *scores = NULL;
    int32_t *types = NULL;
    enum pl_status st = pl_gguf_strings(g, KEY "tokens", arena, &tokens, &p->n, err);

    if (!st && !p->n)
        st = pl_fail(err, PL_EFORMAT, "%s: " KEY "tokens is missing or empty", pl_gguf_file(g));
    if (!st)
        st = pl_gguf_floats(g, KEY "scores", arena, &scores, &n, err);
    if (!st)
        st = check_length(g, KEY "scores", scores, n, p->n, err);
    if (!st)
        st = pl_gguf_ints(g, KEY "token_type", arena, &types, &n, err);
    if (!st)
        st = check_length(g, KEY "token_type", types, n, p->n, err);
    if (st)
        return st;
    const char **pieces = pl_arena_calloc(arena, p->n, sizeof(*pieces));
    uint32_t *lengths = pl_arena_calloc(arena, p->n, sizeof(*lengths));
    if (!pieces || !lengths)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its tokenizer", pl_gguf_file(g));
    for (size_t i = 0; i < p->n; i++) {
        pieces[i] = tokens[i].s;
        lengths[i] = tokens[i].len < UINT32_MAX ? (uint32_t)tokens[i].len : UINT32_MAX;
    }
    p->pieces = pieces;
    p->lengths = lengths;
    p->scores = scores;
    p->types = types;
    return PL_OK;
}

static enum pl_status get_merges(const struct pl_gguf *g, struct pl_arena *arena,
                                 struct pl_tokenizer_parts *p, struct pl_err *err)
{
    struct pl_gguf_str *list = NULL, pre = {NULL, 0};
    enum pl_status st = pl_gguf_strings(g, KEY "merges", arena, &list, &p->n_merges, err);

    if (!st)
        st = pl_gguf_string(g, KEY "pre", &pre, err);
    if (st)
        return st;
    const char **merges = pl_arena_calloc(arena, p->n_merges + 1, sizeof(*merges));
    bool ok = merges != NULL;
    for (size_t i = 0; ok && i < p->n_merges; i++) {
        merges[i] = pl_arena_strndup(arena, list[i].s, list[i].len);
        ok = merges[i] != NULL;
    }
    if (pre.s) {
        char *text = pl_arena_alloc(arena, 64);
        p->pre = text ? pl_gguf_printable(pre, text, 64) : NULL;
        ok = ok && p->pre;
    }
    if (!ok)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its tokenizer", pl_gguf_file(g));
    p->merges = merges;
    return PL_OK;
}

static enum pl_status get_spm(const struct pl_gguf *g, struct pl_tokenizer_parts *p,
                              struct pl_err *err)
{
    const struct pl_gguf_pair *rules = pl_gguf_find(g, KEY "precompiled_charsmap");
    enum pl_status st = pl_gguf_bool(g, KEY "add_space_prefix", true, &p->dummy_prefix, err);

    if (!st)
        st = pl_gguf_bool(g, KEY "remove_extra_whitespaces", false, &p->remove_extra_whitespace,
                          err);
    if (!st && rules) {
        if (rules->type != PL_GGUF_ARRAY || (rules->of != PL_GGUF_U8 && rules->of != PL_GGUF_I8))
            return pl_fail(err, PL_EFORMAT, "%s: %s is no array of bytes", pl_gguf_file(g),
                           rules->key);
        p->charsmap = rules->data;
        p->charsmap_len = (size_t)rules->count;
    }
    return st;
}

enum pl_status pl_gguf_tokenizer(const struct pl_gguf *g, struct pl_tokenizer **out,
                                 struct pl_err *err)
{
    struct pl_tokenizer_parts p = {.name = pl_gguf_file(g), .lowercase = true, .word_starts = true};
    const struct kind *k = NULL;
    struct pl_arena arena;
    enum pl_status st;

    pl_arena_init(&arena);
    st = find_kind(g, &k, err);
    if (!st) {
        p.kind = k->kind;
        st = get_pieces(g, &arena, &p, err);
    }
    if (!st)
        st = get_ids(g, k, &p, err);
    if (!st && p.kind == PL_TOKENIZER_BYTE_BPE)
        st = get_merges(g, &arena, &p, err);
    if (!st && (p.kind == PL_TOKENIZER_SPM_BPE || p.kind == PL_TOKENIZER_SPM_UNIGRAM))
        st = get_spm(g, &p, err);
    if (!st)
        st = pl_tokenizer_from_parts(&p, out, err);
    pl_arena_release(&arena);
    return st;
}
