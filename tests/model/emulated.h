/* Paths of the CPU backend by name, "emulated" among them: the AVX-512 kernels with their
 * instructions written out in C (avx512_emulated.h), which need AVX2. */
#ifndef PL_TESTS_MODEL_EMULATED_H
#define PL_TESTS_MODEL_EMULATED_H

#include "fixture.h"

#include "model/cpu/cpu.h"

#ifdef PL_HAVE_EMULATED
extern const struct pl_kernels pl_kernels_emulated;
#endif

/* To be called before anything is opened. */
static inline void offer_emulated(void)
{
#ifdef PL_HAVE_EMULATED
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        pl_cpu_offer(&pl_kernels_emulated);
#endif
}

/* NULL: this machine cannot run it, and that was said. */
static inline struct pl_device *open_path(const char *isa, int threads)
{
    struct pl_device *d = NULL;
    struct pl_err err = {""};
    enum pl_status st =
        pl_cpu_backend.open(&(struct pl_device_opts){.threads = threads, .isa = isa}, &d, &err);

    if (st == PL_EUNSUPPORTED)
        print_message("SKIPPED: %s cannot run here\n", isa);
    else if (st)
        fail_msg("%s", err.text);
    return d;
}

static inline struct pl_model *load_as(const char *path, enum pl_dtype dt, enum pl_activations acts,
                                       int threads, const char *isa)
{
    struct pl_model_opts o = {
        .activations = acts, .dtype = dt, .where = {.threads = threads, .isa = isa}};
    struct pl_model *m = NULL;

    ok(pl_model_load(path, &o, &m, &err));
    return m;
}

/* [n, vocab], of a prompt of n ≤ 64; free it. */
static inline float *logits_of(struct pl_model *m, const int32_t *ids, size_t n)
{
    size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    struct pl_session *s = new_session(m, &(struct pl_session_opts){.max_tokens = 64});
    float *out = malloc(n * vocab * sizeof(*out));

    ok(pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = n, .all_logits = true}, out,
                          &err));
    pl_session_free(s);
    return out;
}

/* Prompt, decode and verify in all cuts, threads 1, 2, 3, activations rounded: the same bits. */
static inline void check_bits(const char *path, enum pl_dtype dt, const char *isa)
{
    enum { N = 36 };
    int32_t ids[N];
    float *want = NULL;

    for (int threads = 1; threads <= 3; threads++) {
        struct pl_model *m = load_as(path, dt, PL_ACTIVATIONS_INT8, threads, isa);
        size_t vocab = (size_t)pl_model_info(m)->arch.vocab, prompt = 4 + (size_t)threads;
        make_ids(ids, N, 3, (int32_t)vocab);
        float *got = logits_of(m, ids, N), *part = malloc(N * vocab * sizeof(*part));
        if (!want)
            want = got;
        else
            assert_memory_equal(got, want, N * vocab * sizeof(*got));
        struct pl_session *s = new_session(m, &(struct pl_session_opts){.max_tokens = 64});
        prefill(s, ids, prompt, part);
        assert_memory_equal(part, want + (prompt - 1) * vocab, vocab * sizeof(*part));
        ok(pl_session_decode(s, ids[prompt], part, &err));
        assert_memory_equal(part, want + prompt * vocab, vocab * sizeof(*part));
        ok(pl_session_verify(s, ids + prompt + 1, N - prompt - 1, part, &err));
        assert_memory_equal(part, want + (prompt + 1) * vocab,
                            (N - prompt - 1) * vocab * sizeof(*part));
        ok(pl_session_rollback(s, 5, &err));
        ok(pl_session_verify(s, ids + N - 5, 4, part, &err));
        assert_memory_equal(part, want + (N - 5) * vocab, 4 * vocab * sizeof(*part));
        free(part);
        if (got != want)
            free(got);
        pl_session_free(s);
        pl_model_free(m);
    }
    free(want);
}

/* Every path of `isas` on every model. */
static inline void check_all_bits(const char *const *isas, size_t n_isas, const char *const *paths,
                                  size_t n_paths, enum pl_dtype dt)
{
    for (size_t s = 0; s < n_isas; s++) {
        struct pl_device *d = open_path(isas[s], 1);
        for (size_t i = 0; d && i < n_paths; i++)
            check_bits(paths[i], dt, isas[s]);
        pl_cpu_backend.close(d);
    }
}

#endif
