#include "model/model.h"

#include "base/arena.h"
#include "model/checkpoint.h"
#include "model/vision_impl.h"
#include "model/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pl_model {
    struct pl_model_info info;
    const struct pl_backend *backend;
    struct pl_device *device;
    struct pl_network *network;
    struct pl_vision *vision;         /* NULL: it reads text alone */
    struct pl_checkpoint *checkpoint; /* NULL unless the network reads from it */
    bool grafted;                     /* the device is another model's */
};

/* Everything known about a model before its weights are read. */
struct plan {
    struct pl_arena arena;
    struct pl_checkpoint *checkpoint;
    struct pl_model_sources sources;
    struct pl_vision_sources vision;
    struct pl_model_info info;
    enum pl_dtype dtype;
    bool mapped; /* the network will read from the checkpoint */
};

static void warn(const struct pl_model_opts *o, const char *text)
{
    if (o->warn)
        o->warn(o->warn_user, text);
}

static int64_t count_nonfinite(const struct pl_checkpoint *c, const struct pl_model_opts *o)
{
    int64_t sum = 0, nan, inf;
    char text[512];

    for (size_t i = 0; i < pl_checkpoint_count(c); i++) {
        const struct pl_tensor_view *t = pl_checkpoint_tensor(c, i);
        pl_tensor_nonfinite(t, &nan, &inf);
        if (!nan && !inf)
            continue;
        sum += nan + inf;
        snprintf(text, sizeof(text), "%s: tensor %s: %" PRId64 " NaN and %" PRId64 " Inf weights",
                 t->file, t->name, nan, inf);
        warn(o, text);
    }
    return sum;
}

static void plan_release(struct plan *p)
{
    pl_checkpoint_free(p->checkpoint);
    pl_arena_release(&p->arena);
}

static enum pl_status check_dtype(enum pl_dtype dt, struct pl_err *err)
{
    if (dt == PL_DT_AUTO || pl_dtype_traits(dt)->computes)
        return PL_OK;
    return pl_fail(err, PL_EUNSUPPORTED, "weights cannot be held as %s (f32, f16, bf16)",
                   pl_dtype_traits(dt)->name);
}

static int64_t table_bytes(const struct pl_arch *a, const struct pl_model_sources *s,
                           enum pl_dtype dt)
{
    const struct pl_weight_source *tables[] = {&s->embed, &s->positions};
    int64_t bytes = 0;

    for (size_t i = 0; i < 2; i++) {
        const struct pl_weight_source *t = tables[i];
        if (pl_weight_absent(t) || (i == 0 && a->head && pl_weight_absent(&s->lm_head)))
            continue;
        bytes += (int64_t)pl_dtype_bytes(dt == PL_DT_AUTO ? t->view->dtype : dt,
                                         (size_t)(t->rows * t->cols));
    }
    return bytes;
}

/* The language model and what stands before it. */
static enum pl_status find_weights(struct plan *p, const struct pl_model_opts *o,
                                   struct pl_weights_report *report, struct pl_err *err)
{
    const struct pl_arch *a = &p->info.arch;
    const struct pl_vision_config *v = &p->info.vision;
    struct pl_finder f = {.c = p->checkpoint, .seed = o->random_seed, .arena = &p->arena};
    char text[sizeof(struct pl_err) + 80];
    struct pl_err names;
    size_t n;
    enum pl_status st = pl_finder_network(&f, a, NULL, &p->sources, err);

    if (!st && v->kind != PL_VISION_NONE)
        st = pl_vision_find(&f, v, a->init_std, &p->vision, err);
    if (!st)
        st = pl_finder_finish(&f, report, err);
    if (st || v->kind == PL_VISION_NONE)
        return st;
    n = pl_finder_unused(&f, pl_vision_known_extra, &names);
    if (n) {
        snprintf(text, sizeof(text), "the checkpoint has %zu tensors that are not used: %s", n,
                 names.text);
        warn(o, text);
    }
    return PL_OK;
}

static enum pl_status check_pixels(const struct pl_model_opts *o, const struct pl_backend *b,
                                   const struct pl_vision_config *c, struct pl_err *err)
{
    if (o->device_pixels && !b->pixels)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "preprocess: the %s makes no pixels by itself, \"host\" is expected",
                       b->name);
    if (o->device_pixels && c->kind == PL_VISION_NONE)
        return pl_fail(err, PL_EUSAGE,
                       "preprocess: the model reads text alone, \"host\" is expected");
    return PL_OK;
}

