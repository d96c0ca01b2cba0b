/* The simulated engine keeps what it promises: laws, keys, identities. */
#include "base/rng.h"
#include "worker/runner/sim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define MAX_TOKENS 256

static int32_t tokens[MAX_TOKENS];
static int64_t token_ns[MAX_TOKENS];
static struct pl_trial_round rounds[MAX_TOKENS];
static uint32_t kv_len[1];
static const struct pl_sim_room room = {
    .tokens = tokens, .token_ns = token_ns, .rounds = rounds, .kv_len = kv_len};

static struct pl_sim_params params(const char *model, const char *arm)
{
    json_t *m = json_loads(model, 0, NULL), *a = json_loads(arm, 0, NULL);
    struct pl_sim_params p;
    struct pl_err err = {""};

    assert_non_null(m);
    assert_non_null(a);
    if (pl_sim_params_read(m, a, &p, &err))
        fail_msg("%s", err.text);
    json_decref(m);
    json_decref(a);
    return p;
}

static struct pl_sim_key key(const char *arm, uint64_t sample, uint64_t repeat, uint64_t attempt)
{
    return (struct pl_sim_key){.seed = 7,
                               .arm = pl_hash_str(arm),
                               .device = pl_hash_str("gpu-0"),
                               .context = 64,
                               .sample = sample,
                               .repeat = repeat,
                               .attempt = attempt};
}

static void log_normal_and_mean_preserving(void **state)
{
    enum { N = 20000 };
    struct pl_sim_params p = params("{\"noise\": 0.2}", "{}");
    double sum = 0, logs = 0, squares = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        struct pl_sim_key k = key("a", i, 0, 0);
        double f = pl_sim_factor(&p, &k);
        sum += f;
        logs += log(f);
        squares += log(f) * log(f);
    }
    double mean = sum / N, mu = logs / N, sd = sqrt(squares / N - mu * mu);
    /* Five standard errors: 0.2 / √N of the means, σ / √(2N) of the deviation. */
    assert_true(fabs(mean - 1) < 5 * 0.2 / sqrt(N));
    assert_true(fabs(mu + 0.02) < 5 * 0.2 / sqrt(N));
    assert_true(fabs(sd - 0.2) < 5 * 0.2 / sqrt(2.0 * N));
}

static void every_part_of_the_key_counts(void **state)
{
    struct pl_sim_params p = params("{\"noise\": 0.1}", "{}");
    struct pl_sim_key k = key("a", 1, 2, 0), other;
    double f = pl_sim_factor(&p, &k);

    (void)state;
    assert_true(f == pl_sim_factor(&p, &k));
    other = key("b", 1, 2, 0);
    assert_true(f != pl_sim_factor(&p, &other));
    other = key("a", 2, 2, 0);
    assert_true(f != pl_sim_factor(&p, &other));
    other = key("a", 1, 3, 0);
    assert_true(f != pl_sim_factor(&p, &other));
    other = key("a", 1, 2, 1);
    assert_true(f != pl_sim_factor(&p, &other));
    other = k;
    other.context = 65;
    assert_true(f != pl_sim_factor(&p, &other));
    other = k;
    other.seed = 8;
    assert_true(f != pl_sim_factor(&p, &other));
    other = k;
    other.device = 1; /* no device effect: no difference */
    assert_true(f == pl_sim_factor(&p, &other));
}

static void effects_are_common_to_the_arms(void **state)
{
    const char *model = "{\"sample_effect\": 0.3, \"device_effect\": 0.1}";
    struct pl_sim_params a = params(model, "{}"), b = params(model, "{\"scale\": 0.98}");

    (void)state;
    for (uint64_t i = 0; i < 100; i++) {
        struct pl_sim_key ka = key("a", i, 0, 0), kb = key("b", i, 3, 1);
        double fa = pl_sim_factor(&a, &ka), fb = pl_sim_factor(&b, &kb);
        assert_true(fabs(fb / fa - 0.98) < 1e-12);
        kb.device = 5;
        assert_true(fabs(pl_sim_factor(&b, &kb) / fa - 0.98) > 1e-9);
    }
}

static int64_t phase_sum(const struct pl_trial_result *r)
{
    int64_t sum = 0;

    for (int i = 0; i < PL_PHASE_COUNT; i++)
        sum += r->phase_ns[i] > 0 ? r->phase_ns[i] : 0;
    return sum;
}

