/* Sampled drafting through the engine: what whole rounds give (draft, verify, accept, roll back, go
 * on) has the verifier's own distribution over sequences, whoever drafts. A random model of six
 * words; PACELINE_DRAWS sequences a drafter. */
#include "fixture.h"

#include "spec_decode/eagle.h"
#include "spec_decode/round.h"

#include <math.h>
#include <unistd.h>

#define V 6
#define T 4             /* tokens of a sequence */
#define CELLS 1296      /* V^T */
#define TEMPERATURE 0.7 /* of both sides */
#define PROMPT 5

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":64,"
    "\"intermediate_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"vocab_size\":6,\"max_position_embeddings\":128,"
    "\"initializer_range\":0.2,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"torch_dtype\":\"float32\"}";
static const int32_t prompt[PROMPT] = {1, 4, 2, 1, 4};

static struct pl_model *verifier, *drafter;
static double truth[CELLS];

static struct pl_model *make(uint64_t seed)
{
    const struct pl_model_opts o = {
        .dtype = PL_DT_F32, .random = true, .random_seed = seed, .where = {.threads = 1}};
    char dir[] = "/tmp/paceline-sampling-XXXXXX", path[64];
    struct pl_model *m = NULL;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(config, f) >= 0 && fclose(f) == 0);
    ok(pl_model_load(path, &o, &m, &err));
    unlink(path);
    rmdir(dir);
    return m;
}

static struct pl_session *session(struct pl_model *m)
{
    static const int tap = PL_TAP_FINAL;
    const struct pl_session_opts o = {
        .max_tokens = 100, .max_verify = 64, .taps = &tap, .n_taps = 1};
    struct pl_session *s = NULL;

    ok(pl_session_create(m, &o, &s, &err));
    return s;
}

/* The probability of every sequence, from the model alone. */
static void enumerate(struct pl_session *s, const float *logits, double p, size_t n, size_t cell,
                      double *out)
{
    float work[2 * V], q[V], next[V];
    const struct pl_accept_rule rule = {.temperature = TEMPERATURE, .p = work};

    ok(pl_accept_probs(&rule, logits, V, q, &err));
    for (int32_t id = 0; id < V; id++) {
        if (n + 1 == T) {
            out[cell * V + (size_t)id] = p * (double)q[id];
            continue;
        }
        ok(pl_session_decode(s, id, next, &err));
        enumerate(s, next, p * (double)q[id], n + 1, cell * V + (size_t)id, out);
        ok(pl_session_rollback(s, 1, &err));
    }
}

