#include "golden.h"

#include "base/buf.h"
#include "model/checkpoint.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

#include <unistd.h>

#define DIR PL_SOURCE_DIR "/tests/model/gguf"

static const char *const names[] = {"f32",  "f16",  "bf16",    "q4_0", "q4_1", "q5_0",
                                    "q5_1", "q8_0", "mixed_k", "yarn", "gpt2"};

/* Of examples/models: a trained model in each format (tools/quantize.py). */
static const char *const quantised[] = {"small-llama-q4_0", "small-llama-q4_k", "small-llama-q5_k",
                                        "small-llama-q6_k", "small-llama-q8_0"};

static struct npy golden(const char *name, const char *part)
{
    char path[512];

    snprintf(path, sizeof(path), DIR "/%s.%s.npy", name, part);
    return npy_read(path);
}

static struct pl_model *load(const char *name, const struct pl_model_opts *o)
{
    struct pl_model *m = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s/%s.gguf",
             strncmp(name, "small-llama", 11) == 0 ? PL_SOURCE_DIR "/examples/models" : DIR, name);
    ok(pl_model_load(path, o, &m, &err));
    return m;
}

static void check_model(const char *name, const char *isa)
{
    struct pl_model *m = load(name, &(struct pl_model_opts){.where = {.threads = 2, .isa = isa}});
    struct pl_session *s = new_session(m, NULL);
    struct npy ids = golden(name, "ids"), logits = golden(name, "logits"),
               greedy = golden(name, "greedy");
    size_t vocab = logits.cols;
    float *got = malloc(ids.cols * vocab * sizeof(*got));
    double r;

    ok(pl_session_prefill(
        s, &(struct pl_prompt){.ids = ids.data, .n = ids.cols, .all_logits = true}, got, &err));
    r = relative_last(got, ids.cols, &logits);
    print_message("%-8s %-28s logits max|d|/max|logit| %.2e\n", name, pl_model_info(m)->device, r);
    assert_true(r <= tolerance(m, isa));
    if (tolerance(m, isa) < 1e-3)
        check_greedy(s, got + (ids.cols - 1) * vocab, vocab, &greedy);
    free(got);
    free(ids.data);
    free(logits.data);
    free(greedy.data);
    pl_session_free(s);
    pl_model_free(m);
}

static void test_transformers(void **state)
{
    const char *isa;

    (void)state;
    for (size_t k = 0; next_isa(&k, &isa);)
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            check_model(names[i], isa);
    for (size_t i = 0; i < sizeof(quantised) / sizeof(quantised[0]); i++)
        check_model(quantised[i], NULL);
}

static void test_bert(void **state)
{
    struct pl_model *m = load("bert", NULL);
    struct pl_session *s = new_session(m, NULL);
    struct npy ids = golden("bert", "ids"), hidden = golden("bert", "hidden");
    float *got = malloc(hidden.rows * hidden.cols * sizeof(*got));
    double r;

    (void)state;
    assert_int_equal(hidden.rows, ids.cols);
    ok(pl_session_encode(s, &(struct pl_source){.ids = ids.data, .n = ids.cols}, got, &err));
    r = relative_last(got, ids.cols, &hidden);
    print_message("bert: hidden states max|d|/max|h| %.2e\n", r);
    assert_true(r <= tolerance(m, NULL));
    free(got);
    free(ids.data);
    free(hidden.data);
    pl_session_free(s);
    pl_model_free(m);
}

/* Verify = decode, any number of threads and any cut of the prompt: the same bits; and those of the
 * weights decoded to f32 at load. */
static void check_bits(const char *name, int threads, enum pl_dtype dt, const float *want,
                       float *out)
{
    struct pl_model *m =
        load(name, &(struct pl_model_opts){.dtype = dt, .where = {.threads = threads}});
    struct pl_session *s = new_session(m, &(struct pl_session_opts){.max_tokens = 64});
    size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    int32_t ids[30];
    float *one = malloc(vocab * sizeof(*one));

    make_ids(ids, 30, 3, 97);
    prefill(s, ids, 11 + (size_t)threads, NULL);
    prefill(s, ids + 11 + threads, 9 - (size_t)threads, NULL);
    ok(pl_session_verify(s, ids + 20, 10, out, &err));
    ok(pl_session_rollback(s, 10, &err));
    for (size_t i = 0; i < 10; i++) {
        ok(pl_session_decode(s, ids[20 + i], one, &err));
        assert_memory_equal(one, out + i * vocab, vocab * sizeof(*one));
    }
    if (want)
        assert_memory_equal(out, want, 10 * vocab * sizeof(*out));
    free(one);
    pl_session_free(s);
    pl_model_free(m);
}

