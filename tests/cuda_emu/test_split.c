/* Two lanes on one (emulated) GPU, each on multiprocessors of its own while both run: what is launched then goes to its part, the bits are
 * the same, and where it cannot be it is said. Nothing here says that a GPU gains by it. */
#include "fixture.h"

#include "cuda_runtime_api.h"

#define N 12

static const struct pl_backend *b;

static struct pl_model *load(const char *device)
{
    const struct pl_model_opts o = {.device = device, .dtype = PL_DT_AUTO};
    struct pl_model *m = NULL;

    ok(pl_model_load(GOLDENS "/tied_bf16", &o, &m, &err));
    return m;
}

/* Prefill, decodes and a verification: the logits, and how many launches went to a part. */
static long run(struct pl_model *m, float *logits)
{
    const struct pl_session_opts o = {.max_tokens = 64, .max_verify = 4};
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    struct pl_session *s = NULL;
    const long before = pl_emu_asked.narrow;
    int32_t ids[N];

    for (int i = 0; i < N; i++)
        ids[i] = i + 1;
    ok(pl_session_create(m, &o, &s, &err));
    ok(pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = N}, logits, &err));
    ok(pl_session_decode(s, 3, logits + vocab, &err));
    ok(pl_session_verify(s, ids, 4, logits + 2 * vocab, &err));
    pl_session_free(s);
    return pl_emu_asked.narrow - before;
}

static void parts(void **state)
{
    struct pl_model *m[2] = {load("cuda"), load("cuda")};
    struct pl_device *d[2] = {pl_model_device(m[0]), pl_model_device(m[1])};
    const size_t n = (size_t)pl_model_info(m[0])->arch.vocab * 6;
    float *alone = calloc(n, sizeof(float)), *beside = calloc(n, sizeof(float));
    struct pl_device_split s;
    struct pl_device_memory memory;

    (void)state;
    assert_int_equal(run(m[0], alone), 0);
    ok(b->split(d[0], d[1], 0.25, &s, &err)); /* one of four; the GPU gives two at a time */
    assert_true(s.first == 2 && s.second == 2 && s.all == 4);
    assert_int_equal(pl_emu_green_contexts(), 2);
    assert_int_equal(run(m[0], beside), 0); /* not before both lanes run */
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < 2; i++) {
            ok(b->narrow(d[i], i, 2, &err));
            b->mark(d[i], 0);
            assert_true(run(m[i], beside) > 8);
            b->mark(d[i], 1);
            assert_memory_equal(alone, beside, n * sizeof(float));
        }
        for (int i = 0; i < 2; i++) {
            ok(b->narrow(d[i], 0, 1, &err));
            assert_int_equal(run(m[i], beside), 0);
            assert_true(b->between(d[i], 0, 1) >= 0);
        }
        ok(b->split(d[0], d[1], 0, &s, &err)); /* another arm's turn, without parts */
        assert_int_equal(s.all, 0);
        ok(b->narrow(d[0], 0, 2, &err));
        assert_int_equal(run(m[0], beside), 0);
        ok(b->narrow(d[0], 0, 1, &err));
        ok(b->split(d[0], d[1], 0.25, &s, &err));
        assert_int_equal(pl_emu_green_contexts(), 2); /* the same as before */
    }
    ok(b->split(d[0], d[1], 0.5, &s, &err));
    assert_int_equal(pl_emu_green_contexts(), 4);
    fails(PL_ERANGE, "part 2 of 2", b->narrow(d[0], 2, 2, &err));
    b->memory(d[0], false, &memory);
    pl_model_free(m[1]);
    assert_int_equal(pl_emu_green_contexts(), 2); /* each device has its halves */
    assert_int_equal(run(m[0], beside), 0);
    pl_model_free(m[0]);
    assert_int_equal(pl_emu_green_contexts(), 0);
    free(alone);
    free(beside);
}

static void cannot(void **state)
{
    struct pl_device *d[3] = {NULL};
    struct pl_device_split s;
    bool done = false;

    (void)state;
    for (int i = 0; i < 3; i++)
        ok(b->open(&(struct pl_device_opts){.ordinal = i == 2}, &d[i], &err));
    fails(PL_EUNSUPPORTED, "4 of 4 multiprocessors cannot be set apart", b->split(d[0], d[1], 0.9, &s, &err));
    fails(PL_EUNSUPPORTED, "each lane has a GPU of its own", b->split(d[0], d[2], 0.5, &s, &err));
    setenv("PACELINE_EMULATED_GREEN", "0", 1);
    fails(PL_EUNSUPPORTED, "this driver has no cuGreenCtxCreate", b->split(d[0], d[1], 0.5, &s, &err));
    unsetenv("PACELINE_EMULATED_GREEN");
    assert_int_equal(s.all, 0);
    assert_int_equal(pl_emu_green_contexts(), 0);
    ok(b->narrow(d[0], 0, 2, &err)); /* and both go on */
    ok(b->poll(d[0], &done, &err));
    for (int i = 0; i < 3; i++)
        b->close(d[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts), cmocka_unit_test(cannot)};

    setenv("PACELINE_EMULATED_GPUS", "2", 1);
    b = pl_backend_by_name("cuda");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
