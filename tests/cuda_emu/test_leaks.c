/* Every allocation of the CUDA backend fails in turn, then every wait for the device: whatever a program was at is told as an error, and
 * once all is freed the (emulated) device and the pinned memory hold what they held before. Each in a process of its own: a planted fault
 * counts a process's calls. */
#include "fixture.h"

#include "cuda_runtime_api.h"
#include "spec_decode/transport.h"

#include <sys/wait.h>
#include <unistd.h>

#define MOST 400
#define N 12

static struct pl_err err;

static size_t in_use(void)
{
    size_t free = 0, total = 0;

    return cudaMemGetInfo(&free, &total) ? 0 : total - free;
}

/* A decoder with every kind of call; stops at what fails. */
static enum pl_status decoder(const char *name)
{
    static const int taps[] = {1, PL_TAP_FINAL};
    const struct pl_session_opts o = {
        .max_tokens = 64, .max_verify = N, .kv_dtype = PL_DT_BF16, .taps = taps, .n_taps = 2};
    const struct pl_model_opts mo = {.device = "cuda", .dtype = PL_DT_AUTO};
    int32_t ids[N], parents[N] = {-1}, path[2] = {0, 1};
    struct pl_session *s = NULL;
    struct pl_model *m = NULL;
    float *logits = NULL, *hidden = NULL;
    enum pl_status st;
    char at[256];

    snprintf(at, sizeof(at), GOLDENS "/%s", name);
    st = pl_model_load(at, &mo, &m, &err);
    if (!st) {
        const struct pl_arch *a = &pl_model_info(m)->arch;
        logits = calloc((size_t)a->vocab * N, sizeof(*logits));
        hidden = calloc((size_t)a->hidden * N, sizeof(*hidden));
        st = pl_session_create(m, &o, &s, &err);
    }
    for (int i = 0; i < N; i++) {
        ids[i] = i + 1;
        parents[i] = i - 1;
    }
    if (!st)
        st = pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = N}, logits, &err);
    if (!st)
        st = pl_session_decode(s, 3, logits, &err);
    if (!st)
        st = pl_session_verify(s, ids, N, logits, &err);
    if (!st)
        st = pl_session_hidden_copy(s, 0, 0, N, hidden, &err);
    if (!st)
        st = pl_session_rollback(s, N, &err);
    parents[2] = 0;
    if (!st)
        st = pl_session_tree(s, &(struct pl_prompt){.ids = ids, .n = 4}, parents, logits, &err);
    if (!st)
        st = pl_session_keep_path(s, path, 2, &err);
    if (!st)
        st = pl_model_embed(m, ids, 4, hidden, &err);
    free(hidden);
    free(logits);
    pl_session_free(s);
    pl_model_free(m);
    return st;
}

static enum pl_status decode_llama(void)
{
    return decoder("tied_bf16");
}

/* An encoder–decoder, whose source makes the decoder's workspace grow. */
static enum pl_status encode_t5(void)
{
    const struct pl_model_opts mo = {.device = "cuda", .dtype = PL_DT_F32};
    const struct pl_session_opts o = {.max_tokens = 16, .max_source = 40, .max_verify = 2};
    static const int32_t ids[N] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    struct pl_session *s = NULL;
    struct pl_model *m = NULL;
    float *logits = NULL;
    enum pl_status st = pl_model_load(GOLDENS "/families/t5", &mo, &m, &err);

    if (!st)
        logits = calloc((size_t)pl_model_info(m)->arch.vocab, sizeof(*logits));
    if (!st)
        st = pl_session_create(m, &o, &s, &err);
    if (!st)
        st = pl_session_encode(s, &(struct pl_source){.ids = ids, .n = N}, NULL, &err);
    if (!st)
        st = pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = 1}, logits, &err);
    free(logits);
    pl_session_free(s);
    pl_model_free(m);
    return st;
}

/* Tensors, a weight, operations that need scratch, a copy between two devices, a transport. */
static enum pl_status tensors(void)
{
    const struct pl_backend *b = pl_backend_by_name("cuda");
    const struct pl_weight_source ws = {.name = "w", .key = 1, .std = 0.1f, .rows = 24, .cols = 16};
    struct pl_device *d[2] = {NULL, NULL};
    struct pl_tensor *x = NULL, *y = NULL, *z = NULL, *w = NULL;
    struct pl_transport *t = NULL;
    static float numbers[N * 24];
    static const int32_t pick[3] = {0, 2, 5};
    int32_t best[24];
    enum pl_status st = b->open(NULL, &d[0], &err);

