#include "model/cuda/run.h"

#include "base/log.h"

#include <string.h>

/* A step as it is laid out, on the host or the device. */
static struct pl_cuda_step step_at(const struct pl_cuda_work *w, char *base)
{
    size_t tree = pl_cuda_step_numbers(w->rows), head = pl_cuda_step_head(w->rows);
    int32_t *p = (int32_t *)(void *)base, *ends = p + 5 * w->rows + PL_CUDA_SPANS + 1;
    int32_t *picks = ends + PL_MAX_EOS;

    return (struct pl_cuda_step){.ids = p,
                                 .positions = p + w->rows,
                                 .types = p + 2 * w->rows,
                                 .span = p + 3 * w->rows,
                                 .in_span = p + 4 * w->rows,
                                 .span_row = p + 5 * w->rows,
                                 .ends = ends,
                                 .picks = picks,
                                 .draw = picks + 2 * PL_CUDA_SPANS,
                                 .tree = p + tree,
                                 .kv = (struct pl_cuda_kv *)(void *)(base + head)};
}

static void fill(int32_t *to, const int32_t *from, size_t n)
{
    if (from)
        memcpy(to, from, n * sizeof(*to));
}

/* What each row of the tree sees of it: its parent's bits and its own. */
static void fill_tree(const struct pl_token_tree *t, size_t rows, int32_t *to)
{
    uint32_t bits[PL_TREE_MAX][PL_CUDA_TREE_WORDS];
    size_t all = t->base + rows;

    to[0] = (int32_t)t->base;
    memcpy(to + 1, t->depth, all * sizeof(*to));
    for (size_t i = 0; i < all; i++) {
        if (t->parents[i] < 0)
            memset(bits[i], 0, sizeof(bits[i]));
        else
            memcpy(bits[i], bits[t->parents[i]], sizeof(bits[i]));
        bits[i][i / 32] |= 1u << i % 32;
    }
    memcpy(to + PL_CUDA_TREE_HEAD, bits[t->base], rows * sizeof(bits[0]));
}

/* Writes the step on the host and sends it: the layers' K and V, then those of the source. */
enum pl_status pl_cuda_run_send(struct pl_cuda_run *r, const struct pl_source *source)
{
    struct pl_cuda_work *w = &r->n->work;
    const struct pl_forward *f = r->f;
    struct pl_cuda_step host = step_at(w, w->step_host);
    size_t row = 0, layers = (size_t)r->n->arch.layers, n = f->n_spans;
    struct pl_cuda_kv *kv = (struct pl_cuda_kv *)(void *)host.kv;
    enum pl_status st = PL_OK;

    if (w->step_busy)
        st = pl_cuda_sync(r->n->device, "forward", r->err);
    if (st)
        return st;
    fill((int32_t *)host.ids, f->ids, (size_t)r->rows);
    fill((int32_t *)host.positions, f->positions, (size_t)r->rows);
    fill((int32_t *)host.types, source ? source->types : NULL, (size_t)r->rows);
    if (f->tree)
        fill_tree(f->tree, (size_t)r->rows, (int32_t *)host.tree);
    for (size_t i = 0; i < PL_MAX_EOS; i++)
        ((int32_t *)host.ends)[i] = i < f->n_ends ? f->ends[i] : -1;
    if (f->draw)
        memcpy((int32_t *)host.draw, &f->draw->temperature, sizeof(double));
    for (size_t s = 0; s < n && f->draw; s++)
        memcpy((int32_t *)host.draw + 2 * (1 + s), &f->draw[s].u, sizeof(double));
    for (size_t s = 0; s < n; s++) {
        const struct pl_cache *c = f->spans[s].cache;
        ((int32_t *)host.span_row)[s] = (int32_t)row;
        for (size_t i = 0; i < f->spans[s].rows; i++, row++) {
            ((int32_t *)host.span)[row] = (int32_t)s;
            ((int32_t *)host.in_span)[row] = (int32_t)i;
        }
        for (size_t l = 0; l < layers; l++) {
            kv[l * n + s] = pl_cuda_kv(&c->kv[l]);
            kv[(layers + l) * n + s] = pl_cuda_kv(&c->cross[l]);
        }
    }
    ((int32_t *)host.span_row)[n] = (int32_t)row;
    r->step = step_at(w, w->step);
    r->step.rows = r->rows;
    r->step.n_spans = (int32_t)n;
    r->step.ids = f->ids ? r->step.ids : NULL;
    r->step.positions = f->positions ? r->step.positions : NULL;
    r->step.types = source && source->types ? r->step.types : NULL;
    r->step.tree = f->tree ? r->step.tree : NULL;
    r->cross = r->step;
    r->cross.kv += layers * n;
    r->cross.tree = NULL;
    w->step_busy = true;
    if (w->stopped)
        st = pl_cuda_check(cudaMemsetAsync(w->ended, 0, PL_CUDA_PARTIALS * sizeof(*w->ended),
                                           r->n->device->stream),
                           "forward", r->err);
    w->stopped = true; /* until pl_cuda_run_over */
    if (st)
        return st;
    return pl_cuda_check(
        cudaMemcpyAsync(w->step, w->step_host,
                        (size_t)((char *)(kv + 2 * layers * n) - (char *)w->step_host),
                        cudaMemcpyHostToDevice, r->n->device->stream),
        "forward", r->err);
}