static void check_all_bits(void)
{
    static const char *const of[] = {"q4_0", "q8_0", "mixed_k"};
    float *a = malloc(10 * 97 * sizeof(*a)), *b = malloc(10 * 97 * sizeof(*b));

    for (size_t i = 0; i < 3; i++) {
        check_bits(of[i], 1, PL_DT_AUTO, NULL, a);
        check_bits(of[i], 2, PL_DT_AUTO, a, b);
        check_bits(of[i], 4, PL_DT_AUTO, a, b);
        check_bits(of[i], 2, PL_DT_F32, a, b);
    }
    free(a);
    free(b);
}

static void test_bits(void **state)
{
    (void)state;
    if (!exact_device())
        skip();
    check_all_bits();
}

static void test_describe(void **state)
{
    struct pl_model_info i, j;
    struct pl_model *m;

    (void)state;
    ok(pl_model_describe(DIR "/mixed_k.gguf", &(struct pl_model_opts){.check_finite = true}, &i,
                         &err));
    assert_int_equal(i.nonfinite, 0);
    assert_int_equal(i.extra_tensors, 0);
    assert_int_equal(i.arch.hidden, 256);
    assert_int_equal(i.arch.bos, 1);
    assert_int_equal(i.arch.n_eos, 1);
    assert_int_equal(i.arch.max_positions, 512);
    assert_true(i.weights_bytes < i.file_bytes);
    assert_true(i.weights_bytes > i.file_bytes * 95 / 100);
    assert_int_equal(i.table_bytes, 97 * 144);
    m = load("mixed_k", NULL);
    assert_int_equal(pl_model_info(m)->weights_bytes, i.weights_bytes);
    pl_model_free(m);
    ok(pl_model_describe(DIR "/q4_0.gguf", NULL, &i, &err));
    assert_int_equal(i.stored, PL_DT_Q4_0);
    assert_int_equal(i.dtype, PL_DT_Q4_0);
    ok(pl_model_describe(DIR "/q4_0.gguf", &(struct pl_model_opts){.dtype = PL_DT_BF16}, &j, &err));
    assert_int_equal(j.dtype, PL_DT_BF16);
    assert_true(j.weights_bytes > 3 * i.weights_bytes);
    fails(PL_EUNSUPPORTED, "cannot be held as q8_0",
          pl_model_describe(DIR "/q4_0.gguf", &(struct pl_model_opts){.dtype = PL_DT_Q8_0}, &j,
                            &err));
    ok(pl_model_describe(DIR "/q4_0.gguf",
                         &(struct pl_model_opts){.random = true, .random_seed = 3}, &j, &err));
    assert_true(j.random && j.arch.hidden == 64);
}

/* The tokenizer inside gives what the one that it was made of gives. */
static void check_tokenizer(const char *gguf, const char *original)
{
    static const char *const texts[] = {"",
                                        " ",
                                        "a",
                                        "It was the best of times, it was the worst of times.",
                                        "  two  spaces\n\nand\tlines ",
                                        "don't STOP 3.14159 2024",
                                        "\xe6\x97\xa5\xe6\x9c\xac caf\xc3\xa9 \xf0\x9f\x99\x82",
                                        "bad \xff bytes",
                                        "<s> </s> <|im_start|>user<|endoftext|> [CLS] [MASK]"};
    struct pl_tokenizer *a = NULL, *b = NULL;

    ok(pl_tokenizer_load(gguf, &a, &err));
    ok(pl_tokenizer_load(original, &b, &err));
    assert_int_equal(pl_tokenizer_info(a)->vocab, pl_tokenizer_info(b)->vocab);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct pl_ids x = {0}, y = {0};
        ok(pl_tokenizer_encode(a, texts[i], strlen(texts[i]), true, &x, &err));
        ok(pl_tokenizer_encode(b, texts[i], strlen(texts[i]), true, &y, &err));
        if (x.n != y.n || (x.n && memcmp(x.ids, y.ids, x.n * sizeof(*x.ids))))
            fail_msg("%s: \"%s\" gives other ids than %s", gguf, texts[i], original);
        pl_ids_release(&x);
        pl_ids_release(&y);
    }
    pl_tokenizer_free(a);
    pl_tokenizer_free(b);
}

