/* What the model tests share: cmocka in the right order, golden paths, loading that fails the test.
 */
#ifndef PL_TESTS_MODEL_FIXTURE_H
#define PL_TESTS_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "model/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDENS PL_SOURCE_DIR "/tests/model/goldens"

#define ok(call)                                                                                   \
    do {                                                                                           \
        struct pl_err err = {0};                                                                   \
        enum pl_status st_ = (call);                                                               \
        if (st_)                                                                                   \
            fail_msg("%s: %s", pl_status_text(st_), err.text);                                     \
    } while (0)

/* The call fails with this status and its text holds `part`. */
#define fails(status, part, call)                                                                  \
    do {                                                                                           \
        struct pl_err err = {0};                                                                   \
        enum pl_status st_ = (call);                                                               \
        if (st_ != (status) || !strstr(err.text, part))                                            \
            fail_msg("expected %s with \"%s\", got %s: %s", pl_status_text(status), part,          \
                     pl_status_text(st_), err.text);                                               \
    } while (0)

/* Whether the default device computes as session.h promises of the CPU: the same bits however the
 * work is cut. */
static inline bool exact_device(void)
{
    return pl_backend_by_name(NULL) == &pl_cpu_backend;
}

/* How far a model's numbers may be from the f32 reference: a GPU multiplies in the type of the
 * weights, unless it was opened with isa "portable". */
static inline double tolerance(const struct pl_model *m, const char *isa)
{
    return exact_device() || (isa && !strcmp(isa, "portable")) ||
                   pl_model_info(m)->dtype == PL_DT_F32
               ? 1e-4
               : 4e-2;
}

/* for (size_t i = 0; next_isa(&i, &isa);): each set of instructions that the default device can be
 * forced to. One that this machine lacks is passed over, and said so. */
static inline bool next_isa(size_t *i, const char **isa)
{
    static const char *const cpu[] = {"portable", "avx2", "avx512", "avx512bf16"};
    static const char *const other[] = {"portable", NULL};
    const struct pl_backend *b = pl_backend_by_name(NULL);

    while (*i < (exact_device() ? 4 : 2)) {
        struct pl_err err = {""};
        struct pl_device *d = NULL;
        *isa = (exact_device() ? cpu : other)[(*i)++];
        if (!exact_device() ||
            b->open(&(struct pl_device_opts){.threads = 1, .isa = *isa}, &d, &err) == PL_OK) {
            if (d)
                b->close(d);
            return true;
        }
        print_message("SKIPPED: %s cannot run here\n", *isa);
    }
    return false;
}

static inline struct pl_model *load_model(const char *name, int threads, const char *isa)
{
    struct pl_model_opts o = {.where = {.threads = threads, .isa = isa}};
    struct pl_model *m = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", GOLDENS, name);
    ok(pl_model_load(path, &o, &m, &err));
    return m;
}

static inline struct pl_session *new_session(struct pl_model *m, const struct pl_session_opts *o)
{
    struct pl_session *s = NULL;

    ok(pl_session_create(m, o, &s, &err));
    return s;
}

static inline void prefill(struct pl_session *s, const int32_t *ids, size_t n, float *logits)
{
    struct pl_prompt p = {.ids = ids, .n = n};

    ok(pl_session_prefill(s, &p, logits, &err));
}

/* dir/config.json = model/config.json with the first `from` replaced by `to`. */
static inline void edit_config(const char *model, const char *dir, const char *from, const char *to)
{
    char path[1024], *at;
    struct pl_buf b, out;

    snprintf(path, sizeof(path), "%s/config.json", model);
    ok(pl_read_file(path, 1u << 20, &b, &err));
    pl_buf_init(&out, 1u << 20);
    at = strstr(b.data, from);
    assert_non_null(at);
    ok(pl_buf_add(&out, b.data, (size_t)(at - b.data), &err));
    ok(pl_buf_add(&out, to, strlen(to), &err));
    ok(pl_buf_add(&out, at + strlen(from), strlen(at + strlen(from)), &err));
    snprintf(path, sizeof(path), "%s/config.json", dir);
    ok(pl_write_file_atomic(path, out.data, out.len, &err));
    pl_buf_release(&b);
    pl_buf_release(&out);
}

/* Some ids below vocab. */
static inline void make_ids(int32_t *ids, size_t n, uint32_t seed, int32_t vocab)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)(seed >> 8) % vocab;
    }
}

#endif
