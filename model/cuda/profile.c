/*
 * What kernels took, by CUPTI's activity records: opened at run time, no header of it needed. Each
 * operation of a forward pushes its number as an external correlation, which CUPTI gives back with
 * the kernels that were launched under it. While a profile is on, launches go out one by one: nodes
 * of a captured graph carry the graph's correlation alone.
 */
#include "model/cuda/profile.h"

#include "model/cuda/cupti_abi.h"

#include <ctype.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER ((size_t)4 << 20)
#define MOST_RECORDS ((size_t)1 << 20)

static const char *const op_names[PL_CUDA_OPS] = {
#define PL_X(sym, name) [PL_CUDA_OP_##sym] = name,
    PL_CUDA_OP_LIST(PL_X)
#undef PL_X
};

/* One kernel's run, and the operation that a correlation belongs to. */
struct ran {
    uint32_t correlation, name;
    int64_t ns;
};
struct belongs {
    uint32_t correlation, op;
};

static struct {
    void *so;
    int (*callbacks)(pl_cupti_wanted *, pl_cupti_full *);
    int (*enable)(uint32_t), (*disable)(uint32_t);
    int (*flush)(uint32_t);
    int (*next)(uint8_t *, size_t, void **);
    int (*push)(uint32_t, uint64_t), (*pop)(uint32_t, uint64_t *);
    int (*text)(int, const char **);
    struct pl_err error; /* of opening; "": it is there */
} lib;
static pthread_once_t opened = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what stands below */
static struct pl_cuda_profile *collecting;               /* one device at a time */

struct pl_cuda_profile {
    struct ran *ran;
    struct belongs *belongs;
    char (*names)[48];
    size_t n_ran, n_belongs, n_names, dropped;
    enum pl_cuda_op op;
    struct pl_device_work since, work[PL_CUDA_OPS];
    char text[PL_CUDA_PROFILE_ROWS][80];
    struct pl_op_time rows[PL_CUDA_PROFILE_ROWS];
};

/* "_ZN…10gemv_denseI…" → "gemv_dense"; what is not mangled stays. */
static void short_name(const char *from, char *to, size_t size)
{
    if (strncmp(from, "_Z", 2) == 0) {
        from += 2;
        from += *from == 'N';
        while (isdigit((unsigned char)*from)) {
            char *end;
            size_t n = strtoul(from, &end, 10);
            n = strnlen(end, n);
            snprintf(to, size, "%.*s", (int)(n < size ? n : size - 1), end);
            from = end + n;
        }
        return;
    }
    snprintf(to, size, "%s", from);
}

static void *grow(void *p, size_t n, size_t each)
{
    /* powers of two, from 1024 on */
    return n < 1024 ? (n ? p : malloc(1024 * each)) : n & (n - 1) ? p : realloc(p, 2 * n * each);
}

static uint32_t name_index(struct pl_cuda_profile *p, const char *mangled)
{
    char name[sizeof(*p->names)];
    void *bigger;

    short_name(mangled ? mangled : "?", name, sizeof(name));
    for (size_t i = 0; i < p->n_names; i++)
        if (strcmp(p->names[i], name) == 0)
            return (uint32_t)i;
    bigger = grow(p->names, p->n_names, sizeof(*p->names));
    if (!bigger)
        return UINT32_MAX;
    p->names = bigger;
    memcpy(p->names[p->n_names], name, sizeof(name));
    return (uint32_t)p->n_names++;
}

static void take(struct pl_cuda_profile *p, const void *record)
{
    const struct pl_cupti_kernel *k = record;
    const struct pl_cupti_external *e = record;
    void *bigger;

    if (k->kind == PL_CUPTI_KIND_KERNEL) {
        uint32_t name = name_index(p, k->name);
        bigger = p->n_ran < MOST_RECORDS ? grow(p->ran, p->n_ran, sizeof(*p->ran)) : NULL;
        p->ran = bigger ? bigger : p->ran;
        if (bigger && name != UINT32_MAX)
            p->ran[p->n_ran++] = (struct ran){k->correlation, name, (int64_t)(k->end - k->start)};
        else
            p->dropped++;
    } else if (e->kind == PL_CUPTI_KIND_EXTERNAL && e->external_kind == PL_CUPTI_EXTERNAL_CUSTOM0) {
        bigger = p->n_belongs < MOST_RECORDS ? grow(p->belongs, p->n_belongs, sizeof(*p->belongs))
                                             : NULL;
        p->belongs = bigger ? bigger : p->belongs;
        if (bigger)
            p->belongs[p->n_belongs++] = (struct belongs){e->correlation, (uint32_t)e->id};
        else
            p->dropped++;
    }
}