static void test_tokenizers(void **state)
{
    struct pl_tokenizer *t = NULL;

    (void)state;
    check_tokenizer(DIR "/tokenizer_spm.gguf", GOLDENS "/spm_bytes");
    for (size_t i = 0; i < sizeof(quantised) / sizeof(quantised[0]); i++) {
        char path[512];
        snprintf(path, sizeof(path), PL_SOURCE_DIR "/examples/models/%s.gguf", quantised[i]);
        check_tokenizer(path, PL_SOURCE_DIR "/examples/models/small-llama");
    }
    check_tokenizer(DIR "/tokenizer_bpe.gguf", PL_SOURCE_DIR "/tests/model/tokenizers/qwen2");
    check_tokenizer(DIR "/tokenizer_bert.gguf",
                    PL_SOURCE_DIR "/tests/model/tokenizers/bert_uncased");
    fails(PL_ENOENT, "holds no tokenizer", pl_tokenizer_load(DIR "/q4_0.gguf", &t, &err));
}

/* --- values --- */

struct writer {
    struct pl_buf b;
};

static void put(struct writer *w, const void *p, size_t n)
{
    ok(pl_buf_add(&w->b, p, n, &err));
}

static void put32(struct writer *w, uint32_t v)
{
    put(w, &v, 4);
}

static void put64(struct writer *w, uint64_t v)
{
    put(w, &v, 8);
}

static void put_text(struct writer *w, const char *s)
{
    put64(w, strlen(s));
    put(w, s, strlen(s));
}

static void begin(struct writer *w, uint32_t version, uint64_t tensors, uint64_t pairs)
{
    pl_buf_init(&w->b, 1u << 20);
    put(w, "GGUF", 4);
    put32(w, version);
    put64(w, tensors);
    put64(w, pairs);
}

static void put_tensor(struct writer *w, const char *name, uint32_t dims, uint64_t a, uint64_t b,
                       uint32_t type, uint64_t offset)
{
    put_text(w, name);
    put32(w, dims);
    if (dims > 0)
        put64(w, a);
    if (dims > 1)
        put64(w, b);
    for (uint32_t i = 2; i < dims && i < 64; i++)
        put64(w, 1);
    put32(w, type);
    put64(w, offset);
}

static void pad(struct writer *w, size_t data)
{
    while (w->b.len % 32)
        put(w, "", 1);
    for (size_t i = 0; i < data; i++)
        put(w, "", 1);
}

/* Parses what was written from memory of exactly that size, and releases it. */
static enum pl_status parse(struct writer *w, struct pl_err *err)
{
    char *exact = malloc(w->b.len ? w->b.len : 1);
    struct pl_gguf *g = NULL;
    struct pl_arena arena;
    enum pl_status st;

    memcpy(exact, w->b.data, w->b.len);
    pl_arena_init(&arena);
    st = pl_gguf_parse("x.gguf", exact, w->b.len, &arena, &g, err);
    pl_arena_release(&arena);
    free(exact);
    pl_buf_release(&w->b);
    return st;
}

