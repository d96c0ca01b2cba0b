#include "worker/runner/limits.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define BUFFER_BYTES ((size_t)256 << 20)
#define READ_NS (600 * PL_NS_PER_MS)
#define FMA_NS (200 * PL_NS_PER_MS)
#define FMA_ITERATIONS 500000 /* a pass of a millisecond or so */

/* Eight sums side by side: the adds must not be what is waited for. */
typedef uint64_t vec __attribute__((vector_size(32)));

static uint64_t read_part(const vec *p, size_t n)
{
    vec s[8] = {{0}};
    uint64_t total = 0;

    for (size_t i = 0; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++)
            s[j] += p[i + j];
    for (size_t j = 0; j < 8; j++)
        for (size_t k = 0; k < 4; k++)
            total += s[j][k];
    return total;
}

/* Each returns the operations done; `sink` keeps the compiler from dropping them. Twelve chains
 * hide an FMA's latency (4 cycles, two units). */
#define CHAINS 12

static double fma_portable(float *sink)
{
    typedef float v4 __attribute__((vector_size(16)));
    v4 a[CHAINS], m = {0.999f, 0.999f, 0.999f, 0.999f}, c = {1e-3f, 1e-3f, 1e-3f, 1e-3f};

    for (int j = 0; j < CHAINS; j++)
        a[j] = (v4){(float)j, 1, 2, 3};
    for (int i = 0; i < FMA_ITERATIONS / 4; i++)
        for (int j = 0; j < CHAINS; j++)
            a[j] = a[j] * m + c;
    for (int j = 0; j < CHAINS; j++)
        *sink += a[j][0];
    return 2.0 * 4 * CHAINS * (FMA_ITERATIONS / 4);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static double fma_avx2(float *sink)
{
    __m256 a[CHAINS], m = _mm256_set1_ps(0.999f), c = _mm256_set1_ps(1e-3f);

    for (int j = 0; j < CHAINS; j++)
        a[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < FMA_ITERATIONS; i++)
        for (int j = 0; j < CHAINS; j++)
            a[j] = _mm256_fmadd_ps(a[j], m, c);
    for (int j = 0; j < CHAINS; j++)
        *sink += _mm256_cvtss_f32(a[j]);
    return 2.0 * 8 * CHAINS * FMA_ITERATIONS;
}

__attribute__((target("avx512f"))) static double fma_avx512(float *sink)
{
    __m512 a[CHAINS], m = _mm512_set1_ps(0.999f), c = _mm512_set1_ps(1e-3f);

    for (int j = 0; j < CHAINS; j++)
        a[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < FMA_ITERATIONS; i++)
        for (int j = 0; j < CHAINS; j++)
            a[j] = _mm512_fmadd_ps(a[j], m, c);
    for (int j = 0; j < CHAINS; j++)
        *sink += _mm512_cvtss_f32(a[j]);
    return 2.0 * 16 * CHAINS * FMA_ITERATIONS;
}
#endif

static double int8_portable(float *sink)
{
    static int8_t a[4096], b[4096];
    int32_t sum = 0;

    for (int i = 0; i < FMA_ITERATIONS / 2048; i++) {
        __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
        for (int j = 0; j < 4096; j++)
            sum += a[j] * b[j];
    }
    *sink += (float)sum;
    return 2.0 * 4096 * (FMA_ITERATIONS / 2048);
}

#if defined(__x86_64__)
/* Six chains, twice a turn: on Zen 3 103 · 10⁹ multiply-adds a second, one vpmaddubsw each cycle;
 * eight or twelve chains 96 to 98, ten 82. */
__attribute__((target("avx2"))) static double int8_avx2(float *sink)
{
    enum { INT8_CHAINS = 6 };
    __m256i a[INT8_CHAINS], w = _mm256_set1_epi8(3), one = _mm256_set1_epi16(1);

    for (int j = 0; j < INT8_CHAINS; j++)
        a[j] = _mm256_set1_epi32(j);
    for (int i = 0; i < FMA_ITERATIONS / 2; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 2 * INT8_CHAINS; j++) {
            __m256i *to = &a[j % INT8_CHAINS];
            __asm__ volatile("" : "+x"(w)); /* not the same product again */
            *to = _mm256_add_epi32(*to, _mm256_madd_epi16(_mm256_maddubs_epi16(w, w), one));
        }
    }
    for (int j = 0; j < INT8_CHAINS; j++)
        *sink += (float)_mm256_extract_epi32(a[j], 0);
    return 2.0 * 32 * 2 * INT8_CHAINS * (FMA_ITERATIONS / 2);
}

