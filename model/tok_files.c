/* vocab.json + merges.txt, vocab.txt, and what tokenizer_config.json says beside any file. */
#include "base/json.h"
#include "model/tok_json.h"
#include "model/unicode.h"

#include <string.h>
#include <unistd.h>

/* In the order in which transformers adds the ones that a vocabulary lacks. */
static const char *const token_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};

/* A JSON file of a directory; *out NULL: there is none. */
static enum pl_status read_beside(struct pl_tokenizer *t, const char *dir, const char *name,
                                  json_t **out, struct pl_err *err)
{
    const char *path = dir ? pl_arena_printf(&t->arena, "%s/%s", dir, name) : NULL;
    struct pl_buf data;
    enum pl_status st;

    *out = NULL;
    if (!path || access(path, F_OK))
        return PL_OK;
    st = pl_read_file(path, PL_JSON_MAX, &data, err);
    if (st)
        return st;
    st = pl_tok_json_parse(path, data.data, data.len, out, err);
    pl_buf_release(&data);
    return st;
}

/* The name of a special token: a string or {"content": …}; NULL: none. */
static const char *token_name(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);

    return json_is_object(v) ? pl_json_get_str(v, "content", NULL) : json_string_value(v);
}

static void take_id(const struct pl_tokenizer *t, const json_t *config, const char *key,
                    int32_t *out)
{
    const char *name = token_name(config, key);
    int32_t id = name && *out < 0 ? pl_tok_id_of(t, name, strlen(name)) : -1;

    if (id >= 0)
        *out = id;
}

/* One added token as a piece behind the file's own, which no text becomes by itself. */
static enum pl_status add_spm_piece(struct pl_tokenizer *t, const char *text, json_int_t id,
                                    bool special, struct pl_err *err)
{
    struct pl_spm *s = &t->spm;
    size_t n = (size_t)id + 1;
    struct pl_spm_piece *grown;

    if (!text || id < 0 || id < t->info.vocab)
        return PL_OK; /* the file's own, under whatever name */
    if (id >= t->info.vocab + PL_TOK_MAX_ADDED_SPM)
        return pl_fail(err, PL_ERANGE,
                       "%s: added token \"%.40s\" has id %lld, far behind %d pieces", t->info.file,
                       text, (long long)id, t->info.vocab);
    if (n > s->n) {
        grown = pl_arena_calloc(&t->arena, n, sizeof(*grown));
        if (!grown)
            return pl_fail(err, PL_ENOMEM, "%s: no memory", t->info.file);
        memcpy(grown, s->pieces, s->n * sizeof(*grown));
        for (size_t i = s->n; i < n; i++)
            grown[i] = (struct pl_spm_piece){.text = "", .type = PL_SPM_CONTROL};
        s->pieces = grown;
        s->n = n;
    }
    s->pieces[id].text = pl_arena_strdup(&t->arena, text);
    s->pieces[id].len = (uint32_t)strlen(text);
    s->pieces[id].type = special ? PL_SPM_CONTROL : PL_SPM_USER;
    return s->pieces[id].text ? PL_OK : pl_fail(err, PL_ENOMEM, "%s: no memory", t->info.file);
}

/* added_tokens_decoder {"32000": {"content": …}} and added_tokens.json {text: 32000}. */
static enum pl_status add_spm_tokens(struct pl_tokenizer *t, const char *dir, const json_t *config,
                                     struct pl_err *err)
{
    const json_t *more = json_object_get(config, "added_tokens_decoder");
    json_t *file = NULL, *v;
    const char *key;
    enum pl_status st = read_beside(t, dir, "added_tokens.json", &file, err);

    json_object_foreach ((json_t *)(uintptr_t)more, key, v)
        if (!st)
            st = add_spm_piece(t, pl_json_get_str(v, "content", NULL), strtoll(key, NULL, 10),
                               !json_is_false(json_object_get(v, "special")), err);
    json_object_foreach (file, key, v)
        if (!st && json_is_integer(v))
            st = add_spm_piece(t, key, json_integer_value(v), true, err);
    json_decref(file);
    if (!st)
        t->info.vocab = (int32_t)t->spm.n;
    return st;
}