static void test_values(void **state)
{
    struct writer w;
    struct pl_gguf *g = NULL;
    struct pl_arena arena;
    struct pl_gguf_str str, *list;
    int64_t i;
    double d;
    bool flag;
    size_t n;
    float *f;
    int32_t *ids;

    (void)state;
    begin(&w, 2, 0, 7);
    put_text(&w, "b.int"), put32(&w, PL_GGUF_I16), put(&w, "\xfe\xff", 2);
    put_text(&w, "a.real"), put32(&w, PL_GGUF_F64), put(&w, &(double){2.5}, 8);
    put_text(&w, "a.flag"), put32(&w, PL_GGUF_BOOL), put(&w, "\1", 1);
    put_text(&w, "a.text"), put32(&w, PL_GGUF_STRING), put_text(&w, "h\xc3\xa9");
    put_text(&w, "a.texts"), put32(&w, PL_GGUF_ARRAY), put32(&w, PL_GGUF_STRING), put64(&w, 2);
    put_text(&w, ""), put_text(&w, "two");
    put_text(&w, "a.ints"), put32(&w, PL_GGUF_ARRAY), put32(&w, PL_GGUF_U8), put64(&w, 3);
    put(&w, "\1\2\3", 3);
    put_text(&w, "a.big"), put32(&w, PL_GGUF_U64), put64(&w, UINT64_MAX);
    pl_arena_init(&arena);
    ok(pl_gguf_parse("x.gguf", w.b.data, w.b.len, &arena, &g, &err));
    assert_int_equal(pl_gguf_version(g), 2);
    assert_int_equal(pl_gguf_pairs(g), 7);
    assert_string_equal(pl_gguf_pair(g, 0)->key, "a.big");
    ok(pl_gguf_int(g, "b.int", 0, -5, 5, &i, &err));
    assert_int_equal(i, -2);
    ok(pl_gguf_int(g, "none", 77, 0, 5, &i, &err));
    assert_int_equal(i, 77);
    fails(PL_EFORMAT, "b.int is -2, expected 0 to 5", pl_gguf_int(g, "b.int", 0, 0, 5, &i, &err));
    fails(PL_EFORMAT, "a.text is string, expected an integer",
          pl_gguf_int(g, "a.text", 0, 0, 5, &i, &err));
    fails(PL_EFORMAT, "a.big", pl_gguf_int(g, "a.big", 0, 0, INT32_MAX, &i, &err));
    ok(pl_gguf_real(g, "a.real", 0, &d, &err));
    assert_true(d == 2.5);
    ok(pl_gguf_real(g, "b.int", 0, &d, &err));
    assert_true(d == -2);
    ok(pl_gguf_bool(g, "a.flag", false, &flag, &err));
    assert_true(flag);
    ok(pl_gguf_string(g, "a.text", &str, &err));
    assert_int_equal(str.len, 3);
    ok(pl_gguf_strings(g, "a.texts", &arena, &list, &n, &err));
    assert_true(n == 2 && list[0].len == 0 && list[1].len == 3 && !memcmp(list[1].s, "two", 3));
    ok(pl_gguf_floats(g, "a.ints", &arena, &f, &n, &err));
    assert_true(n == 3 && f[2] == 3);
    ok(pl_gguf_ints(g, "a.ints", &arena, &ids, &n, &err));
    assert_true(n == 3 && ids[0] == 1);
    fails(PL_EFORMAT, "a.texts is an array of string",
          pl_gguf_ints(g, "a.texts", &arena, &ids, &n, &err));
    ok(pl_gguf_strings(g, "none", &arena, &list, &n, &err));
    assert_true(!list && n == 0);
    pl_arena_release(&arena);
    pl_buf_release(&w.b);
}

/* --- bad input --- */

static void test_bad_headers(void **state)
{
    struct writer w;

    (void)state;
    pl_buf_init(&w.b, 64), put(&w, "GGML", 4), put32(&w, 3), put64(&w, 0);
    fails(PL_EFORMAT, "not a GGUF file", parse(&w, &err));
    begin(&w, 1, 0, 0);
    fails(PL_EUNSUPPORTED, "version 1", parse(&w, &err));
    begin(&w, 4, 0, 0);
    fails(PL_EUNSUPPORTED, "version 4", parse(&w, &err));
    begin(&w, 3u << 24, 0, 0);
    fails(PL_EUNSUPPORTED, "big-endian", parse(&w, &err));
    begin(&w, 3, 0, UINT64_MAX);
    fails(PL_EFORMAT, "18446744073709551615 metadata pairs", parse(&w, &err));
    begin(&w, 3, UINT64_MAX / 8, 0);
    fails(PL_EFORMAT, "tensors", parse(&w, &err));
    begin(&w, 3, 0, 0);
    ok(parse(&w, &err));
}

