/* Tokenizer files that are broken, lying or hostile: one clear error or a tokenizer, never more;
 * and tokenizers made from arrays. */
#include "fixture.h"

#include "base/json.h"
#include "model/tokenizer.h"

#define DIR PL_SOURCE_DIR "/tests/model/tokenizers"
#define BPE(more)                                                                                  \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}" more \
    "}"
#define WORDS(more)                                                                                \
    "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"continuing_subword_prefix\":\"##\"," \
    "\"max_input_chars_per_word\":100,\"vocab\":{\"u\":0,\"a\":1}}" more "}"
#define UNIGRAM(vocab, more) "{\"model\":{\"type\":\"Unigram\",\"vocab\":" vocab more "}}"

static const struct {
    const char *json;
    enum pl_status status;
    const char *part;
} bad[] = {
    {"", PL_EFORMAT, "x:1"},
    {"{", PL_EFORMAT, "x:1"},
    {"[]", PL_EFORMAT, "no JSON object"},
    {"{\"model\":3}", PL_EFORMAT, "no model"},
    {"{\"model\":{\"type\":\"WordLevel\"}}", PL_EUNSUPPORTED, "WordLevel"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", PL_EFORMAT, "merges"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", PL_EFORMAT, "no object"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", PL_EFORMAT, "range"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1e3},\"merges\":[]}}", PL_EFORMAT, "range"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}}", PL_EFORMAT,
     "range"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", PL_EFORMAT,
     "both have id 1"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"a\":2},\"merges\":[]}}", PL_EFORMAT,
     "duplicate"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a x\"]}}", PL_EFORMAT,
     "\"x\", which is no piece"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", PL_EFORMAT,
     "makes \"aa\""},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", PL_EFORMAT,
     "merge 0 is no pair"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", PL_EFORMAT,
     "merge 0 is no pair"},
    {"{\"model\":{\"type\":\"BPE\",\"dropout\":0.5,\"vocab\":{\"a\":0},\"merges\":[]}}",
     PL_EUNSUPPORTED, "dropout"},
    {UNIGRAM("[]", ""), PL_EFORMAT, "no list"},
    {UNIGRAM("[[\"a\"]]", ""), PL_EFORMAT, "piece 0"},
    {UNIGRAM("[[3,1.0]]", ""), PL_EFORMAT, "string"},
    {UNIGRAM("[[\"a\",1.0]]", ",\"unk_id\":1"), PL_EFORMAT, "unk_id"},
    {BPE(",\"normalizer\":{\"type\":\"Nmt\"}"), PL_EUNSUPPORTED, "normalizer Nmt"},
    {BPE(",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"\"}"),
     PL_EUNSUPPORTED, "x+"},
    {BPE(",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"),
     PL_EUNSUPPORTED, "nothing"},
    {BPE(",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}"),
     PL_EFORMAT, "rules"},
    {BPE(",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!\"}"), PL_EFORMAT,
     "base64"},
    {BPE(",\"normalizer\":{\"type\":\"Precompiled\"}"), PL_EFORMAT, "precompiled_charsmap"},
    {BPE(",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"), PL_EUNSUPPORTED, "UnicodeScripts"},
    {BPE(",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":"
         "\"a(?=b)\"}}"),
     PL_EUNSUPPORTED, "a(?=b)"},
    {BPE(",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Odd\",\"pattern\":{\"String\":"
         "\"a\"}}"),
     PL_EUNSUPPORTED, "Odd"},
    {BPE(",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\"}"), PL_EFORMAT,
     "Metaspace"},
    {BPE(",\"decoder\":{\"type\":\"CTC\"}"), PL_EUNSUPPORTED, "decoder CTC"},
    {BPE(",\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1}"), PL_EFORMAT, "Strip"},
    {BPE(",\"post_processor\":{\"type\":\"Odd\"}"), PL_EUNSUPPORTED, "post_processor Odd"},
    {BPE(",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",99],\"sep\":[\"x\",0]}"),
     PL_EFORMAT, "id 99"},
    {BPE(",\"post_processor\":{\"type\":\"BertProcessing\"}"), PL_EFORMAT, "range"},
    {BPE(",\"post_processor\":{\"type\":\"TemplateProcessing\"}"), PL_EFORMAT, "single"},
    {BPE(",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
         "\"id\":\"q\"}}]}"),
     PL_EFORMAT, "\"q\""},
    {BPE(",\"added_tokens\":7"), PL_EFORMAT, "added_tokens"},
    {BPE(",\"added_tokens\":[7]"), PL_EFORMAT, "added token"},
    {BPE(",\"added_tokens\":[{\"content\":\"x\",\"special\":3}]"), PL_EFORMAT, "special"},
    {WORDS(",\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":1}"), PL_EFORMAT,
     "lowercase"},
};

