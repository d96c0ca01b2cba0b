#include "worker/runner/entry.h"

#include "base/log.h"
#include "model/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static enum pl_status read_dtype(const json_t *o, const char *key, enum pl_dtype *out,
                                 struct pl_err *err)
{
    const char *name = "auto";
    enum pl_status st = pl_json_str(o, key, "auto", &name, err);

    if (st)
        return pl_fail(err, PL_ESWEEP, "%s: f32, bf16 or f16 is expected", key);
    enum pl_dtype dt = pl_dtype_by_name(name);
    if (dt == PL_DT_COUNT || (dt != PL_DT_AUTO && !pl_dtype_traits(dt)->computes))
        return pl_fail(err, PL_ESWEEP, "%s: \"%s\", expected f32, bf16 or f16", key, name);
    *out = dt;
    return PL_OK;
}

static enum pl_status read_weights(const json_t *o, struct pl_entry *e, struct pl_err *err)
{
    const char *w = NULL;
    char *end;

    if (pl_json_str(o, "weights", NULL, &w, err))
        return pl_fail(err, PL_ESWEEP, "weights: random:SEED is expected");
    if (!w)
        return PL_OK;
    if (strncmp(w, "random:", 7) == 0 && w[7] >= '0' && w[7] <= '9') {
        errno = 0;
        e->seed = strtoull(w + 7, &end, 10);
        if (!errno && !*end) {
            e->random = true;
            return PL_OK;
        }
    }
    return pl_fail(err, PL_ESWEEP, "weights: \"%s\", expected random:SEED", w);
}

static enum pl_status read_activations(const json_t *o, enum pl_activations *out,
                                       struct pl_err *err)
{
    const char *name = "int8";

    if (pl_json_str(o, "activations", "int8", &name, err))
        return pl_fail(err, PL_ESWEEP, "activations: int8 or f32 is expected");
    if (strcmp(name, "int8") == 0)
        *out = PL_ACTIVATIONS_INT8;
    else if (strcmp(name, "f32") == 0)
        *out = PL_ACTIVATIONS_F32;
    else
        return pl_fail(err, PL_ESWEEP, "activations: \"%s\", expected int8 or f32", name);
    return PL_OK;
}

static enum pl_status read_preprocess(const json_t *o, bool *out, struct pl_err *err)
{
    const char *where = "host";

    if (pl_json_str(o, "preprocess", "host", &where, err))
        return pl_fail(err, PL_ESWEEP, "preprocess: host or device is expected");
    if (strcmp(where, "host") && strcmp(where, "device"))
        return pl_fail(err, PL_ESWEEP, "preprocess: \"%s\", expected host or device", where);
    *out = strcmp(where, "device") == 0;
    return PL_OK;
}

/* auto: the CPU. A GPU runs what names it, and has to be there. */
static enum pl_status read_device(const json_t *entry, struct pl_entry *e, struct pl_err *err)
{
    struct pl_device_opts o = {.ordinal = 0};
    const struct pl_backend *b;
    struct pl_device *there = NULL;
    const char *d = "auto";
    enum pl_status st;

    if (pl_json_str(entry, "device", "auto", &d, err))
        return pl_fail(err, PL_ESWEEP, "device: auto, cpu or cuda is expected");
    e->device = strcmp(d, "auto") ? d : "cpu";
    st = pl_backend_find(e->device, &b, &o.ordinal, err);
    if (st == PL_EUSAGE)
        return pl_fail(err, PL_ESWEEP, "device: \"%s\", expected auto, cpu or cuda", d);
    if (st || strcmp(e->device, "cpu") == 0)
        return st;
    st = b->open(&o, &there, err);
    if (st)
        return pl_err_prefix(err, PL_EUNSUPPORTED, "device %s", d);
    b->close(there);
    return PL_OK;
}

enum pl_status pl_entry_read(const json_t *entry, struct pl_entry *out, struct pl_err *err)
{
    struct pl_entry e;
    int64_t threads = 0;
    enum pl_status st;

