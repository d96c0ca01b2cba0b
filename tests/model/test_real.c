/* Real files that tools/get-model brings, where they are: what transformers makes of their
 * dequantised weights, greedily, and text in and out. Skips visibly where there is none. */
#include "fixture.h"

#include "model/tokenizer.h"

#include <unistd.h>

static const struct {
    const char *file;
    int32_t ids[8], greedy[16];
    const char *text;
} models[] = {
    {"smollm2-135m.gguf",
     {23258, 25157, 37117, 46717, 1713, 7085, 40449, 46628},
     {15454, 30, 198, 198, 504, 2115, 476, 2181, 951, 309, 18, 314, 253, 35014, 582, 30},
     "The capital of France is"},
    {"qwen2.5-0.5b.gguf",
     {71894, 77764, 114737, 144409, 5295, 21903, 125034, 144134},
     {198, 2, 151645, 198, 151644, 198, 151643, 2, 151645, 198, 151643, 2, 151645, 198, 151643, 2},
     "def main():\n    print(\"h\xc3\xa9llo\")\n"},
};
#define MODELS (sizeof(models) / sizeof(models[0]))

static bool find(size_t i, char *path, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (cache && *cache)
        snprintf(path, size, "%s/paceline/models/%s", cache, models[i].file);
    else
        snprintf(path, size, "%s/.cache/paceline/models/%s", home ? home : "", models[i].file);
    return !access(path, R_OK);
}

static void check_text(const char *path, const char *text)
{
    struct pl_tokenizer *t = NULL;
    struct pl_ids ids = {0};
    struct pl_buf out;

    pl_buf_init(&out, 1u << 16);
    ok(pl_tokenizer_load(path, &t, &err));
    ok(pl_tokenizer_encode(t, text, strlen(text), false, &ids, &err));
    ok(pl_tokenizer_decode(t, ids.ids, ids.n, &out, &err));
    assert_int_equal(out.len, strlen(text));
    assert_memory_equal(out.data, text, out.len);
    pl_ids_release(&ids);
    pl_buf_release(&out);
    pl_tokenizer_free(t);
}

static void test_real(void **state)
{
    char path[1024];

    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct pl_model *m = NULL;
        struct pl_session *s;
        float *logits;
        if (!find(i, path, sizeof(path))) {
            print_message("SKIPPED: %s is not in the cache (tools/get-model)\n", models[i].file);
            continue;
        }
        ok(pl_model_load(path, NULL, &m, &err));
        s = new_session(m, &(struct pl_session_opts){.max_tokens = 64});
        logits = malloc((size_t)pl_model_info(m)->arch.vocab * sizeof(*logits));
        prefill(s, models[i].ids, 8, logits);
        for (size_t j = 0; j < 16; j++) {
            int32_t id = pl_logits_argmax(logits, (size_t)pl_model_info(m)->arch.vocab);
            assert_int_equal(id, models[i].greedy[j]);
            ok(pl_session_decode(s, id, logits, &err));
        }
        free(logits);
        pl_session_free(s);
        pl_model_free(m);
        check_text(path, models[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_real)};
    char path[1024];
    size_t there = 0;

    for (size_t i = 0; i < MODELS; i++)
        there += find(i, path, sizeof(path));
    if (!there) {
        printf("SKIPPED: no real model is in the cache (tools/get-model brings them)\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
