/* A runner's result as a row, and the messages' sizes: what comes from outside is checked before it
 * is believed. */
#include "unit.h"

#include "base/json.h"
#include "results/quality.h"
#include "results/reader.h"
#include "worker/rank/comm.h"
#include "worker/rank/msg.h"
#include "worker/rank/row.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct pl_shape shape = {.arms = 1,
                                      .contexts = 1,
                                      .samples = 1,
                                      .repeats = 1,
                                      .batch = 1,
                                      .tokens = 4,
                                      .models = 2,
                                      .layers = 2,
                                      .rounds = 4,
                                      .metrics = PL_QUALITY_COUNT};

static enum pl_status parse(const char *text, struct pl_row *row, struct pl_err *err)
{
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    const enum pl_status st = pl_row_from_result(j, &shape, 1, row, err);
    json_decref(j);
    return st;
}

static void test_full_result(void **state)
{
    (void)state;
    struct pl_row row;
    struct pl_err err = {""};
    char why[256];
    assert_int_equal(pl_row_init(&row, &shape, &err), PL_OK);
    assert_int_equal(
        parse(
            "{\"prompt_tokens\":64,\"generated\":[4],\"tokens\":[[5,9,0,2147483647]],"
            "\"token_ns\":[[1200000,2000000,3000000,4000000]],"
            "\"phases_ns\":{\"tokenize\":200000,\"prefill\":1000000,\"verify\":2800000,\"wait\":0},"
            "\"ttft_ns\":1200000,\"total_ns\":4000000,\"kv_len\":[[[64,60]],[[3]]],"
            "\"rounds\":[[{\"drafted\":2,\"accepted\":2,\"draft_us\":7,\"verify_us\":9}]],"
            "\"counts\":{\"rounds\":1,\"drafted\":2,\"accepted\":2,\"free_tokens\":1,\"cut\":0},"
            "\"bytes\":{\"weights\":3145728,\"kv\":5},\"ids_hash\":\"00000000000000ff\","
            "\"quality\":{\"perplexity\":12.5,\"accuracy\":1,\"f1\":null,\"taste\":\"?\"},"
            "\"synthetic\":true,\"unknown\":[1,{}]}",
            &row, &err),
        PL_OK);
    const struct pl_trial *t = row.trial;
    assert_true(t->tokenize_ms == 0.2 && t->prefill_ms == 1.0 && t->total_ms == 4.0);
    assert_true(isnan(t->decode_ms) && isnan(t->d_prefill_ms));
    assert_int_equal(t->prompt_tokens, 64);
    assert_int_equal(t->generated, 4);
    assert_int_equal(t->ids_hash, 255);
    assert_int_equal(t->weights_bytes, 3145728);
    assert_int_equal(t->workspace_bytes, 0);
    assert_int_equal(t->synthetic, 1);
    assert_int_equal(row.tokens[3], 2147483647);
    assert_true(row.token_ms[1] == 2.0f);
    assert_int_equal(row.kv_len[0], 64);
    assert_int_equal(row.kv_len[1], 60);
    assert_int_equal(row.kv_len[2], 3);
    assert_int_equal(row.kv_len[3], 0);
    assert_int_equal(row.rounds[0].drafted, 2);
    assert_int_equal(row.rounds[0].verify_us, 9);
    assert_true(row.quality[PL_QUALITY_PERPLEXITY] == 12.5);
    assert_true(row.quality[PL_QUALITY_ACCURACY] == 1);
    assert_true(isnan(row.quality[PL_QUALITY_F1]) && isnan(row.quality[PL_QUALITY_AGREEMENT]));
    assert_null(pl_row_check(&shape, &row, why, sizeof why));
    /* the next one starts from nothing */
    assert_int_equal(parse("{\"generated\":[0],\"ttft_ns\":1,\"total_ns\":2}", &row, &err), PL_OK);
    assert_int_equal(row.tokens[0], -1);
    assert_int_equal(row.kv_len[0], 0);
    assert_true(isnan(row.quality[PL_QUALITY_ACCURACY]));
    assert_true(isnan(row.trial->prefill_ms) && isnan(row.token_ms[0]));
    pl_row_release(&row);
}

