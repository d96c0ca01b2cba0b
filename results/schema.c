/* The types and shapes of CONTRACTS §3: what the creator makes, the writer relies on and the reader
 * demands. */
#include "results/h5.h"

#include <stddef.h>
#include <string.h>

enum kind { U8, U16, U32, U64, I32, I64, F32, F64, STR };

struct field {
    const char *name;
    size_t offset, size;
    enum kind kind;
};

static hid_t scalar_type(enum kind k)
{
    switch (k) {
    case U8:
        return H5T_STD_U8LE;
    case U16:
        return H5T_STD_U16LE;
    case U32:
        return H5T_STD_U32LE;
    case U64:
        return H5T_STD_U64LE;
    case I32:
        return H5T_STD_I32LE;
    case I64:
        return H5T_STD_I64LE;
    case F32:
        return H5T_IEEE_F32LE;
    case F64:
        return H5T_IEEE_F64LE;
    case STR:
        break;
    }
    return H5I_INVALID_HID;
}

hid_t pl_h5_string(size_t size)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    if (t < 0)
        return t;
    if (H5Tset_size(t, size ? size : 1) < 0 || H5Tset_strpad(t, H5T_STR_NULLPAD) < 0 ||
        H5Tset_cset(t, H5T_CSET_UTF8) < 0) {
        H5Tclose(t);
        return H5I_INVALID_HID;
    }
    return t;
}