static void test_messages(void **state)
{
    struct pl_tokenizer *t = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        fails(bad[i].status, bad[i].part,
              pl_tokenizer_load_bytes("x", PL_TOKENIZER_JSON, bad[i].json, strlen(bad[i].json), &t,
                                      &err));
    assert_null(t);
    fails(PL_EFORMAT, "[UNK]",
          pl_tokenizer_load_bytes("x", PL_TOKENIZER_VOCAB, "a\nb\n", 4, &t, &err));
    fails(PL_EFORMAT, "empty", pl_tokenizer_load_bytes("x", PL_TOKENIZER_VOCAB, "", 0, &t, &err));
}

/* Sequences in sequences, and chains without an end. */
static void test_deep(void **state)
{
    struct pl_tokenizer *t = NULL;
    struct pl_buf b;

    (void)state;
    pl_buf_init(&b, 1u << 20);
    ok(pl_buf_addf(&b, &err, "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":"));
    for (int i = 0; i < 1000; i++)
        ok(pl_buf_addf(&b, &err, "{\"type\":\"Sequence\",\"normalizers\":["));
    for (int i = 0; i < 1000; i++)
        ok(pl_buf_addf(&b, &err, "]}"));
    ok(pl_buf_addf(&b, &err, "}"));
    fails(PL_EUNSUPPORTED, "nested",
          pl_tokenizer_load_bytes("x", PL_TOKENIZER_JSON, b.data, b.len, &t, &err));
    pl_buf_clear(&b);
    ok(pl_buf_addf(&b, &err,
                   "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":"
                   "\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}"));
    for (int i = 0; i < 40; i++)
        ok(pl_buf_addf(&b, &err, ",{\"type\":\"NFC\"}"));
    ok(pl_buf_addf(&b, &err, "]}}"));
    fails(PL_EUNSUPPORTED, "more than",
          pl_tokenizer_load_bytes("x", PL_TOKENIZER_JSON, b.data, b.len, &t, &err));
    pl_buf_release(&b);
}

/* Replacements that multiply a text thousandfold, step by step. */
static void test_growing(void **state)
{
    struct pl_tokenizer *t = NULL;
    struct pl_ids ids = {0};
    struct pl_buf b;

    (void)state;
    pl_buf_init(&b, 1u << 20);
    ok(pl_buf_addf(&b, &err,
                   "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":"
                   "\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}"));
    for (int i = 0; i < 6; i++) {
        ok(pl_buf_addf(&b, &err,
                       ",{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\""));
        for (int k = 0; k < 5000; k++)
            ok(pl_buf_addf(&b, &err, "a"));
        ok(pl_buf_addf(&b, &err, "\"}"));
    }
    ok(pl_buf_addf(&b, &err, "]}}"));
    ok(pl_tokenizer_load_bytes("x", PL_TOKENIZER_JSON, b.data, b.len, &t, &err));
    fails(PL_ERANGE, "", pl_tokenizer_encode(t, "aaaa", 4, true, &ids, &err));
    assert_int_equal(ids.n, 0);
    pl_ids_release(&ids);
    pl_tokenizer_free(t);
    pl_buf_release(&b);
}

/* What a tokenizer that loads must stand: texts, ids, broken UTF-8. */
static void use(const struct pl_tokenizer *t)
{
    static const char text[] =
        "it was  the <s> b\xc3\xa9st \xff\xf0\x9f of <mask> times, 123\n\nword "
        "\xe2\x96\x81 \xed\x95\x9c e\xcc\x81 '\xc5\xbf";
    struct pl_ids ids = {0};
    struct pl_buf out;
    struct pl_err err;

    pl_buf_init(&out, 1u << 20);
    if (pl_tokenizer_encode(t, text, sizeof(text), true, &ids, &err) == PL_OK)
        ok(pl_tokenizer_decode(t, ids.ids, ids.n, &out, &err));
    ids.n = 0;
    for (int32_t i = 0; i < pl_tokenizer_info(t)->vocab && i < 300; i++)
        ok(pl_ids_add(&ids, i, &err));
    ok(pl_tokenizer_decode(t, ids.ids, ids.n, &out, &err));
    pl_buf_release(&out);
    pl_ids_release(&ids);
}

static void mutate(const char *name, enum pl_tokenizer_format format, size_t step)
{
    struct pl_buf file;
    char path[512];
    size_t loaded = 0, tried = 0;

    snprintf(path, sizeof(path), "%s/%s", DIR, name);
    ok(pl_read_file(path, 1u << 20, &file, &err));
    for (size_t i = 0; i < 3 * file.len; i += step, tried++) {
        size_t at = i % file.len, n = i < file.len ? i : file.len;
        char *copy = malloc(n ? n : 1);
        struct pl_tokenizer *t = NULL;
        struct pl_err err = {{0}};
        assert_non_null(copy);
        memcpy(copy, file.data, n);
        if (i >= 2 * file.len)
            copy[at] = (char)('0' + i % 10);
        else if (i >= file.len)
            copy[at] = (char)(copy[at] ^ 1 << i % 8);
        if (pl_tokenizer_load_bytes("x", format, copy, n, &t, &err) == PL_OK) {
            use(t);
            loaded++;
        } else {
            assert_true(err.text[0] && !t);
        }
        pl_tokenizer_free(t);
        free(copy);
    }
    assert_true(loaded < tried);
    pl_buf_release(&file);
}

static void test_mutated(void **state)
{
    (void)state;
    mutate("llama2_json/tokenizer.json", PL_TOKENIZER_JSON, 61);
    mutate("t5_json/tokenizer.json", PL_TOKENIZER_JSON, 61);
    mutate("prefixed/tokenizer.json", PL_TOKENIZER_JSON, 61);
    mutate("qwen2/tokenizer.json", PL_TOKENIZER_JSON, 61);
    mutate("bert_uncased/tokenizer.json", PL_TOKENIZER_JSON, 61);
    mutate("bert_vocab/vocab.txt", PL_TOKENIZER_VOCAB, 7);
    mutate("spm_t5/spiece.model", PL_TOKENIZER_MODEL, 5);
    mutate("spm_bpe_rules/tokenizer.model", PL_TOKENIZER_MODEL, 5);
}

/* The arrays of a tokenizer that was read, taken for the parts of another. */
struct arrays {
    struct pl_tokenizer_parts p;
    const char *pieces[1024];
    int32_t types[1024];
    json_t *json;
    const char *merges[1024];
};

static void same_ids(const struct pl_tokenizer *a, const struct pl_tokenizer *b)
{
    static const char *const texts[] = {"it was the best of times, 123 456!", "",
                                        "  don't  caf\xc3\xa9 e\xcc\x81 \n\n x", "<s>[CLS] [MASK]",
                                        "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82 Wisdom"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct pl_ids x = {0}, y = {0};
        ok(pl_tokenizer_encode(a, texts[i], strlen(texts[i]), true, &x, &err));
        ok(pl_tokenizer_encode(b, texts[i], strlen(texts[i]), true, &y, &err));
        assert_int_equal(x.n, y.n);
        if (x.n)
            assert_memory_equal(x.ids, y.ids, x.n * sizeof(int32_t));
        pl_ids_release(&x);
        pl_ids_release(&y);
    }
}

static void take_arrays(struct arrays *a, const struct pl_tokenizer *t, const char *name)
{
    const struct pl_tokenizer_info *info = pl_tokenizer_info(t);
    struct pl_buf file;
    char path[512];

    memset(a, 0, sizeof(*a));
    snprintf(path, sizeof(path), "%s/%s/tokenizer.json", DIR, name);
    ok(pl_read_file(path, 1u << 20, &file, &err));
    ok(pl_json_parse(path, file.data, file.len, &a->json, &err));
    pl_buf_release(&file);
    a->p = (struct pl_tokenizer_parts){.name = "parts",
                                       .n = (size_t)info->vocab,
                                       .pieces = a->pieces,
                                       .types = a->types,
                                       .merges = a->merges,
                                       .bos = -1,
                                       .eos = -1,
                                       .unk = -1,
                                       .pad = -1};
    assert_true(a->p.n <= 1024);
    for (int32_t i = 0; i < info->vocab; i++) {
        a->pieces[i] = pl_tokenizer_piece(t, i);
        a->types[i] = 1;
    }
    const json_t *added = json_object_get(a->json, "added_tokens"), *v;
    for (size_t i = 0; (v = json_array_get(added, i)); i++)
        a->types[json_integer_value(json_object_get(v, "id"))] = 3;
}

static void test_parts_bpe(void **state)
{
    static struct arrays a;
    static char lines[1024][64];
    struct pl_tokenizer *t = NULL, *b = NULL;

    (void)state;
    ok(pl_tokenizer_load(DIR "/smollm", &t, &err));
    take_arrays(&a, t, "smollm");
    const json_t *merges = json_object_get(json_object_get(a.json, "model"), "merges"), *v;
    for (size_t i = 0; (v = json_array_get(merges, i)); i++) {
        snprintf(lines[i], sizeof(lines[i]), "%s %s", json_string_value(json_array_get(v, 0)),
                 json_string_value(json_array_get(v, 1)));
        a.merges[a.p.n_merges++] = lines[i];
    }
    a.p.kind = PL_TOKENIZER_BYTE_BPE;
    a.p.pre = "smollm";
    ok(pl_tokenizer_from_parts(&a.p, &b, &err));
    assert_string_equal(pl_tokenizer_info(b)->kind, "byte-level-bpe");
    same_ids(t, b);
    pl_tokenizer_free(b);
    b = NULL;
    a.p.pre = "martian";
    fails(PL_EUNSUPPORTED, "martian", pl_tokenizer_from_parts(&a.p, &b, &err));
    a.p.pre = NULL;
    a.p.eos = 5000;
    fails(PL_EFORMAT, "5000", pl_tokenizer_from_parts(&a.p, &b, &err));
    a.p.eos = -1;
    a.merges[3] = "nothing";
    fails(PL_EFORMAT, "merge 3", pl_tokenizer_from_parts(&a.p, &b, &err));
    a.p.n = 0;
    fails(PL_EFORMAT, "0 pieces", pl_tokenizer_from_parts(&a.p, &b, &err));
    json_decref(a.json);
    pl_tokenizer_free(t);
}

static void test_parts_wordpiece(void **state)
{
    static struct arrays a;
    static char marked[1024][64];
    struct pl_tokenizer *t = NULL, *b = NULL;

    (void)state;
    ok(pl_tokenizer_load(DIR "/bert_uncased", &t, &err));
    take_arrays(&a, t, "bert_uncased");
    a.p.kind = PL_TOKENIZER_WORDPIECE;
    a.p.lowercase = true;
    a.p.add_bos = a.p.add_eos = true;
    a.p.unk = 1;
    a.p.bos = 2;
    a.p.eos = 3;
    ok(pl_tokenizer_from_parts(&a.p, &b, &err));
    same_ids(t, b);
    pl_tokenizer_free(b);
    /* GGUF's way: ▁ before what begins a word */
    for (size_t i = 0; i < a.p.n; i++) {
        bool inner = !strncmp(a.pieces[i], "##", 2);
        if (a.types[i] != 1)
            continue;
        snprintf(marked[i], sizeof(marked[i]), "%s%s", inner ? "" : "\xe2\x96\x81",
                 a.pieces[i] + (inner ? 2 : 0));
        a.pieces[i] = marked[i];
    }
    a.p.word_starts = true;
    ok(pl_tokenizer_from_parts(&a.p, &b, &err));
    same_ids(t, b);
    pl_tokenizer_free(b);
    json_decref(a.json);
    pl_tokenizer_free(t);
}

static void test_parts_spm(void **state)
{
    static const char *const pieces[] = {"<unk>",
                                         "<s>",
                                         "</s>",
                                         "\xe2\x96\x81",
                                         "a",
                                         "b",
                                         "ab",
                                         "\xe2\x96\x81"
                                         "ab",
                                         "[PAD1]"};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 1, 5};
    static const float scores[] = {0, 0, 0, -5, -5, -5, -2, -1, 0};
    struct pl_tokenizer_parts p = {.name = "parts",
                                   .n = 9,
                                   .pieces = pieces,
                                   .types = types,
                                   .scores = scores,
                                   .unk = 0,
                                   .bos = 1,
                                   .eos = 2,
                                   .pad = -1,
                                   .add_bos = true,
                                   .dummy_prefix = true};
    static const int32_t want[] = {1, 7, 7, 4, 0, 5};

    (void)state;
    for (int kind = PL_TOKENIZER_SPM_BPE; kind <= PL_TOKENIZER_SPM_UNIGRAM; kind++) {
        struct pl_tokenizer *t = NULL;
        struct pl_ids ids = {0};
        p.kind = (enum pl_tokenizer_kind)kind;
        ok(pl_tokenizer_from_parts(&p, &t, &err));
        ok(pl_tokenizer_encode(t, "ab abaxxb", 9, true, &ids, &err));
        assert_int_equal(ids.n, 6);
        assert_memory_equal(ids.ids, want, sizeof(want));
        pl_ids_release(&ids);
        pl_tokenizer_free(t);
    }
    struct pl_tokenizer *t = NULL;
    p.unk = -1;
    fails(PL_EFORMAT, "unk", pl_tokenizer_from_parts(&p, &t, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),  cmocka_unit_test(test_deep),
        cmocka_unit_test(test_growing),   cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_parts_bpe), cmocka_unit_test(test_parts_wordpiece),
        cmocka_unit_test(test_parts_spm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
