/* Several sequences together give the very bits of one after the other. */
#include "fixture.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MOST 4
#define ROOM 700

static struct pl_session *session_of(struct pl_model *m)
{
    const struct pl_arch *a = &pl_model_info(m)->arch;
    struct pl_session_opts o = {.max_tokens = (size_t)a->max_positions, .max_verify = MOST};

    if (o.max_tokens > ROOM)
        o.max_tokens = ROOM;
    if (a->encoder_layers)
        o.max_source = o.max_tokens;
    return new_session(m, &o);
}

struct batch {
    struct pl_model *m;
    struct pl_session *one, *s[MOST];
    size_t vocab, hidden, n[MOST];
    int32_t ids[MOST][ROOM];
};

static void batch_init(struct batch *b, const char *name, int threads, const char *isa,
                       const size_t *lengths)
{
    b->m = load_model(name, threads, isa);
    const struct pl_arch *a = &pl_model_info(b->m)->arch;
    b->vocab = (size_t)a->vocab;
    b->hidden = (size_t)a->hidden;
    b->one = session_of(b->m);
    for (size_t i = 0; i < MOST; i++) {
        b->s[i] = session_of(b->m);
        b->n[i] = lengths[i] < pl_session_capacity(b->one) - 8 ? lengths[i]
                                                               : pl_session_capacity(b->one) - 8;
        make_ids(b->ids[i], ROOM, (uint32_t)(7 + i), a->vocab);
    }
}

static void batch_free(struct batch *b)
{
    for (size_t i = 0; i < MOST; i++)
        pl_session_free(b->s[i]);
    pl_session_free(b->one);
    pl_model_free(b->m);
}

static void same(const char *what, const char *name, size_t seq, const float *a, const float *b,
                 size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof(*a)))
            fail_msg("%s, %s, sequence %zu: element %zu is %.9g, expected %.9g", name, what, seq, i,
                     (double)a[i], (double)b[i]);
}

/* What a sequence gives alone: its prompt's logits and those of three more tokens. */
static void alone(struct batch *b, size_t i, float *out)
{
    pl_session_reset(b->one);
    prefill(b->one, b->ids[i], b->n[i], out);
    for (size_t t = 0; t < 3; t++)
        ok(pl_session_decode(b->one, b->ids[i][b->n[i] + t], out + (t + 1) * b->vocab, &err));
}

/* A sequence joins a running batch step by step, its prompt in pieces beside the others' tokens. */
static void check_steps(const char *name, int threads, const char *isa)
{
    static const size_t lengths[MOST] = {1, 100, 251, 600};
    struct batch b;
    batch_init(&b, name, threads, isa, lengths);
    float *want = malloc(MOST * 4 * b.vocab * sizeof(*want)),
          *got = malloc(MOST * b.vocab * sizeof(*got));
    size_t done[MOST] = {0}, running = 0, known[MOST] = {0};

    for (size_t i = 0; i < MOST; i++)
        alone(&b, i, want + i * 4 * b.vocab);
    /* one row of each that runs, then as much of the next prompt as fits */
    while (running < MOST || known[MOST - 1] < 3) {
        struct pl_part parts[MOST];
        size_t who[MOST], n = 0, rows = 0;
        for (size_t i = 0; i < running; i++)
            if (known[i] < 3) {
                parts[n] = (struct pl_part){b.s[i], &b.ids[i][b.n[i] + known[i]], 1, false};
                who[n++] = i;
                rows++;
            }
        bool silent = false;
        if (running < MOST) {
            size_t i = running, left = b.n[i] - done[i];
            size_t piece = left < PL_STEP_ROWS - rows ? left : PL_STEP_ROWS - rows;
            parts[n] = (struct pl_part){b.s[i], b.ids[i] + done[i], piece, true};
            who[n++] = i;
            done[i] += piece;
            silent = done[i] < b.n[i];
        }
        ok(pl_sessions_step(parts, n, silent, got, &err));
        for (size_t k = 0; k + silent < n; k++) {
            size_t i = who[k], at = i < running ? ++known[i] : 0;
            same("step", name, i, got + k * b.vocab, want + (i * 4 + at) * b.vocab, b.vocab);
        }
        if (running < MOST && !silent)
            running++;
    }
    for (size_t i = 0; i < MOST; i++)
        assert_int_equal(pl_session_len(b.s[i]), b.n[i] + 3);
    ok(pl_session_rollback(b.s[1], 3, &err));
    fails(PL_ERANGE, "since the prefill", pl_session_rollback(b.s[1], 1, &err));
    free(want);
    free(got);
    batch_free(&b);
}