static enum pl_status config_spm(struct pl_tokenizer *t, const char *dir, const json_t *config,
                                 struct pl_err *err)
{
    const json_t *b = json_object_get(config, "add_bos_token"),
                 *e = json_object_get(config, "add_eos_token");
    const char *name = strrchr(t->info.file, '/');
    bool bos = true, eos = false;

    /* T5's have no BOS, and its class adds an EOS. */
    if (dir && name && !strcmp(name, "/spiece.model") && t->info.bos < 0)
        eos = true;
    bos = json_is_boolean(b) ? json_is_true(b) : bos;
    eos = json_is_boolean(e) ? json_is_true(e) : eos;
    if (bos && t->info.bos >= 0)
        t->prefix[t->n_prefix++] = t->info.bos;
    if (eos && t->info.eos >= 0)
        t->suffix[t->n_suffix++] = t->info.eos;
    t->legacy = !json_is_false(json_object_get(config, "legacy"));
    return add_spm_tokens(t, dir, config, err);
}

enum pl_status pl_tok_read_config(struct pl_tokenizer *t, const char *dir, struct pl_err *err)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    json_t *j = NULL;
    enum pl_status st = PL_OK;

    if (t->family == &pl_tok_spm_family) {
        st = read_beside(t, dir, files[0], &j, err);
        if (!st)
            st = config_spm(t, dir, j, err);
        json_decref(j);
        return st;
    }
    for (size_t i = 0; i < 2 && !st; i++) {
        st = read_beside(t, dir, files[i], &j, err);
        take_id(t, j, "bos_token", &t->info.bos);
        take_id(t, j, "eos_token", &t->info.eos);
        take_id(t, j, "pad_token", &t->info.pad);
        take_id(t, j, "unk_token", &t->info.unk);
        json_decref(j);
    }
    if (t->info.bos < 0 && t->n_prefix)
        t->info.bos = t->prefix[0];
    if (t->info.eos < 0 && t->n_suffix)
        t->info.eos = t->suffix[t->n_suffix - 1];
    return st;
}

/* The special tokens that a class names when its configuration does not, as added tokens. */
struct defaults {
    const char *names[7]; /* in the order of token_keys; NULL: none */
};

static enum pl_status add_special_tokens(struct pl_tokenizer *t, const json_t *config,
                                         const struct defaults *d, struct pl_err *err)
{
    const json_t *more = json_object_get(config, "added_tokens_decoder");
    const char *names[7];
    size_t bytes = 0;
    enum pl_status st;
    const char *key;
    json_t *v;

    for (size_t i = 0; i < 7; i++) {
        names[i] = token_name(config, token_keys[i]);
        if (!names[i])
            names[i] = d->names[i];
        bytes += names[i] ? strlen(names[i]) : 0;
    }
    json_object_foreach ((json_t *)(uintptr_t)more, key, v)
        bytes += json_string_length(json_object_get(v, "content"));
    st = pl_tok_added_init(t, 7 + json_object_size(more), bytes, err);
    if (!st && more)
        st = pl_tok_json_added(t, more, err);
    for (size_t i = 0; i < 7 && !st; i++) {
        const json_t *flags = json_object_get(config, token_keys[i]);
        struct pl_tok_added a = {.special = true,
                                 .lstrip = json_is_true(json_object_get(flags, "lstrip")),
                                 .rstrip = json_is_true(json_object_get(flags, "rstrip")),
                                 .single_word =
                                     json_is_true(json_object_get(flags, "single_word"))};
        if (!names[i] || pl_tok_added_find(t, names[i], strlen(names[i])))
            continue;
        st = pl_tok_copy(t, names[i], strlen(names[i]), &a.text, err);
        if (!st)
            st = pl_tok_add_token(t, &a, err);
    }
    return st;
}

/* [CLS] text [SEP] by the names that the configuration or the class gives. */
static void frame(struct pl_tokenizer *t, const json_t *config, const struct defaults *d)
{
    const char *cls = token_name(config, "cls_token"), *sep = token_name(config, "sep_token");
    int32_t id;

    cls = cls ? cls : d->names[5];
    sep = sep ? sep : d->names[3];
    id = pl_tok_id_of(t, cls, strlen(cls));
    if (id >= 0)
        t->prefix[t->n_prefix++] = id;
    id = pl_tok_id_of(t, sep, strlen(sep));
    if (id >= 0)
        t->suffix[t->n_suffix++] = id;
}

