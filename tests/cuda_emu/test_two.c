/* Two models, each on an (emulated) GPU of its own, every call made while the other's GPU is the thread's current one: the numbers are
 * those of the same calls with one GPU. What is launched, recorded or allocated on the wrong one, the emulation refuses; under the address
 * sanitizer it tells a kernel that reads the other's memory. Says nothing of two real GPUs' links or order. */
#include "fixture.h"

#include "cuda_runtime_api.h"
#include "model/cuda/kernels.h"

#include <pthread.h>

#define N 12
#define ROOM 4096

/* What one model said. */
struct said {
    float numbers[ROOM];
    size_t n;
};

static const int32_t ids[N] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static void say(struct said *s, const float *p, size_t n)
{
    n = n < 64 ? n : 64;
    assert_true(s->n + n <= ROOM);
    memcpy(s->numbers + s->n, p, n * sizeof(*p));
    s->n += n;
}

static struct pl_model *load(const char *name, int gpu, enum pl_dtype dtype)
{
    const struct pl_model_opts mo = {.device = "cuda", .where = {.ordinal = gpu}, .dtype = dtype};
    struct pl_model *m = NULL;
    char at[256];

    snprintf(at, sizeof(at), GOLDENS "/%s", name);
    ok(pl_model_load(at, &mo, &m, &err));
    return m;
}

/* for each of the n ≥ 1 models in turn */
#define EACH(i) for (int i = 0; i == 0 || i < n; i++)

/* Every call that a decoder takes, on n models alternately. */
static void decoders(const char *name, int n, const int gpu[2], struct said out[2])
{
    static const int taps[] = {1, PL_TAP_FINAL};
    const struct pl_session_opts o = {.max_tokens = 64, .max_verify = N, .taps = taps, .n_taps = 2};
    static const int32_t path[2] = {0, 1}, parents[4] = {-1, 0, 0, 2}, keep[4] = {0, 1, 3, 4};
    struct pl_model *m[2];
    struct pl_session *s[2];
    float *logits[2], *hidden[2];

    EACH(i) m[i] = load(name, gpu[i], PL_DT_F32);
    const struct pl_arch *a = &pl_model_info(m[0])->arch;
    int32_t heads_keep[4 * 16];
    assert_true(a->kv_heads <= 16);
    for (int32_t h = 0; h < a->kv_heads; h++)
        memcpy(heads_keep + 4 * h, keep, sizeof(keep));
    EACH(i) ok(pl_session_create(m[i], &o, &s[i], &err));
    EACH(i)
    {
        logits[i] = calloc((size_t)a->vocab * N, sizeof(float));
        hidden[i] = calloc((size_t)a->hidden * N, sizeof(float));
    }
    EACH(i) ok(pl_session_prefill(s[i], &(struct pl_prompt){.ids = ids, .n = N}, logits[i], &err));
    EACH(i) say(&out[i], logits[i], (size_t)a->vocab);
    EACH(i) ok(pl_session_kv_keep(s[i], 1, heads_keep, 4, &err));
    EACH(i) ok(pl_session_decode(s[i], 3, logits[i], &err));
    EACH(i) say(&out[i], logits[i], (size_t)a->vocab);
    EACH(i)
    {
        bool copied;
        struct pl_picked p;
        ok(pl_session_decode_pick(s[i], 4, ids, 1, NULL, logits[i], &copied, &p, &err));
        say(&out[i], &(float){(float)p.id}, 1);
    }
    EACH(i) ok(pl_session_verify(s[i], ids, 5, logits[i], &err));
    EACH(i) say(&out[i], logits[i] + 4 * a->vocab, (size_t)a->vocab);
    EACH(i) ok(pl_session_hidden_copy(s[i], 0, 0, 5, hidden[i], &err));
    EACH(i) say(&out[i], hidden[i], (size_t)a->hidden);
    EACH(i) ok(pl_session_rollback(s[i], 5, &err));
    EACH(i) ok(pl_session_tree(s[i], &(struct pl_prompt){.ids = ids, .n = 4}, parents, logits[i], &err));
    EACH(i) say(&out[i], logits[i] + 3 * a->vocab, (size_t)a->vocab);
    EACH(i) ok(pl_session_keep_path(s[i], path, 2, &err));
    EACH(i) ok(pl_session_decode(s[i], 5, logits[i], &err));
    EACH(i) say(&out[i], logits[i], (size_t)a->vocab);
    EACH(i) ok(pl_model_embed(m[i], ids, 4, hidden[i], &err));
    EACH(i) say(&out[i], hidden[i], (size_t)a->hidden);
    EACH(i) pl_session_free(s[i]);
    EACH(i) pl_model_free(m[i]);
    EACH(i)
    {
        free(logits[i]);
        free(hidden[i]);
    }
}