/* On failure nothing is left to release. */
static enum pl_status plan_make(struct plan *p, const char *path, const struct pl_model_opts *o,
                                const struct pl_backend *backend, struct pl_err *err)
{
    struct pl_weights_report report = {0};
    struct pl_model_info *info = &p->info;
    enum pl_status st;

    memset(p, 0, sizeof(*p));
    pl_arena_init(&p->arena);
    st = check_dtype(o->dtype, err);
    if (!st)
        st = pl_arch_read(path, &info->arch, err);
    if (!st)
        st = pl_vision_config_read(path, &info->vision, err);
    if (!st)
        st = check_pixels(o, backend, &info->vision, err);
    if (!st && !o->random)
        st = pl_checkpoint_open(path, &p->checkpoint, err);
    if (!st)
        st = find_weights(p, o, &report, err);
    if (st) {
        plan_release(p);
        return st;
    }
    p->dtype = o->dtype;
    info->arch.tied = info->arch.head && pl_weight_absent(&p->sources.lm_head);
    if (o->random && p->dtype == PL_DT_AUTO)
        p->dtype = info->arch.stored != PL_DT_AUTO ? info->arch.stored : PL_DT_F32;
    p->mapped = report.blocks && p->dtype == PL_DT_AUTO;
    info->random = o->random;
    info->random_seed = o->random ? o->random_seed : 0;
    info->stored = o->random ? p->dtype : report.stored;
    info->activations = p->mapped && backend->int8 ? o->activations : PL_ACTIVATIONS_F32;
    p->sources.activations = backend->int8 ? o->activations : PL_ACTIVATIONS_F32;
    if (p->sources.encoder)
        p->sources.encoder->activations = p->sources.activations;
    info->dtype = p->dtype == PL_DT_AUTO ? info->stored : p->dtype;
    info->params = pl_arch_params(&info->arch) + pl_vision_params(&info->vision);
    info->weights_bytes = backend->network_need(&info->arch, &p->sources, p->dtype);
    if (info->vision.kind != PL_VISION_NONE)
        info->weights_bytes += pl_vision_need(backend, &info->vision, &p->vision, p->dtype);
    info->table_bytes = table_bytes(&info->arch, &p->sources, p->dtype);
    info->nonfinite = -1;
    if (p->checkpoint) {
        info->file_bytes = pl_checkpoint_file_bytes(p->checkpoint);
        info->tensors = (int32_t)pl_checkpoint_count(p->checkpoint);
        info->extra_tensors = info->tensors - report.used;
        if (o->check_finite) {
            info->nonfinite = count_nonfinite(p->checkpoint, o);
            pl_checkpoint_drop_pages(p->checkpoint);
        }
    }
    return PL_OK;
}

enum pl_status pl_model_describe(const char *path, const struct pl_model_opts *opts,
                                 struct pl_model_info *out, struct pl_err *err)
{
    static const struct pl_model_opts none;
    const struct pl_model_opts *o = opts ? opts : &none;
    const struct pl_backend *backend;
    enum pl_status st;
    struct plan p;
    int ordinal = 0;

    st = pl_backend_find(o->device, &backend, &ordinal, err);
    if (!st)
        st = plan_make(&p, path, o, backend, err);
    if (st)
        return st;
    *out = p.info;
    out->backend = backend;
    plan_release(&p);
    return PL_OK;
}

enum pl_status pl_model_load(const char *path, const struct pl_model_opts *opts,
                             struct pl_model **out, struct pl_err *err)
{
    static const struct pl_model_opts none;
    const struct pl_model_opts *o = opts ? opts : &none;
    struct pl_model *m = calloc(1, sizeof(*m));
    static const char *const texts[] = {"", ", int8 activations", ", bf16 activations"};
    struct pl_device_opts where = o->where;
    enum pl_status st;
    struct plan p;
    char what[72];

