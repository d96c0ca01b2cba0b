/* Token after token by the device itself: the host launches steps ahead and waits once, at the end.
 */
#include "model/cuda/run.h"

#include <string.h>

/* What lies on the device and beside it on the host: what goes there, then what comes back. */
struct burst_room {
    double draws[PL_CUDA_BURST + 1]; /* the first is in the step */
    int32_t at, pad;
    struct pl_cuda_made made[PL_CUDA_BURST];
};

enum pl_status pl_cuda_burst_create(struct pl_network *n, struct pl_err *err)
{
    enum pl_status st = pl_cuda_alloc(&n->burst, sizeof(struct burst_room), "tokens", err);

    return st ? st : pl_cuda_alloc_host(&n->burst_host, sizeof(struct burst_room), "tokens", err);
}

static enum pl_status begin(struct pl_cuda_run *r, const struct pl_generation *g, size_t first,
                            size_t n)
{
    struct burst_room *host = r->n->burst_host;

    host->at = 0;
    host->draws[n] = 0;
    if (g->temperature > 0)
        memcpy(host->draws, g->draws + first, n * sizeof(*host->draws));
    return pl_cuda_check(cudaMemcpyAsync(r->n->burst, host, offsetof(struct burst_room, made),
                                         cudaMemcpyHostToDevice, r->n->device->stream),
                         "tokens", r->err);
}

static enum pl_status finish(struct pl_cuda_run *r, size_t n, struct pl_generated *out)
{
    const struct burst_room *device = r->n->burst;
    struct burst_room *host = r->n->burst_host;
    enum pl_status st =
        pl_cuda_check(cudaMemcpyAsync(host->made, device->made, n * sizeof(*host->made),
                                      cudaMemcpyDeviceToHost, r->n->device->stream),
                      "tokens", r->err);

    if (!st)
        st = pl_cuda_sync(r->n->device, "tokens", r->err);
    for (size_t i = 0; i < n && !st; i++) {
        out[i].token = (struct pl_picked){host->made[i].id, host->made[i].all};
        out[i].ns = host->made[i].ns;
    }
    return st;
}

/* n ≤ PL_CUDA_BURST tokens behind `id`, g's from `first` on. */
static enum pl_status burst(struct pl_network *n, struct pl_cache *c, const struct pl_generation *g,
                            int32_t id, size_t first, size_t count, struct pl_generated *out,
                            struct pl_err *err)
{
    const struct pl_span span = {.cache = c, .rows = 1};
    const struct pl_draw draw = {g->temperature, g->temperature > 0 ? g->draws[first] : 0};
    struct pl_picked none; /* what is picked stays on the device */
    const struct pl_forward f = {.spans = &span,
                                 .n_spans = 1,
                                 .ids = &id,
                                 .end_layer = n->arch.layers,
                                 .sums_layer = -1,
                                 .want = PL_LOGITS_ALL,
                                 .picked = &none,
                                 .draw = g->temperature > 0 ? &draw : NULL,
                                 .ends = g->ends,
                                 .n_ends = g->n_ends};
    struct burst_room *room = n->burst;
    const struct pl_cuda_burst b = {.at = &room->at, .draws = room->draws, .made = room->made};
    struct pl_cuda_run r;
    int64_t kv_read = first ? c->kv_read : 0; /* of all tokens */
    size_t rows = 0;

    for (size_t i = 0; i < count; i++) {
        enum pl_status st = pl_cuda_run_check(n, &f, &rows, err);
        if (st)
            return st;
        if (!i) {
            pl_cuda_run_begin(&r, n, &f, rows, err);
            r.burst = &b;
            r.st = pl_cuda_run_send(&r, NULL);
            if (!r.st)
                r.st = begin(&r, g, first, count);
        }
        pl_cuda_run_few(&r);
        if (r.st)
            return r.st;
        pl_cuda_run_done(&r);
        out[i].work = n->device->work;
        kv_read += c->kv_read;
    }
    c->kv_read = kv_read;
    r.st = finish(&r, count, out);
    n->work.step_busy = n->work.step_busy && r.st;
    pl_cuda_run_over(&r);
    return r.st;
}

enum pl_status pl_cuda_generate(struct pl_network *n, struct pl_cache *c,
                                const struct pl_generation *g, struct pl_generated *out,
                                struct pl_err *err)
{
    enum pl_status st = pl_cuda_enter(n->device, "tokens", err);
    int32_t id = g->first;

    for (size_t at = 0; at < g->n && !st; at += PL_CUDA_BURST) {
        const size_t count = g->n - at < PL_CUDA_BURST ? g->n - at : PL_CUDA_BURST;
        st = burst(n, c, g, id, at, count, out + at, err);
        if (!st && out[at + count - 1].token.id >= 0)
            id = out[at + count - 1].token.id;
    }
    return st;
}