/* An encoder–decoder and an encoder with a pooler. */
static void encoders(const char *name, int n, const int gpu[2], struct said out[2])
{
    const struct pl_session_opts o = {.max_tokens = 16, .max_source = 40, .max_verify = 2};
    struct pl_session *s[2];
    struct pl_model *m[2];
    float *room[2];

    EACH(i) m[i] = load(name, gpu[i], PL_DT_F32);
    const struct pl_arch *a = &pl_model_info(m[0])->arch;
    EACH(i) ok(pl_session_create(m[i], &o, &s[i], &err));
    EACH(i) room[i] = calloc((size_t)(a->vocab > a->hidden ? a->vocab : a->hidden), sizeof(float));
    EACH(i) ok(pl_session_encode(s[i], &(struct pl_source){.ids = ids, .n = N}, NULL, &err));
    if (a->causal) {
        EACH(i) ok(pl_session_prefill(s[i], &(struct pl_prompt){.ids = ids, .n = 2}, room[i], &err));
        EACH(i) say(&out[i], room[i], (size_t)a->vocab);
    } else {
        EACH(i) ok(pl_session_pooled(s[i], room[i], &err));
        EACH(i) say(&out[i], room[i], (size_t)a->hidden);
    }
    EACH(i) pl_session_free(s[i]);
    EACH(i) pl_model_free(m[i]);
    EACH(i) free(room[i]);
}

/* The operation table; device clocks and memory with it. */
static void operations(const char *name, int n, const int gpu[2], struct said out[2])
{
    const struct pl_backend *b = pl_backend_by_name("cuda");
    const struct pl_weight_source ws = {.name = "w", .key = 1, .std = 0.1f, .rows = 16, .cols = 16};
    struct pl_tensor *x[2], *y[2], *w[2], *gain[2];
    struct pl_device_ceilings ceilings;
    struct pl_device_memory memory;
    static float numbers[N * 16];
    struct pl_device *d[2];
    int32_t best[N];

    (void)name;
    for (int i = 0; i < N * 16; i++)
        numbers[i] = (float)(i * 7 % 13) - 6;
    EACH(i) ok(b->open(&(struct pl_device_opts){.ordinal = gpu[i]}, &d[i], &err));
    EACH(i) b->memory(d[i], true, &memory);
    EACH(i) b->mark(d[i], 0);
    EACH(i) ok(b->tensor_create(d[i], N, 16, &x[i], &err));
    EACH(i) ok(b->tensor_create(d[i], N, 16, &y[i], &err));
    EACH(i) ok(b->tensor_create(d[i], 1, 16, &gain[i], &err));
    EACH(i) ok(b->weight_create(d[i], &ws, PL_DT_F32, &w[i], &err));
    EACH(i) ok(b->upload(x[i], 0, N, numbers, &err));
    EACH(i) ok(b->upload(gain[i], 0, 1, numbers, &err));
    EACH(i) ok(b->linear(y[i], x[i], w[i], NULL, &err));
    EACH(i) ok(b->norm(PL_NORM_RMS, 1e-5f, x[i], y[i], gain[i], NULL, &err));
    EACH(i) ok(b->activate(PL_ACT_GELU, x[i], x[i], &err));
    EACH(i) ok(b->axpby(0.5f, x[i], 2, y[i], &err));
    EACH(i) ok(b->attention(x[i], y[i], y[i], y[i], 2, true, &err));
    EACH(i) ok(b->copy(y[i], 0, x[i], 2, 3, &err));
    EACH(i)
    {
        ok(b->topk(x[i], 5, best, &err));
        say(&out[i], &(float){(float)best[4]}, 1);
    }
    EACH(i) ok(b->gather(y[i], x[i], (const int32_t[]){0, 2, 5}, 3, &err));
    EACH(i)
    {
        ok(b->argmax(y[i], best, &err));
        say(&out[i], &(float){(float)best[0]}, 1);
    }
    EACH(i)
    {
        ok(b->download(y[i], 0, 4, numbers, &err));
        say(&out[i], numbers, 64);
    }
    EACH(i) b->mark(d[i], 1);
    EACH(i) assert_true(b->between(d[i], 0, 1) >= 0);
    EACH(i) ok(b->ceilings(d[i], &ceilings, &err));
    EACH(i)
    {
        b->memory(d[i], false, &memory);
        assert_true(memory.peak >= 2 * N * 16 * 4);
    }
    EACH(i) b->tensor_free(x[i]);
    EACH(i) b->tensor_free(y[i]);
    EACH(i) b->tensor_free(gain[i]);
    EACH(i) b->tensor_free(w[i]);
    EACH(i) b->close(d[i]);
}