    if (!m)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    st = pl_backend_find(o->device, &m->backend, &where.ordinal, err);
    if (!st)
        st = plan_make(&p, path, o, m->backend, err);
    if (st) {
        free(m);
        return st;
    }
    if (p.mapped && p.info.activations == PL_ACTIVATIONS_F32)
        pl_checkpoint_fetch(p.checkpoint);
    st = m->backend->open(&where, &m->device, err);
    if (!st)
        st = m->backend->network_create(m->device, &p.info.arch, &p.sources, p.dtype, &m->network,
                                        err);
    if (!st && p.info.vision.kind != PL_VISION_NONE)
        st = pl_vision_create(m->backend, m->device, &p.info.vision, &p.vision, p.dtype, &m->vision,
                              err);
    if (!st && o->device_pixels)
        pl_vision_make_pixels(m->vision);
    m->info = p.info;
    m->info.backend = m->backend;
    if (p.mapped && !st) {
        m->checkpoint = p.checkpoint;
        p.checkpoint = NULL;
    }
    plan_release(&p);
    if (st) {
        pl_model_free(m);
        return pl_err_prefix(err, st, "%s", path);
    }
    if (m->backend->network_activations)
        m->info.activations = m->backend->network_activations(m->network);
    m->info.weights_bytes = m->backend->network_bytes(m->network);
    if (m->vision)
        m->info.weights_bytes += pl_vision_weights_bytes(m->vision);
    m->backend->describe(m->device, what, sizeof(what));
    snprintf(m->info.device, sizeof(m->info.device), "%s (%s%s)", m->backend->name, what,
             texts[m->info.activations]);
    *out = m;
    return PL_OK;
}

enum pl_status pl_model_graft(struct pl_model *host, const struct pl_checkpoint *c,
                              const struct pl_arch *a, struct pl_model **out, struct pl_err *err)
{
    static const char *const prefixes[] = {"", NULL};
    enum pl_dtype dt = pl_dtype_traits(host->info.dtype)->computes ? host->info.dtype : PL_DT_AUTO;
    struct pl_model *m = calloc(1, sizeof(*m));
    struct pl_weights_report report = {0};
    struct pl_model_sources sources;
    struct pl_arena arena;
    enum pl_status st;

    if (!m)
        return pl_fail(err, PL_ENOMEM, "no memory for blocks");
    pl_arena_init(&arena);
    m->backend = host->backend;
    m->device = host->device;
    m->grafted = true;
    m->info.arch = *a;
    m->info.activations = PL_ACTIVATIONS_F32;
    struct pl_finder f = {.c = c, .arena = &arena};
    st = pl_finder_network(&f, a, prefixes, &sources, err);
    if (!st)
        st = pl_finder_finish(&f, &report, err);
    sources.activations = PL_ACTIVATIONS_F32;
    if (!st)
        st = m->backend->network_create(m->device, a, &sources, dt, &m->network, err);
    pl_arena_release(&arena);
    if (st) {
        pl_model_free(m);
        return st;
    }
    m->info.stored = report.stored;
    m->info.dtype = dt == PL_DT_AUTO ? report.stored : dt;
    m->info.weights_bytes = m->backend->network_bytes(m->network);
    *out = m;
    return PL_OK;
}

void pl_model_free(struct pl_model *m)
{
    if (!m)
        return;
    pl_vision_free(m->vision);
    if (m->network)
        m->backend->network_free(m->network);
    if (!m->grafted)
        m->backend->close(m->device);
    pl_checkpoint_free(m->checkpoint);
    free(m);
}

const struct pl_model_info *pl_model_info(const struct pl_model *m)
{
    return &m->info;
}

const struct pl_backend *pl_model_backend(const struct pl_model *m)
{
    return m->backend;
}

struct pl_device *pl_model_device(const struct pl_model *m)
{
    return m->device;
}

struct pl_network *pl_model_network(const struct pl_model *m)
{
    return m->network;
}

struct pl_vision *pl_model_vision(const struct pl_model *m)
{
    return m->vision;
}

const struct pl_tensor *pl_model_head(const struct pl_model *m)
{
    return m->backend->network_head(m->network);
}

const struct pl_tensor *pl_model_final_norm(const struct pl_model *m)
{
    return m->backend->network_final_norm(m->network);
}

enum pl_status pl_model_check_ids(const struct pl_model *m, const int32_t *ids, size_t n,
                                  struct pl_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->info.arch.vocab)
            return pl_fail(err, PL_ERANGE, "token %zu is %" PRId32 ", the vocabulary has %" PRId32,
                           i, ids[i], m->info.arch.vocab);
    return PL_OK;
}

enum pl_status pl_model_embed(const struct pl_model *m, const int32_t *ids, size_t n, float *out,
                              struct pl_err *err)
{
    enum pl_status st = pl_model_check_ids(m, ids, n, err);

    if (!st)
        m->backend->embed(m->network, ids, n, out);
    return st;
}