/* Logits of up to PL_CUDA_LOGIT_ROWS rows of x from `first` on, on the device. */
static void head(struct pl_cuda_run *r, size_t first, size_t rows)
{
    struct pl_network *net = r->n;
    struct pl_cuda_work *w = &net->work;
    size_t h = (size_t)net->arch.hidden, vocab = (size_t)net->arch.vocab;
    cudaStream_t s = net->device->stream;
    const void *x = w->x + first * h;

    if (r->st)
        return;
    pl_cuda_op(net->device, PL_CUDA_OP_HEAD);
    if (!pl_cuda_few(net->device, (int64_t)rows) && net->act != PL_DT_F32) {
        pl_k_cast((const float *)x, (int64_t)(rows * h), net->act, w->in, s);
        x = w->in;
    }
    r->st = pl_cuda_product(net->device, &net->head, x, (int64_t)rows, net->act, w->decoded,
                            w->logits, false, r->err);
    if (!r->st && net->arch.logit_scale != 1)
        pl_k_scale(w->logits, net->arch.logit_scale, (int64_t)(rows * vocab), s);
}

/* The rows of logits on the device, those of `first` on: the choice of each where it is asked for.
 */
static void pick(struct pl_cuda_run *r, size_t rows, size_t first)
{
    pl_cuda_op(r->n->device, PL_CUDA_OP_PICK);
    if (r->st || !r->f->picked)
        return;
    if (r->f->draw)
        pl_k_draw(r->n->work.logits, (int)first, (int)rows, r->n->arch.vocab, r->step.ends,
                  r->step.draw, r->step.picks, r->n->device->stream);
    else
        pl_k_pick(r->n->work.logits, (int)rows, r->n->arch.vocab, r->step.ends,
                  r->step.picks + 2 * first, r->n->device->stream);
}

/* Logits, and what was picked of them, to the host: those of row `first` on. */
static void copy_logits(struct pl_cuda_run *r, size_t rows, size_t first)
{
    const size_t vocab = (size_t)r->n->arch.vocab;

    if (!r->st && r->f->logits)
        r->st = pl_cuda_run_copy(r, r->f->logits + first * vocab, r->n->work.logits, rows * vocab,
                                 cudaMemcpyDeviceToHost);
    if (!r->st && r->f->picked)
        r->st = pl_cuda_check(cudaMemcpyAsync(r->f->picked + first, r->step.picks + 2 * first,
                                              rows * sizeof(*r->f->picked), cudaMemcpyDeviceToHost,
                                              r->n->device->stream),
                              "forward", r->err);
}

