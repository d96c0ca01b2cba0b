#include "model/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef PL_HAVE_AVX2
static bool have_avx2(void)
{
    /* F16C came before AVX2 on every processor; not every compiler knows its name here. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool have_avx512(void)
{
    return have_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool have_avx512bf16(void)
{
    return have_avx512() && __builtin_cpu_supports("avx512bf16");
}
#endif

static bool always(void)
{
    return true;
}

/* The best first. */
static const struct {
    const struct pl_kernels *kernels;
    bool (*runs)(void);
} paths[] = {
#ifdef PL_HAVE_AVX2
    {&pl_kernels_avx512bf16, have_avx512bf16},
    {&pl_kernels_avx512, have_avx512},
    {&pl_kernels_avx2, have_avx2},
#endif
    {&pl_kernels_portable, always},
};

static const struct pl_kernels *offered;

void pl_cpu_offer(const struct pl_kernels *k)
{
    offered = k;
}

static enum pl_status choose_kernels(const char *isa, const struct pl_kernels **out,
                                     struct pl_err *err)
{
    bool any = !isa || !strcmp(isa, "auto");
    char there[64] = "auto";

    if (!any && offered && !strcmp(isa, offered->name)) {
        *out = offered;
        return PL_OK;
    }
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        const char *name = paths[i].kernels->name;
        if (!paths[i].runs())
            continue;
        if (any || !strcmp(isa, name)) {
            *out = paths[i].kernels;
            return PL_OK;
        }
        strncat(there, ", ", sizeof(there) - strlen(there) - 1);
        strncat(there, name, sizeof(there) - strlen(there) - 1);
    }
    return pl_fail(err, PL_EUNSUPPORTED, "instruction set \"%.20s\" is not there (%s)", isa, there);
}

enum pl_status pl_cpu_scratch(struct pl_device *d, size_t n, struct pl_err *err)
{
    size_t each = pl_round_up(n, 16);
    float *p;

    if (each <= d->scratch_each)
        return PL_OK;
    p = pl_cpu_alloc((size_t)pl_pool_threads(d->whole) * each, sizeof(*p));
    if (!p)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu floats of scratch a thread", each);
    free(d->scratch);
    d->scratch = p;
    d->scratch_each = each;
    return PL_OK;
}

static void cpu_close(struct pl_device *d)
{
    if (!d)
        return;
    pl_pool_free(d->narrow);
    pl_pool_free(d->whole);
    free(d->scratch);
    free(d);
}

static enum pl_status cpu_open(const struct pl_device_opts *o, struct pl_device **out,
                               struct pl_err *err)
{
    struct pl_device *d = calloc(1, sizeof(*d));
    enum pl_status st;

    if (!d)
        return pl_fail(err, PL_ENOMEM, "no memory for a device");
    st = choose_kernels(o ? o->isa : NULL, &d->kernels, err);
    if (!st)
        st = pl_pool_create(o ? o->threads : 0, o ? o->cpus : NULL, o && o->cpus ? o->n_cpus : 0,
                            &d->whole, err);
    d->pool = d->whole;
    if (!st)
        st = pl_cpu_scratch(d, PL_GEMM_SCRATCH, err);
    if (st) {
        cpu_close(d);
        return st;
    }
    *out = d;
    return PL_OK;
}

static enum pl_status cpu_narrow(struct pl_device *d, int part, int parts, struct pl_err *err)
{
    int threads = pl_pool_threads(d->whole);
    size_t begin, end, first, last;
    const int *cpus;
    size_t n_cpus = pl_pool_cpus(d->whole, &cpus);

    if (parts < 1 || part < 0 || part >= parts)
        return pl_fail(err, PL_ERANGE, "part %d of %d of a device", part, parts);
    if (parts == 1) {
        d->pool = d->whole;
        return PL_OK;
    }
    if (d->narrow && d->part == part && d->parts == parts) {
        d->pool = d->narrow;
        return PL_OK;
    }
    d->pool = d->whole;
    pl_pool_free(d->narrow);
    d->narrow = NULL;
    /* The first parts get what is left over; more parts than threads or CPUs share them. */
    pl_pool_share((size_t)threads, part, parts, &begin, &end);
    pl_pool_share(n_cpus, part, parts, &first, &last);
    if (first == last && n_cpus) {
        first = (size_t)part % n_cpus;
        last = first + 1;
    }
    enum pl_status st = pl_pool_create(end > begin ? (int)(end - begin) : 1,
                                       n_cpus ? cpus + first : NULL, last - first, &d->narrow, err);
    if (st)
        return st;
    d->part = part;
    d->parts = parts;
    d->pool = d->narrow;
    return PL_OK;
}

