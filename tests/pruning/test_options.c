/* An arm's `prune` from outside: what is wrong with it is said once, by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pruning/method.h"

#include <stdio.h>
#include <string.h>

static const struct pl_arch arch = {
    .name = "Test", .layers = 6, .hidden = 40, .heads = 4, .kv_heads = 2, .causal = true};

static enum pl_status check(const char *text, struct pl_prune_opts *o, struct pl_err *err)
{
    json_t *j = json_loads(text, 0, NULL);
    enum pl_status st;

    assert_non_null(j);
    st = pl_prune_opts_read(j, &arch, o, err);
    json_decref(j);
    return st;
}

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *json, *says;
    } bad[] = {
        {"[]", "a map is expected"},
        {"{}", "prune.method is missing"},
        {"{\"method\": \"snap\"}", "prune.method is \"snap\", expected one of sdtp|"},
        {"{\"method\": \"random\", \"keep\": 0.9}", "prune.layers is missing"},
        {"{\"method\": \"random\", \"layers\": [1]}", "keep (or total_keep) is missing"},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": 0}", "prune.keep is 0, expected"},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": 1.01}", "prune.keep is 1.01"},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": -0.5}", "prune.keep is -0.5"},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": \"0.9\"}", "prune.keep is \"0.9\""},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": [0.9, 0.8]}",
         "2 numbers for 1 stages"},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": [0.9, 2]}", "prune.keep is [0.9,2"},
        {"{\"method\": \"random\", \"layers\": [1], \"total_keep\": 0}", "prune.total_keep is 0"},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": 0.9, \"total_keep\": 0.9}",
         "one of them"},
        {"{\"method\": \"random\", \"layers\": [6], \"keep\": 0.9}",
         "6 is not a layer of this model"},
        {"{\"method\": \"random\", \"layers\": [-1], \"keep\": 0.9}", "prune.layers is [-1]"},
        {"{\"method\": \"random\", \"layers\": [2, 2], \"keep\": 0.9}", "2 after 2"},
        {"{\"method\": \"random\", \"layers\": [], \"keep\": 0.9}", "prune.layers is []"},
        {"{\"method\": \"random\", \"layers\": [1.5], \"keep\": 0.9}", "prune.layers is [1.5]"},
        {"{\"method\": \"random\", \"layers\": [1], \"keep\": 0.9, \"window\": 3}",
         "prune.window is not an option of random, but of snapkv|pyramidkv"},
        {"{\"method\": \"snapkv\", \"keep\": 0.9, \"kernel\": 4}",
         "prune.kernel is 4, expected an odd"},
        {"{\"method\": \"snapkv\", \"keep\": 0.9, \"layers\": [1]}", "not an option of snapkv"},
        {"{\"method\": \"snapkv\", \"total_keep\": 0.9}", "not an option of snapkv"},
        {"{\"method\": \"snapkv\", \"keep\": [0.9, 0.8]}", "2 numbers for 1"},
        {"{\"method\": \"snapkv\", \"keep\": 0.9, \"stages\": 1}", "unknown key \"stages\""},
        {"{\"method\": \"sdtp\", \"keep\": 0.9}", "prune.weights is missing"},
        {"{\"method\": \"sdtp\", \"keep\": 0.9, \"weights\": \"/no/such.safetensors\"}",
         "/no/such"},
    };
    struct pl_prune_opts o;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pl_err err = {""};
        if (check(bad[i].json, &o, &err) == PL_OK || !strstr(err.text, bad[i].says))
            fail_msg("%s: \"%s\", expected \"%s\"", bad[i].json, err.text, bad[i].says);
    }
}

static void defaults_are_filled_in(void **state)
{
    struct pl_prune_opts o;
    struct pl_err err = {""};

    (void)state;
    assert_int_equal(check("{\"method\": \"fastv\", \"keep\": 0.5, \"seed\": null}", &o, &err),
                     PL_OK);
    assert_true(o.visual && o.n_layers == 1 && o.layers[0] == 1 && o.keep[0] == 0.5);
    assert_int_equal(
        check("{\"method\": \"random\", \"keep\": [1, 0.5, 0.25], \"layers\": [0, 2, 5],"
              "\"positions\": \"renumbered\", \"seed\": 7}",
              &o, &err),
        PL_OK);
    assert_true(!o.visual && o.n_layers == 3 && o.n_keep == 3 && o.keep[2] == 0.25);
    assert_true(o.positions == PL_POSITIONS_RENUMBERED && o.has_seed && o.seed == 7);
    assert_true(o.rule.head == 4 && o.rule.tail == 0.1 && o.rule.tail_min == 16);
    assert_int_equal(check("{\"method\": \"pyramidkv\", \"keep\": 0.3}", &o, &err), PL_OK);
    assert_true(o.window == 32 && o.kernel == 5 && o.beta == 20);
}

static void only_decoders(void **state)
{
    struct pl_arch a = arch;
    struct pl_err err = {""};
    json_t *j = json_pack("{s:s,s:f}", "method", "h2o", "keep", 0.5);

    (void)state;
    assert_int_equal(pl_prune_check(j, &a, &err), PL_OK);
    a.encoder_layers = 2;
    assert_int_equal(pl_prune_check(j, &a, &err), PL_EUNSUPPORTED);
    a.encoder_layers = 0;
    a.causal = false;
    assert_int_equal(pl_prune_check(j, &a, &err), PL_EUNSUPPORTED);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mistakes_are_named),
                                       cmocka_unit_test(defaults_are_filled_in),
                                       cmocka_unit_test(only_decoders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
