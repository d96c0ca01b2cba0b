/* A text that grows and is cut back has the ids of the whole text at every step, with tokenizers of
 * every kind; ids come back as their text, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "spec_decode/retok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODELS PL_SOURCE_DIR "/examples/models/"

static struct pl_err err;
#define ok(call)                                                                                   \
    do {                                                                                           \
        enum pl_status st_ = (call);                                                               \
        if (st_)                                                                                   \
            fail_msg("%s: %s", pl_status_text(st_), err.text);                                     \
    } while (0)

static const struct {
    const char *name;
    bool local; /* expected: only the end is encoded anew */
} models[] = {
    {"small-llama", true}, {"tiny-llama", true}, {"small-gpt2", true}, {"tiny-video-llava", true}};

static struct pl_tokenizer *load(const char *name)
{
    struct pl_tokenizer *t = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s%s", MODELS, name);
    ok(pl_tokenizer_load(path, &t, &err));
    return t;
}

static void same_as_whole(const struct pl_tokenizer *t, const struct pl_retok *r, const char *text,
                          size_t len)
{
    struct pl_ids whole = {0};
    size_t n;
    const int32_t *ids = pl_retok_ids(r, &n);

    ok(pl_tokenizer_encode(t, text, len, true, &whole, &err));
    if (!len)
        whole.n = 0;
    if (n != whole.n || (n && memcmp(ids, whole.ids, n * sizeof(*ids)) != 0))
        fail_msg("\"%.*s\": %zu ids, expected the %zu of the whole text", (int)len, text, n,
                 whole.n);
    pl_ids_release(&whole);
}

/* Words of the held-out text, spaces in rows, characters of several bytes, numbers. */
static size_t make_text(uint64_t seed, const char *corpus, size_t n_corpus, char *out, size_t most)
{
    static const char *const odd[] = {
        " ",   "  ",  "\n",  "\xc3\xa9t\xc3\xa9", " \xe4\xb8\xad\xe6\x96\x87",
        "123", "...", " (a", "\xf0\x9f\x98\x80",  "\t"};
    struct pl_rng r;
    size_t len = 0;

    pl_rng_init(&r, pl_keyv(31, seed));
    while (len + 40 < most) {
        if (pl_rng_below(&r, 5)) {
            size_t n = 1 + (size_t)pl_rng_below(&r, 30),
                   at = (size_t)pl_rng_below(&r, n_corpus - n);
            while (((unsigned char)corpus[at] & 0xc0) == 0x80)
                at--;
            memcpy(out + len, corpus + at, n);
            while (n && ((unsigned char)corpus[at + n] & 0xc0) == 0x80)
                n--;
            len += n;
        } else {
            const char *s = odd[pl_rng_below(&r, sizeof(odd) / sizeof(odd[0]))];
            memcpy(out + len, s, strlen(s));
            len += strlen(s);
        }
    }
    return len;
}

static void grows_and_shrinks(void **state)
{
    struct pl_buf corpus;
    char text[600];

    (void)state;
    ok(pl_read_file(PL_SOURCE_DIR "/examples/data/heldout.txt", 1u << 24, &corpus, &err));
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        struct pl_tokenizer *t = load(models[m].name);
        struct pl_retok *r = NULL;
        ok(pl_retok_new(t, &r, &err));
        assert_int_equal(pl_retok_local(r), models[m].local);
        for (uint64_t i = 0; i < 40; i++) {
            struct pl_rng g;
            size_t len = make_text(i, corpus.data, corpus.len, text, sizeof(text)), at = 0, same, n;
            pl_rng_init(&g, pl_keyv(32, i));
            pl_retok_begin(r, false);
            for (int step = 0; step < 40; step++) {
                size_t before;
                (void)pl_retok_ids(r, &before);
                at = pl_rng_below(&g, 4) ? at + (size_t)pl_rng_below(&g, 30)
                                         : at - (size_t)pl_rng_below(&g, at + 1);
                at = at < len ? at : len;
                while (at < len && at && ((unsigned char)text[at] & 0xc0) == 0x80)
                    at--;
                ok(pl_retok_set(r, text, at, &same, &err));
                same_as_whole(t, r, text, at);
                (void)pl_retok_ids(r, &n);
                assert_true(same <= n && same <= before);
            }
            if (!len) /* the text of the last step, by borders */
                continue;
            bool border = false;
            size_t k = pl_retok_before(r, at, &border);
            (void)pl_retok_ids(r, &n);
            assert_true(k <= n);
        }
        pl_retok_free(r);
        pl_tokenizer_free(t);
    }
    pl_buf_release(&corpus);
}

/* Ids one by one say the text that the library says of all of them. */
static void says_text(void **state)
{
    static const char text[] = "The  house of \xc3\xa9t\xc3\xa9, 12 \xf0\x9f\x98\x80 and so on.";

    (void)state;
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        struct pl_tokenizer *t = load(models[m].name);
        struct pl_ids ids = {0};
        struct pl_untok u;
        struct pl_buf whole;
        pl_buf_init(&whole, 1u << 20);
        ok(pl_untok_init(&u, t, &err));
        ok(pl_tokenizer_encode(t, text, strlen(text), true, &ids, &err));
        ok(pl_tokenizer_decode(t, ids.ids, ids.n, &whole, &err));
        for (size_t i = 0; i < ids.n; i++)
            ok(pl_untok_add(&u, &ids.ids[i], 1, &err));
        assert_true(pl_untok_whole(&u));
        size_t lead = u.text.len - whole.len; /* the dummy prefix's space */
        assert_true(lead <= 1);
        assert_memory_equal(u.text.data + lead, whole.data, whole.len);
        pl_ids_release(&ids);
        pl_buf_release(&whole);
        pl_untok_release(&u);
        pl_tokenizer_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(grows_and_shrinks),
                                       cmocka_unit_test(says_text)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