static void plain_times_are_planted(void **state)
{
    struct pl_sim_params p = params("{\"prefill_us_per_token\": 2, \"decode_us\": 300}", "{}");
    struct pl_sim_key k = key("a", 3, 0, 0);
    struct pl_trial_result r;

    (void)state;
    pl_sim_trial(&p, &k, 1, 32, false, &room, &r);
    assert_int_equal(r.ttft_ns, 128000);
    assert_int_equal(r.total_ns, 128000 + 31 * 300000);
    assert_int_equal(r.token_ns[5], 128000 + 5 * 300000);
    assert_int_equal(r.generated, 32);
    assert_int_equal(r.prompt_tokens, 64);
    assert_int_equal(r.kv_len[0], 64);
    assert_int_equal(phase_sum(&r), r.total_ns);
    assert_int_equal(r.phase_ns[PL_PHASE_DRAFT], -1);
    assert_true(r.synthetic);
    pl_sim_trial(&p, &k, 0.123456789, 32, true, &room, &r);
    assert_int_equal(r.generated, 1);
    assert_int_equal(r.total_ns, r.ttft_ns);
    assert_int_equal(phase_sum(&r), r.total_ns);
}

static void greedy_text_is_the_samples(void **state)
{
    struct pl_sim_params plain = params("{}", "{}");
    struct pl_sim_params draft = params("{}", "{\"acceptance\": 0.5, \"gamma\": 3}");
    struct pl_sim_key a = key("a", 3, 0, 0), b = key("b", 3, 4, 1), c = key("a", 4, 0, 0);
    int32_t first[MAX_TOKENS];
    struct pl_trial_result ra, rb, rc;

    (void)state;
    pl_sim_trial(&plain, &a, 1, 64, false, &room, &ra);
    memcpy(first, tokens, 64 * sizeof(first[0]));
    pl_sim_trial(&draft, &b, 1, 64, false, &room, &rb);
    assert_memory_equal(first, tokens, 64 * sizeof(first[0]));
    assert_true(ra.ids_hash == rb.ids_hash && ra.logits_hash == rb.logits_hash);
    pl_sim_trial(&plain, &c, 1, 64, false, &room, &rc);
    assert_true(ra.ids_hash != rc.ids_hash && memcmp(first, tokens, 64 * sizeof(first[0])) != 0);
}

/* generated = 1 + Σ(accepted + 1) − cut, cut in the last round only, phases = total. */
static void drafting_identities(void **state)
{
    (void)state;
    for (int gamma = 1; gamma <= 8; gamma++) {
        char arm[128];
        snprintf(arm, sizeof(arm),
                 "{\"draft\": {\"acceptance\": 0.7, \"gamma\": %d, \"draft_us\": 31.7}}", gamma);
        struct pl_sim_params p = params("{\"verify_us\": 333.3, \"noise\": 0.3}", arm);
        assert_true(p.drafts);
        for (uint32_t n = 1; n <= 40; n++) {
            struct pl_sim_key k = key("d", n, (uint64_t)gamma, 0);
            struct pl_trial_result r;
            uint32_t sum = 1, accepted = 0;
            pl_sim_trial(&p, &k, pl_sim_factor(&p, &k), n, false, &room, &r);
            for (uint32_t i = 0; i < r.n_rounds; i++) {
                assert_int_equal(r.rounds[i].drafted, gamma);
                assert_true(r.rounds[i].accepted <= (uint32_t)gamma);
                assert_true(sum < n); /* no round begins that is not needed */
                sum += r.rounds[i].accepted + 1;
                accepted += r.rounds[i].accepted;
            }
            assert_int_equal(r.generated, n);
            assert_int_equal(sum - r.cut, n);
            assert_int_equal(r.accepted, accepted);
            assert_int_equal(r.drafted, r.n_rounds * (uint32_t)gamma);
            if (r.n_rounds)
                assert_true(r.cut <= r.rounds[r.n_rounds - 1].accepted);
            assert_int_equal(phase_sum(&r), r.total_ns);
            for (uint32_t i = 1; i < n; i++)
                assert_true(r.token_ns[i] >= r.token_ns[i - 1]);
            assert_int_equal(r.token_ns[n - 1], r.total_ns);
        }
    }
}

static void acceptance_is_planted(void **state)
{
    const double a = 0.7;
    const int gamma = 4;
    struct pl_sim_params p = params("{}", "{\"acceptance\": 0.7, \"gamma\": 4}");
    double sum = 0, squares = 0, n = 0;

    (void)state;
    for (uint64_t s = 0; s < 500; s++) {
        struct pl_sim_key k = key("d", s, 0, 0);
        struct pl_trial_result r;
        pl_sim_trial(&p, &k, 1, 128, false, &room, &r);
        for (uint32_t i = 0; i < r.n_rounds; i++, n++) {
            sum += r.rounds[i].accepted + 1.0;
            squares += (r.rounds[i].accepted + 1.0) * (r.rounds[i].accepted + 1.0);
        }
    }
    double mean = sum / n, sd = sqrt(squares / n - mean * mean);
    double expected = (1 - pow(a, gamma + 1)) / (1 - a);
    assert_true(fabs(mean - expected) < 5 * sd / sqrt(n));
}