static void distribution(struct pl_model *m, double *out)
{
    struct pl_session *s = session(m);
    const struct pl_prompt p = {.ids = prompt, .n = PROMPT};
    float logits[V];

    ok(pl_session_prefill(s, &p, logits, &err));
    enumerate(s, logits, 1, 0, 0, out);
    pl_session_free(s);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

/* The model, which is always quick enough for three free tokens. */
static enum pl_status three_ahead(void *d, bool (*stop)(void *), void *arg, size_t most,
                                  struct pl_draft *out, struct pl_err *e)
{
    (void)stop;
    (void)arg;
    return pl_draft_model.run_ahead(d, never, NULL, most < 4 ? most : 4, out, e);
}
static struct pl_drafter_ops ahead; /* pl_draft_model, but for that */

static int set_up(void **state)
{
    (void)state;
    verifier = make(1);
    drafter = make(2);
    distribution(verifier, truth);
    ahead = pl_draft_model;
    ahead.run_ahead = three_ahead;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pl_model_free(verifier);
    pl_model_free(drafter);
    return 0;
}

/* How far χ² of the counts lies above what chance gives, in standard deviations (Wilson–Hilferty);
 * cells that expect fewer than 5 are one. */
static double surprise(const double *count, double n)
{
    double chi2 = 0, rest = 0, rest_want = 0, cells = 0;

    for (size_t i = 0; i < CELLS; i++) {
        double want = truth[i] * n;
        if (want < 5) {
            rest += count[i];
            rest_want += want;
            continue;
        }
        chi2 += (count[i] - want) * (count[i] - want) / want;
        cells++;
    }
    if (rest_want > 0) {
        chi2 += (rest - rest_want) * (rest - rest_want) / rest_want;
        cells++;
    }
    assert_true(cells > 20);
    double k = cells - 1, v = 2 / (9 * k);
    return (cbrt(chi2 / k) - (1 - v)) / sqrt(v);
}

/* top 1: a drawn chain */
static const struct kind {
    const char *name;
    const struct pl_drafter_ops *ops;
    bool overlap, q;
    size_t top, nodes, gamma;
} kinds[] = {{"model, drawn", &pl_draft_model, .q = true, .gamma = 3},
             {"model, drawn, one a round", &pl_draft_model, .q = true, .gamma = 1},
             {"model, drawn, overlapped", &ahead, .overlap = true, .q = true, .gamma = 2},
             {"eagle, drawn", &pl_draft_eagle, .q = true, .top = 1, .gamma = 3},
             {"eagle, dynamic tree", &pl_draft_eagle, .top = 3, .nodes = 9, .gamma = 3},
             {"prompt_lookup", &pl_draft_lookup, .gamma = 3}};

static void *make_drafter(const struct kind *k, struct pl_session *own)
{
    const struct pl_draft_model_opts mo = {
        .session = own, .max_text = 2 * T, .temperature = TEMPERATURE, .key = 5, .tap = -1};
    const struct pl_eagle_opts eo = {.path = PL_SOURCE_DIR
                                     "/tests/spec_decode/goldens/heads/eagle.safetensors",
                                     .verifier = verifier,
                                     .max_prompt = PROMPT,
                                     .max_tokens = T,
                                     .depth = k->gamma,
                                     .top = k->top,
                                     .nodes = k->nodes,
                                     .temperature = TEMPERATURE,
                                     .key = 5};
    void *d = NULL;

    if (k->ops == &pl_draft_model || k->ops == &ahead)
        ok(pl_draft_model_new(&mo, &d, &err));
    else if (k->ops == &pl_draft_eagle)
        ok(pl_draft_eagle_open(&eo, &d, &err));
    else
        ok(pl_draft_lookup_new(1, 3, &d, &err));
    return d;
}

/* Sequences drawn with a drafter; the draws of its own differ from text to text by their keys. */
static void draw(const struct kind *k, uint64_t n, double *count)
{
    struct pl_session *v = session(verifier), *own = session(drafter);
    struct pl_lane *lane = NULL;
    void *d = make_drafter(k, own);
    struct pl_spec *s = NULL;
    struct pl_spec_result r;
    uint64_t drafted = 0, accepted = 0;

    ok(pl_lane_new(&lane, &err));
    const struct pl_spec_opts o = {.verifier = v,
                                   .ops = k->ops,
                                   .drafter = d,
                                   .lane = lane,
                                   .gamma = k->gamma,
                                   .nodes = k->nodes,
                                   .overlap = k->overlap,
                                   .after = true,
                                   .tap = k->ops->states ? 0 : -1,
                                   .with_q = k->q,
                                   .max_tokens = T,
                                   .max_prompt = PROMPT,
                                   .rule = {.temperature = TEMPERATURE, .key = 3}};
    ok(pl_spec_create(&o, &s, &err));
    for (uint64_t i = 0; i < n; i++) {
        const struct pl_spec_request q = {.ids = prompt, .n_prompt = PROMPT, .tokens = T, .key = i};
        size_t cell = 0;
        ok(pl_spec_generate(s, &q, &r, &err));
        assert_int_equal(r.n, T);
        assert_int_equal(r.free_tokens, k->overlap ? T - 2 : 0);
        for (size_t t = 0; t < T; t++)
            cell = cell * V + (size_t)r.tokens[t];
        count[cell]++;
        drafted += r.drafted;
        accepted += r.accepted;
    }
    /* something was drafted, taken and refused */
    if (!(accepted > n / 100 && accepted < drafted))
        fail_msg("%s: %llu of %llu accepted", k->name, (unsigned long long)accepted,
                 (unsigned long long)drafted);
    printf("%-26s %5.1f %% of %llu accepted, ", k->name, 100.0 * (double)accepted / (double)drafted,
           (unsigned long long)drafted);
    pl_spec_free(s);
    k->ops->free(d);
    pl_lane_free(lane);
    pl_session_free(own);
    pl_session_free(v);
}

static void drafted_as_alone(void **state)
{
    const char *wanted = getenv("PACELINE_DRAWS"); /* bench/lossless.sh: 10⁶ */
    const uint64_t n = wanted ? strtoull(wanted, NULL, 10) : 10000;
    static double count[CELLS];

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        memset(count, 0, sizeof(count));
        draw(&kinds[i], n, count);
        double z = surprise(count, (double)n);
        printf("χ² %+.2f sd\n", z);
        assert_true(z < 4); /* 1 of 30 000, and these draws are always the same */
    }
    /* and the test can fail: another model's sequences, or a uniform choice among the accepted */
    static double other[CELLS];
    distribution(drafter, other);
    for (size_t i = 0; i < CELLS; i++)
        count[i] = other[i] * (double)n;
    assert_true(surprise(count, (double)n) > 20);
    for (size_t i = 0; i < CELLS; i++) /* a twentieth of the sequences is the drafter's own */
        count[i] = (0.95 * truth[i] + 0.05 * other[i]) * (double)n;
    printf("a twentieth of another model's: %+.2f sd above an exact fit\n",
           surprise(count, (double)n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(drafted_as_alone)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
