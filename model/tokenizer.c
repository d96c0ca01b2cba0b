#include "model/tokenizer.h"

#include "base/json.h"
#include "model/checkpoint.h"
#include "model/gguf_tokenizer.h"
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void pl_ids_release(struct pl_ids *l)
{
    free(l->ids);
    memset(l, 0, sizeof(*l));
}

enum pl_status pl_ids_add(struct pl_ids *l, int32_t id, struct pl_err *err)
{
    if (l->n == l->size) {
        size_t size = l->size ? l->size * 2 : 64;
        int32_t *ids = realloc(l->ids, size * sizeof(*ids));
        if (!ids)
            return pl_fail(err, PL_ENOMEM, "no memory for %zu token ids", size);
        l->ids = ids;
        l->size = size;
    }
    l->ids[l->n++] = id;
    return PL_OK;
}

static bool exists(const char *dir, const char *name, struct pl_arena *a, const char **path)
{
    const char *p = pl_arena_printf(a, "%s/%s", dir, name);

    if (!p || access(p, F_OK))
        return false;
    *path = p;
    return true;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && !strcmp(s + n - m, end);
}

/* tokenizer.model is also what Llama 3 calls a file of another kind: SentencePiece's begin with a
 * piece. */
static bool is_sentencepiece(const char *path)
{
    FILE *f = fopen(path, "rb");
    int first = f ? fgetc(f) : EOF;

    if (f)
        fclose(f);
    return first == EOF || first == '\n'; /* without a first byte: its error is worth seeing */
}

/* The file to read and the directory for what else belongs to it (NULL: none). */
static enum pl_status find_file(const char *dir, struct pl_arena *a, const char **file,
                                const char **beside, struct pl_err *err)
{
    static const char *const known[] = {"tokenizer.model", "tokenizer.json", "spiece.model",
                                        "vocab.json", "vocab.txt"};
    const char *skipped = NULL;
    struct stat sb;

    *beside = NULL;
    if (stat(dir, &sb))
        return pl_fail_errno(err, errno, "%s", dir);
    if (!S_ISDIR(sb.st_mode)) {
        *file = pl_arena_strdup(a, dir);
        return *file ? PL_OK : pl_fail(err, PL_ENOMEM, "%s: no memory", dir);
    }
    *beside = dir;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (!exists(dir, known[i], a, file))
            continue;
        if (i || is_sentencepiece(*file))
            return PL_OK;
        skipped = *file;
    }
    *file = skipped;
    return skipped ? PL_OK
                   : pl_fail(err, PL_ENOENT,
                             "%s: no tokenizer: looked for tokenizer.model, tokenizer.json, "
                             "spiece.model, vocab.json, vocab.txt",
                             dir);
}

static enum pl_status load_bytes(struct pl_tokenizer *t, enum pl_tokenizer_format format,
                                 const char *dir, const void *data, size_t len, struct pl_err *err)
{
    enum pl_status st;

    switch (format) {
    case PL_TOKENIZER_MODEL:
        st = pl_tok_load_spm(t, data, len, err);
        break;
    case PL_TOKENIZER_JSON:
        st = pl_tok_load_json(t, data, len, err);
        break;
    default:
        st = pl_tok_load_vocab_txt(t, data, len, dir, err);
        break;
    }
    return st ? st : pl_tok_read_config(t, dir, err);
}

/* vocab.json and the merges.txt beside it. */
static enum pl_status load_pair(struct pl_tokenizer *t, const char *dir, const struct pl_buf *vocab,
                                struct pl_err *err)
{
    const char *file = t->info.file, *slash = strrchr(file, '/');
    const char *merges =
        pl_arena_printf(&t->arena, "%.*smerges.txt", slash ? (int)(slash + 1 - file) : 0, file);
    struct pl_buf data;
    enum pl_status st;

    if (!merges)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", file);
    st = pl_read_file(merges, PL_TOK_MAX_FILE, &data, err);
    if (st)
        return st;
    st = pl_tok_load_bpe_files(t, vocab->data, vocab->len, data.data, data.len, dir, err);
    pl_buf_release(&data);
    return st ? st : pl_tok_read_config(t, dir, err);
}

