#include "model/tokenizer.h"

#include "base/arena.h"
#include "base/json.h"
#include "model/bpe.h"
#include "model/spm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPACE "\xe2\x96\x81"       /* ▁ */
#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

struct pl_tokenizer {
    struct pl_arena arena;
    struct pl_spm spm;
    struct pl_vocab vocab;
    struct pl_tokenizer_info info;
};

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

static enum pl_status find_file(const char *dir, struct pl_arena *a, const char **out,
                                struct pl_err *err)
{
    static const char *const known[] = {"tokenizer.model", "spiece.model"};
    static const char *const others[] = {"tokenizer.json", "vocab.json", "vocab.txt"};
    struct stat sb;

    if (stat(dir, &sb))
        return pl_fail_errno(err, errno, "%s", dir);
    if (!S_ISDIR(sb.st_mode)) {
        *out = pl_arena_strdup(a, dir);
        return *out ? PL_OK : pl_fail(err, PL_ENOMEM, "%s: no memory", dir);
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (exists(dir, known[i], a, out))
            return PL_OK;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (exists(dir, others[i], a, out))
            return pl_fail(err, PL_EUNSUPPORTED,
                           "%s: tokenizers of this kind are not supported (a SentencePiece "
                           "tokenizer.model is)",
                           *out);
    return pl_fail(err, PL_ENOENT,
                   "%s: no tokenizer: looked for tokenizer.model, spiece.model, tokenizer.json, "
                   "vocab.json, vocab.txt",
                   dir);
}

static enum pl_status check_supported(const char *file, const struct pl_spm *s, struct pl_err *err)
{
    static const char *const kinds[] = {"0", "unigram", "bpe", "word", "char"};

    if (s->kind != PL_SPM_BPE)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "%s: SentencePiece model type %s is not supported (bpe is)", file,
                       s->kind >= 0 && s->kind <= 4 ? kinds[s->kind] : "(unknown)");
    if (s->charsmap)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "%s: SentencePiece normaliser %.40s is not supported (identity is)", file,
                       s->normaliser);
    if (s->whitespace_as_suffix || !s->escape_whitespace)
        return pl_fail(
            err, PL_EUNSUPPORTED,
            "%s: SentencePiece's treat_whitespace_as_suffix and unescaped whitespace are "
            "not supported",
            file);
    for (size_t i = 0; i < s->n; i++)
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

static enum pl_status read_config(struct pl_tokenizer *t, const char *dir, struct pl_err *err)
{
    bool bos = true, eos = false;
    enum pl_status st;
    const char *path;
    json_t *j = NULL;
    struct stat sb;

    if (!stat(dir, &sb) && S_ISDIR(sb.st_mode) &&
        exists(dir, "tokenizer_config.json", &t->arena, &path)) {
        st = pl_json_read_file(path, PL_JSON_MAX, &j, err);
        if (st)
            return st;
        const json_t *b = json_object_get(j, "add_bos_token"),
                     *e = json_object_get(j, "add_eos_token");
        bos = json_is_boolean(b) ? json_is_true(b) : bos;
        eos = json_is_boolean(e) ? json_is_true(e) : eos;
        json_decref(j);
    }
    t->info.add_bos = bos && t->info.bos >= 0;
    t->info.add_eos = eos && t->info.eos >= 0;
    return PL_OK;
}

static enum pl_status load(struct pl_tokenizer *t, const char *dir, struct pl_err *err)
{
    struct pl_buf data;
    const char *file = NULL;
    enum pl_status st;