/* Rows of x that are behind all layers to logits and choices, and (`copy`) to the host. */
static void choices(struct pl_cuda_run *r, bool copy)
{
    const struct pl_forward *f = r->f;
    size_t all = 0, row = 0, spans = f->n_spans - f->silent;

    if (f->want == PL_LOGITS_ALL)
        all = (size_t)r->rows;
    else if ((size_t)r->rows == f->n_spans)
        all = spans;
    for (size_t at = 0; at < all; at += PL_CUDA_LOGIT_ROWS) {
        size_t rows = all - at < PL_CUDA_LOGIT_ROWS ? all - at : PL_CUDA_LOGIT_ROWS;
        head(r, at, rows);
        pick(r, rows, at);
        if (copy)
            copy_logits(r, rows, at);
    }
    for (size_t s = 0; s < spans && !all; s++) {
        row += f->spans[s].rows;
        head(r, row - 1, 1);
        pick(r, 1, s);
        if (copy)
            copy_logits(r, 1, s);
    }
    if (r->burst && !r->st)
        pl_k_burst_next(&r->step, r->n->arch.layers, r->burst, r->n->device->stream);
}

static void output(struct pl_cuda_run *r)
{
    const struct pl_forward *f = r->f;
    struct pl_network *n = r->n;

    if (f->end_layer < n->arch.layers || f->to_stage) {
        const size_t h = (size_t)n->arch.hidden;
        r->st = pl_cuda_run_copy(r, f->spans[0].cache->stage.data + f->stage_row * h, n->work.x,
                                 (size_t)r->rows * h, cudaMemcpyDeviceToDevice);
        return;
    }
    if (n->final_gain)
        pl_cuda_run_norm(r, n->final_gain, n->final_bias);
    pl_cuda_run_taps(r, PL_CUDA_FINAL);
    if (f->want != PL_LOGITS_NONE)
        choices(r, true);
}

/* A few rows of ids through all layers to logits: what a graph holds. Nothing in it depends on the
 * caches but what the step says. */
static bool fits_graph(const struct pl_cuda_run *r)
{
    const struct pl_forward *f = r->f;
    bool ok = r->rows <= PL_CUDA_GEMV_ROWS && f->ids && !f->embeds && !f->first_layer &&
              !f->to_stage && f->end_layer == r->n->arch.layers && f->sums_layer < 0 &&
              !f->silent && !r->n->no_graphs && !r->n->device->profile && !r->n->encoder &&
              !f->spans[0].cache->relative && !r->by_path;

    ok = ok && (f->want == PL_LOGITS_ALL ||
                (f->want == PL_LOGITS_LAST && (r->burst || (size_t)r->rows == f->n_spans)));
    for (size_t s = 0; s < f->n_spans && ok; s++)
        ok = !f->spans[s].cache->n_taps;
    return ok;
}

static void few_rows(struct pl_cuda_run *r)
{
    struct pl_network *n = r->n;

    pl_cuda_run_input(r, NULL);
    for (int32_t l = 0; l < n->arch.layers && !r->st; l++)
        pl_cuda_run_layer(r, l);
    if (!r->st && n->final_gain)
        pl_cuda_run_norm(r, n->final_gain, n->final_bias);
    pl_cuda_run_taps(r, PL_CUDA_FINAL);
    choices(r, false);
}

static struct pl_cuda_graph key_of(const struct pl_cuda_run *r)
{
    return (struct pl_cuda_graph){.rows = r->rows,
                                  .n_spans = (int)r->f->n_spans,
                                  .max_span = r->max_span,
                                  .splits = r->splits,
                                  .part_id = r->n->device->part_id,
                                  .positions = r->f->positions != NULL,
                                  .tree = r->f->tree != NULL,
                                  .picks = r->f->picked != NULL,
                                  .draws = r->f->draw != NULL,
                                  .burst = r->burst != NULL,
                                  .kv_dtype = r->f->spans[0].cache->dtype};
}

static bool same_key(const struct pl_cuda_graph *a, const struct pl_cuda_graph *b)
{
    return a->rows == b->rows && a->n_spans == b->n_spans && a->max_span == b->max_span &&
           a->splits == b->splits && a->positions == b->positions && a->tree == b->tree &&
           a->picks == b->picks && a->draws == b->draws && a->burst == b->burst &&
           a->kv_dtype == b->kv_dtype && a->part_id == b->part_id;
}

