/* Sample lists: the same for everyone, disjoint while the text lasts, and bad text told by its
 * place. */
#include "data/sample.h"

#include "../folder.h"

#include <fcntl.h>

static struct pl_err err;

/* n bytes of words of five letters and a blank. */
static void write_words(const char *name, size_t n)
{
    char *t = malloc(n);
    assert_non_null(t);
    for (size_t i = 0; i < n; i++)
        t[i] = i % 6 == 5 ? ' ' : (char)('a' + i / 6 % 26);
    put_bytes(name, t, n);
    free(t);
}

static enum pl_status open_list(const char *kind, const char *path, uint64_t seed, int64_t context,
                                uint32_t count, struct pl_samples **out)
{
    json_t *data = json_pack("{s:s,s:s}", "kind", kind, "path", path);
    int64_t contexts[2] = {1, context};
    enum pl_status st;
    err.text[0] = '\0';
    st = pl_samples_open(data, seed, contexts, 2, count, out, &err);
    json_decref(data);
    return st;
}

static uint64_t offset_of(const struct pl_samples *s, uint32_t i)
{
    json_t *r = pl_samples_request(s, i);
    uint64_t at = (uint64_t)pl_json_get_i64(r, "offset", -1);
    assert_string_equal(pl_json_get_str(r, "kind", ""), "text");
    assert_int_equal(pl_json_get_i64(r, "index", -1), i);
    json_decref(r);
    return at;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_disjoint(void **state)
{
    struct pl_samples *s = NULL;
    uint64_t at[100];
    (void)state;
    write_words("t.txt", 6000 * 100 + 17);
    assert_int_equal(open_list("text", "t.txt", 1, 1000, 0, &s), PL_OK);
    assert_int_equal(pl_samples_count(s), 100);
    assert_false(pl_samples_overlap(s));
    for (uint32_t i = 0; i < 100; i++) {
        at[i] = offset_of(s, i);
        assert_true(at[i] == 0 || at[i] % 6 == 0); /* a word's first letter */
    }
    assert_true(at[0] > at[1] || at[1] > at[2] || at[2] > at[3]); /* shuffled */
    qsort(at, 100, sizeof at[0], by_value);
    for (uint32_t i = 0; i < 100; i++)
        assert_in_range(at[i], 6000 * i, 6000 * i + 5);
    pl_samples_free(s);
}

static void test_pure(void **state)
{
    struct pl_samples *a = NULL, *b = NULL, *c = NULL;
    int moved = 0;
    (void)state;
    write_words("t.txt", 60 * 50);
    assert_int_equal(open_list("text", "t.txt", 7, 10, 20, &a), PL_OK);
    assert_int_equal(open_list("text", "t.txt", 7, 10, 70, &b), PL_OK);
    assert_int_equal(open_list("text", "t.txt", 8, 10, 20, &c), PL_OK);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(offset_of(a, i), offset_of(b, i)); /* more samples do not move the first */
        moved += offset_of(a, i) != offset_of(c, i);
    }
    assert_true(moved > 10);
    assert_false(pl_samples_overlap(a));
    assert_true(pl_samples_overlap(b));
    for (uint32_t i = 50; i < 70; i++)
        assert_true(offset_of(b, i) + 10 <= 60 * 50);
    pl_samples_free(a);
    pl_samples_free(b);
    pl_samples_free(c);
}

static void test_id(void **state)
{
    struct pl_samples *s = NULL;
    char id[PL_SAMPLE_ID_MAX], longer[201];
    (void)state;
    write_words("t.txt", 100);
    assert_int_equal(open_list("text", "t.txt", 1, 20, 1, &s), PL_OK);
    pl_samples_id(s, 0, id, sizeof id);
    assert_string_equal(id, "t.txt@0");
    pl_samples_free(s);

    memset(longer, 'n', 200);
    longer[200] = '\0';
    write_words(longer, 100);
    assert_int_equal(open_list("text", longer, 1, 20, 1, &s), PL_OK);
    pl_samples_id(s, 0, id, sizeof id);
    assert_int_equal(strncmp(id, "nnnnnnnnnnnnnn", 14), 0);
    assert_int_equal(strcmp(id + strlen(id) - 2, "@0"), 0);
    assert_true(strlen(id) < 70);
    pl_samples_free(s);

    assert_int_equal(open_list("synthetic", "", 1, 20, 9, &s), PL_OK);
    pl_samples_id(s, 7, id, sizeof id);
    assert_string_equal(id, "synthetic-7");
    pl_samples_free(s);
}

