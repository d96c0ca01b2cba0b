#include "results/record.h"

#include "base/hash.h"
#include "results/places.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "rows are the file's bytes: a big-endian host would have to swap them"
#endif

_Static_assert(sizeof(struct pl_trial) == 18 * 8 + 8 * 4 + 5 * 8 + 3 * 4 + 4 * 2 + 2 + 3 * 8 + 8,
               "pl_trial is packed");
_Static_assert(sizeof(struct pl_round) == 12, "pl_round is packed");
_Static_assert(sizeof(struct pl_commit) == 8, "a marker is one 8-byte write");

static uint64_t mul_sat(uint64_t a, uint64_t b)
{
    uint64_t r;
    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

static uint64_t add_sat(uint64_t a, uint64_t b)
{
    uint64_t r;
    return __builtin_add_overflow(a, b, &r) ? UINT64_MAX : r;
}

/* ---- shape ---- */

static void cell_bytes(const struct pl_shape *s, uint64_t out[PL_CELLS])
{
    const uint64_t per_token = mul_sat(s->batch, s->tokens);
    out[PL_CELL_TRIALS] = sizeof(struct pl_trial);
    out[PL_CELL_TOKENS] = mul_sat(per_token, sizeof(int32_t));
    out[PL_CELL_TOKEN_MS] = mul_sat(per_token, sizeof(float));
    out[PL_CELL_KV_LEN] =
        mul_sat(mul_sat(mul_sat(s->models, s->batch), s->layers), sizeof(uint32_t));
    out[PL_CELL_ROUNDS] = mul_sat(mul_sat(s->batch, s->rounds), sizeof(struct pl_round));
    out[PL_CELL_QUALITY] = mul_sat(s->metrics, sizeof(double));
}

enum pl_status pl_shape_check(const struct pl_shape *s, struct pl_err *err)
{
    const struct {
        const char *name;
        uint32_t n;
    } dims[] = {{"arms", s->arms},       {"contexts", s->contexts}, {"samples", s->samples},
                {"repeats", s->repeats}, {"batch", s->batch},       {"tokens", s->tokens},
                {"layers", s->layers}};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        if (dims[i].n == 0)
            return pl_fail(err, PL_ERANGE, "results shape: %s is 0, expected at least 1",
                           dims[i].name);
    if (s->models != 2)
        return pl_fail(err, PL_ERANGE, "results shape: models is %u, expected 2", s->models);
    if (s->rounds > s->tokens)
        return pl_fail(err, PL_ERANGE, "results shape: %u rounds for %u tokens, expected no more",
                       s->rounds, s->tokens);
    uint64_t cells[PL_CELLS], row = sizeof(struct pl_commit);
    cell_bytes(s, cells);
    for (int c = 0; c < PL_CELLS; c++)
        row = add_sat(row, cells[c]);
    if (row > PL_ROW_BYTES_MAX)
        return pl_fail(err, PL_ERANGE, "results shape: a row of %llu bytes, expected at most %u",
                       (unsigned long long)row, PL_ROW_BYTES_MAX);
    if (mul_sat(row, pl_shape_rows(s)) > UINT64_C(1) << 62)
        return pl_fail(err, PL_ERANGE, "results shape: %u × %u × %u × %u rows of %llu bytes",
                       s->arms, s->contexts, s->samples, s->repeats, (unsigned long long)row);
    return PL_OK;
}

uint64_t pl_shape_rows(const struct pl_shape *s)
{
    return mul_sat(mul_sat(s->arms, s->contexts), mul_sat(s->samples, s->repeats));
}

uint64_t pl_row_index(const struct pl_shape *s, const struct pl_row_id *id)
{
    uint64_t i = id->arm;
    i = i * s->contexts + id->context;
    i = i * s->samples + id->sample;
    return i * s->repeats + id->repeat;
}

struct pl_row_id pl_row_at(const struct pl_shape *s, uint64_t index)
{
    struct pl_row_id id;
    id.repeat = (uint32_t)(index % s->repeats);
    index /= s->repeats;
    id.sample = (uint32_t)(index % s->samples);
    index /= s->samples;
    id.context = (uint32_t)(index % s->contexts);
    id.arm = (uint32_t)(index / s->contexts);
    return id;
}

/* ---- names ---- */

const char *pl_reason_name(enum pl_reason r)
{
    static const char *const names[] = {
#define PL_X(sym, name) name,
        PL_REASON_LIST(PL_X)
#undef PL_X
    };
    return (unsigned)r < PL_REASON_COUNT ? names[r] : "unknown";
}

enum pl_reason pl_reason_parse(const char *name)
{
    for (int i = 0; i < PL_REASON_COUNT; i++)
        if (strcmp(name, pl_reason_name((enum pl_reason)i)) == 0)
            return (enum pl_reason)i;
    return PL_REASON_RUNNER;
}

static const struct {
    const char *name;
    size_t size;
} logs[PL_LOG_KINDS] = {[PL_LOG_SESSIONS] = {"sessions", sizeof(struct pl_log_session)},
                        [PL_LOG_WORKERS] = {"workers", sizeof(struct pl_log_worker)},
                        [PL_LOG_LOADS] = {"loads", sizeof(struct pl_log_load)},
                        [PL_LOG_BLOCKS] = {"blocks", sizeof(struct pl_log_block)},
                        [PL_LOG_FAILURES] = {"failures", sizeof(struct pl_log_failure)},
                        [PL_LOG_CEILINGS] = {"ceilings", sizeof(struct pl_log_ceiling)},
                        [PL_LOG_ENERGY] = {"energy", sizeof(struct pl_log_energy)},
                        [PL_LOG_KERNELS] = {"kernels", sizeof(struct pl_log_kernel)}};

const char *pl_log_name(enum pl_log_kind k)
{
    return (unsigned)k < PL_LOG_KINDS ? logs[k].name : "unknown";
}

size_t pl_log_size(enum pl_log_kind k)
{
    return (unsigned)k < PL_LOG_KINDS ? logs[k].size : 0;
}

const char *pl_cell_name(enum pl_cell c)
{
    static const char *const names[PL_CELLS] = {"trials", "tokens", "token_ms",
                                                "kv_len", "rounds", "quality"};
    return names[c];
}

/* ---- rows ---- */

void pl_layout_of(const struct pl_shape *shape, struct pl_layout *out)
{
    uint64_t cells[PL_CELLS];
    size_t at = 0;
    cell_bytes(shape, cells);
    for (int c = 0; c < PL_CELLS; c++) {
        out->size[c] = (size_t)cells[c];
        out->offset[c] = at;
        at += out->size[c];
    }
    out->bytes = at;
}

size_t pl_row_bytes(const struct pl_shape *shape)
{
    struct pl_layout l;
    pl_layout_of(shape, &l);
    return l.bytes;
}

enum pl_status pl_row_init(struct pl_row *row, const struct pl_shape *shape, struct pl_err *err)
{
    const enum pl_status st = pl_shape_check(shape, err);
    if (st != PL_OK)
        return st;
    struct pl_layout l;
    pl_layout_of(shape, &l);
    /* /quality is f64, what stands between it and /tokens is whole 4-byte words: aligning the first
     * aligns all */
    const size_t pad = (8 - l.offset[PL_CELL_QUALITY] % 8) % 8;
    void *block = malloc(l.bytes + pad);
    if (!block)
        return pl_fail(err, PL_ENOMEM, "a row of %zu bytes", l.bytes);
    unsigned char *b = (unsigned char *)block + pad;
    *row = (struct pl_row){
        .trial = (struct pl_trial *)b,
        .tokens = (int32_t *)(void *)(b + l.offset[PL_CELL_TOKENS]),
        .token_ms = (float *)(void *)(b + l.offset[PL_CELL_TOKEN_MS]),
        .kv_len = (uint32_t *)(void *)(b + l.offset[PL_CELL_KV_LEN]),
        .rounds = shape->rounds ? (struct pl_round *)(void *)(b + l.offset[PL_CELL_ROUNDS]) : NULL,
        .quality = shape->metrics ? (double *)(void *)(b + l.offset[PL_CELL_QUALITY]) : NULL,
        .bytes = b,
        .n_bytes = l.bytes,
        .block = block,
    };
    pl_row_clear(row, shape);
    return PL_OK;
}

#define CLEAR_F64 NAN
#define CLEAR_U64 0
#define CLEAR_I64 0
#define CLEAR_U32 0
#define CLEAR_U16 0
#define CLEAR_U8 0

void pl_row_clear(struct pl_row *row, const struct pl_shape *shape)
{
    memset(row->bytes, 0, row->n_bytes);
    row->work = (struct pl_row_work){0, 0, 0};
#define PL_X(type, tag, name) row->trial->name = CLEAR_##tag;
    PL_TRIAL_COLUMNS(PL_X)
#undef PL_X
    const size_t n = (size_t)shape->batch * shape->tokens;
    for (size_t i = 0; i < n; i++) {
        row->tokens[i] = -1;
        row->token_ms[i] = NAN;
    }
    for (uint32_t m = 0; m < shape->metrics; m++)
        row->quality[m] = NAN;
}

void pl_row_release(struct pl_row *row)
{
    if (!row)
        return;
    free(row->block);
    *row = (struct pl_row){0};
}

uint32_t pl_row_crc(uint64_t index, const struct pl_row *row)
{
    return pl_crc32c(pl_crc32c(0, &index, sizeof index), row->bytes, row->n_bytes);
}