/* A capture failed, whatever of it: nothing has run. What was wrong comes again where launches go
 * out one by one, or not. */
static void without_graphs(struct pl_cuda_run *r)
{
    const cudaError_t e = cudaGetLastError(); /* not the next call's */

    r->n->no_graphs = r->n->device->uncaptured = true;
    r->st = PL_OK;
    pl_log(PL_LOG_WARN, "steps are launched one by one, none could be captured: CUDA: %s",
           cudaGetErrorString(e));
}

/* The graph for this kind of step, captured when it is first asked for; NULL: there can be none. */
static const struct pl_cuda_graph *find_graph(struct pl_cuda_run *r)
{
    struct pl_network *n = r->n;
    struct pl_cuda_graph key = key_of(r);
    cudaStream_t s = n->device->stream;
    cudaGraph_t graph = NULL;
    const struct pl_device_work before = n->device->work;
    const int most = n->device->graphs;

    for (int i = 0; i < n->n_graphs && i < most; i++)
        if (same_key(&n->graphs[i], &key))
            return &n->graphs[i];
    if (cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal)) {
        without_graphs(r);
        return NULL;
    }
    few_rows(r);
    key.work = (struct pl_device_work){n->device->work.flops - before.flops,
                                       n->device->work.bytes - before.bytes};
    n->device->work = before; /* nothing ran yet */
    if (cudaStreamEndCapture(s, &graph) || r->st || cudaGraphInstantiate(&key.exec, graph, 0)) {
        key.exec = NULL;
        without_graphs(r);
    }
    if (graph)
        cudaGraphDestroy(graph);
    if (!key.exec)
        return NULL;
    struct pl_cuda_graph *slot = &n->graphs[n->n_graphs % most];
    if (n->n_graphs++ >= most) { /* it may still be running */
        r->st = pl_cuda_sync(n->device, "forward", r->err);
        cudaGraphExecDestroy(slot->exec);
    }
    *slot = key;
    return slot;
}

/* Keys of a part where sums must not depend on the rows at hand: the model's alone decide. */
static int32_t exact_chunk(const struct pl_cuda_run *r)
{
    const struct pl_arch *a = &r->n->arch;
    const struct pl_device *d = r->n->device;
    int64_t most = d->partials / a->heads;

    if (!d->exact || r->gemm)
        return 0;
    most = most < PL_CUDA_MAX_SPLITS ? most : PL_CUDA_MAX_SPLITS;
    most = (a->max_positions + most - 1) / (most ? most : 1);
    most = most > d->exact_keys ? most : d->exact_keys;
    return (int32_t)pl_round_up((size_t)most, PL_CUDA_KEYS);
}

/* Parts of that many keys up to the longest sequence's end; one where a window moves over them. */
static int32_t exact_splits(const struct pl_cuda_run *r)
{
    int64_t end = 0;

    for (size_t s = 0; s < r->f->n_spans; s++) {
        const struct pl_cache *c = r->f->spans[s].cache;
        for (int32_t l = r->f->first_layer; l < r->f->end_layer; l++) {
            int64_t len = (int64_t)(c->kv[l].len + r->f->spans[s].rows);
            end = len > end ? len : end;
            if (c->kv[l].window)
                return 1;
        }
    }
    return (int32_t)((end + r->chunk - 1) / r->chunk);
}

/* Parts that the keys are split in, so that all multiprocessors have work; 1 where rows suffice. Of
 * 64 keys or more, doubled as sequences grow: each number of parts is a graph of its own. */