static void cpu_describe(const struct pl_device *d, char *out, size_t size)
{
    int n = pl_pool_threads(d->whole);

    snprintf(out, size, "%s, %d thread%s", d->kernels->name, n, n == 1 ? "" : "s");
}

static enum pl_status cpu_profile(struct pl_device *d, bool on, struct pl_err *err)
{
    static const char *const names[] = {
#define PL_X(sym, name) name,
        PL_CPU_OP_LIST(PL_X)
#undef PL_X
    };

    d->profile.on = on;
    for (int i = 0; on && i < PL_CPU_OPS; i++)
        d->profile.ops[i] = (struct pl_op_time){.name = names[i]};
    (void)err;
    return PL_OK;
}

static struct pl_device_work cpu_work(const struct pl_device *d)
{
    return d->work;
}

static const struct pl_op_time *cpu_profile_read(struct pl_device *d, size_t *n)
{
    *n = PL_CPU_OPS;
    return d->profile.ops;
}

static int64_t network_bytes(const struct pl_network *n)
{
    return n->bytes;
}

static enum pl_activations network_activations(const struct pl_network *n)
{
    return n->int8 ? PL_ACTIVATIONS_INT8 : n->bf16 ? PL_ACTIVATIONS_BF16 : PL_ACTIVATIONS_F32;
}

static const struct pl_tensor *network_head(const struct pl_network *n)
{
    return &n->head;
}

static const struct pl_tensor *network_final_norm(const struct pl_network *n)
{
    return &n->final_norm;
}

const struct pl_backend pl_cpu_backend = {
    .name = "cpu",
    .int8 = true,
    .max_forward = PL_CPU_CHUNK,
    .open = cpu_open,
    .close = cpu_close,
    .narrow = cpu_narrow,
    .work = cpu_work,
    .describe = cpu_describe,
    .profile = cpu_profile,
    .profile_read = cpu_profile_read,
    .tensor_create = pl_cpu_tensor_create,
    .weight_create = pl_cpu_weight_create,
    .tensor_view = pl_tensor_view,
    .tensor_free = pl_cpu_tensor_free,
    .rows = pl_tensor_rows,
    .cols = pl_tensor_cols,
    .upload = pl_cpu_upload,
    .download = pl_cpu_download,
    .copy = pl_cpu_copy,
    .linear = pl_cpu_linear,
    .norm = pl_cpu_norm,
    .activate = pl_cpu_activate,
    .axpby = pl_cpu_axpby,
    .attention = pl_cpu_attention,
    .topk = pl_cpu_topk,
    .gather = pl_cpu_gather,
    .argmax = pl_cpu_argmax,
    .network_create = pl_cpu_network_create,
    .network_free = pl_cpu_network_free,
    .network_bytes = network_bytes,
    .network_need = pl_cpu_network_need,
    .network_activations = network_activations,
    .network_head = network_head,
    .network_final_norm = network_final_norm,
    .embed = pl_cpu_embed,
    .cache_create = pl_cpu_cache_create,
    .cache_free = pl_cpu_cache_free,
    .cache_bytes = pl_cpu_cache_bytes,
    .cache_need = pl_cpu_cache_need,
    .cache_len = pl_cache_len,
    .cache_reset = pl_cache_reset,
    .cache_can_drop = pl_cache_can_drop,
    .cache_drop = pl_cache_drop,
    .cache_keep = pl_cpu_cache_keep,
    .cache_keep_path = pl_cpu_cache_keep_path,
    .cache_stage = pl_cache_stage,
    .cache_encoded = pl_cache_encoded,
    .cache_sums = pl_cache_sums,
    .cache_sums_clear = pl_cpu_cache_sums_clear,
    .cache_tap = pl_cache_tap,
    .cache_kv_read = pl_cache_kv_read,
    .forward = pl_cpu_forward,
    .encode = pl_cpu_encode,
    .encode_batch = pl_cpu_encode_batch,
    .pool = pl_cpu_pool_row,
};
