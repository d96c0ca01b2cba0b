/* Every kind of tokenizer against what its library says (tools/make_tokenizer_goldens.py): a nasty
 * list word for word, random texts by a hash of their ids and of what those decode to. */
#include "fixture.h"

#include "base/json.h"
#include "model/tokenizer.h"

#define DIR PL_SOURCE_DIR "/tests/model/tokenizers"
#define RANDOM 2000

static const uint32_t ranges[][2] = {
    {0x61, 0x7A},       {0x41, 0x5A},       {0x30, 0x39},       {0x20, 0x20},
    {0x21, 0x2F},       {0x3A, 0x40},       {0x5B, 0x60},       {0x7B, 0x7E},
    {0x00, 0x1F},       {0x7F, 0xA0},       {0xA1, 0xFF},       {0x100, 0x24F},
    {0x300, 0x36F},     {0x370, 0x3FF},     {0x400, 0x4FF},     {0x590, 0x6FF},
    {0x900, 0x97F},     {0xE00, 0xE7F},     {0x1100, 0x11FF},   {0x1E00, 0x1FFF},
    {0x2000, 0x206F},   {0x2070, 0x218F},   {0x2400, 0x24FF},   {0x3000, 0x30FF},
    {0x4E00, 0x9FFF},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFB00, 0xFDFF},
    {0xFE00, 0xFFFD},   {0x1F1E6, 0x1F1FF}, {0x1F300, 0x1FAFF}, {0x1D400, 0x1D7FF},
    {0x20000, 0x2FA1F}, {0x01, 0xD7FF},     {0xE000, 0xFFFF},   {0x10000, 0x10FFFF}};
static const char *const strings[] = {" ",
                                      " ",
                                      " ",
                                      " ",
                                      "  ",
                                      "   ",
                                      "\n",
                                      "\n\n",
                                      "\r\n",
                                      "\t",
                                      "'s",
                                      "'RE",
                                      "'ll",
                                      "'\xc5\xbf",
                                      "n't",
                                      " do not",
                                      "▁",
                                      "▁▁",
                                      "the ",
                                      "it was ",
                                      " of ",
                                      "times",
                                      "age",
                                      "wisdom",
                                      "world",
                                      "ing",
                                      "tion",
                                      "Call me Ishmael",
                                      "123",
                                      "4567",
                                      "3.14",
                                      "<s>",
                                      "</s>",
                                      "<unk>",
                                      "<pad>",
                                      "<mask>",
                                      "[CLS]",
                                      "[SEP]",
                                      "[UNK]",
                                      "[MASK]",
                                      "<|endoftext|>",
                                      "<|im_start|>",
                                      "<tool>",
                                      "word",
                                      "caf\xc3\xa9",
                                      "e\xcc\x81",
                                      "\xe1\xba\x9b\xcc\xa3",
                                      "\xc4\xb0",
                                      "\xef\xac\x81",
                                      "\xe2\x85\xa8",
                                      "\xc2\xbd",
                                      "你好",
                                      "한국어",
                                      "\xe2\x80\x8d",
                                      "\xef\xb8\x8f",
                                      "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
                                      "\xc2\xa0",
                                      "\xe3\x80\x80",
                                      "<0x41>",
                                      "...",
                                      "?!",
                                      " .",
                                      " ,",
                                      "--",
                                      "user_name"};

/* splitmix64 */
static uint64_t next(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint32_t below(uint64_t *s, size_t n)
{
    return (uint32_t)((next(s) >> 32) % n);
}

static void add_char(struct pl_buf *b, uint32_t c)
{
    char s[5];
    int n;

    if (c >= 0xd800 && c < 0xe000)
        c = 0xfffd;
    if (c < 0x80) {
        n = 1;
        s[0] = (char)c;
    } else {
        n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        s[0] = (char)((0xf00 >> n & 0xff) | c >> 6 * (n - 1));
        for (int i = 1; i < n; i++)
            s[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 63));
    }
    ok(pl_buf_add(b, s, (size_t)n, &err));
}

static void random_text(uint64_t seed, struct pl_buf *b)
{
    uint64_t s = seed;

    pl_buf_clear(b);
    for (uint32_t units = 1 + below(&s, 40); units; units--) {
        if (below(&s, 2)) {
            const char *t = strings[below(&s, sizeof(strings) / sizeof(strings[0]))];
            ok(pl_buf_add(b, t, strlen(t), &err));
            continue;
        }
        const uint32_t *r = ranges[below(&s, sizeof(ranges) / sizeof(ranges[0]))];
        for (uint32_t k = 1 + below(&s, 4); k; k--)
            add_char(b, r[0] + below(&s, r[1] - r[0] + 1));
    }
}