static void test_folder(void **state)
{
    struct pl_samples *s = NULL;
    const char *const names[] = {"d/a.txt", "d/b.txt", "d/c.txt"};
    int seen[3] = {0};
    (void)state;
    assert_int_equal(mkdir("d", 0700), 0);
    assert_int_equal(mkdir("d/inner", 0700), 0);
    assert_int_equal(open_list("text", "d", 1, 10, 1, &s), PL_ENOENT);
    assert_string_equal(err.text, "d: the folder has no text files");
    write_words("d/c.txt", 180);
    write_words("d/a.txt", 60);
    write_words("d/b.txt", 130);
    write_words("d/short.txt", 5); /* no slot, no error: the others suffice */
    put_bytes("d/.hidden", "\xff", 1);
    assert_int_equal(open_list("text", "d", 1, 10, 0, &s), PL_OK);
    assert_int_equal(pl_samples_count(s), 6);
    for (uint32_t i = 0; i < 6; i++) {
        json_t *r = pl_samples_request(s, i);
        for (int k = 0; k < 3; k++)
            seen[k] += strcmp(pl_json_get_str(r, "path", ""), names[k]) == 0;
        json_decref(r);
    }
    assert_int_equal(seen[0], 1);
    assert_int_equal(seen[1], 2);
    assert_int_equal(seen[2], 3);
    pl_samples_free(s);
}

static void test_bad_text(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum pl_status st;
        const char *text;
    } t[] = {
        {"", 0, PL_ERANGE,
         "x.txt: 0 bytes of text, too short for a context of 4 tokens, expected at least 4 bytes "
         "in one file"},
        {"abc", 3, PL_ERANGE,
         "x.txt: 3 bytes of text, too short for a context of 4 tokens, expected at least 4 bytes "
         "in one file"},
        {"abcdefghij\xff", 11, PL_EFORMAT, "x.txt: not UTF-8 at byte 10 (0xff)"},
        {"ab\xc3", 3, PL_EFORMAT, "x.txt: not UTF-8 at byte 2 (0xc3)"},
        {"ab\xc0\x80zzzz", 8, PL_EFORMAT, "x.txt: not UTF-8 at byte 2 (0xc0)"},
        {"\xed\xa0\x80zzzz", 7, PL_EFORMAT, "x.txt: not UTF-8 at byte 0 (0xed)"},
        {"zzzz\xf4\x90\x80\x80", 8, PL_EFORMAT, "x.txt: not UTF-8 at byte 4 (0xf4)"},
        {"z\xe2\x82\xac\xf0\x9f\x98\x80", 8, PL_OK, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct pl_samples *s = NULL;
        put_bytes("x.txt", t[i].bytes, t[i].n);
        assert_int_equal(open_list("text", "x.txt", 1, 4, 1, &s), t[i].st);
        assert_string_equal(err.text, t[i].text);
        assert_true((s != NULL) == (t[i].st == PL_OK));
        pl_samples_free(s);
    }
}

static void test_refused(void **state)
{
    struct pl_samples *s = NULL;
    (void)state;
    assert_int_equal(open_list("text", "none.txt", 1, 4, 1, &s), PL_ENOENT);
    assert_string_equal(err.text, "none.txt: No such file or directory");
    assert_int_equal(open_list("text", "/dev/null", 1, 4, 1, &s), PL_EFORMAT);
    assert_int_equal(open_list("text", "", 1, 4, 1, &s), PL_EUSAGE);
    assert_int_equal(open_list("synthetic", "", 1, 4, 0, &s), PL_ERANGE);
    assert_int_equal(open_list("video", "", 1, 4, 1, &s), PL_EUNSUPPORTED);
    assert_int_equal(open_list("synthetic", "", 1, 0, 1, &s), PL_OK); /* the other context is 1 */
    pl_samples_free(s);
}

