/* What a decode asks of the device: one step sent, one launch a part, eight bytes back and one wait
 * for them, which is what a time for each token takes; never a row of logits. And the tokens of a
 * temperature are the CPU's. */
#include "fixture.h"

#include "model/backend.h"
#include "spec_decode/accept.h"

#include <cuda_runtime_api.h>

#define MODEL PL_SOURCE_DIR "/examples/models/small-llama"
#define PROMPT 12
#define STEPS 10
#define LAUNCHES_A_BLOCK 5 /* q, k and v; attention; output; gate and up; down */
#define OTHER_LAUNCHES 4   /* rows of the table; norm, head, choice */

static const struct pl_accept_rule rule = {.temperature = 1.3, .key = 99};

static struct pl_session *begin(const char *device, enum pl_dtype dtype, struct pl_model **m,
                                float *logits)
{
    const struct pl_model_opts o = {.device = device, .dtype = dtype};
    const struct pl_session_opts so = {
        .max_tokens = PROMPT + STEPS, .max_verify = 8, .kv_dtype = dtype};
    struct pl_session *s = NULL;
    int32_t ids[PROMPT];

    for (int i = 0; i < PROMPT; i++)
        ids[i] = 7 * i + 3;
    ok(pl_model_load(MODEL, &o, m, &err));
    ok(pl_session_create(*m, &so, &s, &err));
    ok(pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = PROMPT}, logits, &err));
    return s;
}

static void test_asked(void **state)
{
    const int32_t ends[] = {2};
    struct pl_model *m = NULL;
    float *logits = calloc(1 << 16, sizeof(*logits));
    struct pl_session *s = begin("cuda", PL_DT_BF16, &m, logits);
    const struct pl_draw draw = {.temperature = 0.7, .u = 0.4};

    (void)state;
    for (int step = 0; step < STEPS; step++) {
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
        assert_int_equal(pl_emu_asked.launches - before.launches,
                         LAUNCHES_A_BLOCK * pl_model_info(m)->arch.layers + OTHER_LAUNCHES);
    }
    pl_session_free(s);
    pl_model_free(m);
    free(logits);
}

/* The draws of position t are the rule's; where the CPU's logits are the same but for rounding, so
 * are the tokens. */
static void test_drawn(void **state)
{
    struct pl_model *m[2] = {NULL, NULL};
    float *logits = calloc(1 << 16, sizeof(*logits)), *p = calloc(2 << 16, sizeof(*p));
    struct pl_session *s[2] = {begin("cpu", PL_DT_F32, &m[0], logits),
                               begin("cuda", PL_DT_F32, &m[1], logits)};
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_asked), cmocka_unit_test(test_drawn)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
