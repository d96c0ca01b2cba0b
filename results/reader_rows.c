/* Rows, logs and verification: all of it reads at known places, so it works while writers write. */
#include "results/reader_impl.h"

#include "base/hash.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (4u << 20) /* of cells held at once, one row at least */
#define CHUNK_ROWS 8192u
#define RACE_RETRIES 8 /* a row re-run under our eyes */

/* ---- borrowed things ---- */

const struct pl_shape *pl_reader_shape(const struct pl_reader *r)
{
    return &r->p.shape;
}

static const char *label(const struct pl_labels *l, uint32_t i)
{
    return i < l->n ? l->data + i * l->stride : "";
}

const char *pl_reader_arm(const struct pl_reader *r, uint32_t arm)
{
    return label(&r->arms, arm);
}

const json_t *pl_reader_arm_json(const struct pl_reader *r, uint32_t arm)
{
    return arm < r->arms.n ? r->arm_json[arm] : NULL;
}

int64_t pl_reader_context(const struct pl_reader *r, uint32_t context)
{
    return context < r->n_contexts ? r->contexts[context] : -1;
}

const char *pl_reader_sample(const struct pl_reader *r, uint32_t sample)
{
    return label(&r->samples, sample);
}

const char *pl_reader_metric(const struct pl_reader *r, uint32_t metric)
{
    return label(&r->metrics, metric);
}

const char *pl_reader_sweep_text(const struct pl_reader *r)
{
    return r->text;
}

const char *pl_reader_resolved(const struct pl_reader *r)
{
    return r->resolved;
}

const json_t *pl_reader_sweep(const struct pl_reader *r)
{
    return r->sweep;
}

const char *pl_reader_sha256(const struct pl_reader *r)
{
    return r->sha256;
}

const json_t *pl_reader_provenance(const struct pl_reader *r)
{
    return r->provenance;
}

/* ---- rows ---- */

enum pl_status pl_reader_markers(struct pl_reader *r, uint64_t first, uint64_t n,
                                 struct pl_commit *out, struct pl_err *err)
{
    if (first > r->p.rows || n > r->p.rows - first)
        return pl_fail(err, PL_ERANGE, "%s: rows %" PRIu64 " + %" PRIu64 " of %" PRIu64, r->path,
                       first, n, r->p.rows);
    return pl_reader_pread(r, "commit", r->p.commit_at + first * sizeof *out, out, n * sizeof *out,
                           err);
}

struct chunk {
    struct pl_commit *marks;
    unsigned char *cells[PL_CELLS]; /* [most + 1]: the last is for a second look */
    struct pl_row_work *work;       /* [most + 1] */
    uint64_t most;                  /* rows */
    struct pl_row row;
};

static void chunk_release(struct chunk *k)
{
    free(k->marks);
    free(k->work);
    for (int c = 0; c < PL_CELLS; c++)
        free(k->cells[c]);
    pl_row_release(&k->row);
}

static enum pl_status chunk_init(struct chunk *k, const struct pl_reader *r, struct pl_err *err)
{
    *k = (struct chunk){.most = CHUNK_BYTES / r->p.layout.bytes};
    if (k->most < 1)
        k->most = 1;
    if (k->most > CHUNK_ROWS)
        k->most = CHUNK_ROWS;
    if (k->most > r->p.rows)
        k->most = r->p.rows;
    const enum pl_status st = pl_row_init(&k->row, &r->p.shape, err);
    if (st != PL_OK)
        return st;
    bool ok = (k->marks = malloc(k->most * sizeof *k->marks)) != NULL &&
              (k->work = calloc(k->most + 1, sizeof *k->work)) != NULL;
    for (int c = 0; c < PL_CELLS; c++)
        if (r->p.layout.size[c])
            ok &= (k->cells[c] = malloc((k->most + 1) * r->p.layout.size[c])) != NULL;
    if (ok)
        return PL_OK;
    chunk_release(k);
    return pl_fail(err, PL_ENOMEM, "%s: reading rows", r->path);
}

/* Cells of rows [first, first + n) to the chunk's slot `to` and on. */
static enum pl_status read_cells(const struct pl_reader *r, struct chunk *k, uint64_t to,
                                 uint64_t first, uint64_t n, struct pl_err *err)
{
    for (int c = 0; c < PL_CELLS; c++) {
        const size_t size = r->p.layout.size[c];
        if (!size)
            continue;
        const enum pl_status st =
            pl_reader_pread(r, pl_cell_name((enum pl_cell)c), r->p.cell_at[c] + first * size,
                            k->cells[c] + to * size, n * size, err);
        if (st != PL_OK)
            return st;
    }
    if (!r->p.work_at)
        return PL_OK;
    return pl_reader_pread(r, "work", r->p.work_at + first * sizeof *k->work, k->work + to,
                           n * sizeof *k->work, err);
}