#define VNNI_CHAINS 10
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static double int8_vnni(float *sink)
{
    __m512i a[VNNI_CHAINS], w = _mm512_set1_epi8(3);

    for (int j = 0; j < VNNI_CHAINS; j++)
        a[j] = _mm512_set1_epi32(j);
    for (int i = 0; i < FMA_ITERATIONS; i++)
#pragma GCC unroll 10
        for (int j = 0; j < VNNI_CHAINS; j++)
            a[j] = _mm512_dpbusd_epi32(a[j], w, w);
    for (int j = 0; j < VNNI_CHAINS; j++)
        *sink += (float)_mm512_cvtsi512_si32(a[j]);
    return 2.0 * 64 * VNNI_CHAINS * FMA_ITERATIONS;
}

/* As many chains as an Intel core's ten cycles a sum want of one unit. */
#define BF16_CHAINS 12
__attribute__((target("avx512f,avx512bf16"))) static double bf16_avx512(float *sink)
{
    __m512 a[BF16_CHAINS];
    __m512bh w = (__m512bh)_mm512_set1_epi32(0x3f803f80);

    for (int j = 0; j < BF16_CHAINS; j++)
        a[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < FMA_ITERATIONS; i++)
#pragma GCC unroll 12
        for (int j = 0; j < BF16_CHAINS; j++)
            a[j] = _mm512_dpbf16_ps(a[j], w, w);
    for (int j = 0; j < BF16_CHAINS; j++)
        *sink += _mm512_cvtss_f32(a[j]);
    return 2.0 * 32 * BF16_CHAINS * FMA_ITERATIONS;
}
#endif

/* NULL: none. */
static double (*best_bf16(void))(float *)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16"))
        return bf16_avx512;
#endif
    return NULL;
}

static double (*best_int8(void))(float *)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw"))
        return int8_vnni;
    if (__builtin_cpu_supports("avx2"))
        return int8_avx2;
#endif
    return int8_portable;
}

static double (*best_fma(const char **name))(float *)
{
    *name = "portable";
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        *name = "avx512";
        return fma_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        *name = "avx2";
        return fma_avx2;
    }
#endif
    return fma_portable;
}

struct crew {
    pthread_mutex_t gate; /* held until it is known how many threads there are */
    pthread_barrier_t barrier;
    double (*fma)(float *), (*int8)(float *), (*bf16)(float *);
    int wanted, threads; /* asked for, made */
    bool stop;
    struct pl_limits *out;
};

struct member {
    struct crew *crew;
    int index;
    const vec *part;
    size_t n;
    uint64_t sink;
    float fsink;
};

/* Passes of one kind (compute NULL: reading), all threads in step, until `ns` are over; the first
 * thread keeps the time and the best rate. The two barriers around the decision let everybody see
 * it. */
static void passes(struct member *m, double (*compute)(float *), int64_t ns, double *best)
{
    struct crew *c = m->crew;
    int64_t begin = pl_now_ns();
    bool over = false;

    while (!over) {
        double amount;
        pthread_barrier_wait(&c->barrier);
        int64_t t0 = pl_now_ns();
        if (!compute) {
            m->sink += read_part(m->part, m->n);
            amount = (double)(m->n * sizeof(vec));
        } else {
            amount = compute(&m->fsink);
        }
        pthread_barrier_wait(&c->barrier);
        if (m->index == 0) {
            int64_t now = pl_now_ns();
            double rate = amount * c->threads * 1e9 / (double)(now - t0);
            if (rate > *best)
                *best = rate;
            c->stop = now - begin > ns;
        }
        pthread_barrier_wait(&c->barrier);
        over = c->stop;
    }
}

