/* What a decode asks of the device: one step sent, five launches a block, eight bytes back and one
 * wait for them, which is what a time for each token takes; never a row of logits. And the tokens
 * of a temperature are the CPU's. */
#include "fixture.h"

#include "model/backend.h"
#include "model/cuda/cuda.h"
#include "spec_decode/accept.h"

#include <cuda_runtime_api.h>
#include <math.h>

#define MODEL PL_SOURCE_DIR "/examples/models/small-llama"
#define GGUF PL_SOURCE_DIR "/tests/model/gguf"
#define PROMPT 12
#define LONG 140 /* its keys are attended in parts */
#define STEPS 10
#define VERIFIED 22
#define VERIFY_LAUNCHES 5 /* rows of the table; norm; cast; x in 8 bits, head */
#define FEW_STEPS 3
#define LAUNCHES_A_BLOCK 5 /* q, k and v; attention; output; gate and up; down */
#define OTHER_LAUNCHES 4   /* rows of the table; norm, head, choice */

static const struct pl_accept_rule rule = {.temperature = 1.3, .key = 99};

static struct pl_session *begin(const char *path, const char *device, enum pl_dtype dtype,
                                enum pl_dtype kv, size_t prompt, struct pl_model **m, float *logits)
{
    const struct pl_model_opts o = {.device = device, .dtype = dtype};
    const struct pl_session_opts so = {
        .max_tokens = prompt + STEPS + VERIFIED, .max_verify = VERIFIED, .kv_dtype = kv};
    struct pl_session *s = NULL;
    int32_t ids[LONG];

    for (size_t i = 0; i < prompt; i++)
        ids[i] = (int32_t)(7 * i + 3) % 1000;
    ok(pl_model_load(path, &o, m, &err));
    ok(pl_session_create(*m, &so, &s, &err));
    ok(pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = prompt}, logits, &err));
    return s;
}

/* Weights of 16 bits and in blocks alike, the keys in one part or in several. */
static const struct asked {
    const char *path;
    enum pl_dtype dtype;
    size_t prompt;
    bool narrow; /* heads of 16, which are turned by themselves */
} asked[] = {{MODEL, PL_DT_BF16, PROMPT, false},
             {MODEL, PL_DT_BF16, LONG, false},
             {MODEL "-q4_0.gguf", PL_DT_AUTO, PROMPT, false},
             {MODEL "-q4_k.gguf", PL_DT_AUTO, LONG, false},
             {MODEL "-q8_0.gguf", PL_DT_AUTO, PROMPT, false},
             {GGUF "/q4_1.gguf", PL_DT_AUTO, PROMPT, true},
             {GGUF "/q5_0.gguf", PL_DT_AUTO, PROMPT, true},
             {GGUF "/q5_1.gguf", PL_DT_AUTO, PROMPT, true}};

static void check_asked(const struct asked *of)
{
    const int32_t ends[] = {2};
    struct pl_model *m = NULL;
    float *logits = calloc(1 << 16, sizeof(*logits));
    struct pl_session *s = begin(of->path, "cuda", of->dtype, PL_DT_BF16, of->prompt, &m, logits);
    const struct pl_draw draw = {.temperature = 0.7, .u = 0.4};

    for (int step = 0; step < FEW_STEPS; step++) {
        const struct pl_emu_asked before = pl_emu_asked;
        struct pl_picked got;
        bool copied = true;
        ok(pl_session_decode_pick(s, 5 + step, ends, 1, step % 2 ? &draw : NULL, logits, &copied,
                                  &got, &err));
        assert_false(copied);
        assert_in_range(got.id, 0, pl_model_info(m)->arch.vocab - 1);
        assert_int_equal(pl_emu_asked.waits - before.waits, 1);
        assert_int_equal(pl_emu_asked.to_device - before.to_device, 1);
        assert_int_equal(pl_emu_asked.to_host - before.to_host, 1);
        assert_int_equal(pl_emu_asked.bytes_to_host - before.bytes_to_host, 8);
        assert_int_equal(pl_emu_asked.replays - before.replays, 1);
        assert_int_equal(pl_emu_asked.graphs - before.graphs, step < 2); /* greedy, drawn */
        assert_int_equal(pl_emu_asked.launches - before.launches,
                         (LAUNCHES_A_BLOCK + of->narrow) * pl_model_info(m)->arch.layers +
                             OTHER_LAUNCHES);
    }
    pl_session_free(s);
    pl_model_free(m);
    free(logits);
}

