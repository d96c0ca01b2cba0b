/* tokenizer.json: the whole file, its model, its added tokens. */
#include "model/tok_json.h"

#include <stdlib.h>
#include <string.h>

/* transformers writes int(1e30) where a tokenizer has no longest text: integers that no 64 bits
 * hold become the largest of 18 digits, in place. */
static void clamp_integers(char *s, size_t len)
{
    bool quoted = false;

    for (size_t i = 0; i < len; i++) {
        size_t n = 0;
        quoted ^= s[i] == '"';
        i += quoted && s[i] == '\\';
        if (quoted || i >= len || s[i] < '0' || s[i] > '9')
            continue;
        n = strspn(s + i, "0123456789.eE+-");
        if (n > 18 && strspn(s + i, "0123456789") == n) {
            memset(s + i, '9', 18);
            memset(s + i + 18, ' ', n - 18);
        }
        i += n - 1;
    }
}

enum pl_status pl_tok_json_parse(const char *file, const char *data, size_t len, json_t **out,
                                 struct pl_err *err)
{
    json_error_t e;
    json_t *j = json_loadb(data ? data : "", len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    char *copy = NULL;

    if (!j && json_error_code(&e) == json_error_numeric_overflow)
        copy = malloc(len + 1);
    if (copy) {
        memcpy(copy, data, len);
        copy[len] = '\0';
        clamp_integers(copy, len);
        j = json_loadb(copy, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
        free(copy);
    }
    if (!j)
        return pl_fail(err,
                       json_error_code(&e) == json_error_out_of_memory ? PL_ENOMEM : PL_EFORMAT,
                       "%s:%d:%d: %s", file, e.line, e.column, e.text);
    *out = j;
    return PL_OK;
}

enum pl_status pl_tok_copy(struct pl_tokenizer *t, const char *s, size_t len,
                           struct pl_tok_str *out, struct pl_err *err)
{
    char *copy;

    if (len > PL_TOK_MAX_PIECE)
        return pl_fail(err, PL_EFORMAT, "%s: a piece of %zu bytes: at most %u", t->info.file, len,
                       PL_TOK_MAX_PIECE);
    copy = pl_arena_alloc(&t->arena, len + 1);
    if (!copy)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its pieces", t->info.file);
    memcpy(copy, s, len);
    *out = (struct pl_tok_str){copy, (uint32_t)len};
    return PL_OK;
}

enum pl_status pl_tok_json_str(struct pl_tokenizer *t, const json_t *v, const char *what,
                               struct pl_tok_str *out, struct pl_err *err)
{
    if (!json_is_string(v))
        return pl_fail(err, PL_EFORMAT, "%s: %s: a string is expected", t->info.file, what);
    return pl_tok_copy(t, json_string_value(v), json_string_length(v), out, err);
}

enum pl_status pl_tok_json_vocab(struct pl_tokenizer *t, const json_t *vocab, struct pl_err *err)
{
    json_int_t most = -1;
    enum pl_status st;
    const char *key;
    json_t *v;

    if (!json_is_object(vocab))
        return pl_fail(err, PL_EFORMAT, "%s: its vocabulary is no object", t->info.file);
    json_object_foreach ((json_t *)(uintptr_t)vocab, key, v) {
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= PL_TOK_MAX_IDS)
            return pl_fail(err, PL_EFORMAT, "%s: piece \"%.40s\" has an id out of range",
                           t->info.file, key);
        most = id > most ? id : most;
    }
    st = pl_tok_vocab_init(&t->vocab, &t->arena, (size_t)most + 1, json_object_size(vocab), err);
    if (st)
        return pl_err_prefix(err, st, "%s", t->info.file);
    json_object_foreach ((json_t *)(uintptr_t)vocab, key, v) {
        struct pl_tok_str s;
        st = pl_tok_copy(t, key, strlen(key), &s, err);
        if (!st)
            st = pl_tok_vocab_add(&t->vocab, t->info.file, (uint32_t)json_integer_value(v), s,
                                  false, err);
        if (st)
            return st;
    }
    return PL_OK;
}

/* "a b" or ["a", "b"]; the strings are the JSON value's. */
static bool merge_parts(const json_t *v, struct pl_tok_str *a, struct pl_tok_str *b)
{
    const json_t *x = json_array_get(v, 0), *y = json_array_get(v, 1);

    if (json_is_string(v)) {
        const char *s = json_string_value(v), *space = strchr(s, ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        *a = (struct pl_tok_str){s, (uint32_t)(space - s)};
        *b = (struct pl_tok_str){space + 1, (uint32_t)strlen(space + 1)};
        return true;
    }
    if (json_array_size(v) != 2 || !json_is_string(x) || !json_is_string(y))
        return false;
    *a = (struct pl_tok_str){json_string_value(x), (uint32_t)json_string_length(x)};
    *b = (struct pl_tok_str){json_string_value(y), (uint32_t)json_string_length(y)};
    return true;
}

/* An optional member: −1 absent, −2 not in the vocabulary. */
static enum pl_status piece_id(struct pl_tokenizer *t, const json_t *model, const char *key,
                               int32_t *out, struct pl_err *err)
{
    const char *s;
    enum pl_status st = pl_json_str(model, key, NULL, &s, err);

    if (st)
        return pl_err_prefix(err, st, "%s", t->info.file);
    *out = -1;
    if (s) {
        int32_t id = pl_tok_vocab_find(&t->vocab, s, strlen(s));
        *out = id < 0 ? -2 : id;
    }
    return PL_OK;
}

static enum pl_status affix(struct pl_tokenizer *t, const json_t *model, const char *key,
                            struct pl_tok_str *out, struct pl_err *err)
{
    const json_t *v = json_object_get(model, key);

    if (!v || json_is_null(v))
        return PL_OK;
    enum pl_status st = pl_tok_json_str(t, v, key, out, err);
    if (!st && out->len > 64)
        st = pl_fail(err, PL_EFORMAT, "%s: %s is too long", t->info.file, key);
    if (!st && !out->len)
        out->s = NULL;
    return st;
}

static enum pl_status load_bpe(struct pl_tokenizer *t, const json_t *model, struct pl_err *err)
{
    const json_t *merges = json_object_get(model, "merges"), *dropout;
    struct pl_tok_bpe *b = &t->bpe;
    enum pl_status st;
    size_t i;
    json_t *v;

    dropout = json_object_get(model, "dropout");
    if (json_is_number(dropout) && json_number_value(dropout) > 0)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: BPE dropout is not supported", t->info.file);
    if (!json_is_array(merges))
        return pl_fail(err, PL_EFORMAT, "%s: its merges are no list", t->info.file);
    st = pl_tok_json_vocab(t, json_object_get(model, "vocab"), err);
    if (!st)
        st = piece_id(t, model, "unk_token", &b->unk, err);
    if (!st)
        st = pl_json_bool(model, "fuse_unk", false, &b->fuse_unk, err);
    if (!st)
        st = pl_json_bool(model, "byte_fallback", false, &b->byte_fallback, err);
    if (!st)
        st = pl_json_bool(model, "ignore_merges", false, &b->ignore_merges, err);
    if (!st)
        st = affix(t, model, "continuing_subword_prefix", &b->prefix, err);
    if (!st)
        st = affix(t, model, "end_of_word_suffix", &b->suffix, err);
    if (!st)
        st = pl_tok_bpe_init(t, json_array_size(merges), err);
    json_array_foreach ((json_t *)(uintptr_t)merges, i, v) {
        struct pl_tok_str x, y;
        if (st)
            return st;
        if (!merge_parts(v, &x, &y))
            return pl_fail(err, PL_EFORMAT, "%s: merge %zu is no pair", t->info.file, i);
        st = pl_tok_bpe_merge(t, (uint32_t)i, x, y, err);
    }
    t->model = &pl_tok_bpe_model;
    t->info.kind = "bpe";
    t->info.unk = b->unk < 0 ? -1 : b->unk;
    return st;
}

static enum pl_status load_unigram(struct pl_tokenizer *t, const json_t *model, struct pl_err *err)
{
    const json_t *vocab = json_object_get(model, "vocab"), *unk = json_object_get(model, "unk_id");
    struct pl_tok_unigram *u = &t->unigram;
    size_t n = json_array_size(vocab), i;
    enum pl_status st;
    json_t *v;

    if (!n)
        return pl_fail(err, PL_EFORMAT, "%s: its vocabulary is no list of pairs", t->info.file);
    u->unk = -1;
    if (json_is_integer(unk)) {
        if (json_integer_value(unk) < 0 || (size_t)json_integer_value(unk) >= n)
            return pl_fail(err, PL_EFORMAT, "%s: unk_id is out of range", t->info.file);
        u->unk = (int32_t)json_integer_value(unk);
    }
    st = pl_json_bool(model, "byte_fallback", false, &u->byte_fallback, err);
    if (!st)
        st = pl_tok_vocab_init(&t->vocab, &t->arena, n, n, err);
    if (st)
        return pl_err_prefix(err, st, "%s", t->info.file);
    u->scores = pl_arena_calloc(&t->arena, n, sizeof(*u->scores));
    if (!u->scores)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its scores", t->info.file);
    json_array_foreach ((json_t *)(uintptr_t)vocab, i, v) {
        struct pl_tok_str s;
        const json_t *score = json_array_get(v, 1);
        if (json_array_size(v) != 2 || !json_is_number(score))
            return pl_fail(err, PL_EFORMAT, "%s: piece %zu is no pair of text and score",
                           t->info.file, i);
        u->scores[i] = json_number_value(score);
        st = pl_tok_json_str(t, json_array_get(v, 0), "a piece", &s, err);
        if (!st)
            st = pl_tok_vocab_add(&t->vocab, t->info.file, (uint32_t)i, s, true, err);
        if (st)
            return st;
    }
    t->model = &pl_tok_unigram_model;
    t->info.kind = "unigram";
    t->info.unk = u->unk;
    pl_tok_bpe_finish(t); /* the ids of <0x00>… */
    return pl_tok_unigram_init(t, err);
}

static enum pl_status load_wordpiece(struct pl_tokenizer *t, const json_t *model,
                                     struct pl_err *err)
{
    struct pl_tok_wordpiece *w = &t->wordpiece;
    int64_t most;
    enum pl_status st = pl_tok_json_vocab(t, json_object_get(model, "vocab"), err);

    if (!st)
        st = piece_id(t, model, "unk_token", &w->unk, err);
    if (!st)
        st = pl_json_i64(model, "max_input_chars_per_word", 100, &most, err);
    if (!st && (most < 0 || most > 10000))
        st = pl_fail(err, PL_EFORMAT, "%s: max_input_chars_per_word is out of range", t->info.file);
    if (!st)
        st = affix(t, model, "continuing_subword_prefix", &w->prefix, err);
    if (st)
        return st;
    w->max_chars = (size_t)most;
    for (size_t i = 0; i < t->vocab.n; i++)
        w->longest = t->vocab.pieces[i].len > w->longest ? t->vocab.pieces[i].len : w->longest;
    if (!w->prefix.s)
        w->prefix.s = "";
    t->model = &pl_tok_wordpiece_model;
    t->info.kind = "wordpiece";
    t->info.unk = w->unk < 0 ? -1 : w->unk;
    return PL_OK;
}

enum pl_status pl_tok_json_model(struct pl_tokenizer *t, const json_t *model, struct pl_err *err)
{
    const char *type = pl_json_get_str(model, "type", NULL);

    if (!json_is_object(model))
        return pl_fail(err, PL_EFORMAT, "%s: there is no model in it", t->info.file);
    if (!type) /* old files */
        type = json_object_get(model, "merges")                     ? "BPE"
               : json_is_array(json_object_get(model, "vocab"))     ? "Unigram"
               : json_object_get(model, "max_input_chars_per_word") ? "WordPiece"
                                                                    : "(none)";
    if (!strcmp(type, "BPE"))
        return load_bpe(t, model, err);
    if (!strcmp(type, "Unigram"))
        return load_unigram(t, model, err);
    if (!strcmp(type, "WordPiece"))
        return load_wordpiece(t, model, err);
    return pl_fail(err, PL_EUNSUPPORTED, "%s: model type %.40s is not supported", t->info.file,
                   type);
}

static enum pl_status one_added(struct pl_tokenizer *t, const json_t *v, struct pl_err *err)
{
    struct pl_tok_added a = {.id = -1};
    enum pl_status st =
        pl_tok_json_str(t, json_object_get(v, "content"), "an added token", &a.text, err);

    if (!st)
        st = pl_json_bool(v, "special", false, &a.special, err);
    if (!st)
        st = pl_json_bool(v, "normalized", !a.special, &a.normalized, err);
    if (!st)
        st = pl_json_bool(v, "lstrip", false, &a.lstrip, err);
    if (!st)
        st = pl_json_bool(v, "rstrip", false, &a.rstrip, err);
    if (!st)
        st = pl_json_bool(v, "single_word", false, &a.single_word, err);
    return st ? st : pl_tok_add_token(t, &a, err);
}

enum pl_status pl_tok_json_added(struct pl_tokenizer *t, const json_t *list, struct pl_err *err)
{
    bool array = json_is_array(list);
    enum pl_status st = PL_OK;
    const char *key;
    json_t *v;
    size_t i;

    if (array)
        json_array_foreach ((json_t *)(uintptr_t)list, i, v) {
            st = one_added(t, v, err);
            if (st)
                return st;
        }
    else
        json_object_foreach ((json_t *)(uintptr_t)list, key, v) {
            st = one_added(t, v, err);
            if (st)
                return st;
        }
    return st;
}

static size_t added_bytes(const json_t *list)
{
    size_t bytes = 0, i;
    json_t *v;

    json_array_foreach ((json_t *)(uintptr_t)list, i, v)
        bytes += json_string_length(json_object_get(v, "content"));
    return bytes;
}

static enum pl_status load(struct pl_tokenizer *t, const json_t *j, struct pl_err *err)
{
    const json_t *added = json_object_get(j, "added_tokens");
    const json_t *template = json_object_get(j, "post_processor");
    enum pl_status st;

    if (!json_is_object(j))
        return pl_fail(err, PL_EFORMAT, "%s: no JSON object", t->info.file);
    if (added && !json_is_array(added) && !json_is_null(added))
        return pl_fail(err, PL_EFORMAT, "%s: added_tokens is no list", t->info.file);
    st = pl_tok_json_model(t, json_object_get(j, "model"), err);
    if (!st)
        st = pl_tok_json_normalizer(t, json_object_get(j, "normalizer"), 0, err);
    if (!st)
        st = pl_tok_json_splitter(t, json_object_get(j, "pre_tokenizer"), 0, err);
    if (!st)
        st = pl_tok_json_decoder(t, json_object_get(j, "decoder"), 0, err);
    t->joins_with_space = !t->n_decoders;
    if (!st)
        st = pl_tok_added_init(t, json_array_size(added), added_bytes(added), err);
    if (!st && added && !json_is_null(added))
        st = pl_tok_json_added(t, added, err);
    if (!st)
        st = pl_tok_json_template(t, template, 0, err);
    if (!st)
        pl_tok_try_raw(t);
    return st ? st : pl_tok_pipe_finish(t, err);
}

enum pl_status pl_tok_load_json(struct pl_tokenizer *t, const char *data, size_t len,
                                struct pl_err *err)
{
    json_t *j = NULL;
    enum pl_status st = pl_tok_json_parse(t->info.file, data, len, &j, err);

    if (!st)
        st = load(t, j, err);
    json_decref(j);
    return st;
}