static void failures_are_planted(void **state)
{
    enum { N = 20000 };
    const double p[PL_SIM_FAILS] = {0.02, 0.05, 0.1, 0.2};
    struct pl_sim_params q = params(
        "{\"fail\": {\"crash\": 0.02, \"hang\": 0.05, \"oom\": 0.1, \"garbage\": 0.2}}", "{}");
    struct pl_sim_params none = params("{}", "{}");
    struct pl_sim_params arm = params("{\"fail\": {\"oom\": 1}}", "{\"fail\": {\"oom\": 0}}");
    int count[PL_SIM_FAILS + 1] = {0}, again = 0;
    double left = 1;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        struct pl_sim_key k = key("a", i, 0, 0), retry = key("a", i, 0, 1);
        enum pl_sim_fail f = pl_sim_draw_fail(&q, &k);
        count[f]++;
        again += f != PL_SIM_FAILS && pl_sim_draw_fail(&q, &retry) != PL_SIM_FAILS;
        assert_int_equal(f, pl_sim_draw_fail(&q, &k));
        assert_int_equal(pl_sim_draw_fail(&none, &k), PL_SIM_FAILS);
        assert_int_equal(pl_sim_draw_fail(&arm, &k), PL_SIM_FAILS);
    }
    for (int f = 0; f < PL_SIM_FAILS; f++) { /* in turn, each among those that were spared so far */
        double expected = left * p[f];
        assert_true(fabs(count[f] - N * expected) < 5 * sqrt(N * expected));
        left *= 1 - p[f];
    }
    double both = (1 - left) * (1 - left); /* a retry draws anew */
    assert_true(fabs(again - N * both) < 5 * sqrt(N * both));
}

static void the_nearest_key_wins(void **state)
{
    const char *model =
        "{\"decode_us\": 50, \"acceptance\": 0.5, \"gamma\": 2, \"draft_us\": null}";
    struct pl_sim_params p = params(model, "{\"acceptance\": null}");

    (void)state;
    assert_true(p.drafts && p.acceptance == 0.5 && p.gamma == 2 && p.verify_us == 50);
    p = params(model, "{\"gamma\": 3, \"draft\": {\"verify_us\": 7, \"gamma\": 4}}");
    assert_true(p.drafts && p.acceptance == 0.5 && p.gamma == 4 && p.verify_us == 7);
    assert_false(params("{}", "{\"draft\": null}").drafts);
}

static void refuses(const char *model, const char *arm, const char *word)
{
    json_t *m = json_loads(model, 0, NULL), *a = json_loads(arm, 0, NULL);
    struct pl_sim_params p;
    struct pl_err err = {""};

    assert_int_equal(pl_sim_params_read(m, a, &p, &err), PL_ESWEEP);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not name %s", err.text, word);
    json_decref(m);
    json_decref(a);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    refuses("{\"noise\": -1}", "{}", "noise");
    refuses("{\"decode_us\": \"fast\"}", "{}", "decode_us");
    refuses("{\"virtual\": 3}", "{}", "virtual");
    refuses("{\"fail\": {\"oom\": 2}}", "{}", "oom");
    refuses("{\"fail\": 1}", "{}", "fail");
    refuses("{\"cold\": 0.5}", "{}", "cold");
    refuses("{}", "{\"scale\": 0}", "scale");
    refuses("{}", "{\"acceptance\": 1.1}", "acceptance");
    refuses("{}", "{\"draft\": {\"gamma\": 1.5}}", "gamma");
    refuses("{}", "{\"draft\": {\"gamma\": 0}}", "gamma");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_normal_and_mean_preserving),
        cmocka_unit_test(every_part_of_the_key_counts),
        cmocka_unit_test(effects_are_common_to_the_arms),
        cmocka_unit_test(plain_times_are_planted),
        cmocka_unit_test(greedy_text_is_the_samples),
        cmocka_unit_test(drafting_identities),
        cmocka_unit_test(acceptance_is_planted),
        cmocka_unit_test(failures_are_planted),
        cmocka_unit_test(the_nearest_key_wins),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