static void test_asked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++)
        check_asked(&asked[i]);
}

/* Captured steps, with the arguments that they were captured with, and steps launched one by one:
 * the same bits, while the keys go from one part to several. */
static void test_captured(void **state)
{
    struct pl_model *m[2] = {NULL, NULL};
    float *logits[2] = {calloc(1 << 16, sizeof(float)), calloc(1 << 16, sizeof(float))};
    struct pl_session *s[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        setenv("PACELINE_EMULATED_GRAPHS", i ? "0" : "1", 1);
        s[i] = begin(MODEL, "cuda", PL_DT_BF16, PL_DT_BF16, 128 - 2, &m[i], logits[i]);
        const long graphs = pl_emu_asked.graphs;
        for (int step = 0; step < 4; step++) {
            const struct pl_emu_asked before = pl_emu_asked;
            float *to = logits[i] + (size_t)step * 1024;
            ok(pl_session_decode(s[i], 5 + step, to, &err));
            assert_int_equal(pl_emu_asked.replays - before.replays, !i);
        }
        assert_int_equal(pl_emu_asked.graphs - graphs, i ? 0 : 2); /* of one part, of two */
    }
    unsetenv("PACELINE_EMULATED_GRAPHS");
    assert_memory_equal(logits[0], logits[1], 4 * 1024 * sizeof(float));
    for (int i = 0; i < 2; i++) {
        pl_session_free(s[i]);
        pl_model_free(m[i]);
        free(logits[i]);
    }
}

/* Up to 32 rows take the weights once, four launches a block more than one row: what is in 8 bits
 * for each product; and they are what decodes make, but for x in 16 bits. */
static void test_verified(void **state)
{
    static const char *const paths[] = {MODEL "-q4_k.gguf", MODEL "-q8_0.gguf"};
    float *all = calloc(VERIFIED << 10, sizeof(*all)), *one = calloc(1 << 10, sizeof(*one));

    (void)state;
    for (int i = 0; i < 2; i++) {
        int32_t ids[VERIFIED];
        struct pl_model *m = NULL;
        struct pl_session *s = begin(paths[i], "cuda", PL_DT_AUTO, PL_DT_BF16, PROMPT, &m, all);
        const struct pl_arch *a = &pl_model_info(m)->arch;
        const size_t vocab = (size_t)a->vocab;
        for (int k = 0; k < VERIFIED; k++)
            ids[k] = 11 * k + 5;
        assert_true(vocab <= 1 << 10);
        const long before = pl_emu_asked.launches;
        ok(pl_session_verify(s, ids, VERIFIED, all, &err));
        assert_int_equal(pl_emu_asked.launches - before,
                         (LAUNCHES_A_BLOCK + 4) * a->layers + VERIFY_LAUNCHES);
        ok(pl_session_rollback(s, VERIFIED, &err));
        for (size_t k = 0; k < VERIFIED; k++) {
            double most = 0, off = 0;
            ok(pl_session_decode(s, ids[k], one, &err));
            for (size_t v = 0; v < vocab; v++) {
                most = fmax(most, fabs((double)one[v]));
                off = fmax(off, fabs((double)one[v] - (double)all[k * vocab + v]));
            }
            assert_true(off <= 2e-2 * most);
        }
        pl_session_free(s);
        pl_model_free(m);
    }
    free(all);
    free(one);
}

/* Logits of decodes, a verification behind the second and another length of keys behind the third;
 * refuse, keep: what becomes of captures, and how many graphs there is room for. */