static enum pl_status load(struct pl_tokenizer *t, const char *dir, struct pl_err *err)
{
    const char *file = NULL, *beside = NULL;
    struct pl_buf data;
    enum pl_status st = find_file(dir, &t->arena, &file, &beside, err);

    if (!st)
        st = pl_read_file(file, PL_TOK_MAX_FILE, &data, err);
    if (st)
        return st;
    t->info.file = file;
    if (ends_with(file, "vocab.json"))
        st = load_pair(t, beside, &data, err);
    else
        st = load_bytes(t,
                        ends_with(file, ".json")  ? PL_TOKENIZER_JSON
                        : ends_with(file, ".txt") ? PL_TOKENIZER_VOCAB
                                                  : PL_TOKENIZER_MODEL,
                        beside, data.data, data.len, err);
    pl_buf_release(&data);
    return st;
}

static struct pl_tokenizer *make(struct pl_err *err)
{
    struct pl_tokenizer *t = calloc(1, sizeof(*t));

    if (!t) {
        pl_fail(err, PL_ENOMEM, "no memory for a tokenizer");
        return NULL;
    }
    pl_uni_init();
    pl_arena_init(&t->arena);
    t->info.bos = t->info.eos = t->info.unk = t->info.pad = -1;
    t->bpe.unk = -1;
    return t;
}

/* The last check: what a template adds must be an id. */
static enum pl_status finish(struct pl_tokenizer *t, enum pl_status st, struct pl_tokenizer **out,
                             struct pl_err *err)
{
    for (size_t i = 0; i < t->n_prefix && !st; i++)
        if (t->prefix[i] < 0 || t->prefix[i] >= t->info.vocab)
            st = pl_fail(err, PL_EFORMAT, "%s: its template adds id %d, which is no piece",
                         t->info.file, t->prefix[i]);
    for (size_t i = 0; i < t->n_suffix && !st; i++)
        if (t->suffix[i] < 0 || t->suffix[i] >= t->info.vocab)
            st = pl_fail(err, PL_EFORMAT, "%s: its template adds id %d, which is no piece",
                         t->info.file, t->suffix[i]);
    if (st) {
        pl_tokenizer_free(t);
        return st;
    }
    t->info.add_bos = t->n_prefix > 0;
    t->info.add_eos = t->n_suffix > 0;
    *out = t;
    return PL_OK;
}

enum pl_status pl_tokenizer_load(const char *dir, struct pl_tokenizer **out, struct pl_err *err)
{
    struct pl_tokenizer *t;

    if (pl_checkpoint_is_gguf(dir)) {
        struct pl_checkpoint *c = NULL;
        enum pl_status st = pl_checkpoint_open(dir, &c, err);
        if (!st)
            st = pl_gguf_tokenizer(pl_checkpoint_gguf(c), out, err);
        pl_checkpoint_free(c);
        return st;
    }
    t = make(err);
    return t ? finish(t, load(t, dir, err), out, err) : PL_ENOMEM;
}

enum pl_status pl_tokenizer_load_bytes(const char *name, enum pl_tokenizer_format format,
                                       const void *data, size_t len, struct pl_tokenizer **out,
                                       struct pl_err *err)
{
    struct pl_tokenizer *t = make(err);
    enum pl_status st;

    if (!t)
        return PL_ENOMEM;
    t->info.file = pl_arena_strdup(&t->arena, name);
    st = t->info.file ? load_bytes(t, format, NULL, data, len, err)
                      : pl_fail(err, PL_ENOMEM, "%s: no memory", name);
    return finish(t, st, out, err);
}

enum pl_status pl_tokenizer_from_parts(const struct pl_tokenizer_parts *p,
                                       struct pl_tokenizer **out, struct pl_err *err)
{
    struct pl_tokenizer *t = make(err);
    enum pl_status st;

    if (!t)
        return PL_ENOMEM;
    t->info.file = pl_arena_strdup(&t->arena, p->name);
    st = t->info.file ? pl_tok_load_parts(t, p, err)
                      : pl_fail(err, PL_ENOMEM, "%s: no memory", p->name);
    return finish(t, st, out, err);
}