/* The next line of s (without its end), false when there is none. */
static bool next_line(const char *s, size_t len, size_t *at, struct pl_tok_str *out)
{
    const char *end;
    size_t n;

    if (*at >= len)
        return false;
    end = memchr(s + *at, '\n', len - *at);
    n = end ? (size_t)(end - s) - *at : len - *at;
    *out = (struct pl_tok_str){s + *at, (uint32_t)n};
    *at += n + 1;
    if (n && out->s[n - 1] == '\r')
        out->len--;
    return true;
}

static enum pl_status read_merges(struct pl_tokenizer *t, const char *s, size_t len,
                                  struct pl_err *err)
{
    struct pl_tok_str line;
    size_t at = 0, n = 0, number = 0;
    enum pl_status st;

    while (next_line(s, len, &at, &line))
        n++;
    st = pl_tok_bpe_init(t, n, err);
    for (at = 0, n = 0; !st && next_line(s, len, &at, &line); number++) {
        const char *space = memchr(line.s, ' ', line.len);
        if ((line.len >= 8 && !memcmp(line.s, "#version", 8)) || (!line.len && at >= len))
            continue;
        size_t left = space ? (size_t)(space - line.s) : 0;
        if (!space || memchr(space + 1, ' ', line.len - left - 1))
            return pl_fail(err, PL_EFORMAT, "%s: line %zu of merges.txt is no pair", t->info.file,
                           number + 1);
        st = pl_tok_bpe_merge(t, (uint32_t)n++, (struct pl_tok_str){line.s, (uint32_t)left},
                              (struct pl_tok_str){space + 1, line.len - (uint32_t)left - 1}, err);
    }
    return st;
}

static bool class_has(const json_t *config, const json_t *model, const char *what)
{
    const char *cls = pl_json_get_str(config, "tokenizer_class", "");
    const char *type = pl_json_get_str(model, "model_type", "");

    return strcasestr(*cls ? cls : type, what) != NULL;
}

static enum pl_status load_bpe(struct pl_tokenizer *t, const json_t *config, const json_t *model,
                               struct pl_err *err)
{
    static const struct defaults gpt2 = {.names = {"<|endoftext|>"}};
    static const struct defaults roberta = {
        {"<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"}};
    bool is_roberta = class_has(config, model, "roberta"),
         is_qwen = class_has(config, model, "qwen");
    bool space = json_is_true(json_object_get(config, "add_prefix_space"));
    enum pl_status st = PL_OK;

    if (is_qwen)
        st = pl_tok_add_normal(t, &(struct pl_tok_normal){.kind = PL_TOK_NFC}, err);
    if (!st)
        st = pl_tok_add_byte_level(t, space, pl_tok_pattern_by_name(is_qwen ? "qwen2" : "gpt-2"),
                                   err);
    if (!st)
        st = pl_tok_add_decoder(t, &(struct pl_tok_decoder){.kind = PL_TOK_D_BYTE_LEVEL}, err);
    if (!st)
        st = add_special_tokens(t, config, is_roberta ? &roberta : &gpt2, err);
    if (!st && is_roberta)
        frame(t, config, &roberta);
    t->model = &pl_tok_bpe_model;
    pl_tok_try_raw(t);
    return st ? st : pl_tok_pipe_finish(t, err);
}

enum pl_status pl_tok_load_bpe_files(struct pl_tokenizer *t, const char *vocab, size_t vocab_len,
                                     const char *merges, size_t merges_len, const char *dir,
                                     struct pl_err *err)
{
    json_t *j = NULL, *config = NULL, *model = NULL;
    enum pl_status st = pl_tok_json_parse(t->info.file, vocab, vocab_len, &j, err);

    if (!st)
        st = pl_tok_json_vocab(t, j, err);
    if (!st)
        st = read_merges(t, merges, merges_len, err);
    if (!st)
        st = read_beside(t, dir, "tokenizer_config.json", &config, err);
    if (!st)
        st = read_beside(t, dir, "config.json", &model, err);
    if (!st)
        st = load_bpe(t, config, model, err);
    json_decref(j);
    json_decref(config);
    json_decref(model);
    return st;
}