static uint32_t fnv(uint32_t h, const void *data, size_t n)
{
    for (const unsigned char *p = data; n; n--, p++)
        h = (h ^ *p) * 0x01000193u;
    return h;
}

static struct pl_tokenizer *load(const char *name)
{
    struct pl_tokenizer *t = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", DIR, name);
    ok(pl_tokenizer_load(path, &t, &err));
    return t;
}

static void read_golden(const char *name, const char *file, struct pl_buf *out)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s%s%s", DIR, name, *name ? "/" : "", file);
    ok(pl_read_file(path, 1u << 20, out, &err));
}

/* Every number of first ids, taken by encode_prefix. */
static void check_prefixes(const struct pl_tokenizer *t, const char *name, const char *text,
                           size_t len, const struct pl_ids *all, size_t behind)
{
    for (size_t want = 0; want + behind <= all->n; want += want < 8 ? 1 : 17) {
        struct pl_ids ids = {0};
        ok(pl_tokenizer_encode_prefix(t, text, len, want, &ids, &err));
        if (ids.n != want || (want && memcmp(ids.ids, all->ids, want * sizeof(int32_t)) != 0))
            fail_msg("%s: the first %zu ids of \"%.80s\" are others", name, want, text);
        pl_ids_release(&ids);
    }
}

static void check_case(const struct pl_tokenizer *t, const char *name, size_t line, const json_t *j)
{
    const json_t *text = json_array_get(j, 0), *want = json_array_get(j, 1),
                 *back = json_array_get(j, 2);
    struct pl_ids ids = {0};
    struct pl_buf out;
    bool same;

    if (json_is_string(text)) {
        ok(pl_tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids,
                               &err));
        same = ids.n == json_array_size(want);
        for (size_t i = 0; same && i < ids.n; i++)
            same = json_integer_value(json_array_get(want, i)) == ids.ids[i];
        if (!same)
            fail_msg("%s, case %zu: other ids for \"%s\"", name, line, json_string_value(text));
        check_prefixes(t, name, json_string_value(text), json_string_length(text), &ids,
                       pl_tokenizer_info(t)->add_eos);
    } else {
        for (size_t i = 0; i < json_array_size(want); i++)
            ok(pl_ids_add(&ids, (int32_t)json_integer_value(json_array_get(want, i)), &err));
    }
    pl_buf_init(&out, 1u << 20);
    ok(pl_tokenizer_decode(t, ids.ids, ids.n, &out, &err));
    if (out.len != json_string_length(back) ||
        memcmp(out.len ? out.data : "", json_string_value(back), out.len) != 0)
        fail_msg("%s, case %zu: decodes to \"%s\", expected \"%s\"", name, line,
                 out.len ? out.data : "", json_string_value(back));
    pl_buf_release(&out);
    pl_ids_release(&ids);
}

static void check_cases(const struct pl_tokenizer *t, const char *name)
{
    struct pl_buf file;
    size_t line = 0;

    read_golden(name, "cases.jsonl", &file);
    for (char *at = file.data, *end; at < file.data + file.len; at = end + 1, line++) {
        json_error_t e;
        end = strchr(at, '\n');
        json_t *j = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL, &e);
        assert_non_null(j);
        check_case(t, name, line, j);
        json_decref(j);
    }
    assert_true(line > 120);
    pl_buf_release(&file);
}

static void check_random(const struct pl_tokenizer *t, const char *name)
{
    struct pl_buf file, text, out;
    size_t wrong = 0, first = 0;

    read_golden(name, "random.txt", &file);
    assert_int_equal(file.len, RANDOM * 9);
    pl_buf_init(&text, 1u << 20);
    pl_buf_init(&out, 1u << 20);
    for (size_t i = 0; i < RANDOM; i++) {
        struct pl_ids ids = {0};
        random_text(i, &text);
        pl_buf_clear(&out);
        ok(pl_tokenizer_encode(t, text.data, text.len, true, &ids, &err));
        ok(pl_tokenizer_decode(t, ids.ids, ids.n, &out, &err));
        uint32_t h = fnv(0x811c9dc5u, ids.ids, ids.n * sizeof(int32_t)); /* little-endian */
        h = fnv(h, out.data, out.len);
        if (h != strtoul(file.data + 9 * i, NULL, 16)) {
            first = wrong ? first : i;
            wrong++;
        }
        pl_ids_release(&ids);
    }
    if (wrong)
        fail_msg("%s: %zu of %d random texts differ, the first is %zu", name, wrong, RANDOM, first);
    pl_buf_release(&file);
    pl_buf_release(&text);
    pl_buf_release(&out);
}

