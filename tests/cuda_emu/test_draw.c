/* Draws on the device: the CPU's tokens, for any size of vocabulary, temperature and number, with
 * ids left out. */
#include "base/rng.h"
#include "model/cuda/kernels.h"
#include "spec_decode/accept.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MOST 33000

static float logits[MOST], p[MOST];
static struct pl_rng rng;

static void on_device(size_t vocab, const int32_t *ends, double temperature, double u,
                      int32_t *picks)
{
    const double both[2] = {temperature, u};
    int32_t draw[PL_CUDA_DRAW];

    memcpy(draw, both, sizeof(both));
    pl_k_draw(logits, 0, 1, (int64_t)vocab, ends, draw, picks, NULL);
    cudaDeviceSynchronize();
}

static void check(size_t vocab, double temperature, size_t n_ends)
{
    static const double edges[] = {0, 1 - 0x1p-53, 0.5};
    struct pl_accept_rule rule = {.temperature = temperature};
    int32_t ends[PL_MAX_EOS], picks[2];
    struct pl_err err;

    for (size_t i = 0; i < vocab; i++)
        logits[i] = (float)(pl_rng_normal(&rng) * 3);
    for (size_t i = 0; i < PL_MAX_EOS; i++)
        ends[i] = i < n_ends ? (int32_t)((i * 5 + 2) % vocab) : -1;
    if (n_ends)
        logits[ends[0]] = 20; /* the likeliest is left out */
    rule.masked = ends;
    rule.n_masked = n_ends;
    assert_int_equal(pl_accept_probs(&rule, logits, vocab, p, &err), PL_OK);
    for (int i = 0; i < (vocab > 5000 ? 7 : 40); i++) {
        const double u = i < 3 ? edges[i] : pl_rng_double(&rng);
        const int32_t want = pl_accept_draw(p, vocab, u);
        on_device(vocab, ends, temperature, u, picks);
        if (picks[0] != want)
            fail_msg("%zu ids, temperature %g, u %.17g: %d, expected %d", vocab, temperature, u,
                     picks[0], want);
        assert_int_equal(picks[1], n_ends ? ends[0] : want);
    }
}

static void test_tokens(void **state)
{
    static const size_t vocabs[] = {3, 32, 1000, 1025, 4096, 32000, MOST};

    (void)state;
    for (size_t i = 0; i < sizeof(vocabs) / sizeof(*vocabs); i++) {
        check(vocabs[i], 0.3, 0);
        check(vocabs[i], 1, 1);
        check(vocabs[i], 4, vocabs[i] > 40 ? PL_MAX_EOS : 1);
    }
}

/* How often each of three ids comes: what the logits say. */
static void test_frequencies(void **state)
{
    const float three[] = {logf(0.5F), logf(0.3F), logf(0.2F)};
    int32_t ends[PL_MAX_EOS], picks[2], n[3] = {0, 0, 0};

    (void)state;
    memcpy(logits, three, sizeof(three));
    for (size_t i = 0; i < PL_MAX_EOS; i++)
        ends[i] = -1;
    for (int i = 0; i < 1000; i++) {
        on_device(3, ends, 1, (i + 0.5) / 1000, picks);
        n[picks[0]]++;
    }
    assert_int_equal(n[0], 500);
    assert_int_equal(n[1], 300);
    assert_int_equal(n[2], 200);
}

static void test_broken(void **state)
{
    static const float values[] = {NAN, INFINITY};
    int32_t ends[PL_MAX_EOS], picks[2];

    (void)state;
    for (size_t i = 0; i < PL_MAX_EOS; i++)
        ends[i] = -1;
    for (size_t k = 0; k < 2; k++) {
        memset(logits, 0, sizeof(logits));
        logits[777] = values[k];
        on_device(1500, ends, 1, 0.4, picks);
        assert_int_equal(picks[0], -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tokens),
                                       cmocka_unit_test(test_frequencies),
                                       cmocka_unit_test(test_broken)};

    pl_rng_init(&rng, 5);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
