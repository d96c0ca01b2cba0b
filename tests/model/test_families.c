/* The families beside Llama against transformers, and what every decoder promises: verify(k) is k
 * decodes bit for bit, whatever the threads and the cuts of the prompt. Encoders: whatever the
 * threads. */
#include "golden.h"

#include <unistd.h>

static const char *const decoders[] = {"qwen2",          "qwen2_window", "qwen3", "qwen3_hub",
                                       "mistral_window", "mistral_wide", "yarn",  "yarn_factor",
                                       "gpt2",           "gpt2_v5"};
static const char *const encoders[] = {"bert",       "bert_old",       "bert_one",  "roberta",
                                       "distilbert", "distilbert_mlm", "t5_encoder"};
static const char *const seq2seq[] = {"t5", "flan", "flan_v5"};
static const char *const towers[] = {"clip", "clip_gelu"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char *path_of(const char *name, const char *file, char out[512])
{
    snprintf(out, 512, "%s/families/%s/%s.npy", GOLDENS, name, file);
    return out;
}

static struct npy golden(const char *name, const char *file)
{
    char path[512];

    return npy_read(path_of(name, file, path));
}

static struct npy maybe(const char *name, const char *file)
{
    char path[512];

    return access(path_of(name, file, path), R_OK) ? (struct npy){0} : npy_read(path);
}

static struct pl_model *load(const char *name, int threads, const char *isa)
{
    char path[128];

    snprintf(path, sizeof(path), "families/%s", name);
    return load_model(path, threads, isa);
}

static void report(const char *name, const struct pl_model *m, const char *isa, double r, double h)
{
    print_message("%-15s %-22s max|d|/max %.2e, after block 1 %.2e\n", name,
                  pl_model_info(m)->device, r, h);
    assert_true(r <= tolerance(m, isa));
    assert_true(h <= tolerance(m, isa));
}

static void check_decoder(const char *name, const char *isa)
{
    static const int taps[] = {1};
    struct pl_model *m = load(name, 2, isa);
    struct npy ids = golden(name, "ids"), logits = golden(name, "logits");
    struct npy hidden = golden(name, "hidden1"), greedy = golden(name, "greedy");
    size_t n = ids.cols, vocab = logits.cols;
    struct pl_session *s = new_session(m, &(struct pl_session_opts){.taps = taps, .n_taps = 1});
    float *got = malloc(n * vocab * sizeof(*got)), *gh = malloc(n * hidden.cols * sizeof(*gh));
    struct pl_prompt p = {.ids = ids.data, .n = n, .all_logits = true};

    assert_int_equal(vocab, pl_model_info(m)->arch.vocab);
    ok(pl_session_prefill(s, &p, got, &err));
    ok(pl_session_hidden_copy(s, 0, 0, n, gh, &err));
    report(name, m, isa, relative_last(got, n, &logits), relative_last(gh, n, &hidden));
    if (tolerance(m, isa) < 1e-3)
        check_greedy(s, got + (n - 1) * vocab, vocab, &greedy);
    free(got);
    free(gh);
    free(ids.data);
    free(logits.data);
    free(hidden.data);
    free(greedy.data);
    pl_session_free(s);
    pl_model_free(m);
}

static uint8_t *mask_of(const struct npy *mask)
{
    uint8_t *out = malloc(mask->cols + 1);

    for (size_t i = 0; i < mask->cols; i++)
        out[i] = ((int32_t *)mask->data)[i] != 0;
    return out;
}

static void check_encoder(const char *name, const char *isa)
{
    static const int taps[] = {1, PL_TAP_FINAL};
    struct pl_model *m = load(name, 2, isa);
    struct npy ids = golden(name, "ids"), hidden = golden(name, "hidden");
    struct npy first = golden(name, "hidden1"), types = maybe(name, "types");
    struct npy mask = maybe(name, "mask"), pooled = maybe(name, "pooled");
    size_t n = ids.cols, h = hidden.cols;
    struct pl_session *s =
        new_session(m, &(struct pl_session_opts){.max_tokens = n, .taps = taps, .n_taps = 2});
    float *got = malloc(n * h * sizeof(*got)), *gh = malloc(n * h * sizeof(*gh));
    uint8_t *m8 = mask_of(&mask);
    struct pl_source in = {
        .ids = ids.data, .types = types.data, .mask = mask.data ? m8 : NULL, .n = n};

    for (int again = 0; again < 2; again++) { /* the second run finds a used session */
        ok(pl_session_encode(s, &in, got, &err));
        ok(pl_session_hidden_copy(s, 0, 0, n, gh, &err));
    }
    report(name, m, isa, relative_last(got, n, &hidden), relative_last(gh, n, &first));
    ok(pl_session_hidden_copy(s, 1, 0, n, gh, &err));
    assert_memory_equal(got, gh, n * h * sizeof(*got));
    if (pooled.data) {
        ok(pl_session_pooled(s, got, &err));
        assert_true(relative_last(got, 1, &pooled) <= tolerance(m, isa));
    } else {
        fails(PL_EUNSUPPORTED, "no pooler", pl_session_pooled(s, got, &err));
    }
    free(m8);
    free(got);
    free(gh);
    free(ids.data);
    free(hidden.data);
    free(first.data);
    free(types.data);
    free(mask.data);
    free(pooled.data);
    pl_session_free(s);
    pl_model_free(m);
}

static void check_seq2seq(const char *name, const char *isa)
{
    static const int taps[] = {1};
    struct pl_model *m = load(name, 2, isa);
    struct npy ids = golden(name, "ids"), mask = maybe(name, "mask");
    struct npy dec = golden(name, "decoder_ids"), logits = golden(name, "logits");
    struct npy first = golden(name, "hidden1"), encoded = golden(name, "encoded");
    struct npy greedy = golden(name, "greedy");
    size_t n = ids.cols, k = dec.cols, h = first.cols, vocab = logits.cols;
    struct pl_session *s =
        new_session(m, &(struct pl_session_opts){
                           .max_tokens = k + 24, .max_source = n, .taps = taps, .n_taps = 1});
    float *got = malloc(k * vocab * sizeof(*got)), *gh = malloc((n + k) * h * sizeof(*gh));
    uint8_t *m8 = mask_of(&mask);
    struct pl_source in = {.ids = ids.data, .mask = mask.data ? m8 : NULL, .n = n};
    struct pl_prompt p = {.ids = dec.data, .n = k, .all_logits = true};

    fails(PL_EUSAGE, "the source comes before", pl_session_prefill(s, &p, got, &err));
    for (int again = 0; again < 2; again++) {
        pl_session_reset(s);
        ok(pl_session_encode(s, &in, gh, &err));
        assert_true(relative_last(gh, n, &encoded) <= tolerance(m, isa));
        ok(pl_session_prefill(s, &p, got, &err));
        ok(pl_session_hidden_copy(s, 0, 0, k, gh, &err));
        report(name, m, isa, relative_last(got, k, &logits), relative_last(gh, k, &first));
        if (tolerance(m, isa) < 1e-3)
            check_greedy(s, got + (k - 1) * vocab, vocab, &greedy);
    }
    fails(PL_EUSAGE, "before the decoder's first", pl_session_encode(s, &in, NULL, &err));
    free(m8);
    free(got);
    free(gh);
    free(ids.data);
    free(mask.data);
    free(dec.data);
    free(logits.data);
    free(first.data);
    free(encoded.data);
    free(greedy.data);
    pl_session_free(s);
    pl_model_free(m);
}

static void check_tower(const char *name, const char *isa)
{
    static const int taps[] = {1};
    struct pl_model *m = load(name, 2, isa);
    const struct pl_arch *a = &pl_model_info(m)->arch;
    struct npy pixels = golden(name, "pixels"), hidden = golden(name, "hidden");
    struct npy first = golden(name, "hidden1");
    size_t each = (size_t)a->channels * (size_t)a->image * (size_t)a->image;
    size_t rows = (size_t)pl_arch_image_rows(a), h = (size_t)a->hidden;
    size_t images = pixels.rows * pixels.cols / each;
    struct pl_session *s = new_session(m, &(struct pl_session_opts){.taps = taps, .n_taps = 1});
    float *got = malloc(images * rows * h * sizeof(*got)), *gh = malloc(images * rows * h * 4);

    for (size_t i = 0; i < images; i++) {
        struct pl_source in = {.pixels = (float *)pixels.data + i * each, .n = rows};
        ok(pl_session_encode(s, &in, got + i * rows * h, &err));
        ok(pl_session_hidden_copy(s, 0, 0, rows, gh + i * rows * h, &err));
    }
    report(name, m, isa, relative_last(got, images * rows, &hidden),
           relative_last(gh, images * rows, &first));
    fails(PL_EUSAGE, "pixels",
          pl_session_encode(s, &(struct pl_source){.ids = (int32_t[]){0}, .n = 1}, NULL, &err));
    free(got);
    free(gh);
    free(pixels.data);
    free(hidden.data);
    free(first.data);
    pl_session_free(s);
    pl_model_free(m);
}

static void test_transformers(void **state)
{
    const char *isa;

    (void)state;
    for (size_t i = 0; next_isa(&i, &isa);) {
        for (size_t j = 0; j < COUNT(decoders); j++)
            check_decoder(decoders[j], isa);
        for (size_t j = 0; j < COUNT(encoders); j++)
            check_encoder(encoders[j], isa);
        for (size_t j = 0; j < COUNT(seq2seq); j++)
            check_seq2seq(seq2seq[j], isa);
        for (size_t j = 0; j < COUNT(towers); j++)
            check_tower(towers[j], isa);
    }
}

/* A session that has read its source, where there is one. */
static struct pl_session *begin(struct pl_model *m, const int32_t *ids, size_t n)
{
    const struct pl_arch *a = &pl_model_info(m)->arch;
    struct pl_session *s =
        new_session(m, &(struct pl_session_opts){.max_source = n, .max_verify = 9});

    if (a->encoder_layers)
        ok(pl_session_encode(s, &(struct pl_source){.ids = ids, .n = n}, NULL, &err));
    return s;
}

/* Prompt, 9 decodes, and for each number of threads: the prompt in other pieces, verifies of 9 and
 * 4 after rollbacks. */
static void check_bits(const char *name, size_t prompt)
{
    enum { K = 9 };
    struct pl_model *m = load(name, 1, NULL);
    size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    int32_t *ids = malloc((prompt + K) * sizeof(*ids));
    float *one = malloc(K * vocab * sizeof(*one)), *many = malloc(K * vocab * sizeof(*many));
    float *start = malloc(vocab * sizeof(*start)), *other = malloc(vocab * sizeof(*other));

    make_ids(ids, prompt + K, 7, (int32_t)vocab);
    struct pl_session *s = begin(m, ids, 41);
    prefill(s, ids, prompt, start);
    for (size_t i = 0; i < K; i++)
        ok(pl_session_decode(s, ids[prompt + i], one + i * vocab, &err));
    pl_session_free(s);
    pl_model_free(m);
    for (int threads = 1; threads <= 3; threads++) {
        m = load(name, threads, NULL);
        s = begin(m, ids, 41);
        prefill(s, ids, prompt / 3, NULL);
        prefill(s, ids + prompt / 3, prompt - prompt / 3, other);
        assert_memory_equal(start, other, vocab * sizeof(*start));
        ok(pl_session_verify(s, ids + prompt, K, many, &err));
        assert_memory_equal(one, many, K * vocab * sizeof(*one));
        ok(pl_session_rollback(s, K - 2, &err));
        ok(pl_session_verify(s, ids + prompt + 2, 4, many, &err));
        assert_memory_equal(one + 2 * vocab, many, 4 * vocab * sizeof(*one));
        pl_session_free(s);
        pl_model_free(m);
    }
    free(ids);
    free(one);
    free(many);
    free(start);
    free(other);
}

static void test_bits(void **state)
{
    (void)state;
    if (!exact_device())
        skip();
    check_bits("qwen2", 37);
    check_bits("qwen2_window", 71);
    check_bits("qwen2_window", 333);
    check_bits("qwen3", 61);
    check_bits("mistral_window", 130);
    check_bits("mistral_window", 570);
    check_bits("mistral_wide", 601);
    check_bits("yarn", 260);
    check_bits("gpt2", 140);
    check_bits("t5", 70);
    check_bits("flan", 33);
}

/* One session after another and all at once. */
static void test_batch(void **state)
{
    static const char *const names[] = {"flan", "mistral_window", "gpt2"};

    (void)state;
    for (size_t j = 0; j < COUNT(names); j++) {
        struct pl_model *m = load(names[j], 2, NULL);
        size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
        struct pl_session *s[3], *t[3];
        float *a = malloc(3 * vocab * sizeof(*a)), *b = malloc(3 * vocab * sizeof(*b));
        int32_t ids[120];
        make_ids(ids, 120, 3, (int32_t)vocab);
        for (size_t i = 0; i < 3; i++) {
            s[i] = begin(m, ids + i, 20 + 30 * i);
            t[i] = begin(m, ids + i, 20 + 30 * i);
            prefill(s[i], ids + 5 * i, 10 + 20 * i, NULL);
            prefill(t[i], ids + 5 * i, 10 + 20 * i, NULL);
            ok(pl_session_decode(s[i], ids[i], a + i * vocab, &err));
        }
        ok(pl_sessions_decode(t, ids, 3, b, &err));
        assert_memory_equal(a, b, 3 * vocab * sizeof(*a));
        for (size_t i = 0; i < 3; i++) {
            pl_session_free(s[i]);
            pl_session_free(t[i]);
        }
        free(a);
        free(b);
        pl_model_free(m);
    }
}

static void test_encoder_threads(void **state)
{
    static const char *const names[] = {"bert_old", "roberta", "t5_encoder"};

    (void)state;
    for (size_t j = 0; j < COUNT(names); j++) {
        struct npy ids = golden(names[j], "ids");
        float *all[3];
        size_t bytes = 0;
        for (int threads = 1; threads <= 3; threads++) {
            struct pl_model *m = load(names[j], threads, NULL);
            struct pl_session *s =
                new_session(m, &(struct pl_session_opts){.max_tokens = ids.cols});
            bytes = ids.cols * (size_t)pl_model_info(m)->arch.hidden * sizeof(float);
            all[threads - 1] = malloc(bytes);
            ok(pl_session_encode(s, &(struct pl_source){.ids = ids.data, .n = ids.cols},
                                 all[threads - 1], &err));
            pl_session_free(s);
            pl_model_free(m);
        }
        assert_memory_equal(all[0], all[1], bytes);
        assert_memory_equal(all[0], all[2], bytes);
        for (int i = 0; i < 3; i++)
            free(all[i]);
        free(ids.data);
    }
}

/* What a window leaves: lengths, memory, how far back one can go. */
static void check_window(void)
{
    struct pl_model *m = load("mistral_window", 1, NULL), *q = load("qwen2_window", 1, NULL);
    const struct pl_arch *a = &pl_model_info(m)->arch;
    size_t n = 500, vocab = (size_t)a->vocab;
    int32_t *ids = malloc(n * sizeof(*ids));
    float *logits = malloc(9 * vocab * sizeof(*logits));
    struct pl_session_memory mem, need;

    make_ids(ids, n, 5, a->vocab);
    struct pl_session_opts o = {.max_verify = 9};
    struct pl_session *s = new_session(m, &o);
    prefill(s, ids, 10, NULL);
    assert_int_equal(pl_session_kv_len(s, 0), 10);
    pl_session_reset(s);
    prefill(s, ids, n, NULL);
    assert_int_equal(pl_session_kv_len(s, 0), 24);
    assert_int_equal(pl_session_len(s), n);
    pl_session_memory(s, &mem);
    pl_session_bytes(pl_model_info(m), &o, &need);
    assert_int_equal(mem.kv_bytes, need.kv_bytes);
    /* two layers of 320 places (24 + 256, in chunks of 64), K and V of 2 heads of 16 */
    assert_int_equal(mem.kv_bytes, 2 * 320 * 2 * 2 * 16 * 4);
    assert_int_equal(mem.kv_bytes_used, 2 * 24 * 2 * 2 * 16 * 4);
    for (int i = 0; i < 100; i++)
        ok(pl_session_verify(s, ids, 1, logits, &err));
    ok(pl_session_rollback(s, 100, &err));
    fails(PL_ERANGE, "since the prefill", pl_session_rollback(s, 1, &err));
    pl_session_free(s);

    s = new_session(m, &o); /* rows that a rollback would need are gone after 297 */
    prefill(s, ids, 290, NULL);
    for (int i = 0; i < 340; i++)
        ok(pl_session_decode(s, ids[i], logits, &err));
    fails(PL_ERANGE, "sliding window", pl_session_rollback(s, 298, &err));
    ok(pl_session_rollback(s, 297, &err));
    ok(pl_session_decode(s, ids[43], logits, &err));
    struct pl_session *t = new_session(m, &o);
    prefill(t, ids, 290, NULL);
    for (int i = 0; i <= 43; i++)
        ok(pl_session_decode(t, ids[i], logits + vocab, &err));
    assert_memory_equal(logits, logits + vocab, vocab * sizeof(*logits));
    pl_session_free(t);
    pl_session_free(s);

    s = new_session(q, &o); /* the first block sees all */
    prefill(s, ids, 100, NULL);
    assert_int_equal(pl_session_kv_len(s, 0), 100);
    assert_int_equal(pl_session_kv_len(s, 1), 20);
    assert_int_equal(pl_session_kv_len(s, 2), 20);
    pl_session_free(s);
    free(ids);
    free(logits);
    pl_model_free(m);
    pl_model_free(q);
}

static void test_window(void **state)
{
    (void)state;
    if (!exact_device()) /* rings of another length */
        skip();
    check_window();
}

static enum pl_status keep_all(void *user, const struct pl_stage *stage, int32_t *kept,
                               size_t *n_kept, struct pl_err *err)
{
    float *least = user;

    (void)kept;
    (void)n_kept;
    (void)err;
    for (size_t h = 0; h < 4; h++) { /* the window's rows see all that they see within the window */
        float sum = 0;
        for (size_t i = 0; i < stage->n; i++)
            sum += stage->attn[h * stage->n + i];
        *least = fminf(*least, sum);
    }
    for (size_t i = 0; i + 24 + 3 < stage->n; i++)
        *least = stage->attn[i] != 0 ? -1 : *least;
    return PL_OK;
}

/* With hooks a window is no ring but shows the same; dropping no row from a ring changes nothing.
 */
static void test_window_hooks(void **state)
{
    static const int32_t layers[] = {0};
    float least = 4, *logits = malloc(3 * 97 * sizeof(*logits));
    struct pl_stage_hook hook = {.name = "all",
                                 .layers = layers,
                                 .n_layers = 1,
                                 .needs = PL_STAGE_ATTN,
                                 .attn_window = 4,
                                 .run = keep_all,
                                 .user = &least};
    struct pl_model *m = load("mistral_window", 2, NULL);
    struct pl_session *s = new_session(m, &(struct pl_session_opts){.max_tokens = 500});
    struct pl_session *t =
        new_session(m, &(struct pl_session_opts){.max_tokens = 500, .hooks = &hook, .n_hooks = 1});
    int32_t ids[400], idx[48];

    (void)state;
    make_ids(ids, 400, 9, 97);
    prefill(s, ids, 400, logits);
    prefill(t, ids, 400, logits + 97);
    assert_memory_equal(logits, logits + 97, 97 * sizeof(*logits));
    assert_true(fabsf(least - 4) < 1e-4f);
    assert_int_equal(pl_session_kv_len(t, 0), 24);
    ok(pl_session_decode(t, 5, logits, &err));
    for (int32_t i = 0; i < 48; i++)
        idx[i] = i % 24;
    ok(pl_session_kv_keep(s, 1, idx, 24, &err));
    ok(pl_session_decode(s, 5, logits + 97, &err));
    assert_memory_equal(logits, logits + 97, 97 * sizeof(*logits));
    ok(pl_session_rollback(s, 1, &err));
    for (int32_t i = 0; i < 20; i++)
        idx[i] = i % 10 + 3;
    ok(pl_session_kv_keep(s, 0, idx, 10, &err));
    assert_int_equal(pl_session_kv_len(s, 0), 10);
    assert_int_equal(pl_session_kv_len(s, 1), 24);
    ok(pl_session_decode(s, 5, logits + 2 * 97, &err));
    assert_int_equal(pl_session_kv_len(s, 0), 11);
    assert_true(memcmp(logits, logits + 2 * 97, 97 * sizeof(*logits)) != 0);
    pl_session_free(s);
    pl_session_free(t);
    pl_model_free(m);
    free(logits);
}

static void test_refusals(void **state)
{
    struct pl_model *bert = load("bert", 1, NULL), *gpt2 = load("gpt2", 1, NULL);
    struct pl_session *s = new_session(bert, &(struct pl_session_opts){0}), *t;
    struct pl_stage_hook hook = {.name = "h"};
    int32_t ids[61] = {0}, type = 2;
    float out[97];

    (void)state;
    fails(PL_EUSAGE, "is an encoder",
          pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = 1}, NULL, &err));
    fails(PL_EUSAGE, "is an encoder", pl_session_decode(s, 1, out, &err));
    fails(PL_EUSAGE, "nothing to pool", pl_session_pooled(s, out, &err));
    fails(PL_ERANGE, "61 rows",
          pl_session_encode(s, &(struct pl_source){.ids = ids, .n = 61}, NULL, &err));
    fails(
        PL_ERANGE, "token type",
        pl_session_encode(s, &(struct pl_source){.ids = ids, .types = &type, .n = 1}, NULL, &err));
    fails(PL_ERANGE, "empty", pl_session_encode(s, &(struct pl_source){.ids = ids}, NULL, &err));
    ids[0] = 97;
    fails(PL_ERANGE, "vocabulary",
          pl_session_encode(s, &(struct pl_source){.ids = ids, .n = 1}, NULL, &err));
    fails(PL_ERANGE, "60 positions",
          pl_session_create(bert, &(struct pl_session_opts){.max_tokens = 61}, &t, &err));
    fails(
        PL_EUNSUPPORTED, "hooks",
        pl_session_create(bert, &(struct pl_session_opts){.hooks = &hook, .n_hooks = 1}, &t, &err));
    fails(PL_ERANGE, "160 positions",
          pl_session_create(gpt2, &(struct pl_session_opts){.max_tokens = 161}, &t, &err));
    pl_session_free(s);
    s = new_session(gpt2, &(struct pl_session_opts){0});
    ids[0] = 0;
    fails(PL_EUSAGE, "no encoder",
          pl_session_encode(s, &(struct pl_source){.ids = ids, .n = 1}, NULL, &err));
    pl_session_free(s);
    pl_model_free(bert);
    pl_model_free(gpt2);
}

