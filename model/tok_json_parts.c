/* tokenizer.json: normalisers, splitters, decoders, templates. What is not known is named. */
#include "model/tok_json.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 8 /* of sequences in sequences */

static enum pl_status too_many(const struct pl_tokenizer *t, struct pl_err *err)
{
    return pl_fail(err, PL_EUNSUPPORTED, "%s: more than %d steps in a chain", t->info.file,
                   PL_TOK_MAX_STEPS);
}

enum pl_status pl_tok_add_normal(struct pl_tokenizer *t, const struct pl_tok_normal *z,
                                 struct pl_err *err)
{
    if (t->n_normals == PL_TOK_MAX_STEPS)
        return too_many(t, err);
    t->normals[t->n_normals++] = *z;
    return PL_OK;
}

enum pl_status pl_tok_add_split(struct pl_tokenizer *t, const struct pl_tok_split *z,
                                struct pl_err *err)
{
    if (t->n_splits == PL_TOK_MAX_STEPS)
        return too_many(t, err);
    t->splits[t->n_splits++] = *z;
    return PL_OK;
}

enum pl_status pl_tok_add_decoder(struct pl_tokenizer *t, const struct pl_tok_decoder *d,
                                  struct pl_err *err)
{
    if (t->n_decoders == PL_TOK_MAX_STEPS)
        return too_many(t, err);
    t->decoders[t->n_decoders++] = *d;
    return PL_OK;
}

enum pl_status pl_tok_add_byte_level(struct pl_tokenizer *t, bool prefix_space,
                                     const struct pl_tok_pattern *pattern, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (prefix_space)
        st = pl_tok_add_split(t, &(struct pl_tok_split){.kind = PL_TOK_PREFIX_SPACE}, err);
    if (!st && pattern)
        st = pl_tok_add_split(t, &(struct pl_tok_split){.kind = PL_TOK_PATTERN, .pattern = pattern},
                              err);
    return st ? st : pl_tok_add_split(t, &(struct pl_tok_split){.kind = PL_TOK_BYTE_LEVEL}, err);
}

void pl_tok_try_raw(struct pl_tokenizer *t)
{
    if (t->model != &pl_tok_bpe_model)
        return;
    t->bpe.raw = t->n_splits && t->splits[t->n_splits - 1].kind == PL_TOK_BYTE_LEVEL &&
                 !t->bpe.byte_fallback && !t->bpe.prefix.s && !t->bpe.suffix.s;
    for (size_t i = 0; i + 1 < t->n_splits; i++)
        t->bpe.raw = t->bpe.raw && t->splits[i].kind != PL_TOK_BYTE_LEVEL;
    if (t->bpe.raw)
        t->info.kind = "byte-level-bpe";
    pl_tok_bpe_finish(t);
}

static const char *type_of(const json_t *v)
{
    return pl_json_get_str(v, "type", "(none)");
}

/* The list of a Sequence; NULL: v is something else. */
static const json_t *sequence(const json_t *v, const char *key)
{
    const json_t *list = json_object_get(v, key);

    return !strcmp(type_of(v), "Sequence") && json_is_array(list) ? list : NULL;
}

typedef enum pl_status part_fn(struct pl_tokenizer *t, const json_t *v, int depth,
                               struct pl_err *err);

static enum pl_status each(struct pl_tokenizer *t, const json_t *list, part_fn *fn, int depth,
                           struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (depth >= MAX_DEPTH)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: sequences nested more than %d deep", t->info.file,
                       MAX_DEPTH);
    for (size_t i = 0; i < json_array_size(list) && !st; i++)
        st = fn(t, json_array_get(list, i), depth + 1, err);
    return st;
}

static enum pl_status unsupported(const struct pl_tokenizer *t, const char *part, const char *what,
                                  struct pl_err *err)
{
    return pl_fail(err, PL_EUNSUPPORTED, "%s: %s %.160s is not supported", t->info.file, part,
                   what);
}