static void test_steps(void **state)
{
    static const char *const names[] = {"plain",     "head_dim",       "mqa_sharded",
                                        "tied_bf16", "families/gpt2",  "families/mistral_window",
                                        "mistral",   "families/qwen3", "families/yarn"};
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        check_steps(names[i], 2, NULL);
        check_steps(names[i], 1, "portable");
    }
}

/* Prompts of several sequences in one step, in one order and in the other. */
static void test_prompts_together(void **state)
{
    static const size_t lengths[MOST] = {64, 1, 100, 91};
    struct batch b;
    (void)state;
    batch_init(&b, "plain", 2, NULL, lengths);
    float *want = malloc(4 * b.vocab * sizeof(*want)), *got = malloc(4 * b.vocab * sizeof(*got));
    for (size_t order = 0; order < 2; order++) {
        struct pl_part parts[MOST];
        for (size_t i = 0; i < MOST; i++) {
            size_t k = order ? MOST - 1 - i : i;
            pl_session_reset(b.s[k]);
            parts[i] = (struct pl_part){b.s[k], b.ids[k], b.n[k], true};
        }
        ok(pl_sessions_step(parts, MOST, 0, got, &err));
        for (size_t i = 0; i < MOST; i++) {
            size_t k = order ? MOST - 1 - i : i;
            alone(&b, k, want);
            same("prompts", "plain", k, got + i * b.vocab, want, b.vocab);
        }
    }
    free(want);
    free(got);
    batch_free(&b);
}

/* Sources that share passes, with padding, token types, and longer than a pass. */
static void check_encode(const char *name, int threads, const char *isa)
{
    static const size_t lengths[MOST] = {30, 1, 120, 300};
    struct batch b;
    batch_init(&b, name, threads, isa, lengths);
    const struct pl_arch *a = &pl_model_info(b.m)->arch;
    struct pl_source sources[MOST];
    uint8_t *mask = malloc(ROOM);
    int32_t *types = malloc(ROOM * sizeof(*types));
    float *hidden[MOST], *want = malloc(ROOM * b.hidden * sizeof(*want));

    memset(mask, 1, ROOM);
    memset(mask, 0, 3); /* padding before, as some tokenizers have it */
    for (size_t i = 0; i < ROOM; i++)
        types[i] = a->types > 1 ? (int32_t)(i % 2) : 0;
    memset(mask + 100, 0, ROOM - 100);
    for (size_t i = 0; i < MOST; i++) {
        hidden[i] = malloc(ROOM * b.hidden * sizeof(float));
        sources[i] = (struct pl_source){.ids = b.ids[i], .n = b.n[i]};
    }
    sources[2].mask = mask; /* beside sequences that have none */
    sources[0].types = a->types > 1 ? types : NULL;
    for (size_t first = 0; first < 2; first++) {
        size_t n = MOST - first; /* the long one alone at the end, the rest together */
        ok(pl_sessions_encode(b.s + first, sources + first, n, hidden + first, &err));
        for (size_t i = first; i < MOST; i++) {
            ok(pl_session_encode(b.one, &sources[i], want, &err));
            same("encode", name, i, hidden[i], want, b.n[i] * b.hidden);
        }
    }
    for (size_t i = 0; i < MOST; i++) {
        if (a->causal) { /* the decoder behind sees the same source */
            float *x = malloc(b.vocab * sizeof(*x)), *y = malloc(b.vocab * sizeof(*y));
            struct pl_part part = {b.s[i], &a->decoder_start, 1, true};
            pl_session_reset(b.one);
            ok(pl_session_encode(b.one, &sources[i], NULL, &err));
            prefill(b.one, &a->decoder_start, 1, x);
            ok(pl_sessions_step(&part, 1, 0, y, &err));
            same("behind", name, i, y, x, b.vocab);
            free(x);
            free(y);
        }
        free(hidden[i]);
    }
    free(want);
    free(mask);
    free(types);
    batch_free(&b);
}

