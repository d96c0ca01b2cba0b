/* Token after token by the device itself: the host launches steps ahead and waits once, at the end.
 */
#include "model/cuda/run.h"

#include <string.h>

/* What lies on the device and beside it on the host: what goes there, then what comes back. */
struct burst_room {
    int32_t at, pad;
    double
        draws[PL_CUDA_MADE + PL_CUDA_SPANS]; /* [steps + 1][sequences]; the first are the step's */
    struct pl_cuda_made made[PL_CUDA_MADE];  /* [steps][sequences] */
};

/* Steps launched with one wait behind them. */
struct burst {
    struct pl_cuda_run run;
    struct pl_forward f;
    struct pl_cuda_burst on; /* the device's */
    struct pl_span spans[PL_CUDA_SPANS];
    struct pl_draw draws[PL_CUDA_SPANS];
    const struct pl_generation *g;
    size_t n, first, steps; /* sequences; the first step of g's, and how many */
};

enum pl_status pl_cuda_burst_create(struct pl_network *n, struct pl_err *err)
{
    enum pl_status st = pl_cuda_alloc(&n->burst, sizeof(struct burst_room), "tokens", err);

    return st ? st : pl_cuda_alloc_host(&n->burst_host, sizeof(struct burst_room), "tokens", err);
}

/* Room for the logits of so many steps, of the most that was ever asked for. */
static enum pl_status make_room(struct pl_network *n, size_t steps, struct pl_err *err)
{
    const size_t bytes = steps * (size_t)n->arch.vocab * sizeof(float);

    if (n->kept_bytes >= bytes)
        return PL_OK;
    cudaFree(n->kept);
    n->kept = NULL;
    n->kept_bytes = 0;
    enum pl_status st = pl_cuda_alloc(&n->kept, bytes, "the logits of tokens", err);
    n->kept_bytes = st ? 0 : bytes;
    return st;
}

/* Sends the first step, and the draws of those behind it. */
static enum pl_status begin(struct burst *b)
{
    struct pl_cuda_run *r = &b->run;
    struct burst_room *host = r->n->burst_host;
    const size_t n = b->g->temperature > 0 ? b->steps * b->n : 0;
    const enum pl_status st = pl_cuda_run_send(r, NULL);

    if (st)
        return st;
    host->at = 0;
    if (n) {
        memcpy(host->draws, b->g->draws + b->first * b->n, n * sizeof(*host->draws));
        memset(host->draws + n, 0, b->n * sizeof(*host->draws));
    }
    return pl_cuda_check(cudaMemcpyAsync(r->n->burst, host,
                                         offsetof(struct burst_room, draws) +
                                             (n ? (n + b->n) * sizeof(*host->draws) : 0),
                                         cudaMemcpyHostToDevice, r->n->device->stream),
                         "tokens", r->err);
}

static enum pl_status finish(struct burst *b, struct pl_generated *out)
{
    struct pl_cuda_run *r = &b->run;
    const struct burst_room *device = r->n->burst;
    struct burst_room *host = r->n->burst_host;
    const size_t n = b->steps * b->n;
    enum pl_status st =
        pl_cuda_check(cudaMemcpyAsync(host->made, device->made, n * sizeof(*host->made),
                                      cudaMemcpyDeviceToHost, r->n->device->stream),
                      "tokens", r->err);

    if (!st && b->g->logits)
        st = pl_cuda_run_copy(r, b->g->logits + b->first * (size_t)r->n->arch.vocab, r->n->kept,
                              n * (size_t)r->n->arch.vocab, cudaMemcpyDeviceToHost);
    if (!st)
        st = pl_cuda_sync(r->n->device, "tokens", r->err);
    for (size_t i = 0; i < n && !st; i++) {
        out[i].token = (struct pl_picked){host->made[i].id, host->made[i].all};
        out[i].ns = host->made[i].ns;
    }
    return st;
}

/* One step behind those before it: launched, and counted for each of its sequences; products take
 * the same for each. */
static enum pl_status step(struct burst *b, size_t i, struct pl_generated *out)
{
    struct pl_cuda_run *r = &b->run;
    const size_t vocab = (size_t)r->n->arch.vocab;
    const struct pl_device_work *work = &r->n->device->work, before = *work;