/* Sizes as described are sizes as loaded; parameters as counted from the files. */
static void test_info(void **state)
{
    static const char *const names[] = {"qwen2", "qwen3", "gpt2", "bert_one", "flan", "t5", "clip"};

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct pl_model *m = load(names[i], 1, NULL);
        const struct pl_model_info *info = pl_model_info(m);
        struct pl_model_info d;
        char path[512];
        snprintf(path, sizeof(path), "%s/families/%s", GOLDENS, names[i]);
        ok(pl_model_describe(path, NULL, &d, &err));
        assert_int_equal(d.weights_bytes, info->weights_bytes);
        assert_int_equal(d.params, info->params);
        assert_int_equal(d.table_bytes, info->table_bytes);
        pl_model_free(m);
    }
}

/* The same shapes without a checkpoint. */
static void test_random(void **state)
{
    static const char *const names[] = {"qwen3", "gpt2", "bert", "t5", "clip"};

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct pl_model_opts o = {.random = true, .random_seed = 3, .where = {.threads = 1}};
        struct pl_model *m = NULL;
        char path[512];
        snprintf(path, sizeof(path), "%s/families/%s", GOLDENS, names[i]);
        ok(pl_model_load(path, &o, &m, &err));
        const struct pl_arch *a = &pl_model_info(m)->arch;
        struct pl_session *s = new_session(m, &(struct pl_session_opts){.max_source = 4});
        int32_t ids[] = {4, 5, 6};
        float out[97];
        if (a->encoder_layers || (!a->causal && !a->patch))
            ok(pl_session_encode(s, &(struct pl_source){.ids = ids, .n = 3}, NULL, &err));
        if (a->causal) {
            prefill(s, ids, 3, out);
            assert_true(isfinite(out[0]) && out[0] != out[1]);
        }
        pl_session_free(s);
        pl_model_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformers), cmocka_unit_test(test_bits),
        cmocka_unit_test(test_batch),        cmocka_unit_test(test_encoder_threads),
        cmocka_unit_test(test_window),       cmocka_unit_test(test_window_hooks),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_info),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
