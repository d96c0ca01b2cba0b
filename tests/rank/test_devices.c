/* Who gets which device: a table of nodes, and what must hold for any. */
#include "base/rng.h"
#include "worker/rank/devices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define RANKS 8

/* "host/w/AB": host, w worker or c coordinator, devices by letter: A … Y a cuda device each, z the
 * CPU. Result "host index/count devices". */
static void parse(const char *s, int rank, struct pl_device_report *r)
{
    memset(r, 0, sizeof(*r));
    r->rank = rank;
    r->worker = strchr(s, '/')[1] == 'w';
    snprintf(r->host, sizeof(r->host), "%.*s", (int)(strchr(s, '/') - s), s);
    for (const char *p = strrchr(s, '/') + 1; *p; p++) {
        struct pl_device *d = &r->devices[r->n++];
        snprintf(d->kind, sizeof(d->kind), "%s", *p == 'z' ? "cpu" : "cuda");
        snprintf(d->uuid, sizeof(d->uuid), *p == 'z' ? "cpu" : "GPU-%c", *p);
    }
}

static void print_deal(const struct pl_device_deal *d, char *out, size_t size)
{
    char set[3] = "";

    for (uint32_t i = 0; i < d->n; i++)
        set[i] = strcmp(d->set[i].kind, "cpu") == 0 ? 'z' : d->set[i].uuid[4];
    snprintf(out, size, "%d/%d %s", d->local_index, d->local_count, d->n ? set : "-");
}

static const struct {
    const char *kind;
    uint32_t set_size;
    const char *ranks[RANKS], *deals[RANKS];
} table[] = {
    /* a laptop: rank 0 alone works */
    {"auto", 1, {"a/w/z"}, {"0/1 z"}},
    /* the CPU is shared; the coordinator takes no share */
    {"auto", 1, {"a/c/z", "a/w/z", "a/w/z"}, {"-1/0 -", "0/2 z", "1/2 z"}},
    /* everyone sees all GPUs */
    {"auto", 1, {"a/c/ABz", "a/w/ABz", "a/w/ABz"}, {"-1/0 -", "0/2 A", "1/2 B"}},
    /* more workers than GPUs: the last idles, and does not take the CPU */
    {"auto", 1, {"a/w/ABz", "a/w/ABz", "a/w/ABz"}, {"0/3 A", "1/3 B", "2/3 -"}},
    /* --gpus-per-task: each its own, the coordinator's is nobody's */
    {"cuda", 1, {"a/c/Az", "a/w/Bz", "a/w/Cz"}, {"-1/0 -", "0/2 B", "1/2 C"}},
    /* who has one choice goes first */
    {"cuda", 1, {"a/w/ABz", "a/w/Az"}, {"0/2 B", "1/2 A"}},
    /* pairs */
    {"cuda", 2, {"a/w/ABCDz", "a/w/ABCDz", "a/w/ABCDz"}, {"0/3 AB", "1/3 CD", "2/3 -"}},
    {"cuda", 2, {"a/w/ABCz", "a/w/ABCz"}, {"0/2 AB", "1/2 -"}},
    {"cuda", 2, {"a/w/Az", "a/w/Bz"}, {"0/2 -", "1/2 -"}},
    /* the CPU counts as both devices of a pair */
    {"auto", 2, {"a/w/z", "a/w/z"}, {"0/2 z", "1/2 z"}},
    /* doubles in a report, and one node under two names */
    {"cuda", 1, {"a/w/AAB", "a/w/AAB"}, {"0/2 A", "1/2 B"}},
    {"cuda", 2, {"a/w/AA"}, {"0/1 -"}},
    {"cuda", 1, {"a/w/A", "b/w/A"}, {"0/1 A", "0/1 -"}},
    /* the CPU is asked for although there are GPUs; GPUs where there are none */
    {"cpu", 1, {"a/w/ABz", "a/w/ABz"}, {"0/2 z", "1/2 z"}},
    {"cuda", 1, {"a/w/z"}, {"0/1 -"}},
    {"cpu", 1, {"a/w/AB"}, {"0/1 -"}},
    /* several nodes, ranks mixed; only one has GPUs */
    {"auto",
     1,
     {"b/c/z", "b/w/z", "a/w/ABz", "b/w/z", "a/w/ABz"},
     {"-1/0 -", "0/2 z", "0/2 A", "1/2 z", "1/2 B"}},
};