static void test_starts_on_characters(void **state)
{
    struct pl_samples *s = NULL;
    char text[3000];
    (void)state;
    for (size_t i = 0; i < sizeof text; i += 3)
        memcpy(text + i, "\xe6\xbc\xa2", 3); /* no white space at all */
    put_bytes("cjk.txt", text, sizeof text);
    assert_int_equal(open_list("text", "cjk.txt", 1, 10, 200, &s), PL_OK);
    assert_true(pl_samples_overlap(s));
    for (uint32_t i = 0; i < 200; i++)
        assert_int_equal(offset_of(s, i) % 3, 0);
    pl_samples_free(s);
    put_bytes("bom.txt", "\xEF\xBB\xBFhello world", 14);
    assert_int_equal(open_list("text", "bom.txt", 1, 5, 1, &s), PL_OK);
    assert_int_equal(offset_of(s, 0), 3);
    pl_samples_free(s);
}

static void test_cache(void **state)
{
    struct pl_text_cache *c = pl_text_cache_new();
    const char *text = NULL;
    size_t len = 0;
    json_t *r = json_pack("{s:s,s:s,s:i}", "kind", "text", "path", "t.txt", "offset", 6);
    (void)state;
    assert_non_null(c);
    put_bytes("t.txt", "Hello, world", 12);
    assert_int_equal(pl_text_cache_get(c, r, &text, &len, &err), PL_OK);
    assert_int_equal(len, 6);
    assert_memory_equal(text, " world", 6);
    json_object_set_new(r, "offset", json_integer(13));
    assert_int_equal(pl_text_cache_get(c, r, &text, &len, &err), PL_ERANGE);
    json_object_set_new(r, "offset", json_integer(-1));
    assert_int_equal(pl_text_cache_get(c, r, &text, &len, &err), PL_ERANGE);
    json_object_set_new(r, "path", json_string("gone.txt"));
    assert_int_equal(pl_text_cache_get(c, r, &text, &len, &err), PL_ENOENT);
    json_object_del(r, "path");
    assert_int_equal(pl_text_cache_get(c, r, &text, &len, &err), PL_EFORMAT);
    json_decref(r);
    pl_text_cache_free(c);
}

static void test_synthetic(void **state)
{
    struct pl_samples *s = NULL;
    int32_t a[1000], b[1000], other[1000];
    int same = 0;
    json_t *r;
    (void)state;
    assert_int_equal(open_list("synthetic", "", 3, 4, 2, &s), PL_OK);
    r = pl_samples_request(s, 0);
    assert_int_equal(pl_synthetic_ids(r, 7, a, 1000, &err), PL_OK);
    assert_int_equal(pl_synthetic_ids(r, 7, b, 500, &err), PL_OK);
    assert_memory_equal(a, b, 500 * sizeof a[0]); /* a longer context begins with the shorter */
    for (int i = 0; i < 1000; i++)
        assert_in_range(a[i], 0, 6);
    json_decref(r);
    r = pl_samples_request(s, 1);
    assert_int_equal(pl_synthetic_ids(r, 7, other, 1000, &err), PL_OK);
    for (int i = 0; i < 1000; i++)
        same += a[i] == other[i];
    assert_in_range(same, 80, 210); /* one in seven by chance */
    assert_int_equal(pl_synthetic_ids(r, 0, a, 1, &err), PL_ERANGE);
    json_object_set_new(r, "key", json_string("xyz"));
    assert_int_equal(pl_synthetic_ids(r, 7, a, 1, &err), PL_EFORMAT);
    json_decref(r);
    pl_samples_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_disjoint),
        in_folder(test_pure),
        in_folder(test_id),
        in_folder(test_folder),
        in_folder(test_bad_text),
        in_folder(test_refused),
        in_folder(test_starts_on_characters),
        in_folder(test_cache),
        in_folder(test_synthetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