static hid_t compound(size_t size, const struct field *f, size_t n)
{
    hid_t t = H5Tcreate(H5T_COMPOUND, size);
    if (t < 0)
        return t;
    for (size_t i = 0; i < n; i++) {
        hid_t str = f[i].kind == STR ? pl_h5_string(f[i].size) : H5I_INVALID_HID;
        const hid_t member = f[i].kind == STR ? str : scalar_type(f[i].kind);
        const herr_t rc = H5Tinsert(t, f[i].name, f[i].offset, member);
        pl_h5_close_type(str);
        if (rc < 0) {
            H5Tclose(t);
            return H5I_INVALID_HID;
        }
    }
    return t;
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define FIELD(T, name, kind)                                                                       \
    {                                                                                              \
#name, offsetof(struct T, name), sizeof(((struct T *)0)->name), kind                       \
    }

static hid_t trial_type(void)
{
    static const struct field f[] = {
#define PL_X(type, tag, name) FIELD(pl_trial, name, tag),
        PL_TRIAL_COLUMNS(PL_X)
#undef PL_X
    };
    return compound(sizeof(struct pl_trial), f, COUNT(f));
}

static hid_t round_type(void)
{
    static const struct field f[] = {
        FIELD(pl_round, drafted, U16),
        FIELD(pl_round, accepted, U16),
        FIELD(pl_round, draft_us, U32),
        FIELD(pl_round, verify_us, U32),
    };
    return compound(sizeof(struct pl_round), f, COUNT(f));
}

bool pl_h5_spans_spec(const struct pl_shape *s, struct pl_dset_spec *out)
{
    static const struct field f[] = {
        FIELD(pl_lane_span, lane, U8),
        FIELD(pl_lane_span, kind, U8),
        FIELD(pl_lane_span, start_ms, F64),
        FIELD(pl_lane_span, end_ms, F64),
    };
    if (!s->rounds)
        return false;
    *out = (struct pl_dset_spec){
        .name = "spans",
        .type = compound(sizeof(struct pl_lane_span), f, COUNT(f)),
        .rank = 4,
        .dims = {s->arms, s->contexts,
                 s->samples < PL_SPANS_SAMPLES ? s->samples : PL_SPANS_SAMPLES, PL_SPANS_MAX}};
    return true;
}

void pl_h5_work_spec(const struct pl_shape *s, struct pl_dset_spec *out)
{
    static const struct field f[] = {
        FIELD(pl_row_work, prefill_flops, U64),
        FIELD(pl_row_work, decode_flops, U64),
        FIELD(pl_row_work, decode_bytes, U64),
    };
    *out = (struct pl_dset_spec){.name = "work",
                                 .type = compound(sizeof(struct pl_row_work), f, COUNT(f)),
                                 .rank = 4,
                                 .dims = {s->arms, s->contexts, s->samples, s->repeats}};
}

static hid_t commit_type(void)
{
    static const struct field f[] = {
        FIELD(pl_commit, state, U8),
        FIELD(pl_commit, attempt, U8),
        FIELD(pl_commit, session, U16),
        FIELD(pl_commit, crc, U32),
    };
    return compound(sizeof(struct pl_commit), f, COUNT(f));
}

static const struct field session_fields[] = {
    FIELD(pl_log_session, used, U8),       FIELD(pl_log_session, event, U8),
    FIELD(pl_log_session, session, U16),   FIELD(pl_log_session, exit_code, I32),
    FIELD(pl_log_session, ranks, U32),     FIELD(pl_log_session, done, U32),
    FIELD(pl_log_session, failed, U32),    FIELD(pl_log_session, unix_ns, I64),
    FIELD(pl_log_session, host, STR),      FIELD(pl_log_session, version, STR),
    FIELD(pl_log_session, provenance, STR)};

static const struct field worker_fields[] = {
    FIELD(pl_log_worker, used, U8),         FIELD(pl_log_worker, session, U16),
    FIELD(pl_log_worker, worker, U32),      FIELD(pl_log_worker, rank, U32),
    FIELD(pl_log_worker, pid, U32),         FIELD(pl_log_worker, local_index, U32),
    FIELD(pl_log_worker, local_count, U32), FIELD(pl_log_worker, unix_ns, I64),
    FIELD(pl_log_worker, host, STR),        FIELD(pl_log_worker, cpus, STR),
    FIELD(pl_log_worker, device, STR)};

static const struct field load_fields[] = {
    FIELD(pl_log_load, used, U8),           FIELD(pl_log_load, ok, U8),
    FIELD(pl_log_load, session, U16),       FIELD(pl_log_load, load, U32),
    FIELD(pl_log_load, worker, U32),        FIELD(pl_log_load, unix_ns, I64),
    FIELD(pl_log_load, load_ms, F64),       FIELD(pl_log_load, stage_ms, F64),
    FIELD(pl_log_load, weights_bytes, U64), FIELD(pl_log_load, resident_bytes, U64),
    FIELD(pl_log_load, models, STR),        FIELD(pl_log_load, runner, STR),
    FIELD(pl_log_load, transports, STR)};

static const struct field block_fields[] = {
    FIELD(pl_log_block, used, U8),         FIELD(pl_log_block, session, U16),
    FIELD(pl_log_block, attempt, U16),     FIELD(pl_log_block, block, U32),
    FIELD(pl_log_block, worker, U32),      FIELD(pl_log_block, done, U32),
    FIELD(pl_log_block, failed, U32),      FIELD(pl_log_block, start_unix_ns, I64),
    FIELD(pl_log_block, end_unix_ns, I64), FIELD(pl_log_block, mhz_start, F64),
    FIELD(pl_log_block, mhz_end, F64),     FIELD(pl_log_block, celsius_start, F64),
    FIELD(pl_log_block, celsius_end, F64), FIELD(pl_log_block, throttle_start, U64),
    FIELD(pl_log_block, throttle_end, U64)};

static const struct field failure_fields[] = {
    FIELD(pl_log_failure, used, U8),    FIELD(pl_log_failure, attempt, U8),
    FIELD(pl_log_failure, final, U8),   FIELD(pl_log_failure, session, U16),
    FIELD(pl_log_failure, reason, U16), FIELD(pl_log_failure, worker, U32),
    FIELD(pl_log_failure, row, U64),    FIELD(pl_log_failure, unix_ns, I64),
    FIELD(pl_log_failure, detail, STR), FIELD(pl_log_failure, stderr_tail, STR)};

static const struct field ceiling_fields[] = {
    FIELD(pl_log_ceiling, used, U8),        FIELD(pl_log_ceiling, session, U16),
    FIELD(pl_log_ceiling, worker, U32),     FIELD(pl_log_ceiling, threads, U32),
    FIELD(pl_log_ceiling, unix_ns, I64),    FIELD(pl_log_ceiling, read_bytes_per_s, F64),
    FIELD(pl_log_ceiling, flop_per_s, F64), FIELD(pl_log_ceiling, kind, STR)};

static const struct field energy_fields[] = {
    FIELD(pl_log_energy, used, U8),       FIELD(pl_log_energy, synthetic, U8),
    FIELD(pl_log_energy, session, U16),   FIELD(pl_log_energy, arm, U32),
    FIELD(pl_log_energy, context, U32),   FIELD(pl_log_energy, worker, U32),
    FIELD(pl_log_energy, sequences, U32), FIELD(pl_log_energy, readings, U32),
    FIELD(pl_log_energy, trials, U64),    FIELD(pl_log_energy, tokens, U64),
    FIELD(pl_log_energy, unix_ns, I64),   FIELD(pl_log_energy, seconds, F64),
    FIELD(pl_log_energy, joules, F64),    FIELD(pl_log_energy, source, STR),
    FIELD(pl_log_energy, absent, STR)};

static const struct field kernel_fields[] = {
    FIELD(pl_log_kernel, used, U8),     FIELD(pl_log_kernel, synthetic, U8),
    FIELD(pl_log_kernel, session, U16), FIELD(pl_log_kernel, arm, U32),
    FIELD(pl_log_kernel, context, U32), FIELD(pl_log_kernel, worker, U32),
    FIELD(pl_log_kernel, unix_ns, I64), FIELD(pl_log_kernel, ms, F64),
    FIELD(pl_log_kernel, calls, U64),   FIELD(pl_log_kernel, bytes, U64),
    FIELD(pl_log_kernel, flops, U64),   FIELD(pl_log_kernel, name, STR)};

hid_t pl_h5_log_type(enum pl_log_kind k)
{
    static const struct {
        const struct field *f;
        size_t n;
    } t[PL_LOG_KINDS] = {[PL_LOG_SESSIONS] = {session_fields, COUNT(session_fields)},
                         [PL_LOG_WORKERS] = {worker_fields, COUNT(worker_fields)},
                         [PL_LOG_LOADS] = {load_fields, COUNT(load_fields)},
                         [PL_LOG_BLOCKS] = {block_fields, COUNT(block_fields)},
                         [PL_LOG_FAILURES] = {failure_fields, COUNT(failure_fields)},
                         [PL_LOG_CEILINGS] = {ceiling_fields, COUNT(ceiling_fields)},
                         [PL_LOG_ENERGY] = {energy_fields, COUNT(energy_fields)},
                         [PL_LOG_KERNELS] = {kernel_fields, COUNT(kernel_fields)}};
    return compound(pl_log_size(k), t[k].f, t[k].n);
}

/* R, then the cell's own dimensions. */
static void set_dims(struct pl_dset_spec *d, const struct pl_shape *s, int n, const uint32_t *inner)
{
    d->rank = 4 + n;
    d->dims[0] = s->arms;
    d->dims[1] = s->contexts;
    d->dims[2] = s->samples;
    d->dims[3] = s->repeats;
    for (int i = 0; i < n; i++)
        d->dims[4 + i] = inner[i];
}

void pl_h5_commit_spec(const struct pl_shape *s, struct pl_dset_spec *out)
{
    *out = (struct pl_dset_spec){.name = "commit", .type = commit_type()};
    set_dims(out, s, 0, NULL);
}

bool pl_h5_cell_spec(const struct pl_shape *s, enum pl_cell c, struct pl_dset_spec *out)
{
    struct pl_dset_spec d = {.name = pl_cell_name(c), .type = H5I_INVALID_HID};
    switch (c) {
    case PL_CELL_TRIALS:
        d.type = trial_type();
        set_dims(&d, s, 0, NULL);
        break;
    case PL_CELL_TOKENS:
    case PL_CELL_TOKEN_MS:
        d.type = H5Tcopy(scalar_type(c == PL_CELL_TOKENS ? I32 : F32));
        set_dims(&d, s, 2, (const uint32_t[]){s->batch, s->tokens});
        break;
    case PL_CELL_KV_LEN:
        d.type = H5Tcopy(scalar_type(U32));
        set_dims(&d, s, 3, (const uint32_t[]){s->models, s->batch, s->layers});
        break;
    case PL_CELL_ROUNDS:
        if (!s->rounds)
            return false;
        d.type = round_type();
        set_dims(&d, s, 2, (const uint32_t[]){s->batch, s->rounds});
        break;
    case PL_CELL_QUALITY:
        if (!s->metrics)
            return false;
        d.type = H5Tcopy(scalar_type(F64));
        set_dims(&d, s, 1, (const uint32_t[]){s->metrics});
        break;
    case PL_CELLS:
        return false;
    }
    *out = d;
    return true;
}