static void buffer_wanted(uint8_t **buffer, size_t *size, size_t *most)
{
    *buffer = aligned_alloc(64, BUFFER);
    *size = *buffer ? BUFFER : 0;
    *most = 0;
}

/* On a thread of CUPTI's, or on the one that flushes. */
static void buffer_full(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    void *record = NULL;

    (void)context, (void)stream, (void)size;
    pthread_mutex_lock(&lock);
    while (collecting && valid && lib.next(buffer, valid, &record) == 0)
        take(collecting, record);
    pthread_mutex_unlock(&lock);
    free(buffer);
}

static void open_library(void)
{
    const struct {
        const char *name;
        void **to;
    } list[] = {{"cuptiActivityRegisterCallbacks", (void **)&lib.callbacks},
                {"cuptiActivityEnable", (void **)&lib.enable},
                {"cuptiActivityDisable", (void **)&lib.disable},
                {"cuptiActivityFlushAll", (void **)&lib.flush},
                {"cuptiActivityGetNextRecord", (void **)&lib.next},
                {"cuptiActivityPushExternalCorrelationId", (void **)&lib.push},
                {"cuptiActivityPopExternalCorrelationId", (void **)&lib.pop},
                {"cuptiGetResultString", (void **)&lib.text}};
    const char *given = getenv("PACELINE_CUPTI"); /* for tests */
    char name[64];

    snprintf(name, sizeof(name), "libcupti.so.%d", CUDART_VERSION / 1000);
    lib.so = dlopen(given ? given : name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lib.so)
        (void)!pl_fail(&lib.error, PL_EUNSUPPORTED, "kernel times: CUPTI: %s", dlerror());
    for (size_t i = 0; lib.so && i < sizeof(list) / sizeof(list[0]) && !lib.error.text[0]; i++) {
        *list[i].to = dlsym(lib.so, list[i].name);
        if (!*list[i].to)
            (void)!pl_fail(&lib.error, PL_EUNSUPPORTED, "kernel times: CUPTI has no %s",
                           list[i].name);
    }
}

static enum pl_status check(int result, const char *what, struct pl_err *err)
{
    const char *text = "?";

    if (!result)
        return PL_OK;
    (void)lib.text(result, &text);
    return pl_fail(err, PL_EUNSUPPORTED, "kernel times: CUPTI: %s: %s", what, text);
}

void pl_cuda_op(struct pl_device *d, enum pl_cuda_op op)
{
    struct pl_cuda_profile *p = d->profile;
    uint64_t last;

    if (!p || p->op == op)
        return;
    p->work[p->op].flops += d->work.flops - p->since.flops;
    p->work[p->op].bytes += d->work.bytes - p->since.bytes;
    p->since = d->work;
    (void)lib.pop(PL_CUPTI_EXTERNAL_CUSTOM0, &last);
    (void)lib.push(PL_CUPTI_EXTERNAL_CUSTOM0, (uint64_t)op);
    p->op = op;
}

static void profile_free(struct pl_cuda_profile *p)
{
    if (!p)
        return;
    free(p->ran);
    free(p->belongs);
    free(p->names);
    free(p);
}

void pl_cuda_profile_end(struct pl_device *d)
{
    uint64_t last;

    if (!d->profile)
        return;
    (void)lib.pop(PL_CUPTI_EXTERNAL_CUSTOM0, &last);
    (void)lib.flush(PL_CUPTI_FLUSH_FORCED);
    (void)lib.disable(PL_CUPTI_KIND_KERNEL);
    (void)lib.disable(PL_CUPTI_KIND_EXTERNAL);
    pthread_mutex_lock(&lock);
    collecting = NULL;
    pthread_mutex_unlock(&lock);
    profile_free(d->profile);
    d->profile = NULL;
}

enum pl_status pl_cuda_profile(struct pl_device *d, bool on, struct pl_err *err)
{
    struct pl_cuda_profile *p;
    enum pl_status st;
    bool busy;