    st = find_file(dir, &t->arena, &file, err);
    if (!st)
        st = pl_read_file(file, PL_SPM_MAX_FILE, &data, err);
    if (st)
        return st;
    st = pl_spm_parse(file, data.data, data.len, &t->arena, &t->spm, err);
    pl_buf_release(&data);
    if (!st)
        st = check_supported(file, &t->spm, err);
    if (!st)
        st = pl_vocab_init(&t->vocab, file, &t->spm, &t->arena, err);
    if (st)
        return st;
    t->info = (struct pl_tokenizer_info){
        .kind = "sentencepiece-bpe",
        .file = file,
        .vocab = (int32_t)t->spm.n,
        .bos = special(&t->spm, t->spm.bos, PL_SPM_CONTROL),
        .eos = special(&t->spm, t->spm.eos, PL_SPM_CONTROL),
        .pad = special(&t->spm, t->spm.pad, PL_SPM_CONTROL),
        .unk = special(&t->spm, t->spm.unk, PL_SPM_UNKNOWN),
    };
    if (t->info.unk < 0)
        return pl_fail(err, PL_EFORMAT, "%s: unk_id %d is not the unknown piece", file, t->spm.unk);
    return read_config(t, dir, err);
}

enum pl_status pl_tokenizer_load(const char *dir, struct pl_tokenizer **out, struct pl_err *err)
{
    struct pl_tokenizer *t = calloc(1, sizeof(*t));
    enum pl_status st;

    if (!t)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for a tokenizer", dir);
    pl_arena_init(&t->arena);
    st = load(t, dir, err);
    if (st) {
        pl_tokenizer_free(t);
        return st;
    }
    *out = t;
    return PL_OK;
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
    return id >= 0 && id < t->info.vocab ? t->spm.pieces[id].text : NULL;
}

/* An encode on its way: normalised characters gather in `word`, which is tokenised whenever the
 * next one cannot join with it. */
struct encoder {
    const struct pl_tokenizer *t;
    struct pl_bpe bpe;
    char *word;
    size_t len, size;
    bool in_word; /* the word has a character that is not ▁ */
    bool was_unk;
    size_t held; /* ▁s that only stand if more text follows (remove_extra_whitespace) */
    size_t stop; /* enough ids */
    struct pl_ids *out;
};

static enum pl_status flush(struct encoder *e, struct pl_err *err)
{
    enum pl_status st =
        pl_bpe_encode(&e->bpe, &e->t->vocab, e->word, e->len, &e->was_unk, e->out, err);

    e->len = 0;
    e->in_word = false;
    return st;
}

static enum pl_status put(struct encoder *e, const char *s, size_t n, bool space,
                          struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (space && e->in_word && e->t->vocab.splits_at_space)
        st = flush(e, err);
    if (e->len + n > e->size && !st) {
        size_t size = e->size ? e->size * 2 : 256;
        char *word = size > UINT32_MAX / 2 ? NULL : realloc(e->word, size);
        if (!word)
            return pl_fail(err, PL_ENOMEM, "no memory to tokenise");
        e->word = word;
        e->size = size;
    }
    if (st)
        return st;
    memcpy(e->word + e->len, s, n);
    e->len += n;
    e->in_word = e->in_word || !space;
    return PL_OK;
}

/* Normalises and tokenises until the text or the wanted number of ids is reached.
 * (Normalizer::Normalize with the identity rules.) */
static enum pl_status encode_text(struct encoder *e, const char *text, size_t len,
                                  struct pl_err *err)
{
    bool squeeze = e->t->spm.remove_extra_whitespace, after_space = squeeze, begun = false;
    enum pl_status st = PL_OK;

