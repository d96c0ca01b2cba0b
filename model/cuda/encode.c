/* Encoders: a source in one pass, and what a decoder behind one needs of it. */
#include "model/cuda/run.h"

#include <stdlib.h>

/* Lengths, positions and mask of the source. */
static enum pl_status begin_source(struct pl_cache *c, struct pl_cache *to,
                                   const struct pl_source *s, struct pl_err *err)
{
    float *mask = calloc(to->padded, sizeof(*mask));
    enum pl_status st;

    if (!mask)
        return pl_fail(err, PL_ENOMEM, "no memory for a mask");
    pl_cache_begin_source(c, to, s, mask);
    st = pl_cuda_check(cudaMemcpyAsync(to->mask, mask, to->padded * sizeof(*mask),
                                       cudaMemcpyHostToDevice, c->network->device->stream),
                       "mask", err);
    free(mask);
    return st;
}

/* K and V of the source's final states for each block of the decoder. */
static enum pl_status cross_kv(struct pl_network *n, struct pl_cache *c, size_t rows,
                               struct pl_err *err)
{
    struct pl_span span = {.cache = c, .rows = rows};
    struct pl_forward f = {.spans = &span, .n_spans = 1, .sums_layer = -1};
    struct pl_cuda_work *w = &n->work;
    struct pl_cuda_run r;
    const void *x;

    pl_cuda_run_begin(&r, n, &f, rows, err);
    r.st = pl_cuda_run_send(&r, NULL);
    if (!r.st)
        r.st = pl_cuda_run_copy(&r, w->x, c->source->stage.data, rows * (size_t)n->arch.hidden,
                                cudaMemcpyDeviceToDevice);
    x = pl_cuda_run_as_input(&r);
    for (int32_t l = 0; l < n->arch.layers && !r.st; l++) {
        struct pl_cuda_heads h = pl_cuda_run_heads(&r, l);
        h.append = false;
        h.k_norm = h.inv_freq = NULL;
        pl_cuda_run_product(&r, &n->layers[l].w[PL_W_CROSS_K], x, w->k, false);
        pl_cuda_run_product(&r, &n->layers[l].w[PL_W_CROSS_V], x, w->v, false);
        pl_k_rope_store(&r.cross, &h, NULL, w->k, w->v, n->device->stream);
    }
    for (int32_t l = 0; l < n->arch.layers && !r.st; l++)
        c->cross[l].len = rows;
    pl_cuda_run_over(&r);
    return r.st;
}

enum pl_status pl_cuda_encode(struct pl_network *n, struct pl_cache *c, const struct pl_source *s,
                              struct pl_err *err)
{
    struct pl_cache *to = n->encoder ? c->source : c;
    struct pl_network *net = n->encoder ? n->encoder : n;
    struct pl_span span = {.cache = to, .rows = s->n};
    struct pl_forward f = {.spans = &span,
                           .n_spans = 1,
                           .ids = s->ids,
                           .embeds = s->embeds,
                           .positions = to->positions,
                           .end_layer = net->arch.layers,
                           .to_stage = true,
                           .sums_layer = -1};
    enum pl_status st = pl_cache_check_source(to, s, err);
    struct pl_cuda_run r;

    if (!st)
        st = pl_cuda_enter(n->device, "encode", err);
    if (!st)
        st = begin_source(c, to, s, err);
    if (st)
        return st;
    pl_cuda_run_begin(&r, net, &f, s->n, err);
    r.longest = (int32_t)s->n;
    r.splits = pl_cuda_run_splits(&r, r.longest);
    r.mask = to->masked ? to->mask : NULL;
    r.st = pl_cuda_run_send(&r, s);
    if (!r.st)
        pl_cuda_run_input(&r, s);
    for (int32_t l = 0; l < net->arch.layers && !r.st; l++)
        pl_cuda_run_layer(&r, l);
    if (!r.st && net->final_gain)
        pl_cuda_run_norm(&r, net->final_gain, net->final_bias);
    if (!r.st)
        pl_cuda_run_taps(&r, PL_CUDA_FINAL);
    if (!r.st)
        r.st = pl_cuda_run_copy(&r, to->stage.data, net->work.x, s->n * (size_t)net->arch.hidden,
                                cudaMemcpyDeviceToDevice);
    if (!r.st && n->encoder)
        r.st = cross_kv(n, c, s->n, err);
    n->device->work.flops +=
        4 * (int64_t)s->n * (int64_t)s->n * net->arch.layers * net->arch.heads * net->arch.head_dim;
    if (!r.st)
        r.st = pl_cuda_sync(n->device, "encode", err);
    pl_cuda_run_over(&r);
    net->work.step_busy = n->work.step_busy = false;
    return r.st;
}

enum pl_status pl_cuda_encode_batch(struct pl_network *n, struct pl_cache *const *caches,
                                    const struct pl_source *sources, size_t n_sources,
                                    struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n_sources && !st; i++)
        st = pl_cuda_encode(n, caches[i], &sources[i], err);
    return st;
}

enum pl_status pl_cuda_pool(struct pl_network *n, struct pl_cache *c, float *out,
                            struct pl_err *err)
{
    struct pl_device *d = n->device;
    enum pl_status st;

    if (!n->pooler.data)
        return pl_fail(err, PL_EUNSUPPORTED, "the model has no pooler");
    st = pl_cuda_enter(d, "pooler", err);
    if (!st)
        st = pl_cuda_product(d, &n->pooler, c->stage.data, 1, n->act, NULL, n->work.q, false, err);
    if (st)
        return st;
    pl_k_tanh(n->work.q, n->arch.hidden, d->stream);
    st = pl_cuda_check(cudaMemcpyAsync(out, n->work.q, (size_t)n->arch.hidden * sizeof(float),
                                       cudaMemcpyDeviceToHost, d->stream),
                       "pooler", err);
    return st ? st : pl_cuda_sync(d, "pooler", err);
}