    pl_cuda_profile_end(d);
    if (!on)
        return PL_OK;
    pthread_once(&opened, open_library);
    if (lib.error.text[0]) {
        *err = lib.error;
        return PL_EUNSUPPORTED;
    }
    p = calloc(1, sizeof(*p));
    if (!p)
        return pl_fail(err, PL_ENOMEM, "kernel times: no memory");
    pthread_mutex_lock(&lock);
    busy = collecting != NULL;
    collecting = busy ? collecting : p;
    pthread_mutex_unlock(&lock);
    if (busy) {
        free(p);
        return pl_fail(err, PL_EBUSY, "kernel times: they are kept of another device just now");
    }
    st = check(lib.callbacks(buffer_wanted, buffer_full), "cuptiActivityRegisterCallbacks", err);
    if (!st)
        st = check(lib.enable(PL_CUPTI_KIND_EXTERNAL), "cuptiActivityEnable", err);
    if (!st)
        st = check(lib.enable(PL_CUPTI_KIND_KERNEL), "cuptiActivityEnable", err);
    if (!st)
        st = check(lib.push(PL_CUPTI_EXTERNAL_CUSTOM0, PL_CUDA_OP_OTHER), "external correlation",
                   err);
    p->since = d->work;
    d->profile = p;
    if (st)
        pl_cuda_profile_end(d);
    return st;
}

static int by_correlation(const void *a, const void *b)
{
    const struct belongs *x = a, *y = b;

    return x->correlation < y->correlation ? -1 : x->correlation > y->correlation;
}

/* The row of an operation's kernel; NULL: there is no more room. */
static struct pl_op_time *row_of(struct pl_cuda_profile *p, size_t *n, uint32_t op,
                                 const char *kernel)
{
    char text[sizeof(p->text[0])];

    snprintf(text, sizeof(text), "%s: %s", op_names[op], kernel);
    for (size_t i = 0; i < *n; i++)
        if (strcmp(p->text[i], text) == 0)
            return &p->rows[i];
    if (*n == PL_CUDA_PROFILE_ROWS)
        return NULL;
    memcpy(p->text[*n], text, sizeof(text));
    p->rows[*n] = (struct pl_op_time){.name = p->text[*n]};
    return &p->rows[(*n)++];
}

/* An operation's work stands beside the kernel of it that took longest. */
static void put_work(struct pl_cuda_profile *p, size_t n)
{
    for (int op = 0; op < PL_CUDA_OPS; op++) {
        const size_t len = strlen(op_names[op]);
        struct pl_op_time *longest = NULL;
        for (size_t i = 0; i < n; i++)
            if (strncmp(p->text[i], op_names[op], len) == 0 && p->text[i][len] == ':' &&
                (!longest || p->rows[i].ns > longest->ns))
                longest = &p->rows[i];
        if (longest) {
            longest->flops = p->work[op].flops;
            longest->bytes = p->work[op].bytes;
        }
    }
}

const struct pl_op_time *pl_cuda_profile_read(struct pl_device *d, size_t *n)
{
    struct pl_cuda_profile *p = d->profile;

    *n = 0;
    if (!p)
        return NULL;
    pl_cuda_op(d, PL_CUDA_OP_OTHER);
    (void)cudaStreamSynchronize(d->stream);
    (void)lib.flush(PL_CUPTI_FLUSH_FORCED);
    pthread_mutex_lock(&lock);
    if (p->n_belongs)
        qsort(p->belongs, p->n_belongs, sizeof(*p->belongs), by_correlation);
    for (size_t i = 0; i < p->n_ran; i++) {
        const struct belongs key = {.correlation = p->ran[i].correlation};
        const struct belongs *b =
            p->n_belongs ? bsearch(&key, p->belongs, p->n_belongs, sizeof(key), by_correlation)
                         : NULL;
        struct pl_op_time *row = row_of(p, n, b && b->op < PL_CUDA_OPS ? b->op : PL_CUDA_OP_OTHER,
                                        p->names[p->ran[i].name]);
        p->dropped += !row;
        if (row) {
            row->ns += p->ran[i].ns;
            row->calls++;
        }
    }
    put_work(p, *n);
    if (p->dropped && *n < PL_CUDA_PROFILE_ROWS) {
        snprintf(p->text[*n], sizeof(p->text[0]),
                 "not recorded (records beyond the room for them)");
        p->rows[*n] = (struct pl_op_time){.name = p->text[*n], .calls = (int64_t)p->dropped};
        (*n)++;
    }
    pthread_mutex_unlock(&lock);
    return p->rows;
}
