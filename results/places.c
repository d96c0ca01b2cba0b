/* The shape of a results file and where its rows and logs lie. */
#include "results/h5.h"

#include <inttypes.h>

static uint32_t dim32(hsize_t n)
{
    return n > UINT32_MAX ? 0 : (uint32_t)n; /* pl_shape_check refuses 0 */
}

/* Of a dataset that is there for some shapes only: its last dimension, 0 when it is absent. */
static enum pl_status optional_dim(const struct pl_h5_source *s, const char *name, int rank,
                                   uint32_t *out, struct pl_err *err)
{
    struct pl_h5_found f;
    if (!pl_h5_exists(s, name))
        return PL_OK;
    const enum pl_status st = pl_h5_find(s, name, &f, err);
    if (st != PL_OK)
        return st;
    pl_h5_found_release(&f);
    if (f.rank != rank || f.dims[rank - 1] > UINT32_MAX)
        return pl_fail(err, PL_EFORMAT, "%s: /%s has %d dimensions, expected %d", s->path, name,
                       f.rank, rank);
    *out = (uint32_t)f.dims[rank - 1];
    return PL_OK;
}

static enum pl_status read_shape(const struct pl_h5_source *s, struct pl_shape *out,
                                 struct pl_err *err)
{
    struct pl_h5_found f;
    enum pl_status st = pl_h5_find_typed(s, "tokens", H5Tcopy(H5T_STD_I32LE), 6, &f, err);
    if (st != PL_OK)
        return st;
    out->arms = dim32(f.dims[0]);
    out->contexts = dim32(f.dims[1]);
    out->samples = dim32(f.dims[2]);
    out->repeats = dim32(f.dims[3]);
    out->batch = dim32(f.dims[4]);
    out->tokens = dim32(f.dims[5]);
    st = pl_h5_find_typed(s, "kv_len", H5Tcopy(H5T_STD_U32LE), 7, &f, err);
    if (st != PL_OK)
        return st;
    out->models = dim32(f.dims[4]);
    out->layers = dim32(f.dims[6]);
    st = optional_dim(s, "rounds", 6, &out->rounds, err);
    if (st == PL_OK)
        st = optional_dim(s, "quality", 5, &out->metrics, err);
    if (st != PL_OK)
        return st;
    st = pl_shape_check(out, err);
    return st == PL_OK ? st : pl_err_prefix(err, PL_EFORMAT, "%s", s->path);
}

static enum pl_status place(const struct pl_h5_source *s, const struct pl_dset_spec *spec,
                            uint64_t *at, struct pl_err *err)
{
    struct pl_h5_found f;
    const enum pl_status st = pl_h5_find_typed(s, spec->name, spec->type, spec->rank, &f, err);
    if (st != PL_OK)
        return st;
    for (int i = 0; i < spec->rank; i++)
        if (f.dims[i] != spec->dims[i])
            return pl_fail(err, PL_EFORMAT,
                           "%s: /%s: dimension %d is %" PRIu64 ", expected %" PRIu64, s->path,
                           spec->name, i, (uint64_t)f.dims[i], (uint64_t)spec->dims[i]);
    *at = f.at;
    return PL_OK;
}

static enum pl_status place_logs(const struct pl_h5_source *s, struct pl_places *p,
                                 struct pl_err *err)
{
    for (int k = 0; k < PL_LOG_KINDS; k++) {
        struct pl_h5_found f;
        const char *name = pl_log_name((enum pl_log_kind)k);
        const enum pl_status st =
            pl_h5_find_typed(s, name, pl_h5_log_type((enum pl_log_kind)k), 1, &f, err);
        if (st != PL_OK)
            return st;
        if (f.dims[0] > UINT32_MAX)
            return pl_fail(err, PL_EFORMAT, "%s: /%s has too many slots", s->path, name);
        p->log_at[k] = f.at;
        p->log_capacity[k] = (uint32_t)f.dims[0];
    }
    const struct pl_dset_spec overflow = {
        .name = "log_overflow", .type = H5Tcopy(H5T_STD_U64LE), .rank = 1, .dims = {PL_LOG_KINDS}};
    return place(s, &overflow, &p->overflow_at, err);
}

enum pl_status pl_places_read(const struct pl_h5_source *s, struct pl_places *out,
                              struct pl_err *err)
{
    struct pl_places p = {.rows = 0};
    struct pl_dset_spec spec;
    enum pl_status st = read_shape(s, &p.shape, err);
    if (st != PL_OK)
        return st;
    p.rows = pl_shape_rows(&p.shape);
    pl_layout_of(&p.shape, &p.layout);
    pl_h5_commit_spec(&p.shape, &spec);
    st = place(s, &spec, &p.commit_at, err);
    for (int c = 0; st == PL_OK && c < PL_CELLS; c++)
        if (pl_h5_cell_spec(&p.shape, (enum pl_cell)c, &spec))
            st = place(s, &spec, &p.cell_at[c], err);
    if (st == PL_OK && pl_h5_exists(s, "work")) { /* older files have none */
        pl_h5_work_spec(&p.shape, &spec);
        st = place(s, &spec, &p.work_at, err);
    }
    if (st == PL_OK && pl_h5_exists(s, "spans") && pl_h5_spans_spec(&p.shape, &spec))
        st = place(s, &spec, &p.spans_at, err);
    if (st == PL_OK)
        st = place_logs(s, &p, err);
    if (st == PL_OK)
        *out = p;
    return st;
}

uint64_t pl_places_spans(const struct pl_places *p, uint64_t index)
{
    const struct pl_row_id id = pl_row_at(&p->shape, index);
    const uint64_t samples =
        p->shape.samples < PL_SPANS_SAMPLES ? p->shape.samples : PL_SPANS_SAMPLES;
    if (!p->spans_at || id.sample >= samples || id.repeat > 0)
        return 0;
    const uint64_t at = ((uint64_t)id.arm * p->shape.contexts + id.context) * samples + id.sample;
    return p->spans_at + at * PL_SPANS_MAX * sizeof(struct pl_lane_span);
}
