/*
 * lossless N [f32|bf16|int8] [ties|deterministic]: N prompts over drafters, gammas and trees,
 * greedy, on the CPU; each output must be the verifier's alone, token for token, and every round's
 * accounting must add up. bf16: weights and KV cache; int8: Q8_0 weights with 8-bit activations, KV
 * cache f16. Exit 1 names the first prompt that differs.
 *
 * ties: for devices where a verification may round otherwise than a decode. A prompt's first
 * divergence is counted, and must be a near tie: the gap between the two best tokens of the
 * verifier alone is at most twice what its logits there move by when the same text is verified in
 * other numbers of rows, in passes of their own; and they may not move far. deterministic: the
 * verifier is opened so, and nothing may differ on such a device either.
 */
#include "base/rng.h"
#include "spec_decode/eagle.h"
#include "spec_decode/medusa.h"
#include "spec_decode/retokenize.h"
#include "spec_decode/round.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PL_TIES
#define PL_TIES 0 /* without arguments: so many prompts, bf16, ties */
#endif
#define MODELS PL_SOURCE_DIR "/examples/models/"
#define MAX_PROMPT 96
#define MAX_TOKENS 32
#define MAX_VERIFY 256

static struct pl_err err;

static void ok(enum pl_status st)
{
    if (st == PL_OK)
        return;
    fprintf(stderr, "%s: %s\n", pl_status_text(st), err.text);
    exit(1);
}

struct side {
    struct pl_tokenizer *tokenizer;
    struct pl_model *model;
    struct pl_session *session;
};

static struct side load(const char *name, enum pl_dtype dtype, enum pl_dtype kv, bool exact)
{
    const struct pl_model_opts mo = {.dtype = dtype,
                                     .activations = dtype == PL_DT_AUTO ? PL_ACTIVATIONS_INT8
                                                                        : PL_ACTIVATIONS_F32,
                                     .where = {.threads = 1, .deterministic = exact}};
    const int tap = PL_TAP_FINAL;
    const struct pl_session_opts so = {.max_tokens = 4 * (MAX_PROMPT + MAX_TOKENS) + MAX_VERIFY,
                                       .max_verify = MAX_VERIFY,
                                       .kv_dtype = kv,
                                       .taps = &tap,
                                       .n_taps = 1};
    struct side s = {NULL, NULL, NULL};
    char path[512];

    snprintf(path, sizeof(path), "%s%s", MODELS, name);
    ok(pl_model_load(path, &mo, &s.model, &err));
    ok(pl_tokenizer_load(path, &s.tokenizer, &err));
    ok(pl_session_create(s.model, &so, &s.session, &err));
    return s;
}

/* Half of them repeat themselves, so that prompt lookup has something to find. */
static size_t make_prompt(uint64_t seed, int32_t vocab, int32_t *ids)
{
    struct pl_rng r;
    size_t n, period;

    pl_rng_init(&r, pl_keyv(7, seed));
    n = 4 + (size_t)pl_rng_below(&r, MAX_PROMPT - 4);
    period = pl_rng_below(&r, 2) ? 3 + (size_t)pl_rng_below(&r, 9) : n;
    for (size_t i = 0; i < n; i++)
        ids[i] = i < period ? 3 + (int32_t)pl_rng_below(&r, (uint64_t)vocab - 3) : ids[i - period];
    return n;
}

static void alone(struct pl_session *s, size_t vocab, const int32_t *ids, size_t n, size_t tokens,
                  const struct pl_accept_rule *rule, float *logits, int32_t *out)
{
    const struct pl_prompt p = {.ids = ids, .n = n};

    pl_session_reset(s);
    ok(pl_session_prefill(s, &p, logits, &err));
    for (size_t i = 0; i < tokens; i++) {
        ok(pl_accept_one(rule, logits, vocab, i, &out[i], &err));
        if (i + 1 < tokens)
            ok(pl_session_decode(s, out[i], logits, &err));
    }
}

