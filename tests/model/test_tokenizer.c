#include "fixture.h"

#include "base/json.h"
#include "model/bpe.h"
#include "model/spm.h"
#include "model/tokenizer.h"

#include <unistd.h>

static struct pl_tokenizer *load(const char *name)
{
    struct pl_tokenizer *t = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", GOLDENS, name);
    ok(pl_tokenizer_load(path, &t, &err));
    return t;
}

static size_t unhex(const char *hex, char *out)
{
    size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (char)strtoul(two, NULL, 16);
    }
    return n;
}

static void check_ids(const char *what, size_t line, const json_t *want, const struct pl_ids *got)
{
    bool same = json_array_size(want) == got->n;

    for (size_t i = 0; same && i < got->n; i++)
        same = json_integer_value(json_array_get(want, i)) == got->ids[i];
    if (!same)
        fail_msg("%s, case %zu: %zu ids expected, %zu found, or others", what, line,
                 json_array_size(want), got->n);
}

/* Every prefix of the ids, taken by encode_prefix. */
static void check_prefixes(const struct pl_tokenizer *t, const char *text, size_t len,
                           const struct pl_ids *all)
{
    size_t bos = pl_tokenizer_info(t)->add_bos;

    for (size_t want = 0; want <= all->n + bos; want += want < 8 ? 1 : 13) {
        struct pl_ids ids = {0};
        ok(pl_tokenizer_encode_prefix(t, text, len, want, &ids, &err));
        assert_int_equal(ids.n, want);
        if (bos && want)
            assert_int_equal(ids.ids[0], pl_tokenizer_info(t)->bos);
        for (size_t i = bos; i < want; i++)
            assert_int_equal(ids.ids[i], all->ids[i - bos]);
        pl_ids_release(&ids);
    }
    struct pl_ids ids = {0};
    fails(PL_ERANGE, "are wanted",
          pl_tokenizer_encode_prefix(t, text, len, all->n + bos + 1, &ids, &err));
    assert_int_equal(ids.n, 0);
    pl_ids_release(&ids);
}

static void check_cases(const char *name, size_t least)
{
    struct pl_tokenizer *t = load(name);
    struct pl_buf file, out;
    char path[512], *text;
    size_t line = 0;

    snprintf(path, sizeof(path), "%s/%s/cases.jsonl", GOLDENS, name);
    ok(pl_read_file(path, 1u << 20, &file, &err));
    text = malloc(file.len);
    assert_non_null(text);
    for (char *at = file.data, *end; at < file.data + file.len; at = end + 1, line++) {
        struct pl_ids ids = {0};
        json_t *j = NULL;
        end = strchr(at, '\n');
        ok(pl_json_parse(path, at, (size_t)(end - at), &j, &err));
        const json_t *want = json_object_get(j, "ids");
        const char *hex = json_string_value(json_object_get(j, "hex"));
        if (hex) {
            size_t n = unhex(hex, text);
            ok(pl_tokenizer_encode(t, text, n, false, &ids, &err));
            check_ids(name, line, want, &ids);
            check_prefixes(t, text, n, &ids);
        } else {
            for (size_t i = 0; i < json_array_size(want); i++)
                ok(pl_ids_add(&ids, (int32_t)json_integer_value(json_array_get(want, i)), &err));
        }
        pl_buf_init(&out, 1u << 20);
        ok(pl_tokenizer_decode(t, ids.ids, ids.n, &out, &err));
        const json_t *back = json_object_get(j, "text");
        if (out.len != json_string_length(back) ||
            memcmp(out.len ? out.data : "", json_string_value(back), out.len))
            fail_msg("%s, case %zu: decodes to \"%s\", expected \"%s\"", name, line,
                     out.len ? out.data : "", json_string_value(back));
        pl_buf_release(&out);
        pl_ids_release(&ids);
        json_decref(j);
    }
    assert_true(line >= least);
    free(text);
    pl_buf_release(&file);
    pl_tokenizer_free(t);
}

static void test_bytes(void **state)
{
    (void)state;
    check_cases("spm_bytes", 100);
}

static void test_plain(void **state)
{
    (void)state;
    check_cases("spm_plain", 100);
}

static void test_cross(void **state)
{
    (void)state;
    check_cases("spm_cross", 100);
}