/* {"String": "…"} or {"Regex": "…"}, else NULL. */
static const char *pattern_of(const json_t *v, const char *kind)
{
    return pl_json_get_str(json_object_get(v, "pattern"), kind, NULL);
}

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static enum pl_status load_charsmap(struct pl_tokenizer *t, const json_t *v,
                                    struct pl_tok_charsmap *out, struct pl_err *err)
{
    const json_t *s = json_object_get(v, "precompiled_charsmap");
    size_t len = json_string_length(s), n = 0;
    const char *in = json_string_value(s);
    unsigned char *bytes;
    uint32_t bits = 0;
    enum pl_status st;

    if (!in)
        return pl_fail(err, PL_EFORMAT, "%s: Precompiled without precompiled_charsmap",
                       t->info.file);
    bytes = malloc(len + 1);
    if (!bytes)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its normaliser's rules", t->info.file);
    for (size_t i = 0; i < len && in[i] != '='; i++) {
        int d = base64_digit(in[i]);
        if (d < 0) {
            free(bytes);
            return pl_fail(err, PL_EFORMAT, "%s: precompiled_charsmap is no base64", t->info.file);
        }
        bits = bits << 6 | (uint32_t)d;
        if (i % 4)
            bytes[n++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
    }
    st = pl_tok_charsmap_init(out, t->info.file, bytes, n, &t->arena, err);
    free(bytes);
    return st;
}

static enum pl_status load_replace(struct pl_tokenizer *t, const json_t *v, const char *part,
                                   struct pl_tok_str *from, struct pl_tok_str *to,
                                   struct pl_err *err)
{
    const char *regex = pattern_of(v, "Regex");
    const json_t *s = json_object_get(json_object_get(v, "pattern"), "String");
    enum pl_status st = pl_tok_json_str(t, json_object_get(v, "content"), part, to, err);

    *from = (struct pl_tok_str){NULL, 0};
    if (st)
        return st;
    if (regex)
        return !strcmp(regex, " {2,}") ? PL_OK : unsupported(t, part, regex, err);
    st = pl_tok_json_str(t, s, part, from, err);
    return st || from->len ? st : unsupported(t, part, "of nothing", err);
}

enum pl_status pl_tok_json_normalizer(struct pl_tokenizer *t, const json_t *v, int depth,
                                      struct pl_err *err)
{
    static const struct {
        const char *name;
        enum pl_tok_normal_kind kind;
    } plain[] = {{"NFD", PL_TOK_NFD},
                 {"NFC", PL_TOK_NFC},
                 {"NFKD", PL_TOK_NFKD},
                 {"NFKC", PL_TOK_NFKC},
                 {"Lowercase", PL_TOK_LOWERCASE},
                 {"StripAccents", PL_TOK_STRIP_ACCENTS},
                 {"BertNormalizer", PL_TOK_BERT},
                 {"Prepend", PL_TOK_PREPEND},
                 {"Replace", PL_TOK_REPLACE},
                 {"Strip", PL_TOK_STRIP},
                 {"Precompiled", PL_TOK_CHARSMAP}};
    struct pl_tok_normal z = {.kind = PL_TOK_NFD};
    enum pl_status st = PL_OK;
    size_t i = 0, n = sizeof(plain) / sizeof(plain[0]);

    if (!v || json_is_null(v))
        return PL_OK;
    if (sequence(v, "normalizers"))
        return each(t, sequence(v, "normalizers"), pl_tok_json_normalizer, depth, err);
    while (i < n && strcmp(plain[i].name, type_of(v)) != 0)
        i++;
    if (i == n)
        return unsupported(t, "normalizer", type_of(v), err);
    z.kind = plain[i].kind;
    if (z.kind == PL_TOK_BERT) {
        st = pl_json_bool(v, "clean_text", true, &z.clean, err);
        if (!st)
            st = pl_json_bool(v, "handle_chinese_chars", true, &z.chinese, err);
        if (!st)
            st = pl_json_bool(v, "lowercase", true, &z.lower, err);
        if (!st)
            st = pl_json_bool(v, "strip_accents", z.lower, &z.accents, err);
    } else if (z.kind == PL_TOK_PREPEND) {
        st = pl_tok_json_str(t, json_object_get(v, "prepend"), "Prepend", &z.to, err);
    } else if (z.kind == PL_TOK_REPLACE) {
        st = load_replace(t, v, "Replace", &z.from, &z.to, err);
    } else if (z.kind == PL_TOK_STRIP) {
        st = pl_json_bool(v, "strip_left", true, &z.left, err);
        if (!st)
            st = pl_json_bool(v, "strip_right", true, &z.right, err);
    } else if (z.kind == PL_TOK_CHARSMAP) {
        st = load_charsmap(t, v, &z.map, err);
        if (!st && !z.map.trie)
            return PL_OK;
    }
    return st ? st : pl_tok_add_normal(t, &z, err);
}

static enum pl_status load_behaviour(struct pl_tokenizer *t, const json_t *v, const char *dflt,
                                     struct pl_tok_split *z, struct pl_err *err)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    const char *name = pl_json_get_str(v, "behavior", dflt);