int32_t pl_cuda_run_splits(const struct pl_cuda_run *r, int32_t longest)
{
    const struct pl_arch *a = &r->n->arch;
    const struct pl_cuda_attend attend = {.to = r->input,
                                          .heads = a->heads,
                                          .kv_heads = a->kv_heads,
                                          .dim = a->head_dim,
                                          .kv_dtype = r->f->spans[0].cache->dtype,
                                          .max_span = r->max_span};
    if (r->chunk)
        return 1;
    const bool tree = r->f->tree != NULL;
    int64_t wide = pl_k_attend_vectors(&attend, tree), most = 1;
    int64_t at_once =
        pl_k_attend_few_does(&attend, tree) ? PL_CUDA_FEW_BLOCKS(r->n->device->major) : 2;
    int64_t blocks = (int64_t)r->f->n_spans * a->kv_heads *
                     ((r->max_span * (a->heads / a->kv_heads) + wide - 1) / wide);
    int64_t n = at_once * r->n->device->sms / blocks;
    int64_t room = r->n->device->partials / ((int64_t)r->rows * a->heads);

    while (most * 128 < longest && most < PL_CUDA_MAX_SPLITS)
        most *= 2;
    n = n < most ? n : most;
    n = n < room ? n : room;
    return n > 1 ? (int32_t)n : 1;
}

/* The parts of the keys, as the caches are now. */
static void set_parts(struct pl_cuda_run *r)
{
    const struct pl_forward *f = r->f;

    r->longest = 0;
    for (size_t s = 0; s < f->n_spans; s++) {
        const struct pl_cache *c = f->spans[s].cache;
        for (int32_t l = f->first_layer; l < f->end_layer; l++) {
            int32_t len = (int32_t)(c->kv[l].len - c->kv[l].first + f->spans[s].rows);
            r->longest = len > r->longest ? len : r->longest;
        }
    }
    r->chunk = exact_chunk(r);
    r->splits = r->chunk ? exact_splits(r) : pl_cuda_run_splits(r, r->longest);
    r->cross_splits =
        r->n->encoder ? pl_cuda_run_splits(r, (int32_t)f->spans[0].cache->cross[0].len) : 1;
}

void pl_cuda_run_few(struct pl_cuda_run *r)
{
    struct pl_device_work *work = &r->n->device->work;
    const struct pl_cuda_graph *g;

    set_parts(r);
    g = !r->st && fits_graph(r) ? find_graph(r) : NULL;

    if (g && !r->st) {
        r->st = pl_cuda_check(cudaGraphLaunch(g->exec, r->n->device->stream), "forward", r->err);
        *work = (struct pl_device_work){work->flops + g->work.flops, work->bytes + g->work.bytes};
    } else if (!r->st) {
        few_rows(r);
    }
}

void pl_cuda_run_over(const struct pl_cuda_run *r)
{
    r->n->work.stopped = r->st != PL_OK;
}

void pl_cuda_run_begin(struct pl_cuda_run *r, struct pl_network *n, const struct pl_forward *f,
                       size_t rows, struct pl_err *err)
{
    *r = (struct pl_cuda_run){.n = n, .f = f, .rows = (int32_t)rows, .err = err};
    r->gemm = !pl_cuda_few(n->device, (int64_t)rows);
    r->input = r->gemm ? n->act : PL_DT_F32;
    for (size_t s = 0; s < f->n_spans; s++)
        if ((int32_t)f->spans[s].rows > r->max_span)
            r->max_span = (int32_t)f->spans[s].rows;
}

/* Attention of `rows` rows of a span in layer l, and the sums that were asked for. */
static void count_attention(const struct pl_network *n, const struct pl_forward *f,
                            const struct pl_cache *c, int32_t l, size_t rows)
{
    const struct pl_kv *kv = &c->kv[l];
    const int64_t each = 2 * n->arch.heads * n->arch.head_dim;
    int64_t seen = 0, summed = 0;

    for (size_t i = 0; i < rows; i++) {
        const int64_t keys = (int64_t)(kv->len + i + 1 - pl_kv_first(kv, kv->len + i));
        seen += keys;
        summed += f->sums_layer == l && c->sums.data && i >= f->sums_skip ? keys : 0;
    }
    n->device->work.flops +=
        each * (2 * seen + summed + 2 * (int64_t)(rows * (n->encoder ? c->cross[l].len : 0)));
}

/* The bytes of K and V that this forward read of a sequence: from the first row that its first row
 * sees. */
struct pl_device_work pl_cuda_run_count(const struct pl_cuda_run *r, size_t s)
{
    const struct pl_network *n = r->n;
    const struct pl_forward *f = r->f;
    struct pl_cache *c = f->spans[s].cache;
    const struct pl_device_work before = n->device->work;
    int64_t row_bytes =
        2 * n->arch.kv_heads * n->arch.head_dim * pl_dtype_traits(f->spans[0].cache->dtype)->bytes;