static void test_special(void **state)
{
    struct pl_tokenizer *t = load("spm_bytes");
    const struct pl_tokenizer_info *i = pl_tokenizer_info(t);
    struct pl_ids ids = {0};
    struct pl_buf out;

    (void)state;
    assert_true(i->add_bos && !i->add_eos);
    assert_int_equal(i->bos, 1);
    assert_int_equal(i->eos, 2);
    assert_int_equal(i->unk, 0);
    assert_string_equal(pl_tokenizer_piece(t, 1), "<s>");
    assert_null(pl_tokenizer_piece(t, i->vocab));
    assert_null(pl_tokenizer_piece(t, -1));
    ok(pl_tokenizer_encode(t, "", 0, true, &ids, &err));
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.ids[0], 1);
    pl_buf_init(&out, 100);
    fails(PL_ERANGE, "the tokenizer has",
          pl_tokenizer_decode(t, &(int32_t){i->vocab}, 1, &out, &err));
    fails(PL_ERANGE, "the tokenizer has", pl_tokenizer_decode(t, &(int32_t){-1}, 1, &out, &err));
    pl_buf_release(&out);
    pl_ids_release(&ids);
    pl_tokenizer_free(t);
}

/* A long text must cost no more than what was asked of it: a prefix of a gigabyte-like repetition
 * is instant. */
static void test_long(void **state)
{
    static const char unit[] = "it was the best of times ";
    size_t n = 400000, len = n * (sizeof(unit) - 1);
    struct pl_tokenizer *t = load("spm_bytes");
    struct pl_ids few = {0}, all = {0};
    char *text = malloc(len);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        memcpy(text + i * (sizeof(unit) - 1), unit, sizeof(unit) - 1);
    ok(pl_tokenizer_encode_prefix(t, text, len, 4096, &few, &err));
    ok(pl_tokenizer_encode(t, text, len / 10, true, &all, &err));
    assert_int_equal(few.n, 4096);
    assert_memory_equal(few.ids, all.ids, few.n * sizeof(int32_t));
    free(text);
    pl_ids_release(&few);
    pl_ids_release(&all);
    pl_tokenizer_free(t);
}

static void test_unsupported(void **state)
{
    struct pl_tokenizer *t = NULL;
    char dir[] = "/tmp/pl_tok_XXXXXX", path[64];

    (void)state;
    fails(PL_EFORMAT, "normaliser", pl_tokenizer_load(GOLDENS "/spm_nfkc", &t, &err));
    fails(PL_ENOENT, "tokenizer.model", pl_tokenizer_load(GOLDENS "/plain", &t, &err));
    fails(PL_ENOENT, "/nowhere", pl_tokenizer_load("/nowhere", &t, &err));
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    ok(pl_write_file_atomic(path, "{}", 2, &err));
    fails(PL_EFORMAT, "tokenizer.json", pl_tokenizer_load(dir, &t, &err));
    unlink(path);
    snprintf(path, sizeof(path), "%s/tokenizer.model", dir);
    ok(pl_write_file_atomic(path, "", 0, &err));
    fails(PL_EFORMAT, "empty", pl_tokenizer_load(dir, &t, &err));
    unlink(path);
    rmdir(dir);
    assert_null(t);
}

/* Truncated at every byte and with every byte flipped: an error or a model, never more. */
static void test_broken(void **state)
{
    struct pl_buf file;
    size_t failed = 0;

    (void)state;
    ok(pl_read_file(GOLDENS "/spm_bytes/tokenizer.model", 1u << 20, &file, &err));
    for (size_t i = 0; i < 2 * file.len; i++) {
        size_t n = i < file.len ? i : file.len, at = i - file.len;
        char *copy = malloc(n ? n : 1);
        struct pl_arena a;
        struct pl_spm s;
        struct pl_vocab v;
        struct pl_err err;
        assert_non_null(copy);
        memcpy(copy, file.data, n);
        if (i >= file.len)
            copy[at] = (char)~copy[at];
        pl_arena_init(&a);
        failed += pl_spm_parse("x", copy, n, &a, &s, &err) || pl_vocab_init(&v, "x", &s, &a, &err);
        pl_arena_release(&a);
        free(copy);
    }
    assert_true(failed > file.len / 2);
    pl_buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),  cmocka_unit_test(test_plain),
        cmocka_unit_test(test_cross),  cmocka_unit_test(test_special),
        cmocka_unit_test(test_long),   cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
