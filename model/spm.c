#include "model/spm.h"

#include <string.h>

/* A stretch of protobuf wire format. */
struct wire {
    const unsigned char *p, *end;
};

/* One field: varints and fixed widths in `value`, length-delimited ones as a stretch. */
struct field {
    uint32_t number;
    uint64_t value;
    struct wire bytes;
};

static bool varint(struct wire *w, uint64_t *out)
{
    uint64_t v = 0;

    for (int shift = 0; shift < 64 && w->p < w->end; shift += 7) {
        unsigned char b = *w->p++;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool fixed(struct wire *w, size_t n, uint64_t *out)
{
    *out = 0;
    if ((size_t)(w->end - w->p) < n)
        return false;
    for (size_t i = 0; i < n; i++)
        *out |= (uint64_t)w->p[i] << 8 * i;
    w->p += n;
    return true;
}

/* Reads the next field; false at a malformed one. Call while w->p < w->end. */
static bool next_field(struct wire *w, struct field *f)
{
    uint64_t tag, len;

    memset(f, 0, sizeof(*f));
    f->bytes =
        (struct wire){w->p, w->p}; /* of a field that should be bytes but is a number: none */
    if (!varint(w, &tag) || !(tag >> 3) || tag >> 3 > UINT32_MAX)
        return false;
    f->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
        return varint(w, &f->value);
    case 1:
        return fixed(w, 8, &f->value);
    case 2:
        if (!varint(w, &len) || len > (uint64_t)(w->end - w->p))
            return false;
        f->bytes = (struct wire){w->p, w->p + len};
        w->p += len;
        return true;
    case 5:
        return fixed(w, 4, &f->value);
    default:
        return false;
    }
}

static enum pl_status parse_piece(const char *file, struct wire w, struct pl_arena *arena,
                                  size_t number, struct pl_spm_piece *out, struct pl_err *err)
{
    struct pl_spm_piece p = {.text = "", .type = PL_SPM_NORMAL};
    struct field f;
    uint32_t bits;

    while (w.p < w.end) {
        if (!next_field(&w, &f))
            return pl_fail(err, PL_EFORMAT, "%s: piece %zu is malformed", file, number);
        if (f.number == 1) {
            p.len = (uint32_t)(f.bytes.end - f.bytes.p);
            if (p.len > PL_SPM_MAX_PIECE)
                return pl_fail(err, PL_EFORMAT, "%s: piece %zu has %u bytes (at most %u)", file,
                               number, p.len, PL_SPM_MAX_PIECE);
            p.text = pl_arena_strndup(arena, (const char *)f.bytes.p, p.len);
            if (!p.text)
                return pl_fail(err, PL_ENOMEM, "%s: no memory for its pieces", file);
        } else if (f.number == 2) {
            bits = (uint32_t)f.value;
            memcpy(&p.score, &bits, sizeof(p.score));
        } else if (f.number == 3) {
            if (f.value < PL_SPM_NORMAL || f.value > PL_SPM_BYTE)
                return pl_fail(err, PL_EFORMAT, "%s: piece %zu has unknown type %llu", file, number,
                               (unsigned long long)f.value);
            p.type = (enum pl_spm_type)f.value;
        }
    }
    if (strlen(p.text) != p.len) /* a NUL inside: nothing that a text could hold */
        p.len = (uint32_t)strlen(p.text);
    if (!p.len)
        return pl_fail(err, PL_EFORMAT, "%s: piece %zu is empty", file, number);
    if (p.score != p.score)
        return pl_fail(err, PL_EFORMAT, "%s: piece %zu has no score but NaN", file, number);
    *out = p;
    return PL_OK;
}

static bool parse_trainer(struct wire w, struct pl_arena *arena, struct pl_spm *s)
{
    struct field f;

    while (w.p < w.end) {
        if (!next_field(&w, &f))
            return false;
        switch (f.number) {
        case 3:
            s->kind = (int32_t)f.value;
            break;
        case 24:
            s->whitespace_as_suffix = f.value != 0;
            break;
        case 35:
            s->byte_fallback = f.value != 0;
            break;
        case 40:
            s->unk = (int32_t)f.value;
            break;
        case 41:
            s->bos = (int32_t)f.value;
            break;
        case 42:
            s->eos = (int32_t)f.value;
            break;
        case 43:
            s->pad = (int32_t)f.value;
            break;
        case 44:
            s->unk_surface =
                pl_arena_strndup(arena, (const char *)f.bytes.p, (size_t)(f.bytes.end - f.bytes.p));
            if (!s->unk_surface)
                return false;
            break;
        default:
            break;
        }
    }
    return true;
}

static bool parse_normaliser(struct wire w, struct pl_arena *arena, struct pl_spm *s)
{
    struct field f;

    while (w.p < w.end) {
        if (!next_field(&w, &f))
            return false;
        switch (f.number) {
        case 1:
            s->normaliser =
                pl_arena_strndup(arena, (const char *)f.bytes.p, (size_t)(f.bytes.end - f.bytes.p));
            if (!s->normaliser)
                return false;
            break;
        case 2:
            s->charsmap = (size_t)(f.bytes.end - f.bytes.p);
            s->rules = f.bytes.p;
            break;
        case 3:
            s->dummy_prefix = f.value != 0;
            break;
        case 4:
            s->remove_extra_whitespace = f.value != 0;
            break;
        case 5:
            s->escape_whitespace = f.value != 0;
            break;
        default:
            break;
        }
    }
    return true;
}

static size_t count_pieces(struct wire w)
{
    struct field f;
    size_t n = 0;

    while (w.p < w.end && next_field(&w, &f))
        n += f.number == 1;
    return n;
}

enum pl_status pl_spm_parse(const char *file, const void *data, size_t size, struct pl_arena *arena,
                            struct pl_spm *out, struct pl_err *err)
{
    struct wire w = {.p = data, .end = (const unsigned char *)data + size};
    struct pl_spm s = {.kind = PL_SPM_UNIGRAM,
                       .unk = 0,
                       .bos = 1,
                       .eos = 2,
                       .pad = -1,
                       .unk_surface = " \xe2\x81\x87 ",
                       .normaliser = "",
                       .dummy_prefix = true,
                       .remove_extra_whitespace = true,
                       .escape_whitespace = true};
    enum pl_status st = PL_OK;
    size_t n = size ? count_pieces(w) : 0;
    struct field f;

    if (!n || n > PL_SPM_MAX_PIECES)
        return pl_fail(err, PL_EFORMAT, "%s: not a SentencePiece model (%s)", file,
                       !size ? "the file is empty"
                       : n   ? "too many pieces"
                             : "it holds no pieces");
    s.pieces = pl_arena_calloc(arena, n, sizeof(*s.pieces));
    if (!s.pieces)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its pieces", file);
    while (w.p < w.end && !st) {
        if (!next_field(&w, &f))
            return pl_fail(err, PL_EFORMAT, "%s: malformed at byte %zu (truncated?)", file,
                           size - (size_t)(w.end - w.p));
        if (f.number == 1) {
            st = parse_piece(file, f.bytes, arena, s.n, &s.pieces[s.n], err);
            s.n++;
        } else if (f.number == 2 && !parse_trainer(f.bytes, arena, &s)) {
            st = pl_fail(err, PL_EFORMAT, "%s: its trainer_spec is malformed", file);
        } else if (f.number == 3 && !parse_normaliser(f.bytes, arena, &s)) {
            st = pl_fail(err, PL_EFORMAT, "%s: its normalizer_spec is malformed", file);
        }
    }
    if (st)
        return st;
    *out = s;
    return PL_OK;
}