static void test_spans(void **state)
{
    (void)state;
    static const char *const bad[] = {"{\"spans\":1}",
                                      "{\"spans\":[1]}",
                                      "{\"spans\":[[0,3,5]]}",
                                      "{\"spans\":[[2,3,5,6]]}",
                                      "{\"spans\":[[0,12,5,6]]}",
                                      "{\"spans\":[[0,3,6,5]]}",
                                      "{\"spans\":[[0,3,-1,5]]}",
                                      "{\"spans\":[[0,3,0.5,5]]}"};
    struct pl_lane_span spans[PL_SPANS_MAX];
    struct pl_err err = {""};
    uint32_t n = 9;
    json_t *j = json_loads("{\"spans\":[[0,3,0,2000000],[1,10,1000000,1500000]]}", 0, NULL);
    assert_int_equal(pl_spans_from_result(j, spans, &n, &err), PL_OK);
    assert_int_equal(n, 2);
    assert_true(spans[1].lane == 1 && spans[1].kind == 10 && spans[1].start_ms == 1 &&
                spans[1].end_ms == 1.5);
    json_decref(j);
    j = json_object();
    assert_int_equal(pl_spans_from_result(j, spans, &n, &err), PL_OK);
    assert_int_equal(n, 0);
    json_decref(j);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        j = json_loads(bad[i], 0, NULL);
        assert_non_null(j);
        assert_int_equal(pl_spans_from_result(j, spans, &n, &err), PL_EPROTO);
        assert_non_null(strstr(err.text, "spans"));
        json_decref(j);
    }
}

static void test_bad_results(void **state)
{
    (void)state;
    static const struct {
        const char *json, *key;
    } bad[] = {
        {"{\"generated\":[1],\"total_ns\":2}", "ttft_ns"},
        {"{\"generated\":[1],\"ttft_ns\":1}", "total_ns"},
        {"{\"ttft_ns\":1,\"total_ns\":2}", "generated"},
        {"{\"generated\":[1],\"ttft_ns\":1.5,\"total_ns\":2}", "ttft_ns"},
        {"{\"generated\":[1],\"ttft_ns\":-1,\"total_ns\":2}", "ttft_ns"},
        {"{\"generated\":[1],\"ttft_ns\":\"1\",\"total_ns\":2}", "ttft_ns"},
        {"{\"generated\":1,\"ttft_ns\":1,\"total_ns\":2}", "generated"},
        {"{\"generated\":[],\"ttft_ns\":1,\"total_ns\":2}", "generated"},
        {"{\"generated\":[5],\"ttft_ns\":1,\"total_ns\":2}", "generated"},
        {"{\"generated\":[1,1],\"ttft_ns\":1,\"total_ns\":2}", "generated"},
        {"{\"generated\":[1],\"tokens\":[[1,2,3,4,5]],\"ttft_ns\":1,\"total_ns\":2}", "tokens"},
        {"{\"generated\":[1],\"tokens\":[[-1]],\"ttft_ns\":1,\"total_ns\":2}", "tokens"},
        {"{\"generated\":[1],\"tokens\":[[2147483648]],\"ttft_ns\":1,\"total_ns\":2}", "tokens"},
        {"{\"generated\":[1],\"tokens\":[1],\"ttft_ns\":1,\"total_ns\":2}", "tokens"},
        {"{\"generated\":[1],\"tokens\":[[1],[1]],\"ttft_ns\":1,\"total_ns\":2}", "tokens"},
        {"{\"generated\":[1],\"token_ns\":[[1.5]],\"ttft_ns\":1,\"total_ns\":2}", "token_ns"},
        {"{\"generated\":[1],\"kv_len\":[[[1,2,3]]],\"ttft_ns\":1,\"total_ns\":2}", "kv_len"},
        {"{\"generated\":[1],\"kv_len\":[[[1]],[[1]],[[1]]],\"ttft_ns\":1,\"total_ns\":2}",
         "kv_len"},
        {"{\"generated\":[1],\"kv_len\":{},\"ttft_ns\":1,\"total_ns\":2}", "kv_len"},
        {"{\"generated\":[1],\"phases_ns\":[],\"ttft_ns\":1,\"total_ns\":2}", "phases_ns"},
        {"{\"generated\":[1],\"phases_ns\":{\"decode\":true},\"ttft_ns\":1,\"total_ns\":2}",
         "decode"},
        {"{\"generated\":[1],\"counts\":{\"cut\":-1},\"ttft_ns\":1,\"total_ns\":2}", "cut"},
        {"{\"generated\":[1],\"counts\":{\"cut\":4294967296},\"ttft_ns\":1,\"total_ns\":2}", "cut"},
        {"{\"generated\":[1],\"rounds\":[[{\"drafted\":1,\"accepted\":2}]],\"ttft_ns\":1,\"total_"
         "ns\":2}",
         "rounds"},
        {"{\"generated\":[1],\"rounds\":[[1]],\"ttft_ns\":1,\"total_ns\":2}", "rounds"},
        {"{\"generated\":[1],\"ids_hash\":\"xyz\",\"ttft_ns\":1,\"total_ns\":2}", "ids_hash"},
        {"{\"generated\":[1],\"quality\":[],\"ttft_ns\":1,\"total_ns\":2}", "quality"},
        {"{\"generated\":[1],\"quality\":{\"f1\":\"1\"},\"ttft_ns\":1,\"total_ns\":2}",
         "quality.f1"},
        {"{\"generated\":[1],\"synthetic\":1,\"ttft_ns\":1,\"total_ns\":2}", "synthetic"},
    };
    struct pl_row row;
    assert_int_equal(pl_row_init(&row, &shape, NULL), PL_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pl_err err = {""};
        assert_int_equal(parse(bad[i].json, &row, &err), PL_EPROTO);
        if (!strstr(err.text, bad[i].key))
            fail_msg("%s: \"%s\" does not name %s", bad[i].json, err.text, bad[i].key);
    }
    pl_row_release(&row);
}