/* top 1: a chain; nodes: most of a tree. */
static const struct kind {
    const char *name;
    enum { LOOKUP, MODEL, EAGLE, MEDUSA, RETOKENIZE } drafter;
    bool overlap, adaptive, fixed;
    size_t top, nodes;
} kinds[] = {
    {"prompt_lookup", LOOKUP, .top = 1},
    {"model", MODEL, .top = 1},
    {"model, overlapped", MODEL, .overlap = true, .top = 1},
    {"prompt_lookup, adaptive", LOOKUP, .adaptive = true, .top = 1},
    {"eagle, chain", EAGLE, .top = 1},
    {"eagle, static tree", EAGLE, .fixed = true, .top = 10, .nodes = 60},
    {"eagle, dynamic 4/12", EAGLE, .top = 4, .nodes = 12},
    {"eagle, dynamic 10/60", EAGLE, .top = 10, .nodes = 60},
    {"eagle, dynamic, adaptive", EAGLE, .adaptive = true, .top = 6, .nodes = 30},
    {"medusa, chain", MEDUSA, .top = 1},
    {"medusa, static 63", MEDUSA, .fixed = true, .top = 10, .nodes = 63},
    {"medusa, static 3/9", MEDUSA, .fixed = true, .top = 3, .nodes = 9},
    {"retokenize", RETOKENIZE, .top = 1},
    {"retokenize, overlapped", RETOKENIZE, .overlap = true, .top = 1},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

struct arm {
    const struct kind *kind;
    size_t gamma;
    void *drafter;
    struct pl_spec *spec;
    uint64_t prompts, rounds, drafted, accepted, free_tokens, ties;
};

static const struct pl_drafter_ops *const ops[] = {
    [LOOKUP] = &pl_draft_lookup, [MODEL] = &pl_draft_model,           [EAGLE] = &pl_draft_eagle,
    [MEDUSA] = &pl_draft_medusa, [RETOKENIZE] = &pl_draft_retokenize,
};

static void *make_drafter(const struct kind *k, size_t gamma, const struct side *big,
                          const struct side *small, const struct side *other,
                          const struct pl_accept_rule *rule)
{
    const struct pl_draft_model_opts mo = {.session = small->session,
                                           .max_text = MAX_TOKENS + MAX_VERIFY,
                                           .masked = rule->masked,
                                           .n_masked = rule->n_masked,
                                           .tap = -1};
    const struct pl_eagle_opts eo = {.path = MODELS "small-llama-heads/eagle.safetensors",
                                     .verifier = big->model,
                                     .max_prompt = MAX_PROMPT,
                                     .max_tokens = MAX_TOKENS,
                                     .depth = gamma,
                                     .top = k->top,
                                     .nodes = k->nodes,
                                     .fixed = k->fixed,
                                     .masked = rule->masked,
                                     .n_masked = rule->n_masked};
    const struct pl_retokenize_opts ro = {
        .verifier = big->tokenizer,
        .drafter = other->tokenizer,
        .model = {.session = other->session, .max_text = 4 * (MAX_PROMPT + MAX_TOKENS), .tap = -1},
        .most = 255};
    void *d = NULL;

    if (k->drafter == RETOKENIZE)
        ok(pl_draft_retokenize_new(&ro, &d, &err));
    else if (k->drafter == MODEL)
        ok(pl_draft_model_new(&mo, &d, &err));
    else if (k->drafter == EAGLE)
        ok(pl_draft_eagle_open(&eo, &d, &err));
    else if (k->drafter == MEDUSA)
        ok(pl_draft_medusa_open(MODELS "small-llama-heads/medusa.safetensors", big->model,
                                rule->masked, rule->n_masked, k->top, k->nodes, &d, &err));
    else
        ok(pl_draft_lookup_new(1, 4, &d, &err));
    return d;
}

static void make_arm(struct arm *a, const struct kind *k, size_t gamma, const struct side *big,
                     const struct side *small, const struct side *other, struct pl_lane *lane,
                     const struct pl_accept_rule *rule)
{
    const struct pl_spec_opts o = {.verifier = big->session,
                                   .ops = ops[k->drafter],
                                   .drafter = make_drafter(k, gamma, big, small, other, rule),
                                   .lane = lane,
                                   .gamma = gamma,
                                   .nodes = k->nodes,
                                   .overlap = k->overlap,
                                   .after = true,
                                   .adaptive = k->adaptive,
                                   .tap = ops[k->drafter]->states ? 0 : -1,
                                   .max_tokens = MAX_TOKENS,
                                   .max_prompt = MAX_PROMPT,
                                   .rule = *rule};

    *a = (struct arm){.kind = k, .gamma = gamma, .drafter = o.drafter};
    ok(pl_spec_create(&o, &a->spec, &err));
}

/* How far the logits behind want[0 … at) move, from a decode to verifications of several lengths
 * with that row first or last among the text's. */
static double moved(struct pl_session *s, size_t vocab, const int32_t *ids, size_t n,
                    const int32_t *want, size_t at, const float *decoded)
{
    static const size_t lengths[] = {2, 5, 9, 17, 32};
    float *logits = calloc(32 * vocab, sizeof(*logits));
    const struct pl_prompt p = {.ids = ids, .n = n};
    double most = 0;

    for (size_t l = 0; l < 10 && logits; l++) {
        size_t k = lengths[l / 2], before = l % 2 && at ? (at < k ? at : k) - 1 : 0;
        int32_t rows[32];
        pl_session_reset(s);
        ok(pl_session_prefill(s, &p, logits, &err));
        for (size_t i = 0; i + 1 + before < at; i++)
            ok(pl_session_decode(s, want[i], logits, &err));
        for (size_t i = 0; i < k; i++) /* behind the row stands what does not matter to it */
            rows[i] = i <= before ? want[at - 1 - before + i] : 5;
        ok(pl_session_verify(s, rows, k, logits, &err));
        for (size_t v = 0; v < vocab; v++)
            most = fmax(most, fabs((double)logits[before * vocab + v] - (double)decoded[v]));
    }
    free(logits);
    return most;
}

/* Whether token `at` of the text could as well have been another one. */
static bool near_tie(struct pl_session *s, size_t vocab, const struct pl_accept_rule *rule,
                     const int32_t *ids, size_t n, const int32_t *want, size_t at)
{
    float *logits = calloc(vocab, sizeof(*logits));
    int32_t again[MAX_TOKENS];
    double first = -INFINITY, second = -INFINITY, far = 0, size = 0;

    if (!logits || !at)
        return false;
    alone(s, vocab, ids, n, at, rule, logits, again);
    ok(pl_session_decode(s, again[at - 1], logits, &err));
    for (size_t v = 0; v < vocab; v++) {
        double x = (double)logits[v];
        size = fmax(size, fabs(x));
        if ((int32_t)v == rule->masked[0])
            continue;
        second = x > first ? first : fmax(second, x);
        first = fmax(first, x);
    }
    far = moved(s, vocab, ids, n, want, at, logits);
    printf("token %zu: the two best are %.3g apart, verifying moves logits of up to %.3g by %.3g\n",
           at, first - second, size, far);
    free(logits);
    return first - second <= 2 * far && far <= 0.05 * size;
}

static void check(struct arm *a, uint64_t seed, const int32_t *ids, size_t n, size_t tokens,
                  const int32_t *want, const struct side *big, const struct pl_accept_rule *rule,
                  bool ties)
{
    const struct pl_spec_request q = {.ids = ids, .n_prompt = n, .tokens = tokens};
    struct pl_spec_result r;

    ok(pl_spec_generate(a->spec, &q, &r, &err));
    a->prompts++;
    a->rounds += r.n_rounds;
    a->drafted += r.drafted;
    a->accepted += r.accepted;
    a->free_tokens += r.free_tokens;
    if (r.n == tokens && memcmp(r.tokens, want, tokens * sizeof(*want)) == 0)
        return;
    for (size_t i = 0; i < tokens; i++)
        if (i >= r.n || r.tokens[i] != want[i]) {
            if (ties && i < r.n &&
                near_tie(big->session, (size_t)pl_model_info(big->model)->arch.vocab, rule, ids, n,
                         want, i)) {
                a->ties++;
                return;
            }
            fprintf(stderr, "%s, gamma %zu, prompt %llu: token %zu of %zu differs\n", a->kind->name,
                    a->gamma, (unsigned long long)seed, i, tokens);
            break;
        }
    exit(1);
}

int main(int argc, char **argv)
{
    static const size_t gammas[] = {1, 2, 3, 4, 5, 8, 16, 31};
    enum { GAMMAS = sizeof(gammas) / sizeof(gammas[0]), ARMS = KINDS * GAMMAS };
    unsigned long long prompts = argc > 1 ? strtoull(argv[1], NULL, 10) : PL_TIES;
    static const int32_t eos = 2;
    const struct pl_accept_rule rule = {.masked = &eos, .n_masked = 1};
    const bool bf16 = argc == 1 || (argc > 2 && !strcmp(argv[2], "bf16")),
               int8 = argc > 2 && !strcmp(argv[2], "int8"),
               ties = argc == 1 || (argc > 3 && !strcmp(argv[3], "ties")),
               exact = argc > 3 && !strcmp(argv[3], "deterministic");
    struct side big = int8   ? load("small-llama-q8_0.gguf", PL_DT_AUTO, PL_DT_F16, exact)
                      : bf16 ? load("small-llama", PL_DT_BF16, PL_DT_BF16, exact)
                             : load("small-llama", PL_DT_F32, PL_DT_F32, exact);
    struct side small = load("tiny-llama", PL_DT_F32, PL_DT_F32, false),
                other = load("small-gpt2", PL_DT_F32, PL_DT_F32, false);
    int32_t vocab = pl_model_info(big.model)->arch.vocab, ids[MAX_PROMPT], want[MAX_TOKENS];
    float *logits = calloc((size_t)vocab, sizeof(*logits));
    static struct arm arms[ARMS];
    struct pl_lane *lane = NULL;

    if (!prompts || !logits) {
        fprintf(stderr, "usage: lossless PROMPTS [f32|bf16|int8] [ties|deterministic]\n");
        return 2;
    }
    ok(pl_lane_new(&lane, &err));
    for (int k = 0; k < KINDS; k++)
        for (size_t g = 0; g < GAMMAS; g++)
            make_arm(&arms[(size_t)k * GAMMAS + g], &kinds[k], gammas[g], &big, &small, &other,
                     lane, &rule);
    for (unsigned long long i = 0; i < prompts; i++) {
        size_t n = make_prompt(i, vocab, ids),
               tokens = 1 + (size_t)(pl_keyv(9, i) % (ties || exact ? MAX_TOKENS / 2 : MAX_TOKENS));
        /* few prompts, too, meet every drafter */
        struct arm *a = &arms[(ties ? i * 27 : exact ? 43 + i * 40 : i) % ARMS];
        alone(big.session, (size_t)vocab, ids, n, tokens, &rule, logits, want);
        check(a, i, ids, n, tokens, want, &big, &rule, ties);
    }
    for (size_t i = 0; i < ARMS; i++) {
        const struct arm *a = &arms[i];
        printf(
            "%-26s gamma %2zu: %4llu prompts, %6llu rounds, %6llu drafted, %6llu accepted, %6llu "
            "free: %llu near ties, else identical\n",
            a->kind->name, a->gamma, (unsigned long long)a->prompts, (unsigned long long)a->rounds,
            (unsigned long long)a->drafted, (unsigned long long)a->accepted,
            (unsigned long long)a->free_tokens, (unsigned long long)a->ties);
        pl_spec_free(a->spec);
        ops[a->kind->drafter]->free(a->drafter);
    }
    if (ties) {
        uint64_t all = 0;
        for (size_t i = 0; i < ARMS; i++)
            all += arms[i].ties;
        printf("%llu of %llu prompts diverge, each first at a near tie\n", (unsigned long long)all,
               prompts);
    }
    pl_lane_free(lane);
    free(logits);
    struct side *const sides[] = {&big, &small, &other};
    for (size_t i = 0; i < 3; i++) {
        pl_session_free(sides[i]->session);
        pl_model_free(sides[i]->model);
        pl_tokenizer_free(sides[i]->tokenizer);
    }
    return 0;
}