void pl_tokenizer_free(struct pl_tokenizer *t)
{
    if (!t)
        return;
    pl_arena_release(&t->arena);
    free(t);
}

const struct pl_tokenizer_info *pl_tokenizer_info(const struct pl_tokenizer *t)
{
    return &t->info;
}

const char *pl_tokenizer_piece(const struct pl_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->info.vocab)
        return NULL;
    if (t->family == &pl_tok_spm_family)
        return t->spm.pieces[id].text;
    if (t->added_of[id])
        return t->added[t->added_of[id] - 1].text.s;
    return (size_t)id < t->vocab.n ? t->vocab.pieces[id].s : NULL;
}

static enum pl_status encode(const struct pl_tokenizer *t, const char *text, size_t len,
                             bool inside, size_t stop, struct pl_ids *out, struct pl_err *err)
{
    struct pl_tok_run r;
    enum pl_status st;

    if (len > PL_TOKENIZER_MAX_TEXT)
        return pl_fail(err, PL_ERANGE, "a text of %zu bytes: at most %u", len,
                       PL_TOKENIZER_MAX_TEXT);
    pl_tok_run_init(&r, t, len, stop, out);
    r.inside = inside;
    st = t->family->encode(&r, text, len, err);
    pl_tok_run_release(&r);
    return st;
}

static enum pl_status add_all(struct pl_ids *out, const int32_t *ids, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st; i++)
        st = pl_ids_add(out, ids[i], err);
    return st;
}

enum pl_status pl_tokenizer_encode(const struct pl_tokenizer *t, const char *text, size_t len,
                                   bool add_special, struct pl_ids *out, struct pl_err *err)
{
    size_t before = out->n;
    enum pl_status st = add_all(out, t->prefix, add_special ? t->n_prefix : 0, err);

    if (!st)
        st = encode(t, text, len, false, SIZE_MAX, out, err);
    if (!st)
        st = add_all(out, t->suffix, add_special ? t->n_suffix : 0, err);
    if (st)
        out->n = before;
    return st;
}

enum pl_status pl_tokenizer_encode_inside(const struct pl_tokenizer *t, const char *text,
                                          size_t len, struct pl_ids *out, struct pl_err *err)
{
    size_t before = out->n;
    enum pl_status st = len ? encode(t, text, len, true, SIZE_MAX, out, err) : PL_OK;

    if (st)
        out->n = before;
    return st;
}

int32_t pl_tokenizer_special(const struct pl_tokenizer *t, const char *name)
{
    if (t->family != &pl_tok_spm_family)
        return pl_tok_id_of(t, name, strlen(name));
    for (size_t i = 0; i < t->spm.n; i++)
        if ((t->spm.pieces[i].type == PL_SPM_CONTROL || t->spm.pieces[i].type == PL_SPM_USER) &&
            !strcmp(t->spm.pieces[i].text, name))
            return (int32_t)i;
    return -1;
}

enum pl_status pl_tokenizer_encode_prefix(const struct pl_tokenizer *t, const char *text,
                                          size_t len, size_t want, struct pl_ids *out,
                                          struct pl_err *err)
{
    size_t before = out->n;
    enum pl_status st = add_all(out, t->prefix, t->n_prefix, err);

    if (!st && out->n < before + want)
        st = encode(t, text, len, false, before + want, out, err);
    if (!st && out->n < before + want)
        st = pl_fail(err, PL_ERANGE, "the text has %zu tokens, %zu are wanted", out->n - before,
                     want);
    out->n = st ? before : before + want;
    return st;
}

enum pl_status pl_tokenizer_decode(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                                   struct pl_buf *out, struct pl_err *err)
{
    size_t before = out->len;
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->info.vocab)
            return pl_fail(err, PL_ERANGE, "token %zu is %d, the tokenizer has %d pieces", i,
                           ids[i], t->info.vocab);
    st = t->family->decode(t, ids, n, out, err);
    if (st && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return st;
}