static void test_kind(void **state)
{
    const char *name = *state;
    struct pl_tokenizer *t = load(name);

    check_cases(t, name);
    check_random(t, name);
    pl_tokenizer_free(t);
}

/* The texts here are the ones that the libraries saw. */
static void test_generator(void **state)
{
    struct pl_buf file, text;
    uint32_t h = 0x811c9dc5u;

    (void)state;
    read_golden("", "generator.txt", &file);
    pl_buf_init(&text, 1u << 20);
    for (size_t i = 0; i < RANDOM; i++) {
        random_text(i, &text);
        h = fnv(h, text.data, text.len);
    }
    assert_int_equal(h, strtoul(file.data, NULL, 16));
    pl_buf_release(&file);
    pl_buf_release(&text);
}

/* A megabyte of one line without spaces, and of the worst repetitions, in well under a second. */
static void test_long(void **state)
{
    static const char *const units[] = {"a",
                                        "itwasthebestoftimes",
                                        " ",
                                        "\n",
                                        "'",
                                        "\xcc\x80",
                                        "\xe2\x96\x81",
                                        "x\xcc\x80\xcc\xa3",
                                        "<",
                                        "9",
                                        "<mask"};
    struct pl_tokenizer *t = load(*state);
    char *text = malloc(1u << 20);

    assert_non_null(text);
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        size_t n = strlen(units[u]), len = (1u << 20) / n * n;
        struct pl_ids ids = {0}, few = {0};
        for (size_t i = 0; i < len; i++)
            text[i] = units[u][i % n];
        ok(pl_tokenizer_encode(t, text, len, true, &ids, &err));
        if (ids.n > 200) {
            ok(pl_tokenizer_encode_prefix(t, text, len, 100, &few, &err));
            assert_memory_equal(few.ids, ids.ids, 100 * sizeof(int32_t));
        }
        pl_ids_release(&ids);
        pl_ids_release(&few);
    }
    free(text);
    pl_tokenizer_free(t);
}

/* A few ids of a text whose prefix can be cut at its lines. */
static void test_cut(void **state)
{
    struct pl_tokenizer *t = load(*state);
    struct pl_ids few = {0}, all = {0};
    struct pl_buf text;

    pl_buf_init(&text, 1u << 22);
    for (int i = 0; i < 20000; i++)
        ok(pl_buf_addf(&text, &err, "it was the  age of %d \n%s\nwisdom, 'twas\n", i,
                       i % 3 ? "<mask> " : ""));
    ok(pl_tokenizer_encode(t, text.data, text.len, true, &all, &err));
    for (size_t want = 1; want < 9000; want = want * 3 + 1) {
        few.n = 0;
        ok(pl_tokenizer_encode_prefix(t, text.data, text.len, want, &few, &err));
        assert_int_equal(few.n, want);
        assert_memory_equal(few.ids, all.ids, want * sizeof(int32_t));
    }
    pl_buf_release(&text);
    pl_ids_release(&few);
    pl_ids_release(&all);
    pl_tokenizer_free(t);
}

#define KIND(name)                                                                                 \
    {                                                                                              \
        "goldens of " name, test_kind, NULL, NULL, (void *)(uintptr_t)name                         \
    }
#define LONG(name)                                                                                 \
    {                                                                                              \
        "long texts in " name, test_long, NULL, NULL, (void *)(uintptr_t)name                      \
    }
#define CUT(name)                                                                                  \
    {                                                                                              \
        "cuts of " name, test_cut, NULL, NULL, (void *)(uintptr_t)name                             \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator),
        KIND("gpt2"),
        KIND("roberta_files"),
        KIND("qwen2_files"),
        KIND("gpt2_json"),
        KIND("llama3"),
        KIND("qwen2"),
        KIND("smollm"),
        KIND("roberta"),
        KIND("llama2_json"),
        KIND("clip"),
        KIND("prefixed"),
        KIND("t5_json"),
        KIND("xlmr"),
        KIND("bert_uncased"),
        KIND("bert_cased"),
        KIND("bert_vocab"),
        KIND("bert_accents"),
        KIND("spm_t5"),
        KIND("spm_nmt_nfkc"),
        KIND("spm_unigram"),
        KIND("spm_bpe_rules"),
        LONG("llama3"),
        LONG("llama2_json"),
        LONG("prefixed"),
        LONG("t5_json"),
        LONG("bert_uncased"),
        LONG("spm_unigram"),
        LONG("spm_bpe_rules"),
        CUT("gpt2"),
        CUT("llama3"),
        CUT("qwen2"),
        CUT("bert_cased"),
        CUT("t5_json"),
        CUT("spm_t5"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
