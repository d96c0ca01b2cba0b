/* Transports between two devices: of the CPU, and of one or two emulated GPUs, where NCCL is a stand-in that works or fails as it is told.
 * Says nothing of the links between two real ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "spec_decode/transport.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 6
#define WIDTH 40

static struct pl_err err;

static void ok(enum pl_status st)
{
    if (st)
        fail_msg("%s: %s", pl_status_text(st), err.text);
}

static struct pl_transport_end open_end(const char *name)
{
    struct pl_transport_end e = {.backend = pl_backend_by_name(*name == 'c' && name[1] == 'u' ? "cuda" : name)};
    const struct pl_device_opts o = {.threads = 1, .ordinal = strchr(name, ':') ? 1 : 0};

    assert_non_null(e.backend);
    ok(e.backend->open(&o, &e.device, &err));
    return e;
}

/* Rows and a whole draft, each what was sent. */
static void carries(struct pl_transport *t, const struct pl_transport_opts *o)
{
    struct pl_tensor *from = NULL, *to = NULL;
    float sent[ROWS * WIDTH], got[ROWS * WIDTH];
    struct pl_draft a, b;

    for (int i = 0; i < ROWS * WIDTH; i++)
        sent[i] = 0.5f + (float)i;
    ok(o->from.backend->tensor_create(o->from.device, ROWS, WIDTH, &from, &err));
    ok(o->to.backend->tensor_create(o->to.device, ROWS, WIDTH, &to, &err));
    ok(o->from.backend->upload(from, 0, ROWS, sent, &err));
    ok(pl_transport_carry(t, to, from, 5, &err));
    ok(o->to.backend->download(to, 0, ROWS, got, &err));
    assert_memory_equal(got, sent, 5 * WIDTH * sizeof(*got));
    assert_true(got[5 * WIDTH] == 0);
    assert_int_equal(pl_transport_carry(t, to, from, ROWS + 1, &err), PL_ERANGE);

    ok(pl_draft_init(&a, ROWS, WIDTH, 0, &err));
    ok(pl_draft_init(&b, ROWS, WIDTH, 0, &err));
    ok(pl_transport_prepare(t, &a, &b, &err));
    assert_int_equal(a.rows != NULL, pl_transport_kind(t) != PL_TRANSPORT_HOST);
    a.n = 3;
    for (int i = 0; i < 3; i++)
        a.ids[i] = 100 + i;
    if (a.rows)
        ok(o->from.backend->upload(a.rows, 0, 3, sent, &err));
    else
        memcpy(a.states, sent, 3 * WIDTH * sizeof(*sent));
    ok(pl_transport_move(t, &b, &a, &err));
    assert_int_equal(b.n, 3);
    assert_memory_equal(b.ids, a.ids, 3 * sizeof(*a.ids));
    if (b.rows)
        ok(o->to.backend->download(b.rows, 0, 3, got, &err));
    assert_memory_equal(b.rows ? got : b.states, sent, 3 * WIDTH * sizeof(*sent));
    pl_draft_release(&a);
    pl_draft_release(&b);
    o->from.backend->tensor_free(from);
    o->to.backend->tensor_free(to);
}