    for (size_t i = 0; i < 5; i++)
        if (!strcmp(names[i], name)) {
            z->behaviour = (enum pl_tok_behaviour)i;
            return PL_OK;
        }
    return unsupported(t, "split behavior", name, err);
}

static enum pl_status load_split(struct pl_tokenizer *t, const json_t *v, struct pl_err *err)
{
    const char *regex = pattern_of(v, "Regex");
    struct pl_tok_split z = {.kind = PL_TOK_PATTERN};
    enum pl_status st = load_behaviour(t, v, "(none)", &z, err);

    if (!st)
        st = pl_json_bool(v, "invert", false, &z.invert, err);
    if (st)
        return st;
    if (!regex) {
        z.kind = PL_TOK_STRING;
        st = pl_tok_json_str(t, json_object_get(json_object_get(v, "pattern"), "String"), "Split",
                             &z.string, err);
        if (!st && !z.string.len)
            st = unsupported(t, "Split", "at nothing", err);
        return st ? st : pl_tok_add_split(t, &z, err);
    }
    z.pattern = pl_tok_pattern_by_regex(regex);
    if (!z.pattern && (!strcmp(regex, "\\s") || !strcmp(regex, "\\p{N}"))) {
        z.kind = PL_TOK_CLASS;
        z.flag = regex[1] == 's' ? PL_UNI_S : PL_UNI_N;
    } else if (!z.pattern) {
        return unsupported(t, "pre_tokenizer Split by", regex, err);
    }
    return pl_tok_add_split(t, &z, err);
}

static enum pl_status load_metaspace(struct pl_tokenizer *t, const json_t *v,
                                     struct pl_tok_str *mark, enum pl_tok_prepend *prepend,
                                     struct pl_err *err)
{
    const char *scheme = pl_json_get_str(v, "prepend_scheme", "always");
    const json_t *old = json_object_get(v, "add_prefix_space"),
                 *s = json_object_get(v, "replacement");
    enum pl_status st = PL_OK;

    *mark = (struct pl_tok_str){PL_TOK_SPACE, 3};
    if (s)
        st = pl_tok_json_str(t, s, "Metaspace", mark, err);
    if (!st && (!mark->len || mark->len > 4))
        st = pl_fail(err, PL_EFORMAT, "%s: Metaspace: one character is expected", t->info.file);
    *prepend = !strcmp(scheme, "always")  ? PL_TOK_ALWAYS
               : !strcmp(scheme, "first") ? PL_TOK_FIRST
                                          : PL_TOK_NEVER;
    if (!st && *prepend == PL_TOK_NEVER && strcmp(scheme, "never") != 0)
        st = unsupported(t, "Metaspace prepend_scheme", scheme, err);
    if (json_is_false(old))
        *prepend = PL_TOK_NEVER;
    return st;
}

enum pl_status pl_tok_json_splitter(struct pl_tokenizer *t, const json_t *v, int depth,
                                    struct pl_err *err)
{
    const char *type = type_of(v);
    struct pl_tok_split z = {.kind = PL_TOK_CLASS};
    enum pl_status st = PL_OK;
    bool space, regex;

