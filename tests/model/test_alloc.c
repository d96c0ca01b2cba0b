/* Nothing is allocated between a prompt and the last token: steps and verification take what the
 * session, the cache and the device hold already. */
#include "fixture.h"

#include <stdatomic.h>
#include <stdbool.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTED 1
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t to, size_t n);

static atomic_bool counting;
static atomic_int calls;

void *malloc(size_t n)
{
    atomic_fetch_add(&calls, atomic_load(&counting));
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&calls, atomic_load(&counting));
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    atomic_fetch_add(&calls, atomic_load(&counting));
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t to, size_t n)
{
    atomic_fetch_add(&calls, atomic_load(&counting));
    return __libc_memalign(to, n);
}

static int counted_steps(const char *path, int threads)
{
    struct pl_model_opts o = {.where = {.threads = threads}};
    struct pl_model *m = NULL;
    struct pl_session *s;
    int32_t ids[24];
    float *logits;

    ok(pl_model_load(path, &o, &m, &err));
    make_ids(ids, 24, 3, pl_model_info(m)->arch.vocab);
    logits = malloc(4 * (size_t)pl_model_info(m)->arch.vocab * sizeof(*logits));
    s = new_session(m, &(struct pl_session_opts){.max_tokens = 64, .max_verify = 4});
    prefill(s, ids, 24, logits);
    calls = 0;
    counting = true;
    for (int i = 0; i < 8; i++)
        ok(pl_session_decode(s, ids[i], logits, &err));
    ok(pl_session_verify(s, ids, 4, logits, &err));
    counting = false;
    pl_session_free(s);
    pl_model_free(m);
    free(logits);
    return calls;
}
#endif

static void test_steps(void **state)
{
    (void)state;
#ifdef COUNTED
    void *volatile p; /* else the compiler leaves both calls out */
    counting = true;
    p = malloc(1);
    counting = false;
    free(p);
    assert_true(calls > 0); /* the count counts */
    for (int threads = 1; threads <= 2; threads++) {
        assert_int_equal(counted_steps(GOLDENS "/plain", threads), 0);
        assert_int_equal(
            counted_steps(PL_SOURCE_DIR "/examples/models/small-llama-q4_k.gguf", threads), 0);
    }
#else
    print_message("SKIPPED: allocations are not counted beside a sanitizer or another C library\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_steps)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