static void test_bad_pairs(void **state)
{
    struct writer w;

    (void)state;
#define PAIRS(n) begin(&w, 3, 0, n)
    PAIRS(1), put64(&w, UINT64_MAX), pad(&w, 64);
    fails(PL_EFORMAT, "a metadata key of 18446744073709551615 bytes", parse(&w, &err));
    PAIRS(1), put_text(&w, ""), pad(&w, 64);
    fails(PL_EFORMAT, "a metadata key of 0 bytes", parse(&w, &err));
    PAIRS(1), put_text(&w, "a\x1b[31m"), pad(&w, 64);
    fails(PL_EFORMAT, "0x1b", parse(&w, &err));
    PAIRS(1), put64(&w, 3), put(&w, "a\0b", 3), pad(&w, 64);
    fails(PL_EFORMAT, "0x00", parse(&w, &err));
    PAIRS(1), put_text(&w, "key"), put32(&w, 13), pad(&w, 64);
    fails(PL_EFORMAT, "key: unknown value type 13", parse(&w, &err));
    PAIRS(1), put_text(&w, "key"), put32(&w, PL_GGUF_STRING), put64(&w, UINT64_MAX - 7);
    fails(PL_EFORMAT, "key takes 18446744073709551608 bytes", parse(&w, &err));
    PAIRS(1), put_text(&w, "key"), put32(&w, PL_GGUF_ARRAY), put32(&w, PL_GGUF_U64);
    put64(&w, (UINT64_MAX >> 3) + 2), pad(&w, 64);
    fails(PL_EFORMAT, "key takes", parse(&w, &err));
    PAIRS(1), put_text(&w, "key"), put32(&w, PL_GGUF_ARRAY), put32(&w, PL_GGUF_STRING);
    put64(&w, UINT64_MAX), put_text(&w, "one");
    fails(PL_EFORMAT, "truncated", parse(&w, &err));
    PAIRS(1), put_text(&w, "key"), put32(&w, PL_GGUF_ARRAY);
    for (int i = 0; i < 20; i++)
        put32(&w, PL_GGUF_ARRAY), put64(&w, 1);
    fails(PL_EFORMAT, "nested deeper", parse(&w, &err));
    PAIRS(1), put_text(&w, "key"), put32(&w, PL_GGUF_BOOL), put(&w, "\2", 1);
    fails(PL_EFORMAT, "key: 2 is neither true nor false", parse(&w, &err));
    PAIRS(2), put_text(&w, "key"), put32(&w, PL_GGUF_U8), put(&w, "", 1);
    put_text(&w, "key"), put32(&w, PL_GGUF_U8), put(&w, "", 1), pad(&w, 32);
    fails(PL_EFORMAT, "key twice", parse(&w, &err));
    PAIRS(1), put_text(&w, "general.alignment"), put32(&w, PL_GGUF_U32), put32(&w, 48);
    fails(PL_EFORMAT, "48 is no power of two", parse(&w, &err));
    PAIRS(1), put_text(&w, "general.alignment"), put32(&w, PL_GGUF_U32), put32(&w, 0);
    fails(PL_EFORMAT, "general.alignment is 0", parse(&w, &err));
    PAIRS(1), put_text(&w, "general.alignment"), put32(&w, PL_GGUF_STRING), put_text(&w, "32");
    fails(PL_EFORMAT, "general.alignment is string", parse(&w, &err));
#undef PAIRS
}