    if (!v || json_is_null(v))
        return PL_OK;
    if (sequence(v, "pretokenizers"))
        return each(t, sequence(v, "pretokenizers"), pl_tok_json_splitter, depth, err);
    if (!strcmp(type, "ByteLevel")) {
        st = pl_json_bool(v, "add_prefix_space", true, &space, err);
        if (!st)
            st = pl_json_bool(v, "use_regex", true, &regex, err);
        return st ? st
                  : pl_tok_add_byte_level(t, space, regex ? pl_tok_pattern_by_name("gpt-2") : NULL,
                                          err);
    }
    if (!strcmp(type, "Split"))
        return load_split(t, v, err);
    if (!strcmp(type, "Metaspace")) {
        z.kind = PL_TOK_METASPACE;
        z.behaviour = PL_TOK_MERGED_NEXT;
        st = load_metaspace(t, v, &z.string, &z.prepend, err);
        if (!st)
            st = pl_json_bool(v, "split", true, &z.splits, err);
    } else if (!strcmp(type, "Digits")) {
        z.flag = PL_UNI_NUMERIC;
        st = pl_json_bool(v, "individual_digits", false, &space, err);
        z.behaviour = !st && space ? PL_TOK_ISOLATED : PL_TOK_CONTIGUOUS;
    } else if (!strcmp(type, "Punctuation")) {
        z.flag = PL_UNI_PUNCT;
        st = load_behaviour(t, v, "Isolated", &z, err);
    } else if (!strcmp(type, "WhitespaceSplit") || !strcmp(type, "BertPreTokenizer")) {
        z.flag = PL_UNI_SPACE;
        z.behaviour = PL_TOK_REMOVED;
    } else if (!strcmp(type, "Whitespace")) {
        z.kind = PL_TOK_WORDS;
        z.behaviour = PL_TOK_REMOVED;
        z.invert = true;
    } else {
        return unsupported(t, "pre_tokenizer", type, err);
    }
    if (!st)
        st = pl_tok_add_split(t, &z, err);
    if (!st && !strcmp(type, "BertPreTokenizer"))
        st = pl_tok_add_split(t, &(struct pl_tok_split){.kind = PL_TOK_CLASS, .flag = PL_UNI_PUNCT},
                              err);
    return st;
}

enum pl_status pl_tok_json_decoder(struct pl_tokenizer *t, const json_t *v, int depth,
                                   struct pl_err *err)
{
    static const char *const names[] = {"ByteLevel",    "WordPiece", "Metaspace", "Fuse",
                                        "ByteFallback", "Strip",     "Replace",   "BPEDecoder"};
    struct pl_tok_decoder d = {.kind = PL_TOK_D_BYTE_LEVEL};
    enum pl_tok_prepend prepend;
    int64_t start = 0, stop = 0;
    enum pl_status st = PL_OK;
    size_t i = 0;

    if (!v || json_is_null(v))
        return PL_OK;
    if (sequence(v, "decoders"))
        return each(t, sequence(v, "decoders"), pl_tok_json_decoder, depth, err);
    while (i < 8 && strcmp(names[i], type_of(v)) != 0)
        i++;
    if (i == 8)
        return unsupported(t, "decoder", type_of(v), err);
    d.kind = (enum pl_tok_decode_kind)i;
    if (d.kind == PL_TOK_D_WORDPIECE) {
        st = pl_tok_json_str(t, json_object_get(v, "prefix"), "WordPiece", &d.from, err);
        if (!st)
            st = pl_json_bool(v, "cleanup", true, &d.cleanup, err);
    } else if (d.kind == PL_TOK_D_METASPACE) {
        st = load_metaspace(t, v, &d.from, &prepend, err);
        d.prefix = !st && prepend != PL_TOK_NEVER;
    } else if (d.kind == PL_TOK_D_STRIP) {
        st = pl_tok_json_str(t, json_object_get(v, "content"), "Strip", &d.from, err);
        if (!st)
            st = pl_json_i64(v, "start", 0, &start, err);
        if (!st)
            st = pl_json_i64(v, "stop", 0, &stop, err);
        if (!st && (start < 0 || stop < 0 || !d.from.len))
            st = pl_fail(err, PL_EFORMAT, "%s: decoder Strip is malformed", t->info.file);
        d.start = (size_t)start;
        d.stop = (size_t)stop;
    } else if (d.kind == PL_TOK_D_REPLACE) {
        st = load_replace(t, v, "decoder Replace", &d.from, &d.to, err);
        if (!st && !d.from.s)
            st = unsupported(t, "decoder Replace by", "a regular expression", err);
    } else if (d.kind == PL_TOK_D_BPE) {
        st = pl_tok_json_str(t, json_object_get(v, "suffix"), "BPEDecoder", &d.from, err);
        if (!st && !d.from.len)
            st = unsupported(t, "BPEDecoder suffix", "of nothing", err);
    }
    return st ? st : pl_tok_add_decoder(t, &d, err);
}