static void each_way(void **state)
{
    static const struct {
        const char *from, *to, *name;
        enum pl_transport_kind kind;
        bool shared;
    } pairs[] = {{"cpu", "cpu", "auto", PL_TRANSPORT_HOST, false},    {"cpu", "cuda", "auto", PL_TRANSPORT_HOST, false},
                 {"cuda", "cpu", "host", PL_TRANSPORT_HOST, false},   {"cuda", "cuda", "auto", PL_TRANSPORT_PEER, true},
                 {"cuda", "cuda", "peer", PL_TRANSPORT_PEER, true},   {"cuda", "cuda", "host", PL_TRANSPORT_HOST, true},
                 {"cuda", "cuda", "nccl", PL_TRANSPORT_NCCL, true},   {"cuda", "cuda:1", "auto", PL_TRANSPORT_PEER, false},
                 {"cuda:1", "cuda", "peer", PL_TRANSPORT_PEER, false}, {"cuda", "cuda:1", "nccl", PL_TRANSPORT_NCCL, false},
                 {"cuda:1", "cuda", "host", PL_TRANSPORT_HOST, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        const struct pl_transport_opts o = {
            .from = open_end(pairs[i].from), .to = open_end(pairs[i].to), .most = ROWS * WIDTH, .library = FAKE_NCCL};
        struct pl_transport *t = NULL;
        ok(pl_transport_open(pl_transport_by_name(pairs[i].name), &o, &t, &err));
        assert_int_equal(pl_transport_kind(t), pairs[i].kind);
        assert_int_equal(pl_transport_shared(t), pairs[i].shared);
        carries(t, &o);
        pl_transport_close(t);
        o.from.backend->close(o.from.device);
        o.to.backend->close(o.to.device);
    }
}

static void refused(const char *from, const char *to, const char *name, const char *library, const char *part)
{
    const struct pl_transport_opts o = {.from = open_end(from), .to = open_end(to), .most = ROWS * WIDTH, .library = library};
    struct pl_transport *t = NULL;

    if (pl_transport_open(pl_transport_by_name(name), &o, &t, &err) != PL_EUNSUPPORTED || !strstr(err.text, part))
        fail_msg("%s: expected \"%s\", got \"%s\"", name, part, err.text);
    assert_null(t);
    o.from.backend->close(o.from.device);
    o.to.backend->close(o.to.device);
}

static void refusals(void **state)
{
    (void)state;
    assert_int_equal(pl_transport_by_name("carrier pigeon"), PL_TRANSPORT_KINDS);
    refused("cpu", "cpu", "peer", NULL, "transport peer joins two GPUs, not cpu and cpu");
    refused("cpu", "cuda", "nccl", NULL, "transport nccl joins two GPUs, not cpu and cuda");
    refused("cuda", "cuda", "nccl", "/nowhere/libnccl.so.2", "/nowhere/libnccl.so.2");
    refused("cuda", "cuda", "nccl", "libm.so.6", "NCCL has no ncclGetUniqueId: 2.14 or later is expected");
    setenv("PACELINE_EMULATED_PEERS", "0", 1);
    refused("cuda", "cuda:1", "peer", NULL, "peer copy: GPU 0 does not reach GPU 1");
    unsetenv("PACELINE_EMULATED_PEERS");
}

/* Whatever NCCL does: an error, in time; what was begun is aborted; later carries say the same. */
static void nccl_fails(void **state)
{
    static const struct {
        int mode;
        enum pl_status status;
        const char *part;
    } modes[] = {{1, PL_EDEVICE, "a send and a receive: remote process exited"},
                 {2, PL_ETIMEOUT, "a send and a receive: nothing came of it in 0.1 s"},
                 {3, PL_EDEVICE, "ncclSend: invalid argument"}};
    void *so = dlopen(FAKE_NCCL, RTLD_NOW | RTLD_LOCAL);
    int *mode, *made, *destroyed, *aborted;

    (void)state;
    assert_non_null(so);
    mode = dlsym(so, "fake_mode");
    made = dlsym(so, "fake_made");
    destroyed = dlsym(so, "fake_destroyed");
    aborted = dlsym(so, "fake_aborted");
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        const struct pl_transport_opts o = {.from = open_end("cuda"),
                                            .to = open_end("cuda"),
                                            .most = ROWS * WIDTH,
                                            .library = FAKE_NCCL,
                                            .deadline_ns = 100 * PL_NS_PER_MS};
        struct pl_tensor *from = NULL, *to = NULL;
        struct pl_transport *t = NULL;
        *mode = *aborted = *made = *destroyed = 0;
        ok(pl_transport_open(PL_TRANSPORT_NCCL, &o, &t, &err));
        assert_int_equal(*made, 2);
        ok(o.from.backend->tensor_create(o.from.device, ROWS, WIDTH, &from, &err));
        ok(o.to.backend->tensor_create(o.to.device, ROWS, WIDTH, &to, &err));
        ok(pl_transport_carry(t, to, from, 1, &err));
        *mode = modes[i].mode;
        for (int again = 0; again < 2; again++) {
            int64_t t0 = pl_now_ns();
            err.text[0] = '\0';
            assert_int_equal(pl_transport_carry(t, to, from, 1, &err), modes[i].status);
            assert_true(pl_now_ns() - t0 < 5 * PL_NS_PER_S);
            if (!strstr(err.text, modes[i].part))
                fail_msg("expected \"%s\", got \"%s\"", modes[i].part, err.text);
            assert_int_equal(*aborted, 2);
            *mode = 0; /* broken it stays, whatever the library says now */
        }
        pl_transport_close(t);
        assert_true(*aborted == 2 && *destroyed == 0);
        o.from.backend->tensor_free(from);
        o.to.backend->tensor_free(to);
        o.from.backend->close(o.from.device);
        o.to.backend->close(o.to.device);
    }
    /* communicators that cannot be made: two ranks on one GPU, as older versions say */
    struct pl_transport_opts o = {.from = open_end("cuda"), .to = open_end("cuda"), .most = 1, .library = FAKE_NCCL};
    struct pl_transport *t = NULL;
    *mode = 4;
    assert_int_equal(pl_transport_open(PL_TRANSPORT_NCCL, &o, &t, &err), PL_EDEVICE);
    assert_non_null(strstr(err.text, "ncclCommInitRankConfig: invalid usage"));
    *mode = *destroyed = *aborted = 0;
    ok(pl_transport_open(PL_TRANSPORT_NCCL, &o, &t, &err));
    pl_transport_close(t);
    assert_true(*destroyed == 2 && *aborted == 0);
    o.from.backend->close(o.from.device);
    o.to.backend->close(o.to.device);
    dlclose(so);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_way), cmocka_unit_test(refusals), cmocka_unit_test(nccl_fails)};

    setenv("PACELINE_EMULATED_GPUS", "2", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