static void nodes(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof(table) / sizeof(table[0]); t++) {
        struct pl_device_report reports[RANKS];
        struct pl_device_deal deals[RANKS];
        struct pl_err err;
        size_t n = 0;
        for (; n < RANKS && table[t].ranks[n]; n++)
            parse(table[t].ranks[n], (int)n, &reports[n]);
        assert_int_equal(pl_devices_deal(reports, n, table[t].kind, table[t].set_size, deals, &err),
                         PL_OK);
        for (size_t i = 0; i < n; i++) {
            char text[64];
            print_deal(&deals[i], text, sizeof(text));
            assert_string_equal(text, table[t].deals[i]);
            assert_int_equal(deals[i].rank, i);
            assert_int_equal(deals[i].n == 0, deals[i].why[0] != '\0'); /* who idles is told why */
        }
    }
}

/* Any cluster: nothing dealt twice, nothing to who did not see it, no device left over beside an
 * idle worker that saw it, and the order of the reports does not matter. */
static void any_cluster(void **state)
{
    struct pl_rng rng;

    (void)state;
    pl_rng_init(&rng, 3);
    for (int round = 0; round < 2000; round++) {
        struct pl_device_report r[RANKS], turned[RANKS];
        struct pl_device_deal d[RANKS], back[RANKS];
        char dealt[26] = {0};
        struct pl_err err;
        for (int i = 0; i < RANKS; i++) {
            char s[40];
            int len = snprintf(s, sizeof(s), "%c/%c/", "ab"[pl_rng_below(&rng, 2)],
                               "cwww"[pl_rng_below(&rng, 4)]);
            for (uint64_t k = pl_rng_below(&rng, 5); k > 0; k--)
                s[len++] = (char)((s[0] == 'a' ? 'A' : 'H') + (int)pl_rng_below(&rng, 5));
            s[len] = '\0';
            parse(s, i, &r[i]);
            turned[RANKS - 1 - i] = r[i];
        }
        assert_int_equal(pl_devices_deal(r, RANKS, "cuda", 1, d, &err), PL_OK);
        assert_int_equal(pl_devices_deal(turned, RANKS, "cuda", 1, back, &err), PL_OK);
        for (int i = 0; i < RANKS; i++) {
            bool seen = false;
            assert_memory_equal(&d[i], &back[RANKS - 1 - i], sizeof(d[i]));
            for (uint32_t k = 0; d[i].n && k < r[i].n; k++)
                seen = seen || strcmp(r[i].devices[k].uuid, d[i].set[0].uuid) == 0;
            assert_int_equal(seen, d[i].n == 1);
            if (d[i].n)
                assert_int_equal(dealt[d[i].set[0].uuid[4] - 'A']++, 0);
        }
        for (int i = 0; i < RANKS; i++) {
            for (uint32_t k = 0; r[i].worker && !d[i].n && k < r[i].n; k++)
                assert_true(dealt[r[i].devices[k].uuid[4] - 'A']);
        }
    }
}

static void hellos(void **state)
{
    struct pl_device_report r = {.rank = 1};
    json_t *h = json_pack("{s:[{s:s,s:s,s:s,s:I},{s:i},{s:s,s:I}]}", "devices", "kind", "cuda",
                          "uuid", "GPU-1", "name", "a card", "bytes", (json_int_t)85899345920,
                          "kind", 7, "kind", "cpu", "bytes", (json_int_t)-5);
    json_t *many = json_object(), *list = json_array();

    (void)state;
    assert_int_equal(pl_devices_from_hello(h, &r), 2);
    assert_string_equal(r.devices[0].uuid, "GPU-1");
    assert_string_equal(r.devices[0].name, "a card");
    assert_true(r.devices[0].bytes == 85899345920);
    assert_string_equal(r.devices[1].kind, "cpu");
    assert_string_equal(r.devices[1].uuid, "cpu");
    assert_true(r.devices[1].bytes == 0);
    json_decref(h);
    assert_int_equal(pl_devices_from_hello(NULL, &r), 1);
    assert_string_equal(r.devices[0].kind, "cpu");
    for (int i = 0; i < 40; i++)
        json_array_append_new(list, json_pack("{s:s}", "kind", "cuda"));
    json_object_set_new(many, "devices", list);
    assert_int_equal(pl_devices_from_hello(many, &r), PL_DEVICES_MAX);
    json_decref(many);
}

static void wrong_reports(void **state)
{
    struct pl_device_report r = {.n = PL_DEVICES_MAX + 1};
    struct pl_device_deal d;
    struct pl_err err;

    (void)state;
    assert_int_equal(pl_devices_deal(&r, 1, "auto", 1, &d, &err), PL_ERANGE);
    r.n = 0;
    assert_int_equal(pl_devices_deal(&r, 1, "auto", 0, &d, &err), PL_ERANGE);
    assert_int_equal(pl_devices_deal(&r, 1, "auto", 3, &d, &err), PL_ERANGE);
    assert_int_equal(pl_devices_deal(&r, 0, "auto", 1, &d, &err), PL_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes),
        cmocka_unit_test(any_cluster),
        cmocka_unit_test(hellos),
        cmocka_unit_test(wrong_reports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