    for (size_t at = 0; at < len && !st && e->out->n < e->stop;) {
        bool valid, blank = text[at] == ' ';
        size_t user =
            e->t->vocab.n_user ? pl_vocab_user_match(&e->t->vocab, text + at, len - at) : 0;
        size_t n = user ? user : pl_utf8_next(text + at, len - at, &valid);
        const char *s = user || valid ? text + at : REPLACEMENT;
        size_t put_n = user || valid ? n : 3;
        bool mark = n == 3 && !memcmp(text + at, SPACE, 3);
        at += n;
        if (blank && n == 1 && after_space)
            continue;
        if (!begun && e->t->spm.dummy_prefix && squeeze)
            e->held++; /* squeezed whitespace at the end takes the prefix with it */
        else if (!begun && e->t->spm.dummy_prefix)
            st = put(e, SPACE, 3, true, err);
        begun = true;
        after_space = squeeze && blank && n == 1;
        if (squeeze && ((blank && n == 1) || mark)) {
            e->held++;
            continue;
        }
        for (; e->held && !st; e->held--)
            st = put(e, SPACE, 3, true, err);
        for (size_t i = 0;
             i < put_n && !st;) { /* a user-defined piece may hold several characters */
            size_t m = user ? pl_utf8_next(s + i, put_n - i, &valid) : put_n;
            bool is_blank = s[i] == ' ';
            st = put(e, is_blank ? SPACE : s + i, is_blank ? 3 : m,
                     is_blank || (m == 3 && !memcmp(s + i, SPACE, 3)), err);
            i += m;
        }
    }
    if (!st && e->len && e->out->n < e->stop)
        st = flush(e, err);
    return st;
}

static enum pl_status encode(const struct pl_tokenizer *t, const char *text, size_t len,
                             size_t stop, struct pl_ids *out, struct pl_err *err)
{
    struct encoder e = {.t = t, .stop = stop, .out = out};
    enum pl_status st;

    if (len > PL_TOKENIZER_MAX_TEXT)
        return pl_fail(err, PL_ERANGE, "a text of %zu bytes: at most %u", len,
                       PL_TOKENIZER_MAX_TEXT);
    st = encode_text(&e, text, len, err);
    pl_bpe_release(&e.bpe);
    free(e.word);
    return st;
}

enum pl_status pl_tokenizer_encode(const struct pl_tokenizer *t, const char *text, size_t len,
                                   bool add_special, struct pl_ids *out, struct pl_err *err)
{
    size_t before = out->n;
    enum pl_status st = PL_OK;

    if (add_special && t->info.add_bos)
        st = pl_ids_add(out, t->info.bos, err);
    if (!st)
        st = encode(t, text, len, SIZE_MAX, out, err);
    if (!st && add_special && t->info.add_eos)
        st = pl_ids_add(out, t->info.eos, err);
    if (st)
        out->n = before;
    return st;
}

enum pl_status pl_tokenizer_encode_prefix(const struct pl_tokenizer *t, const char *text,
                                          size_t len, size_t want, struct pl_ids *out,
                                          struct pl_err *err)
{
    size_t before = out->n;
    enum pl_status st = PL_OK;

    if (t->info.add_bos)
        st = pl_ids_add(out, t->info.bos, err);
    if (!st)
        st = encode(t, text, len, before + want, out, err);
    if (!st && out->n < before + want)
        st = pl_fail(err, PL_ERANGE, "the text has %zu tokens, %zu are wanted", out->n - before,
                     want);
    out->n = st ? before : before + want;
    return st;
}

/* The text of a run of byte pieces: valid characters as they are, each other byte as U+FFFD. */
static enum pl_status put_bytes(struct pl_buf *out, const char *bytes, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st;) {
        bool valid;
        size_t m = pl_utf8_next(bytes + i, n - i, &valid);
        st = valid ? pl_buf_add(out, bytes + i, m, err) : pl_buf_add(out, REPLACEMENT, 3, err);
        i += m;
    }
    return st;
}

static enum pl_status put_piece(struct pl_buf *out, const char *s, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st;) {
        bool mark = n - i >= 3 && !memcmp(s + i, SPACE, 3);
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
            size_t skip = at_start && strip && p->len >= 3 && !memcmp(p->text, SPACE, 3) ? 3 : 0;
            stripped = skip && !t->spm.remove_extra_whitespace;
            st = put_piece(out, p->text + skip, p->len - skip, err);
        }
    }
    pl_buf_release(&bytes);
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
    st = decode(t, ids, n, out, err);
    if (st && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return st;
}