static void *work(void *arg)
{
    struct member *m = arg;
    struct crew *c = m->crew;

    if (m->index) {
        pthread_mutex_lock(&c->gate);
        bool all = c->threads == c->wanted;
        pthread_mutex_unlock(&c->gate);
        if (!all)
            return NULL;
    }
    passes(m, NULL, READ_NS, &c->out->read_bytes_per_s);
    passes(m, c->fma, FMA_NS, &c->out->f32_flop_per_s);
    passes(m, c->int8, FMA_NS, &c->out->int8_op_per_s);
    if (c->bf16)
        passes(m, c->bf16, FMA_NS, &c->out->bf16_flop_per_s);
    return NULL;
}

enum pl_status pl_limits_measure(int threads, struct pl_limits *out, struct pl_err *err)
{
    struct pl_limits got = {0};
    const char *name;
    struct crew c = {.wanted = threads, .out = &got, .gate = PTHREAD_MUTEX_INITIALIZER};
    size_t part = BUFFER_BYTES / (size_t)threads / sizeof(vec) / 8 * 8;
    struct member *members = calloc((size_t)threads, sizeof(*members));
    pthread_t *ids = calloc((size_t)threads, sizeof(*ids));
    vec *buffer = aligned_alloc(64, BUFFER_BYTES);
    enum pl_status st = PL_OK;
    int started = 0;

    c.fma = best_fma(&name);
    snprintf(got.vectors, sizeof(got.vectors), "%s", name);
    c.int8 = best_int8();
    c.bf16 = best_bf16();
    if (!members || !ids || !buffer ||
        pthread_barrier_init(&c.barrier, NULL, (unsigned)threads) != 0) {
        st = pl_fail(err, PL_ENOMEM, "limits: no memory for %zu bytes", BUFFER_BYTES);
        goto out;
    }
    pthread_mutex_lock(&c.gate);
    memset(buffer, 1, BUFFER_BYTES); /* every page there before the clock runs */
    for (int i = 0; i < threads; i++)
        members[i] =
            (struct member){.crew = &c, .index = i, .part = buffer + (size_t)i * part, .n = part};
    for (started = 1; started < threads; started++)
        if (pthread_create(&ids[started], NULL, work, &members[started]) != 0)
            break;
    c.threads = started;
    pthread_mutex_unlock(&c.gate);
    if (started == threads)
        (void)work(&members[0]);
    for (int i = 1; i < started; i++)
        pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&c.barrier);
    if (started == threads)
        *out = got;
    else
        st = pl_fail(err, PL_ESYS, "limits: only %d of %d threads could be made", started, threads);
out:
    free(buffer);
    free(ids);
    free(members);
    return st;
}

enum pl_status pl_limits_measure_apart(int threads, struct pl_limits *out, struct pl_err *err)
{
    struct pl_limits got;
    int ends[2], code = 0;
    ssize_t n = 0;

    if (pipe(ends) != 0)
        return pl_fail(err, PL_ESYS, "limits: no pipe");
    pid_t child = fork();
    if (child == 0) {
        bool ok = pl_limits_measure(threads, &got, err) == PL_OK &&
                  write(ends[1], &got, sizeof(got)) == (ssize_t)sizeof(got);
        _exit(ok ? 0 : 1);
    }
    close(ends[1]);
    if (child > 0)
        n = read(ends[0], &got, sizeof(got));
    close(ends[0]);
    if (child > 0)
        (void)waitpid(child, &code, 0);
    if (child < 0 || n != (ssize_t)sizeof(got) || code != 0)
        return pl_fail(err, PL_ESYS, "limits: the measuring process failed");
    *out = got;
    return PL_OK;
}