/* Puts row i of the chunk together and says whether its marker is true. */
static bool whole(const struct pl_reader *r, struct chunk *k, uint64_t i, uint64_t index,
                  const struct pl_commit *mark)
{
    for (int c = 0; c < PL_CELLS; c++) {
        const size_t size = r->p.layout.size[c];
        if (size)
            memcpy((unsigned char *)k->row.bytes + r->p.layout.offset[c], k->cells[c] + i * size,
                   size);
    }
    k->row.work = k->work[i];
    return mark->state <= PL_ROW_FAILED && pl_row_crc(index, &k->row) == mark->crc;
}

/* A row whose marker and cells disagree may just be written again: looked at anew while that goes
 * on. */
static enum pl_status look_again(struct pl_reader *r, struct chunk *k, uint64_t index,
                                 struct pl_commit *mark, bool *ok, struct pl_err *err)
{
    *ok = false;
    for (int i = 0; i < RACE_RETRIES && !*ok && mark->state != PL_ROW_EMPTY; i++) {
        enum pl_status st = pl_reader_markers(r, index, 1, mark, err);
        if (st == PL_OK)
            st = read_cells(r, k, k->most, index, 1, err);
        if (st != PL_OK)
            return st;
        *ok = whole(r, k, k->most, index, mark);
    }
    return PL_OK;
}

static enum pl_status each_in_chunk(struct pl_reader *r, struct chunk *k, uint64_t first,
                                    uint64_t n, bool (*fn)(void *, const struct pl_row_view *),
                                    void *ctx, bool *go_on, struct pl_err *err)
{
    enum pl_status st = pl_reader_markers(r, first, n, k->marks, err);
    uint64_t low = 0, high = n;
    if (st != PL_OK)
        return st;
    while (low < high && k->marks[low].state == PL_ROW_EMPTY)
        low++;
    while (high > low && k->marks[high - 1].state == PL_ROW_EMPTY)
        high--;
    if (low < high)
        st = read_cells(r, k, low, first + low, high - low, err);
    for (uint64_t i = low; st == PL_OK && *go_on && i < high; i++) {
        struct pl_row_view v = {
            .index = first + i, .id = pl_row_at(&r->p.shape, first + i), .commit = k->marks[i]};
        if (v.commit.state == PL_ROW_EMPTY)
            continue;
        bool ok = whole(r, k, i, v.index, &v.commit);
        if (!ok)
            st = look_again(r, k, v.index, &v.commit, &ok, err);
        if (st != PL_OK || v.commit.state == PL_ROW_EMPTY)
            continue;
        v.torn = !ok;
        if (v.torn)
            v.commit.state = PL_ROW_EMPTY;
        v.row = k->row;
        *go_on = fn(ctx, &v);
    }
    return st;
}

enum pl_status pl_reader_each(struct pl_reader *r,
                              bool (*fn)(void *ctx, const struct pl_row_view *v), void *ctx,
                              struct pl_err *err)
{
    struct chunk k;
    bool go_on = true;
    enum pl_status st = chunk_init(&k, r, err);
    if (st != PL_OK)
        return st;
    for (uint64_t at = 0; st == PL_OK && go_on && at < r->p.rows; at += k.most) {
        const uint64_t n = r->p.rows - at < k.most ? r->p.rows - at : k.most;
        st = each_in_chunk(r, &k, at, n, fn, ctx, &go_on, err);
    }
    chunk_release(&k);
    return st;
}

/* ---- logs ---- */

enum pl_status pl_reader_spans(struct pl_reader *r, uint64_t index, struct pl_lane_span *out,
                               uint32_t *n, struct pl_err *err)
{
    const uint64_t at = index < r->p.rows ? pl_places_spans(&r->p, index) : 0;
    enum pl_status st = PL_OK;
    *n = 0;
    if (at)
        st = pl_reader_pread(r, "spans", at, out, PL_SPANS_MAX * sizeof *out, err);
    while (st == PL_OK && at && *n < PL_SPANS_MAX && out[*n].end_ms > 0)
        ++*n;
    return st;
}

enum pl_status pl_reader_log(struct pl_reader *r, enum pl_log_kind kind, void **records,
                             uint32_t *n, uint64_t *overflow, struct pl_err *err)
{
    if ((unsigned)kind >= PL_LOG_KINDS)
        return pl_fail(err, PL_ERANGE, "%s: no log %d", r->path, (int)kind);
    const size_t size = pl_log_size(kind), step = CHUNK_BYTES / size;
    const uint32_t capacity = r->p.log_capacity[kind];
    unsigned char *chunk = malloc(step * size), *kept = NULL;
    uint32_t used = 0;
    uint64_t over = 0;
    enum pl_status st = chunk ? PL_OK : pl_fail(err, PL_ENOMEM, "%s", r->path);
    for (uint64_t at = 0; st == PL_OK && at < capacity; at += step) {
        const uint64_t k = capacity - at < step ? capacity - at : step;
        st = pl_reader_pread(r, pl_log_name(kind), r->p.log_at[kind] + at * size, chunk, k * size,
                             err);
        uint32_t here = 0;
        for (uint64_t i = 0; st == PL_OK && i < k; i++)
            if (chunk[i * size])
                memmove(chunk + size * here++, chunk + i * size, size);
        if (st != PL_OK || !here)
            continue;
        unsigned char *more = realloc(kept, (used + (size_t)here) * size);
        if (!more) {
            st = pl_fail(err, PL_ENOMEM, "%s: /%s", r->path, pl_log_name(kind));
            continue;
        }
        kept = more;
        memcpy(kept + used * size, chunk, here * size);
        used += here;
    }
    if (st == PL_OK)
        st = pl_reader_pread(r, "log_overflow", r->p.overflow_at + 8u * (unsigned)kind, &over,
                             sizeof over, err);
    free(chunk);
    if (st != PL_OK) {
        free(kept);
        return st;
    }
    *records = kept;
    *n = used;
    *overflow = over;
    return PL_OK;
}