static void test_encode(void **state)
{
    static const char *const names[] = {"families/bert", "families/roberta", "families/distilbert",
                                        "families/t5", "families/flan"};
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        check_encode(names[i], 2, NULL);
        check_encode(names[i], 1, "portable");
    }
}

static void test_bad(void **state)
{
    static const size_t lengths[MOST] = {200, 100, 3, 3};
    struct batch b;
    (void)state;
    batch_init(&b, "plain", 1, NULL, lengths);
    struct pl_model *other = load_model("head_dim", 1, NULL);
    struct pl_session *t = session_of(other);
    struct pl_part two[2] = {{b.s[0], b.ids[0], 200, true}, {b.s[1], b.ids[1], 100, true}};

    fails(PL_ERANGE, "adds 100 rows to a step of 200", pl_sessions_step(two, 2, 0, NULL, &err));
    two[1] = (struct pl_part){b.s[1], b.ids[1], 1, false};
    fails(PL_EUSAGE, "sequence 1 has no prompt yet", pl_sessions_step(two, 2, 0, NULL, &err));
    two[1].session = b.s[0];
    fails(PL_EUSAGE, "the same", pl_sessions_step(two, 2, 0, NULL, &err));
    two[1].session = t;
    fails(PL_EUSAGE, "another model", pl_sessions_step(two, 2, 0, NULL, &err));
    fails(PL_ERANGE, "0 sequences", pl_sessions_step(two, 0, 0, NULL, &err));
    assert_int_equal(pl_session_len(b.s[0]), 0); /* nothing was appended */
    struct pl_source source = {.ids = b.ids[0], .n = 4};
    fails(PL_EUSAGE, "no encoder", pl_sessions_encode(b.s, &source, 1, NULL, &err));
    pl_session_free(t);
    pl_model_free(other);
    batch_free(&b);
}

/* What sessions share is counted once, planned and measured alike. */
static void test_memory(void **state)
{
    struct pl_model *m = load_model("plain", 1, NULL);
    struct pl_session_opts o = {.max_tokens = 100, .max_verify = 1};
    struct pl_session_memory one, three, had;
    struct pl_session *s[3];
    (void)state;
    pl_session_bytes(pl_model_info(m), &o, &one);
    pl_sessions_bytes(pl_model_info(m), &o, 3, &three);
    for (size_t i = 0; i < 3; i++)
        s[i] = new_session(m, &o);
    pl_sessions_memory(s, 3, &had);
    assert_int_equal(three.kv_bytes, 3 * one.kv_bytes);
    assert_int_equal(had.kv_bytes, three.kv_bytes);
    assert_true(three.workspace_bytes < 3 * one.workspace_bytes);
    pl_sessions_memory(s, 1, &had);
    struct pl_session_memory alone_;
    pl_session_memory(s[0], &alone_);
    assert_int_equal(had.workspace_bytes, alone_.workspace_bytes);
    for (size_t i = 0; i < 3; i++)
        pl_session_free(s[i]);
    pl_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),  cmocka_unit_test(test_prompts_together),
        cmocka_unit_test(test_encode), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