    pl_cuda_run_few(r);
    if (!r->st && b->g->logits)
        r->st = pl_cuda_run_copy(r, (float *)r->n->kept + i * vocab, r->n->work.logits, vocab,
                                 cudaMemcpyDeviceToDevice);
    if (r->st)
        return r->st;
    const struct pl_device_work products = {work->flops - before.flops, work->bytes - before.bytes};
    for (size_t s = 0; s < b->n; s++) {
        struct pl_cache *c = b->spans[s].cache;
        const int64_t kv_read = c->kv_read; /* of all steps */
        out[s].work = pl_cuda_run_count(r, s);
        out[s].work.flops += products.flops / (int64_t)b->n;
        out[s].shared_bytes = products.bytes;
        c->kv_read += kv_read;
    }
    pl_cache_advance(&b->f);
    b->f.tap_row += b->spans[0].rows;
    return PL_OK;
}

/* b->steps ≤ PL_CUDA_BURST behind `ids`; *rows: what is in the caches then. */
static enum pl_status burst(struct burst *b, struct pl_network *n, const int32_t *ids,
                            struct pl_generated *out, size_t *in_caches, struct pl_err *err)
{
    struct pl_cuda_run *r = &b->run;
    size_t rows = 0;

    b->f.ids = ids;
    for (size_t s = 0; s < b->n && b->f.draw; s++)
        b->draws[s] = (struct pl_draw){b->g->temperature, b->g->draws[b->first * b->n + s]};
    for (size_t i = 0; i < b->steps; i++) {
        enum pl_status st = pl_cuda_run_check(n, &b->f, &rows, err);
        if (st)
            return st;
        if (!i || r->rows != (int32_t)rows) {
            const struct pl_cuda_step step = r->step, cross = r->cross;
            pl_cuda_run_begin(r, n, &b->f, rows, err);
            r->burst = &b->on;
            r->step = step;
            r->cross = cross;
            r->step.rows = r->cross.rows = r->rows;
        }
        st = i ? PL_OK : begin(b);
        if (!st)
            st = step(b, i, out + i * b->n);
        if (st)
            return st;
        *in_caches += b->spans[0].rows;
        for (size_t s = 0; s < b->n; s++)
            b->spans[s].rows = 1;
    }
    r->st = finish(b, out);
    n->work.step_busy = n->work.step_busy && r->st;
    pl_cuda_run_over(r);
    return r->st;
}

enum pl_status pl_cuda_generate(struct pl_network *n, struct pl_cache *const *caches,
                                size_t n_caches, const struct pl_generation *g,
                                struct pl_generated *out, struct pl_err *err)
{
    const size_t most =
        PL_CUDA_MADE / n_caches < PL_CUDA_BURST ? PL_CUDA_MADE / n_caches : PL_CUDA_BURST;
    struct burst_room *room = n->burst;
    struct pl_picked none; /* what is picked stays on the device */
    struct burst b = {.g = g, .n = n_caches, .on = {.at = &room->at, .made = room->made}};
    int32_t ids[PL_CUDA_SPANS];
    size_t rows = 0;
    enum pl_status st = pl_cuda_enter(n->device, "tokens", err);

    b.f = (struct pl_forward){.spans = b.spans,
                              .n_spans = n_caches,
                              .end_layer = n->arch.layers,
                              .sums_layer = -1,
                              .want = PL_LOGITS_LAST,
                              .picked = &none,
                              .draw = g->temperature > 0 ? b.draws : NULL,
                              .ends = g->ends,
                              .n_ends = g->n_ends};
    b.on.draws = b.f.draw ? room->draws : NULL;
    for (size_t s = 0; s < n_caches; s++) {
        caches[s]->kv_read = 0;
        b.spans[s] = (struct pl_span){.cache = caches[s], .rows = g->n_ids / n_caches};
    }
    for (; b.first < g->n && !st; b.first += b.steps) {
        struct pl_generated *to = out + b.first * n_caches;
        b.steps = g->n - b.first < most ? g->n - b.first : most;
        st = g->logits ? make_room(n, b.steps, err) : PL_OK;
        if (!st)
            st = burst(&b, n, b.first ? ids : g->ids, to, &rows, err);
        for (size_t s = 0; s < n_caches && !st; s++) {
            const int32_t id = to[(b.steps - 1) * n_caches + s].token.id;
            ids[s] = id < 0 ? 0 : id;
        }
    }
    for (size_t s = 0; s < n_caches && st; s++)
        pl_cache_drop(caches[s], rows);
    return st;
}