static enum pl_status read_vocab_txt(struct pl_tokenizer *t, const char *s, size_t len,
                                     struct pl_err *err)
{
    struct pl_tok_str line, copy;
    size_t at = 0, n = 0;
    enum pl_status st;

    while (next_line(s, len, &at, &line))
        n++;
    if (!n)
        return pl_fail(err, PL_EFORMAT, "%s: the file is empty", t->info.file);
    st = pl_tok_vocab_init(&t->vocab, &t->arena, n, n, err);
    if (st)
        return pl_err_prefix(err, st, "%s", t->info.file);
    for (at = 0, n = 0; !st && next_line(s, len, &at, &line); n++) {
        st = pl_tok_copy(t, line.s, line.len, &copy, err);
        if (!st)
            st = pl_tok_vocab_add(&t->vocab, t->info.file, (uint32_t)n, copy, true, err);
        t->wordpiece.longest = line.len > t->wordpiece.longest ? line.len : t->wordpiece.longest;
    }
    return st;
}

enum pl_status pl_tok_add_bert(struct pl_tokenizer *t, bool lower, bool accents, bool chinese,
                               struct pl_err *err)
{
    struct pl_tok_split space = {
        .kind = PL_TOK_CLASS, .flag = PL_UNI_SPACE, .behaviour = PL_TOK_REMOVED};
    struct pl_tok_split punct = {.kind = PL_TOK_CLASS, .flag = PL_UNI_PUNCT};
    struct pl_tok_normal z = {
        .kind = PL_TOK_BERT, .clean = true, .chinese = chinese, .lower = lower, .accents = accents};
    struct pl_tok_decoder d = {.kind = PL_TOK_D_WORDPIECE, .from = {"##", 2}, .cleanup = true};
    enum pl_status st = pl_tok_add_normal(t, &z, err);

    if (!st)
        st = pl_tok_add_split(t, &space, err);
    if (!st)
        st = pl_tok_add_split(t, &punct, err);
    if (!st)
        st = pl_tok_add_decoder(t, &d, err);
    t->model = &pl_tok_wordpiece_model;
    t->info.kind = "wordpiece";
    t->wordpiece.prefix = (struct pl_tok_str){"##", 2};
    t->wordpiece.max_chars = 100;
    return st;
}

static enum pl_status load_bert(struct pl_tokenizer *t, const json_t *config, struct pl_err *err)
{
    static const struct defaults bert = {
        {NULL, NULL, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}};
    const json_t *strip = json_object_get(config, "strip_accents");
    const char *unk = token_name(config, "unk_token");
    bool lower = true, chinese = true;
    enum pl_status st = pl_json_bool(config, "do_lower_case", true, &lower, err);

    if (!st)
        st = pl_json_bool(config, "tokenize_chinese_chars", true, &chinese, err);
    if (!st)
        st = pl_tok_add_bert(t, lower, json_is_boolean(strip) ? json_is_true(strip) : lower,
                             chinese, err);
    if (!st)
        st = add_special_tokens(t, config, &bert, err);
    if (st)
        return st;
    unk = unk ? unk : "[UNK]";
    t->wordpiece.unk = pl_tok_vocab_find(&t->vocab, unk, strlen(unk));
    t->info.unk = t->wordpiece.unk;
    if (t->wordpiece.unk < 0)
        return pl_fail(err, PL_EFORMAT, "%s: there is no %.40s in it", t->info.file, unk);
    frame(t, config, &bert);
    return pl_tok_pipe_finish(t, err);
}

enum pl_status pl_tok_load_vocab_txt(struct pl_tokenizer *t, const char *data, size_t len,
                                     const char *dir, struct pl_err *err)
{
    json_t *config = NULL;
    enum pl_status st = read_vocab_txt(t, data, len, err);

    if (!st)
        st = read_beside(t, dir, "tokenizer_config.json", &config, err);
    if (!st)
        st = load_bert(t, config, err);
    json_decref(config);
    return st;
}