    pl_cuda_op(n->device, PL_CUDA_OP_ATTENTION); /* whose work this is */
    c->kv_read = 0;
    for (int32_t l = f->first_layer; l < f->end_layer; l++) {
        const struct pl_kv *kv = &c->kv[l];
        size_t keys = kv->len + f->spans[s].rows - pl_kv_first(kv, kv->len);
        c->kv_read += row_bytes * (int64_t)(keys + c->cross[l].len);
        count_attention(n, f, c, l, f->spans[s].rows);
    }
    n->device->work.bytes += c->kv_read;
    pl_cuda_op(n->device, PL_CUDA_OP_OTHER);
    return (struct pl_device_work){n->device->work.flops - before.flops,
                                   n->device->work.bytes - before.bytes};
}

enum pl_status pl_cuda_run_check(struct pl_network *n, const struct pl_forward *f, size_t *rows,
                                 struct pl_err *err)
{
    *rows = 0;
    if (f->tree && (f->n_spans != 1 || f->tree->base + f->spans[0].rows > PL_TREE_MAX))
        return pl_fail(err, PL_ERANGE, "a tree of more than %d rows", PL_TREE_MAX);
    if (f->n_ends > PL_MAX_EOS)
        return pl_fail(err, PL_ERANGE, "%zu ids are left out, at most %d can be", f->n_ends,
                       PL_MAX_EOS);
    if (f->n_spans > PL_CUDA_SPANS)
        return pl_fail(err, PL_ERANGE, "more than %d sequences in one forward", PL_CUDA_SPANS);
    for (size_t s = 0; s < f->n_spans; s++) {
        if (f->spans[s].rows > n->work.rows - *rows)
            return pl_fail(err, PL_ERANGE, "more than %zu rows in one forward", n->work.rows);
        *rows += f->spans[s].rows;
    }
    if (!*rows)
        return pl_fail(err, PL_ERANGE, "a forward without rows");
    if (f->picked && f->want == PL_LOGITS_ALL && *rows > PL_CUDA_SPANS)
        return pl_fail(err, PL_ERANGE, "%zu rows are picked from, at most %d can be", *rows,
                       PL_CUDA_SPANS);
    if (f->draw && (!f->picked || (f->want == PL_LOGITS_ALL && *rows != f->n_spans)))
        return pl_fail(err, PL_ERANGE, "a draw from %zu rows of %zu sequences: 1 of each", *rows,
                       f->n_spans);
    return pl_cache_check_room(f, err);
}

enum pl_status pl_cuda_forward(struct pl_network *n, const struct pl_forward *f, struct pl_err *err)
{
    enum pl_status st;
    struct pl_cuda_run r;
    size_t rows;

    st = pl_cuda_run_check(n, f, &rows, err);
    if (!st)
        st = pl_cuda_enter(n->device, "forward", err);
    if (st)
        return st;
    pl_cuda_run_begin(&r, n, f, rows, err);
    r.st = pl_cuda_run_send(&r, NULL);
    pl_cuda_paths_send(&r);
    if (!r.st && fits_graph(&r)) {
        pl_cuda_run_few(&r);
        copy_logits(&r, rows, 0);
    } else if (!r.st) {
        set_parts(&r);
        pl_cuda_run_input(&r, NULL);
        for (int32_t l = f->first_layer; l < f->end_layer && !r.st; l++)
            pl_cuda_run_layer(&r, l);
        if (!r.st)
            output(&r);
    }
    if (!r.st && (f->want != PL_LOGITS_NONE || f->embeds)) {
        r.st = pl_cuda_sync(n->device, "forward", err);
        n->work.step_busy = false;
    }
    if (!r.st) {
        for (size_t s = 0; s < f->n_spans; s++)
            (void)pl_cuda_run_count(&r, s);
        pl_cache_advance(f);
    }
    pl_cuda_run_over(&r);
    return r.st;
}