static void test_bad_tensors(void **state)
{
    struct writer w;

    (void)state;
#define TENSOR(...) begin(&w, 3, 1, 0), put_tensor(&w, __VA_ARGS__), pad(&w, 256)
    TENSOR("t", 2, 8, 8, 0, 0);
    ok(parse(&w, &err));
    TENSOR("t", 2, 8, 8, 0, 32);
    fails(PL_EFORMAT, "takes 256 bytes at 32 of the data, but the file holds 256", parse(&w, &err));
    TENSOR("t", 2, 8, 4, 0, UINT64_MAX - 31);
    fails(PL_EFORMAT, "truncated", parse(&w, &err));
    TENSOR("t", 2, 8, 4, 0, 8);
    fails(PL_EFORMAT, "offset 8 is no multiple of the alignment 32", parse(&w, &err));
    TENSOR("t", 5, 1, 1, 0, 0);
    fails(PL_EFORMAT, "5 dimensions", parse(&w, &err));
    TENSOR("t", 2, UINT64_C(1) << 40, UINT64_C(1) << 40, 0, 0);
    fails(PL_EFORMAT, "shape overflows", parse(&w, &err));
    TENSOR("t", 2, UINT64_MAX, 1, 0, 0);
    fails(PL_EFORMAT, "shape overflows", parse(&w, &err));
    TENSOR("t", 1, UINT64_C(1) << 62, 1, 0, 0);
    fails(PL_EFORMAT, "shape overflows", parse(&w, &err));
    TENSOR("t", 2, 40, 1, 2, 0);
    fails(PL_EFORMAT, "rows of 40 are no whole blocks of 32 (q4_0)", parse(&w, &err));
    TENSOR("t", 2, 32, 1, 12, 0);
    fails(PL_EFORMAT, "no whole blocks of 256 (q4_k)", parse(&w, &err));
    TENSOR("t", 1, 32, 1, 9, 0);
    fails(PL_EUNSUPPORTED, "tensor t is of type Q8_1", parse(&w, &err));
    TENSOR("t", 1, 32, 1, 4, 0);
    fails(PL_EUNSUPPORTED, "Q4_2", parse(&w, &err));
    TENSOR("t", 1, 32, 1, 1000, 0);
    fails(PL_EUNSUPPORTED, "unknown type 1000", parse(&w, &err));
    TENSOR("", 1, 32, 1, 0, 0);
    fails(PL_EFORMAT, "name of 0 bytes", parse(&w, &err));
    begin(&w, 3, 2, 0), put_tensor(&w, "t", 1, 8, 1, 0, 0), put_tensor(&w, "t", 1, 8, 1, 0, 32);
    pad(&w, 64);
    fails(PL_EFORMAT, "tensor t stands in it twice", parse(&w, &err));
    begin(&w, 3, 2, 0), put_tensor(&w, "a", 1, 16, 1, 0, 0), put_tensor(&w, "b", 1, 8, 1, 0, 32);
    pad(&w, 64);
    fails(PL_EFORMAT, "tensors a and b overlap", parse(&w, &err));
#undef TENSOR
}

static void write_file(const char *path, const char *data, size_t n)
{
    ok(pl_write_file_atomic(path, data, n, &err));
}

/* Whatever is cut off or flipped, loading says so or works; it reads nothing outside the file. */
static void test_damage(void **state)
{
    char dir[] = "/tmp/pl_gguf_XXXXXX", path[64];
    struct pl_model_info info;
    struct pl_buf b;
    uint32_t seed = 1;
    size_t worked = 0;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/m.gguf", dir);
    ok(pl_read_file(DIR "/q5_0.gguf", 1u << 22, &b, &err));
    for (size_t n = 0; n < b.len; n += n < 3000 ? 7 : 1009) {
        struct pl_err err = {0};
        write_file(path, b.data, n);
        enum pl_status st = pl_model_describe(path, NULL, &info, &err);
        if (st != PL_EFORMAT)
            fail_msg("cut to %zu bytes: %s: %s", n, pl_status_text(st), err.text);
    }
    for (int i = 0; i < 1500; i++) {
        struct pl_err err = {0};
        seed = seed * 1664525u + 1013904223u;
        size_t at = (seed >> 8) % 2600;
        char old = b.data[at];
        b.data[at] = (char)(seed >> (i % 3 ? 24 : 16));
        write_file(path, b.data, b.len);
        enum pl_status st = pl_model_describe(path, NULL, &info, &err);
        worked += st == PL_OK;
        if (st && (!err.text[0] || (st != PL_EFORMAT && st != PL_EUNSUPPORTED)))
            fail_msg("byte %zu changed: %s: %s", at, pl_status_text(st), err.text);
        b.data[at] = old;
    }
    assert_true(worked > 0 && worked < 1500);
    pl_buf_release(&b);
    unlink(path);
    rmdir(dir);
}