static struct pl_emu_asked decodes(int refuse, int keep, float *logits)
{
    struct pl_model *m = NULL;
    struct pl_session *s = begin(MODEL, "cuda", PL_DT_BF16, PL_DT_BF16, 125, &m, logits);
    struct pl_device *d = pl_model_device(m);
    const int32_t two[] = {8, 9};
    char text[256];

    d->graphs = keep;
    pl_emu_refuse_capture = refuse;
    const struct pl_emu_asked before = pl_emu_asked;
    for (int step = 0; step < FEW_STEPS + 2; step++) {
        if (step == 2) {
            ok(pl_session_verify(s, two, 2, logits + (FEW_STEPS + 2) * 1024, &err));
            ok(pl_session_rollback(s, 2, &err));
        }
        ok(pl_session_decode(s, 5 + step, logits + step * 1024, &err));
    }
    const struct pl_emu_asked after = pl_emu_asked;
    pl_model_backend(m)->describe(d, text, sizeof(text));
    assert_int_equal(strstr(text, "not captured") != NULL, refuse != 0);
    pl_emu_refuse_capture = 0;
    pl_session_free(s);
    pl_model_free(m);
    assert_int_equal(pl_emu_asked.graphs, pl_emu_asked.graphs_gone);
    return (struct pl_emu_asked){.graphs = after.graphs - before.graphs,
                                 .graphs_gone = after.graphs_gone - before.graphs_gone,
                                 .replays = after.replays - before.replays,
                                 .launches = after.launches - before.launches};
}

/* Graphs that there is no room for go, and are made again; and where a capture breaks, or makes
 * no graph, launches go out one by one, which the device says: the same bits each time. */
static void test_graphs_go(void **state)
{
    const size_t n = 1 << 16, bytes = (FEW_STEPS + 4) * 1024 * sizeof(float);
    float *first = calloc(n, sizeof(float)), *logits = calloc(n, sizeof(float));
    const struct pl_emu_asked all = decodes(0, PL_CUDA_GRAPHS, first);

    (void)state;
    assert_int_equal(all.graphs, 3); /* a decode, a verification, more parts */
    assert_int_equal(all.graphs_gone, 0);
    assert_int_equal(all.replays, FEW_STEPS + 3);
    for (int refuse = 2; refuse <= 3; refuse++) {
        const struct pl_emu_asked none = decodes(refuse, PL_CUDA_GRAPHS, logits);
        assert_int_equal(none.graphs, 0);
        assert_int_equal(none.replays, 0);
        assert_int_equal(none.launches, all.launches);
        assert_memory_equal(first, logits, bytes);
    }
    const struct pl_emu_asked one = decodes(0, 1, logits);
    assert_int_equal(one.graphs, 4); /* the decode's again */
    assert_int_equal(one.graphs_gone, 3);
    assert_int_equal(one.replays, all.replays);
    assert_memory_equal(first, logits, bytes);
    free(first);
    free(logits);
}

/* Parts are merged in their order, whichever block ends last; and a launch that ended midway, each
 * of a step in turn, leaves nothing behind that a later one takes for its own. */
static void test_stopped(void **state)
{
    struct pl_model *m[2] = {NULL, NULL};
    float *logits[2] = {calloc(1 << 16, sizeof(float)), calloc(1 << 16, sizeof(float))};
    struct pl_session *s[2];
    const size_t bytes = 1024 * sizeof(float);

    (void)state;
    for (int i = 0; i < 2; i++)
        s[i] = begin(MODEL, "cuda", PL_DT_BF16, PL_DT_BF16, LONG, &m[i], logits[i]);
    const int layers = pl_model_info(m[0])->arch.layers;
    for (int step = 0; step < FEW_STEPS; step++) {
        pl_emu_order = 0;
        ok(pl_session_decode(s[0], 5 + step, logits[0], &err));
        for (int l = 0; l < layers; l++) {
            pl_emu_stop_launch = 3 + LAUNCHES_A_BLOCK * l; /* its attention */
            fails(PL_EDEVICE, "illegal", pl_session_decode(s[1], 5 + step, logits[1], &err));
        }
        pl_emu_order = 7 * (unsigned)step + 1;
        ok(pl_session_decode(s[1], 5 + step, logits[1], &err));
        assert_memory_equal(logits[0], logits[1], bytes);
    }
    pl_emu_order = 0;
    for (int i = 0; i < 2; i++) {
        pl_session_free(s[i]);
        pl_model_free(m[i]);
        free(logits[i]);
    }
}