/* ---- verification ---- */

struct verifier {
    struct pl_reader *r;
    void (*problem)(void *ctx, const char *text);
    void *ctx;
    struct pl_verify_counts n;
};

static void tell(struct verifier *v, const char *fmt, ...) PL_PRINTF(2, 3);
static void tell(struct verifier *v, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    v->n.problems++;
    if (v->problem)
        v->problem(v->ctx, line);
}

static bool verify_row(void *ctx, const struct pl_row_view *view)
{
    struct verifier *v = ctx;
    char where[160], why[256];
    const struct pl_row_id *id = &view->id;
    snprintf(where, sizeof where,
             "row %" PRIu64 " (arm %.64s, context %" PRId64 ", sample %u, repeat %u)", view->index,
             pl_reader_arm(v->r, id->arm), pl_reader_context(v->r, id->context), id->sample,
             id->repeat);
    if (view->torn) {
        v->n.torn++;
        tell(v, "%s: its checksum does not match: counts as empty", where);
        return true;
    }
    if (view->commit.state == PL_ROW_FAILED) {
        v->n.failed++;
        const unsigned reason = view->row.trial->reason;
        if (reason == PL_REASON_NONE || reason >= PL_REASON_COUNT) {
            v->n.broken_identity++;
            tell(v, "%s: failed, but with reason %u", where, reason);
        }
        return true;
    }
    v->n.done++;
    const char *bad = pl_row_check(&v->r->p.shape, &view->row, why, sizeof why);
    if (bad) {
        v->n.broken_identity++;
        tell(v, "%s: %s", where, bad);
    }
    return true;
}

static const char *bad_record(const struct pl_reader *r, enum pl_log_kind k,
                              const unsigned char *rec)
{
    if (rec[0] != 1)
        return "`used` is neither 0 nor 1";
    if (k == PL_LOG_SESSIONS) {
        struct pl_log_session s;
        memcpy(&s, rec, sizeof s);
        return s.event == 1 || s.event == 2 ? NULL : "`event` is neither 1 nor 2";
    }
    if (k == PL_LOG_LOADS)
        return rec[offsetof(struct pl_log_load, ok)] <= 1 ? NULL : "`ok` is neither 0 nor 1";
    if (k == PL_LOG_FAILURES) {
        struct pl_log_failure f;
        memcpy(&f, rec, sizeof f);
        if (f.reason == PL_REASON_NONE || f.reason >= PL_REASON_COUNT)
            return "`reason` is none or unknown";
        if (f.row != UINT64_MAX && f.row >= r->p.rows)
            return "`row` is beyond the last one";
    }
    return NULL;
}

static enum pl_status verify_logs(struct verifier *v, struct pl_err *err)
{
    for (int k = 0; k < PL_LOG_KINDS; k++) {
        void *records = NULL;
        uint32_t n = 0;
        uint64_t overflow = 0;
        const enum pl_log_kind kind = (enum pl_log_kind)k;
        const enum pl_status st = pl_reader_log(v->r, kind, &records, &n, &overflow, err);
        if (st != PL_OK)
            return st;
        for (uint32_t i = 0; i < n; i++) {
            const char *bad =
                bad_record(v->r, kind, (unsigned char *)records + i * pl_log_size(kind));
            if (!bad)
                continue;
            v->n.bad_log++;
            tell(v, "/%s: used record %u: %s", pl_log_name(kind), i, bad);
        }
        free(records);
    }
    return PL_OK;
}

enum pl_status pl_reader_verify(struct pl_reader *r, void (*problem)(void *ctx, const char *text),
                                void *ctx, struct pl_verify_counts *out, struct pl_err *err)
{
    struct verifier v = {.r = r, .problem = problem, .ctx = ctx};
    char sha[PL_SHA256_HEX];
    pl_sha256_hex(r->resolved, strlen(r->resolved), sha);
    if (strcmp(sha, r->sha256) != 0)
        tell(&v, "/sweep: sha256 is not that of the resolved sweep");
    enum pl_status st = pl_reader_each(r, verify_row, &v, err);
    if (st == PL_OK)
        st = verify_logs(&v, err);
    if (st != PL_OK)
        return st;
    v.n.rows = r->p.rows;
    v.n.empty = r->p.rows - v.n.done - v.n.failed - v.n.torn;
    *out = v.n;
    return PL_OK;
}