/* A golden with one text replaced by another of its length. */
static void edited(const char *name, const char *path, const char *from, const char *to, size_t n)
{
    char golden_path[512];
    struct pl_buf b;
    size_t at = 0;

    snprintf(golden_path, sizeof(golden_path), DIR "/%s.gguf", name);
    ok(pl_read_file(golden_path, 1u << 22, &b, &err));
    while (at + n <= b.len && memcmp(b.data + at, from, n))
        at++;
    assert_true(at + n <= b.len);
    memcpy(b.data + at, to, n);
    write_file(path, b.data, b.len);
    pl_buf_release(&b);
}

static void test_contradictions(void **state)
{
    char dir[] = "/tmp/pl_gguf_XXXXXX", path[64];
    struct pl_model *m = NULL;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/m.gguf", dir);
#define EDIT(name, from, to) edited(name, path, from, to, sizeof(from) - 1)
    EDIT("q4_0", "\5\0\0\0\0\0\0\0llama", "\5\0\0\0\0\0\0\0gemma");
    fails(PL_EUNSUPPORTED, "GGUF architecture \"gemma\"", pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "\5\0\0\0\0\0\0\0llama", "\5\0\0\0\0\0\0\0ll\033ma");
    fails(PL_EUNSUPPORTED, "\"ll?ma\"", pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "llama.block_count\4\0\0\0\2", "llama.block_count\4\0\0\0\3");
    fails(PL_EFORMAT, "no tensor blk.2.attn_norm.weight", pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "llama.block_count", "llama.block_xount");
    fails(PL_EFORMAT, "no metadata llama.block_count", pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "llama.feed_forward_length\4\0\0\0\x60", "llama.feed_forward_length\4\0\0\0\x40");
    fails(PL_EFORMAT,
          "blk.0.ffn_gate.weight: expected shape [64, 64] by the metadata, found [96, 64]",
          pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "llama.attention.head_count_kv\4\0\0\0\2",
         "llama.attention.head_count_kv\4\0\0\0\3");
    fails(PL_EFORMAT, "no multiple of attention.head_count_kv 3",
          pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "llama.rope.dimension_count\4\0\0\0\x10",
         "llama.rope.dimension_count\4\0\0\0\x08");
    fails(PL_EUNSUPPORTED, "rope.dimension_count is 8", pl_model_load(path, NULL, &m, &err));
    EDIT("f16", "\6\0\0\0\0\0\0\0linear", "\6\0\0\0\0\0\0\0cosine");
    fails(PL_EUNSUPPORTED, "rope.scaling.type \"cosine\"", pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "blk.0.ffn_up.weight", "blk.0.ffn_xp.weight");
    fails(PL_EFORMAT, "no tensor blk.0.ffn_up.weight", pl_model_load(path, NULL, &m, &err));
    EDIT("q4_0", "output_norm.weight", "token_embd.weights");
    fails(PL_EFORMAT, "no tensor output_norm.weight", pl_model_load(path, NULL, &m, &err));
    /* IQ4_NL has blocks of the same size as Q4_0: listed, but not run */
    EDIT("q4_0", "blk.0.ffn_up.weight\2\0\0\0\x40\0\0\0\0\0\0\0\x60\0\0\0\0\0\0\0\2",
         "blk.0.ffn_up.weight\2\0\0\0\x40\0\0\0\0\0\0\0\x60\0\0\0\0\0\0\0\x14");
    fails(PL_EUNSUPPORTED, "tensor blk.0.ffn_up.weight is iq4_nl",
          pl_model_load(path, NULL, &m, &err));
#undef EDIT
    assert_null(m);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformers),   cmocka_unit_test(test_bert),
        cmocka_unit_test(test_tokenizers),     cmocka_unit_test(test_bits),
        cmocka_unit_test(test_describe),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_bad_headers),    cmocka_unit_test(test_bad_pairs),
        cmocka_unit_test(test_bad_tensors),    cmocka_unit_test(test_damage),
        cmocka_unit_test(test_contradictions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
