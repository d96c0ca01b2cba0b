/* Plans of simulated sweeps, where every number is known. */
#include "orchestrator/plan.h"
#include "orchestrator/plan_estimate.h"
#include "unit.h"

#include <math.h>

static struct pl_plan *make(const struct pl_sweep *s, const struct pl_arm_info *infos,
                            uint64_t bytes, uint32_t workers)
{
    struct pl_plan *p = NULL;
    struct pl_err err = {""};
    assert_int_equal(pl_plan_make(s, infos, bytes, workers, &p, &err), PL_OK);
    return p;
}

static void sim_infos(struct pl_arm_info *infos, size_t n)
{
    memset(infos, 0, n * sizeof *infos);
    for (size_t i = 0; i < n; i++)
        infos[i] = (struct pl_arm_info){.layers = 1, .sim = true, .synthetic = true, .devices = 1};
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

static const char two_groups[] =
    "data: {kind: synthetic}\n"
    "models: {sim: {engine: sim, prefill_us_per_token: 10, decode_us: 1000, load_s: 2}}\n"
    "arms:\n"
    "  a: {model: sim}\n"
    "  b: {model: sim, scale: 2}\n"
    "  c: {model: sim, baseline: c}\n"
    "  d: {model: sim, baseline: c}\n"
    "  e: {model: sim, baseline: b}\n"
    "baseline: a\n"
    "grid: {contexts: [100, 200], samples: 50, repeats: 2}\n"
    "generate: {tokens: 11}\nmeasure: {warmup: 1}\n";

static void test_blocks(void **state)
{
    struct pl_sweep *s = unit_sweep(two_groups, NULL);
    struct pl_arm_info infos[5];
    struct pl_plan *p;
    uint8_t seen[5][2][50] = {{{0}}};
    (void)state;
    sim_infos(infos, 5);
    infos[3].layers = 7;
    p = make(s, infos, 0, 2);
    assert_int_equal(p->n_groups, 2);
    assert_int_equal(p->group_of[0], 0);
    assert_int_equal(p->group_of[1], 0);
    assert_int_equal(p->group_of[2], 1);
    assert_int_equal(p->group_of[3], 1);
    assert_int_equal(p->group_of[4], 0);
    assert_int_equal(p->n_residences[0], 1);
    assert_int_equal(p->shape.layers, 7);
    assert_int_equal(p->shape.models, 2);
    assert_int_equal(p->shape.tokens, 11);
    assert_int_equal(p->shape.rounds, 0);
    assert_int_equal(p->run_samples, 0);
    /* 16 samples: 2 · 2 · 4 = 16 blocks for 2 workers is 8 each. */
    assert_int_equal(p->block_samples, 16);
    assert_int_equal(p->n_blocks, 16);
    for (uint64_t i = 0; i < p->n_blocks; i++) {
        struct pl_block b = pl_plan_block(p, i);
        assert_int_equal(b.index, i);
        assert_int_equal(b.group, i / 8);
        for (uint32_t arm = 0; arm < 5; arm++)
            for (uint32_t k = 0; k < b.n_samples && p->group_of[arm] == b.group; k++) {
                struct pl_row_id id = {arm, b.context, b.first_sample + k, 1};
                assert_int_equal(pl_plan_block_of(p, &id), i);
                seen[arm][b.context][id.sample]++;
            }
    }
    for (size_t i = 0; i < sizeof seen; i++)
        assert_int_equal(((uint8_t *)seen)[i], 1);
    pl_plan_free(p);
    pl_sweep_free(s);
}

static void test_estimate(void **state)
{
    struct pl_sweep *s = unit_sweep(two_groups, NULL);
    struct pl_arm_info infos[5];
    struct pl_plan *p;
    double trial[2] = {(10 * 100 + 10 * 1000) * 1e-6, (10 * 200 + 10 * 1000) * 1e-6};
    (void)state;
    sim_infos(infos, 5);
    p = make(s, infos, 0, 2);
    assert_true(near(pl_plan_trial_s(s, infos, 0, 0), trial[0]));
    assert_true(near(pl_plan_trial_s(s, infos, 1, 1), 2 * trial[1]));
    assert_true(near(p->trials_s, 50 * 2 * 6 * (trial[0] + trial[1])));
    assert_int_equal(p->loads, 4); /* each worker, each comparison */
    /* Trials and their overhead (0.1 ms each), a warm-up of each arm × context × worker, four loads
     * of 2 s: over two workers. */
    double all = 6 * (trial[0] + trial[1]) + 10 * 1e-4;
    assert_true(near(p->estimate_s, (all * 100 + all * 2 + 4 * 2) / 2));
    pl_plan_free(p);
    infos[0].sim = false; /* nothing is known of a real engine */
    p = make(s, infos, 0, 2);
    assert_true(p->estimate_s == 0 && p->trials_s == 0);
    pl_plan_free(p);
    pl_sweep_free(s);
}

static void test_block_size(void **state)
{
    static const char text[] =
        "data: {kind: synthetic}\n"
        "models: {sim: {engine: sim, prefill_us_per_token: 0, decode_us: %d}}\n"
        "arms: {a: {model: sim}, b: {model: sim}}\nbaseline: a\n"
        "grid: {contexts: [1], samples: %d, repeats: %d}\n"
        "generate: {tokens: 2}\n";
    static const struct {
        int us, samples, repeats;
        uint32_t workers, want;
        bool real;
    } t[] = {
        {1000, 1000, 1, 1, 16, false},   /* plenty of blocks */
        {1000, 3, 1, 1, 3, false},       /* a block is never longer than the sweep */
        {1000000, 32, 1, 1, 4, false},   /* 8 blocks for the worker */
        {1000000, 32, 1, 100, 1, false}, /* one a worker is all there can be */
        {1000, 32, 1, 4, 16, false}, /* 2 ms a sample: shorter blocks cost more than they give */
        {20000, 32, 1, 4, 2, false}, /* 40 ms a sample: 1 is below 50 ms */
        {4000000, 1000, 1, 1, 3, false},  /* 8 s a sample: at most 30 s */
        {60000000, 1000, 1, 1, 1, false}, /* 2 min a sample */
        {1000, 32, 1, 1, 4, true},        /* unknown: 8 blocks a worker */
        {1, 100, 5000, 1, 6, false},      /* at most 65535 trials */
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char yaml[1024];
        struct pl_arm_info infos[2];
        struct pl_sweep *s;
        struct pl_plan *p;
        snprintf(yaml, sizeof yaml, text, t[i].us, t[i].samples, t[i].repeats);
        s = unit_sweep(yaml, NULL);
        sim_infos(infos, 2);
        infos[0].sim = infos[1].sim = !t[i].real;
        p = make(s, infos, 0, t[i].workers);
        if (p->block_samples != t[i].want)
            fail_msg("case %zu: %u samples a block, %u expected", i, p->block_samples, t[i].want);
        pl_plan_free(p);
        pl_sweep_free(s);
    }
}

static void test_residences(void **state)
{
    struct pl_sweep *s = unit_sweep(
        "data: {kind: synthetic}\n"
        "models: {m: {engine: sim, load_s: 1, prefill_us_per_token: 0, decode_us: 100000}, "
        "n: {engine: sim}, o: {engine: sim}}\n"
        "arms: {a: {model: m}, b: {model: n}, c: {model: m, scale: 2}, d: {model: o}}\n"
        "baseline: a\ngrid: {contexts: [10, 90], samples: 100}\ngenerate: {tokens: 11}\n",
        NULL);
    struct pl_arm_info infos[4];
    struct pl_plan *p;
    (void)state;
    sim_infos(infos, 4);
    /* KV: (90 + 11) · 10 = 1010 bytes each */
    for (int i = 0; i < 4; i++)
        infos[i].kv_bytes_per_token = 10;
    infos[0].weights_bytes = infos[2].weights_bytes = 5000;
    infos[2].workspace_bytes = 90;
    infos[1].weights_bytes = 3000;
    infos[3].weights_bytes = 1000;
    assert_int_equal(pl_plan_kv_bytes(s, 0, &infos[0]), 1010);

    p = make(s, infos, 5000 + 1010 + 90 + 3000 + 1010 + 1000 + 1010, 1);
    assert_int_equal(p->n_residences[0], 1);
    assert_int_equal(p->run_samples, 0);
    assert_int_equal(p->loads, 1);
    pl_plan_free(p);

    /* m and o fit together, n does not fit with m. */
    p = make(s, infos, 8200, 1);
    assert_int_equal(p->n_residences[0], 2);
    assert_int_equal(p->residence_of[0], 0);
    assert_int_equal(p->residence_of[1], 1);
    assert_int_equal(p->residence_of[2], 0);
    assert_int_equal(p->residence_of[3], 0);
    /* A sample is 1 + 2 + 2 · 0.003 s and four overheads; a load of 1 s a run is a tenth from 9
     * / 3.0064 samples on. */
    assert_int_equal(p->run_samples, 3);
    assert_true(p->block_samples >= p->run_samples);
    assert_int_equal(p->loads, 1 + p->n_blocks * ((p->block_samples + 2) / 3));
    pl_plan_free(p);

    /* Nothing fits: each model on its own, no way around it. */
    p = make(s, infos, 100, 1);
    assert_int_equal(p->n_residences[0], 4);
    pl_plan_free(p);
    pl_sweep_free(s);
}

/* Expected rounds, by the textbook for one step and by hand for two. */
static void test_rounds(void **state)
{
    (void)state;
    assert_true(pl_plan_rounds(0, 4, 0.5) == 0);
    assert_true(near(pl_plan_rounds(1, 4, 0.5), 1));
    assert_true(near(pl_plan_rounds(100, 4, 0), 100));
    assert_true(near(pl_plan_rounds(100, 4, 1), 20));
    assert_true(near(pl_plan_rounds(101, 4, 1), 21));
    assert_true(near(pl_plan_rounds(2, 1, 0.25), 1.75)); /* 1 + 0.75 */
    assert_true(near(pl_plan_rounds(3, 2, 0.5), 2));     /* 1 + R(2) / 2 + R(1) / 4, R(2) = 1.5 */
    double many = pl_plan_rounds(100000, 3, 0.6);
    double leviathan = 100000 * (1 - 0.6) / (1 - pow(0.6, 4));
    assert_true(fabs(many - leviathan) < 1);
}

static void test_drafting(void **state)
{
    struct pl_sweep *s = unit_sweep(
        "data: {kind: synthetic}\n"
        "models: {sim: {engine: sim, prefill_us_per_token: 2, decode_us: 300}}\n"
        "arms:\n  a: {model: sim}\n"
        "  d: {model: sim, acceptance: 1, gamma: 3, draft_us: 10, verify_us: 400, scale: 0.5}\n"
        "baseline: a\ngrid: {contexts: [1000], samples: 10}\ngenerate: {tokens: 41}\n",
        NULL);
    struct pl_arm_info infos[2];
    struct pl_plan *p;
    (void)state;
    sim_infos(infos, 2);
    p = make(s, infos, 0, 1);
    assert_true(near(pl_plan_trial_s(s, infos, 0, 0), (2000 + 40 * 300) * 1e-6));
    assert_true(near(pl_plan_trial_s(s, infos, 1, 0), 0.5 * (2000 + 10 * (30 + 400)) * 1e-6));
    assert_int_equal(p->shape.rounds, 41);
    pl_plan_free(p);
    infos[1].max_rounds = 40;
    p = make(s, infos, 0, 1);
    assert_int_equal(p->shape.rounds, 40);
    pl_plan_free(p);
    pl_sweep_free(s);
}

static void test_prefill_mode(void **state)
{
    static const char *const set[] = {"measure.mode=prefill"};
    struct pl_select sel = {.set = set, .n_set = 1};
    struct pl_sweep *s = unit_sweep(two_groups, &sel);
    struct pl_arm_info infos[5];
    struct pl_plan *p;
    (void)state;
    sim_infos(infos, 5);
    p = make(s, infos, 0, 1);
    assert_int_equal(p->shape.tokens, 1);
    assert_true(near(pl_plan_trial_s(s, infos, 0, 0), 1e-3));
    pl_plan_free(p);
    pl_sweep_free(s);
}

/* Each context's own number of tokens: in the times, in the KV cache, in the file's shape. */
static void test_tokens_by_context(void **state)
{
    static const char text[] =
        "data: {kind: synthetic}\n"
        "models: {sim: {engine: sim, prefill_us_per_token: 2, decode_us: 300}}\n"
        "arms: {a: {model: sim}}\n"
        "grid: {contexts: [1000, 1100], samples: 10}\n"
        "generate: {tokens: {1100: 41, 1000: 201, 7: 9}}\n";
    struct pl_sweep *s = unit_sweep(text, NULL);
    struct pl_select sel = {.contexts = "1100"};
    struct pl_arm_info infos[1];
    struct pl_plan *p;
    (void)state;
    sim_infos(infos, 1);
    infos[0].kv_bytes_per_token = 10;
    p = make(s, infos, 0, 1);
    assert_int_equal(p->shape.tokens, 201);
    assert_true(near(pl_plan_trial_s(s, infos, 0, 0), (2000 + 200 * 300) * 1e-6));
    assert_true(near(pl_plan_trial_s(s, infos, 0, 1), (2200 + 40 * 300) * 1e-6));
    assert_int_equal(pl_plan_kv_bytes(s, 0, &infos[0]), 12010); /* 1000 + 201, not 1100 + 201 */
    assert_non_null(strstr(s->resolved_text, "\"tokens\":[201,41]"));
    pl_plan_free(p);
    pl_sweep_free(s);
    s = unit_sweep(text, &sel);
    assert_int_equal(s->tokens, 41);
    assert_non_null(strstr(s->resolved_text, "\"tokens\":[41]"));
    pl_sweep_free(s);
}

static void test_virtual(void **state)
{
    static const char *const set[] = {"models.sim.virtual=true"};
    struct pl_select sel = {.set = set, .n_set = 1};
    struct pl_sweep *s = unit_sweep(two_groups, &sel);
    struct pl_arm_info infos[5];
    struct pl_plan *p;
    (void)state;
    sim_infos(infos, 5);
    p = make(s, infos, 0, 1);
    assert_true(p->estimate_s < 0.2); /* 1000 trials that nobody waits for */
    assert_true(p->trials_s > 10);
    pl_plan_free(p);
    pl_sweep_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_blocks),       in_folder(test_estimate),
        in_folder(test_block_size),   in_folder(test_residences),
        in_folder(test_rounds),       in_folder(test_drafting),
        in_folder(test_prefill_mode), in_folder(test_tokens_by_context),
        in_folder(test_virtual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