static size_t in_use(int gpu)
{
    size_t free = 0, total = 0;

    assert_int_equal(cudaSetDevice(gpu), cudaSuccess);
    assert_int_equal(cudaMemGetInfo(&free, &total), cudaSuccess);
    return total - free;
}

static void both(void (*run)(const char *, int, const int[2], struct said[2]), const char *name)
{
    static const int two[2] = {0, 1}, one[2] = {0, 0};
    struct said *out = calloc(3, sizeof(*out));

    run(name, 2, two, out);
    for (int gpu = 0; gpu < 2; gpu++)
        assert_int_equal(in_use(gpu), 0);
    run(name, 1, one, out + 2);
    assert_true(out[2].n > 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(out[i].n, out[2].n);
        assert_memory_equal(out[i].numbers, out[2].numbers, out[2].n * sizeof(float));
    }
    free(out);
}

static void two_decoders(void **state)
{
    (void)state;
    both(decoders, "tied_bf16");
    both(decoders, "families/gpt2");
}

static void two_encoders(void **state)
{
    (void)state;
    both(encoders, "families/t5");
    both(encoders, "families/bert");
}

static void two_tables(void **state)
{
    (void)state;
    both(operations, "");
}

/* A thread begins with GPU 0 as its current one, whatever another has made current. */
static void *in_a_thread(void *arg)
{
    both(decoders, arg);
    return NULL;
}

static void lanes(void **state)
{
    static char name[] = "tied_bf16";
    pthread_t t;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, in_a_thread, name), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
}

/* The emulation refuses what a GPU refuses: else the tests above could not fail. */
static void refused(void **state)
{
    cudaStream_t s;
    cudaEvent_t e;
    int can = -1;

    (void)state;
    assert_int_equal(cudaSetDevice(1), cudaSuccess);
    assert_int_equal(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaSetDevice(0), cudaSuccess);
    assert_int_equal(cudaEventCreate(&e), cudaSuccess);
    assert_int_equal(cudaEventRecord(e, s), cudaErrorInvalidResourceHandle);
    pl_k_act(PL_ACT_RELU, NULL, PL_DT_F32, NULL, NULL, PL_DT_F32, 1, s);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidResourceHandle);
    assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
    assert_int_equal(cudaDeviceCanAccessPeer(&can, 0, 1), cudaSuccess);
    assert_int_equal(can, 1);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidDevice);
    cudaEventDestroy(e);
    cudaStreamDestroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(refused), cmocka_unit_test(two_tables), cmocka_unit_test(two_decoders), cmocka_unit_test(two_encoders),
                                       cmocka_unit_test(lanes)};

    setenv("PACELINE_EMULATED_GPUS", "2", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