static void test_messages(void **state)
{
    (void)state;
    unsigned char buf[4096] = {0};
    struct pl_msg_lease *l = (struct pl_msg_lease *)buf;
    struct pl_msg_progress *p = (struct pl_msg_progress *)buf;
    const struct pl_msg_wait wait = {.head = pl_msg_head(PL_MSG_WAIT)};
    assert_int_equal(pl_msg_check(&wait, sizeof wait), PL_MSG_WAIT);
    assert_int_equal(pl_msg_check(&wait, sizeof wait - 1), PL_MSG_NONE);
    assert_int_equal(pl_msg_check(buf, sizeof buf), PL_MSG_NONE);
    *l = (struct pl_msg_lease){.head = pl_msg_head(PL_MSG_LEASE), .n_cells = 9};
    assert_int_equal(pl_msg_check(buf, sizeof *l + 2), PL_MSG_LEASE);
    assert_int_equal(pl_msg_check(buf, sizeof *l + 1), PL_MSG_NONE);
    l->has_again = 1;
    assert_int_equal(pl_msg_check(buf, sizeof *l + 4), PL_MSG_LEASE);
    l->n_cells = UINT32_MAX;
    assert_int_equal(pl_msg_check(buf, sizeof *l + 4), PL_MSG_NONE);
    *p = (struct pl_msg_progress){.head = pl_msg_head(PL_MSG_PROGRESS), .n = 3};
    assert_int_equal(pl_msg_check(buf, sizeof *p + 15), PL_MSG_PROGRESS);
    assert_int_equal(pl_msg_check(buf, sizeof *p + 14), PL_MSG_NONE);
    p->head.type = PL_MSG_TYPES;
    assert_int_equal(pl_msg_check(buf, sizeof *p + 15), PL_MSG_NONE);
    assert_string_equal(pl_msg_name(PL_MSG_BYE), "BYE");
    assert_string_equal(pl_msg_name((enum pl_msg_type)77), "?");
}

static void test_loop(void **state)
{
    (void)state;
    struct pl_comm *c[3];
    struct pl_err err = {""};
    const void *buf;
    size_t n;
    int src;
    assert_int_equal(pl_comm_loop_open(3, c, &err), PL_OK);
    assert_false(pl_comm_poll(c[0], &src, &buf, &n));
    assert_int_equal(pl_comm_send(c[1], 0, "one", 4, &err), PL_OK);
    assert_int_equal(pl_comm_send(c[2], 0, "two", 4, &err), PL_OK);
    assert_int_equal(pl_comm_send(c[1], 0, "", 0, &err), PL_OK);
    assert_int_equal(pl_comm_send(c[1], 3, "x", 1, &err), PL_ERANGE);
    assert_true(pl_comm_poll(c[0], &src, &buf, &n));
    assert_int_equal(src, 1);
    assert_string_equal(buf, "one");
    assert_true(pl_comm_poll(c[0], &src, &buf, &n));
    assert_int_equal(src, 2);
    assert_true(pl_comm_poll(c[0], &src, &buf, &n));
    assert_int_equal(n, 0);
    assert_false(pl_comm_poll(c[0], &src, &buf, &n));
    assert_int_equal(pl_comm_send(c[0], 2, "late", 5, &err), PL_OK);
    pl_comm_close(c[2]); /* with a letter unread */
    assert_int_equal(pl_comm_send(c[0], 2, "gone", 5, &err), PL_OK);
    pl_comm_close(c[1]);
    pl_comm_close(c[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_result), cmocka_unit_test(test_spans),
        cmocka_unit_test(test_bad_results), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