/* Launches that may begin early wait for what they read, and make the same tokens; only where asked
 * for, and where the GPU can. */
static void test_overlapped(void **state)
{
    const char *const paths[] = {MODEL, MODEL "-q4_k.gguf"};
    static const char *const majors[] = {"9", "8", "9"}, *const wanted[] = {"0", "1", "1"};
    float *logits = calloc(1 << 16, sizeof(float)), *first = calloc(1 << 16, sizeof(float));

    (void)state;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < 3; i++) {
            struct pl_model *m = NULL;
            setenv("PACELINE_EMULATED_MAJOR", majors[i], 1);
            setenv("PACELINE_CUDA_OVERLAP", wanted[i], 1);
            struct pl_session *s =
                begin(paths[p], "cuda", p ? PL_DT_AUTO : PL_DT_BF16, PL_DT_BF16, LONG, &m, logits);
            const struct pl_emu_asked before = pl_emu_asked;
            ok(pl_session_decode(s, 5, logits, &err));
            /* every launch of a block, and the head */
            assert_int_equal(pl_emu_asked.early - before.early,
                             i == 2 ? LAUNCHES_A_BLOCK * pl_model_info(m)->arch.layers + 1 : 0);
            if (i)
                assert_memory_equal(logits, first, 1024 * sizeof(float));
            memcpy(first, logits, 1024 * sizeof(float));
            pl_session_free(s);
            pl_model_free(m);
        }
    unsetenv("PACELINE_EMULATED_MAJOR");
    unsetenv("PACELINE_CUDA_OVERLAP");
    free(logits);
    free(first);
}

/* The draws of position t are the rule's; where the CPU's logits are the same but for rounding, so
 * are the tokens. */
static void test_drawn(void **state)
{
    struct pl_model *m[2] = {NULL, NULL};
    float *logits = calloc(1 << 16, sizeof(*logits)), *p = calloc(2 << 16, sizeof(*p));
    struct pl_session *s[2] = {begin(MODEL, "cpu", PL_DT_F32, PL_DT_F32, PROMPT, &m[0], logits),
                               begin(MODEL, "cuda", PL_DT_F32, PL_DT_F32, PROMPT, &m[1], logits)};
    const size_t vocab = (size_t)pl_model_info(m[0])->arch.vocab;
    struct pl_accept_rule drawn = rule;
    int32_t id[2] = {11, 11}, other = 0;

    (void)state;
    drawn.p = p;
    for (uint64_t t = 1; t < STEPS; t++) {
        for (int i = 0; i < 2; i++) {
            const struct pl_draw draw = {.temperature = rule.temperature,
                                         .u = pl_accept_uniform(&rule, t, 0)};
            struct pl_picked got;
            bool copied;
            ok(pl_session_decode_pick(s[i], id[i], NULL, 0, &draw, logits, &copied, &got, &err));
            assert_int_equal(copied, i == 0);
            if (copied)
                ok(pl_accept_one(&drawn, logits, vocab, t, &got.id, &err));
            id[i] = got.id;
        }
        assert_int_equal(id[1], id[0]);
        other += id[0] != pl_logits_argmax(logits, vocab);
    }
    assert_true(other > 0); /* they are draws */
    for (int i = 0; i < 2; i++) {
        pl_session_free(s[i]);
        pl_model_free(m[i]);
    }
    free(logits);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked),      cmocka_unit_test(test_captured),
        cmocka_unit_test(test_graphs_go),  cmocka_unit_test(test_verified),
        cmocka_unit_test(test_stopped),    cmocka_unit_test(test_overlapped),
        cmocka_unit_test(test_drawn)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