    memset(&e, 0, sizeof(e));
    if (pl_json_str(entry, "path", NULL, &e.path, err) || !e.path || !*e.path)
        return pl_fail(err, PL_ESWEEP, "path: a model's directory is expected");
    st = read_dtype(entry, "dtype", &e.dtype, err);
    if (!st)
        st = read_dtype(entry, "kv", &e.kv, err);
    if (!st)
        st = read_activations(entry, &e.activations, err);
    if (!st)
        st = read_weights(entry, &e, err);
    if (!st && pl_json_bool(entry, "deterministic", false, &e.deterministic, err))
        st = pl_fail(err, PL_ESWEEP, "deterministic: true or false is expected");
    if (!st)
        st = read_preprocess(entry, &e.device_pixels, err);
    if (!st)
        st = read_device(entry, &e, err);
    if (st)
        return st;
    if (pl_json_i64(entry, "threads", 0, &threads, err) || threads < 0 || threads > 4096)
        return pl_fail(err, PL_ESWEEP, "threads: 1 to 4096 is expected");
    e.threads = (int)threads;
    *out = e;
    return PL_OK;
}

static void warn(void *user, const char *text)
{
    (void)user;
    pl_log(PL_LOG_WARN, "%s", text);
}

void pl_entry_model_opts(const struct pl_entry *e, int threads, const int *cpus, size_t n_cpus,
                         struct pl_model_opts *out)
{
    memset(out, 0, sizeof(*out));
    out->device = e->device;
    out->dtype = e->dtype;
    out->activations = e->activations;
    out->where.deterministic = e->deterministic;
    out->device_pixels = e->device_pixels;
    out->random = e->random;
    out->random_seed = e->seed;
    out->warn = warn;
    out->where.threads = e->threads ? e->threads : threads;
    /* Threads are bound one to a CPU, or not at all. */
    if (cpus && (out->where.threads == 0 || (size_t)out->where.threads <= n_cpus)) {
        out->where.cpus = cpus;
        out->where.n_cpus = out->where.threads ? (size_t)out->where.threads : n_cpus;
    }
}

enum pl_dtype pl_entry_kv(const struct pl_entry *e, enum pl_dtype dtype)
{
    if (e->kv != PL_DT_AUTO)
        return e->kv;
    return dtype == PL_DT_AUTO || pl_dtype_traits(dtype)->computes ? dtype : PL_DT_F16;
}

static bool in_brackets(const char *piece)
{
    size_t n = piece ? strlen(piece) : 0;

    return n == 0 || (piece[0] == '<' && piece[n - 1] == '>') ||
           (piece[0] == '[' && piece[n - 1] == ']');
}

enum pl_status pl_entry_tokenizer(const char *path, const struct pl_arch *a,
                                  struct pl_tokenizer **out, struct pl_err *err)
{
    struct pl_tokenizer *t = NULL;
    enum pl_status st = pl_tokenizer_load(path, &t, err);

    if (st)
        return st;
    const struct pl_tokenizer_info *info = pl_tokenizer_info(t);
    for (int32_t id = a->vocab; !st && id < info->vocab; id++)
        if (!in_brackets(pl_tokenizer_piece(t, id)))
            st = pl_fail(err, PL_EFORMAT,
                         "%s: it has %d ids, the model's vocabulary %d: it is another model's "
                         "tokenizer",
                         info->file, info->vocab, a->vocab);
    if (st)
        pl_tokenizer_free(t);
    else
        *out = t;
    return st;
}

size_t pl_eos_ids(const struct pl_arch *a, int32_t tokenizer_eos, int32_t out[PL_MAX_EOS])
{
    size_t n = 0;

    for (int32_t i = 0; i < a->n_eos; i++)
        if (a->eos[i] >= 0 && a->eos[i] < a->vocab)
            out[n++] = a->eos[i];
    if (n == 0 && tokenizer_eos >= 0 && tokenizer_eos < a->vocab)
        out[n++] = tokenizer_eos;
    return n;
}