    if (!st)
        st = b->open(NULL, &d[1], &err);
    if (!st)
        st = b->tensor_create(d[0], N, 16, &x, &err);
    if (!st)
        st = b->tensor_create(d[0], N, 24, &y, &err);
    if (!st)
        st = b->tensor_create(d[1], N, 24, &z, &err);
    if (!st)
        st = b->weight_create(d[0], &ws, PL_DT_BF16, &w, &err);
    if (!st)
        st = b->upload(x, 0, N, numbers, &err);
    if (!st)
        st = b->linear(y, x, w, NULL, &err);
    if (!st)
        st = b->argmax(y, best, &err);
    if (!st)
        st = b->topk(y, 5, best, &err);
    if (!st)
        st = b->gather(y, y, pick, 3, &err);
    const struct pl_transport_opts o = {.from = {b, d[0]}, .to = {b, d[1]}, .most = N * 24};
    if (!st)
        st = pl_transport_open(PL_TRANSPORT_PEER, &o, &t, &err);
    if (!st)
        st = pl_transport_carry(t, z, y, N, &err);
    if (!st)
        st = b->download(z, 0, N, numbers, &err);
    pl_transport_close(t);
    b->tensor_free(w);
    b->tensor_free(z);
    b->tensor_free(y);
    b->tensor_free(x);
    b->close(d[1]);
    b->close(d[0]);
    return st;
}

/* A model with eyes that makes its pixels on the device: file to rows. */
static enum pl_status eyes(void)
{
    const struct pl_model_opts mo = {.device = "cuda", .dtype = PL_DT_F32, .device_pixels = true};
    const struct pl_media media = {.kind = PL_MEDIA_EVENTS, .path = PL_SOURCE_DIR "/tests/model/vision/events/p4core.npy", .max_window_ms = -1};
    struct pl_pixels p = {.v = NULL};
    struct pl_model *m = NULL;
    static float rows[22 * 32];
    enum pl_status st = pl_model_load(PL_SOURCE_DIR "/tests/model/vision/eventgpt", &mo, &m, &err);
    struct pl_vision *v = st ? NULL : pl_model_vision(m);

    if (!st)
        st = pl_vision_load(pl_vision_config(v), &media, pl_vision_room(v), &p, NULL, NULL, &err);
    if (!st)
        st = pl_vision_encode(v, &p, rows, &err);
    pl_pixels_release(&p);
    pl_model_free(m);
    return st;
}

enum { FINE, TOLD, LEAKED, UNTOLD };

/* With call number n of that kind failing; in a process of its own. */
static int child(const char *kind, int n, enum pl_status want, enum pl_status (*run)(void))
{
    const size_t before = in_use();
    char fault[32];
    enum pl_status st;
    int said;

    snprintf(fault, sizeof(fault), "%s:%d", kind, n);
    setenv("PACELINE_CUDA_FAULT", fault, 1);
    st = run();
    said = st == PL_OK ? FINE : st == want ? TOLD : UNTOLD;
    if (in_use() != before)
        said = LEAKED;
    if (said == UNTOLD)
        fprintf(stderr, "%s\n", err.text);
    return said;
}

static void each(const char *kind, enum pl_status want, enum pl_status (*run)(void))
{
    int n = 1;

    for (bool more = true; more && n < MOST; n++) {
        int status = 0;
        fflush(NULL);
        pid_t pid = fork();
        if (!pid)
            _exit(child(kind, n, want, run));
        assert_true(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) > TOLD)
            fail_msg("%s:%d: %s", kind, n,
                     !WIFEXITED(status)               ? "the program died"
                     : WEXITSTATUS(status) == LEAKED ? "memory is left behind"
                                                     : "another error than the planted one");
        more = WEXITSTATUS(status) == TOLD;
    }
    assert_true(n > 4 && n < MOST); /* something failed, and at last nothing did */
    print_message("%s: %d calls failed in turn\n", kind, n - 2);
}

static void allocations(void **state)
{
    (void)state;
    each("alloc", PL_ENOMEM, decode_llama);
    each("alloc", PL_ENOMEM, encode_t5);
    each("alloc", PL_ENOMEM, tensors);
    each("alloc", PL_ENOMEM, eyes);
}

static void waits(void **state)
{
    (void)state;
    each("sync", PL_EDEVICE, decode_llama);
    each("sync", PL_EDEVICE, encode_t5);
    each("sync", PL_EDEVICE, tensors);
    each("sync", PL_EDEVICE, eyes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(allocations), cmocka_unit_test(waits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