static enum pl_status put_id(struct pl_tokenizer *t, bool behind, json_int_t id, struct pl_err *err)
{
    size_t *n = behind ? &t->n_suffix : &t->n_prefix;

    if (id < 0 || id >= PL_TOK_MAX_IDS)
        return pl_fail(err, PL_EFORMAT, "%s: post_processor: an id out of range", t->info.file);
    if (*n == PL_TOK_MAX_AFFIX)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: post_processor: more than %d ids", t->info.file,
                       PL_TOK_MAX_AFFIX);
    (behind ? t->suffix : t->prefix)[(*n)++] = (int32_t)id;
    return PL_OK;
}

/* "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, …] */
static enum pl_status load_single(struct pl_tokenizer *t, const json_t *v, struct pl_err *err)
{
    const json_t *list = json_object_get(v, "single"), *ids;
    enum pl_status st = PL_OK;
    bool behind = false;

    if (!json_is_array(list))
        return pl_fail(err, PL_EFORMAT, "%s: TemplateProcessing without \"single\"", t->info.file);
    for (size_t i = 0; i < json_array_size(list) && !st; i++) {
        const json_t *item = json_array_get(list, i);
        const json_t *token = json_object_get(item, "SpecialToken");
        const char *name = pl_json_get_str(token, "id", "(none)");
        if (!token) {
            if (behind || !json_object_get(item, "Sequence"))
                return unsupported(t, "post_processor",
                                   "TemplateProcessing with the text twice or not at all", err);
            behind = true;
            continue;
        }
        ids = json_object_get(json_object_get(json_object_get(v, "special_tokens"), name), "ids");
        if (!json_array_size(ids))
            return pl_fail(err, PL_EFORMAT, "%s: TemplateProcessing: no ids for \"%.40s\"",
                           t->info.file, name);
        for (size_t k = 0; k < json_array_size(ids) && !st; k++)
            st = put_id(t, behind,
                        json_is_integer(json_array_get(ids, k))
                            ? json_integer_value(json_array_get(ids, k))
                            : -1,
                        err);
    }
    if (!st && !behind)
        st = unsupported(t, "post_processor", "TemplateProcessing without the text", err);
    return st;
}

enum pl_status pl_tok_json_template(struct pl_tokenizer *t, const json_t *v, int depth,
                                    struct pl_err *err)
{
    const char *type = type_of(v);
    const json_t *cls, *sep;
    enum pl_status st;

    if (!v || json_is_null(v) || !strcmp(type, "ByteLevel"))
        return PL_OK;
    if (sequence(v, "processors"))
        return each(t, sequence(v, "processors"), pl_tok_json_template, depth, err);
    if (t->n_prefix || t->n_suffix)
        return unsupported(t, "post_processor", "Sequence with two templates", err);
    if (!strcmp(type, "TemplateProcessing"))
        return load_single(t, v, err);
    if (strcmp(type, "BertProcessing") != 0 && strcmp(type, "RobertaProcessing") != 0)
        return unsupported(t, "post_processor", type, err);
    cls = json_array_get(json_object_get(v, "cls"), 1);
    sep = json_array_get(json_object_get(v, "sep"), 1);
    st = put_id(t, false, json_is_integer(cls) ? json_integer_value(cls) : -1, err);
    return st ? st : put_id(t, true, json_is_integer(sep) ? json_integer_value(sep) : -1, err);
}
