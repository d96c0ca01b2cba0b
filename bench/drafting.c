/*
 * What drafting costs and hides, on the example models (bench/drafting.sh builds and runs it):
 *
 *   overlap   two lanes of one core each: total with the drafter's prefill beside the verifier's,
 *             and in turn; the limit is in turn − 80 % of the shorter prefill
 *   round     prompt lookup's own time a round, and judging a draft of 8 (vocabulary of 1024)
 *   retokenize  its own time a round of five tokens: the verifier's ids → text → the drafter's ids,
 *             and a draft of four back, behind prompts of 100 and 3 000 tokens
 *   adapter   each adapter of the tiny pair on 5 states, their tokens included
 *
 * Medians over interleaved runs.
 */
#include "base/clock.h"
#include "spec_decode/adapter.h"
#include "spec_decode/retok.h"
#include "spec_decode/round.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODELS PL_SOURCE_DIR "/examples/models/"
#define PROMPT 3000
#define TOKENS 32
#define GAMMA 4
#define RUNS 7

static struct pl_err err;

static void ok(enum pl_status st)
{
    if (!st)
        return;
    fprintf(stderr, "%s: %s\n", pl_status_text(st), err.text);
    exit(1);
}

static struct pl_model *load(const char *name, int cpu)
{
    const struct pl_model_opts o = {.dtype = PL_DT_F32,
                                    .where = {.threads = 1, .cpus = &cpu, .n_cpus = 1}};
    struct pl_model *m = NULL;

    ok(pl_model_load(name, &o, &m, &err));
    return m;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_size);
    return v[n / 2];
}

static struct pl_session *session(struct pl_model *m, size_t tokens)
{
    const struct pl_session_opts o = {.max_tokens = tokens, .max_verify = 256};
    struct pl_session *s = NULL;

    ok(pl_session_create(m, &o, &s, &err));
    return s;
}

static int overlap(void)
{
    struct pl_model *v = load(MODELS "small-gpt2", 0), *d = load(MODELS "small-gpt2", 1);
    struct pl_session *sv = session(v, PROMPT + TOKENS), *sd = session(d, PROMPT + TOKENS + 8);
    const struct pl_draft_model_opts mo = {.session = sd, .max_text = TOKENS + 8, .tap = -1};
    struct pl_spec *spec[2] = {NULL, NULL};
    struct pl_lane *lane = NULL;
    double total[2][RUNS], own[RUNS], theirs[RUNS], beside[RUNS];
    int32_t ids[PROMPT];
    void *drafter = NULL;

    for (int32_t i = 0; i < PROMPT; i++)
        ids[i] = i ? 3 + i * 37 % 1000 : 1;
    ok(pl_lane_new(&lane, &err));
    ok(pl_draft_model_new(&mo, &drafter, &err));
    for (int k = 0; k < 2; k++) {
        const struct pl_spec_opts o = {.verifier = sv,
                                       .ops = &pl_draft_model,
                                       .drafter = drafter,
                                       .lane = lane,
                                       .gamma = GAMMA,
                                       .overlap = k == 1,
                                       .after = true,
                                       .tap = -1,
                                       .max_tokens = TOKENS,
                                       .max_prompt = PROMPT};
        ok(pl_spec_create(&o, &spec[k], &err));
    }
    for (int run = -1; run < RUNS; run++) {
        for (int k = 0; k < 2; k++) {
            const struct pl_spec_request q = {
                .ids = ids, .n_prompt = PROMPT, .tokens = TOKENS, .start_ns = pl_now_ns()};
            struct pl_spec_result r;
            ok(pl_spec_generate(spec[k], &q, &r, &err));
            if (run < 0)
                continue;
            total[k][run] = (double)r.last_ns / 1e6;
            if (!k) {
                own[run] = (double)r.phase_ns[PL_SPEC_PREFILL] / 1e6;
                theirs[run] = (double)r.phase_ns[PL_SPEC_D_PREFILL] / 1e6;
                continue;
            }
            int64_t from[2] = {0, 0}, to[2] = {0, 0}; /* both lanes' prefills, by their clocks */
            for (size_t i = 0; i < r.n_spans; i++) {
                int lane_of = r.spans[i].lane;
                if (r.spans[i].kind == (lane_of ? PL_SPEC_D_PREFILL : PL_SPEC_PREFILL)) {
                    from[lane_of] = r.spans[i].start_ns;
                    to[lane_of] = r.spans[i].end_ns;
                }
            }
            int64_t begin = from[0] > from[1] ? from[0] : from[1],
                    end = to[0] < to[1] ? to[0] : to[1];
            beside[run] = end > begin ? (double)(end - begin) / 1e6 : 0;
        }
    }
    double in_turn = median(total[0], RUNS), hidden = median(total[1], RUNS);
    double a = median(own, RUNS), b = median(theirs, RUNS), shorter = a < b ? a : b;
    bool holds = hidden < in_turn - 0.8 * shorter;
    printf("overlap: prefills %.1f and %.1f ms, both at once for %.1f ms; in turn %.1f ms, "
           "overlapped %.1f ms: %.0f %% of the shorter prefill hidden (limit 80 %%: %s)\n",
           a, b, median(beside, RUNS), in_turn, hidden, 100 * (in_turn - hidden) / shorter,
           holds ? "held" : "missed");
    for (int k = 0; k < 2; k++)
        pl_spec_free(spec[k]);
    pl_draft_model.free(drafter);
    pl_lane_free(lane);
    pl_session_free(sv);
    pl_session_free(sd);
    pl_model_free(v);
    pl_model_free(d);
    return holds;
}

static void round_cost(void)
{
    enum { TEXT = 1024, K = 8, V = 1024, N = 2000 };
    static float logits[(K + 1) * V];
    static double look[N], judge[N];
    int32_t text[TEXT], path[K], ids[K], next = 0;
    struct pl_verified t = {.ids = text, .n_prompt = TEXT - 100, .n = 100};
    const struct pl_accept_rule rule = {.temperature = 0};
    const struct pl_proposal p = {.ids = ids, .k = K};
    struct pl_draft out;
    void *d = NULL;
    size_t a = 0;

    for (int32_t i = 0; i < TEXT; i++)
        text[i] = i * 31 % 257 + i / 300;
    for (int i = 0; i < (K + 1) * V; i++)
        logits[i] = (float)(i * 7919 % 1000) / 1000;
    for (int i = 0; i < K; i++)
        ids[i] = pl_logits_argmax(logits + i * V, V);
    ok(pl_draft_lookup_new(1, 4, &d, &err));
    ok(pl_draft_init(&out, K, 0, 0, &err));
    for (int i = 0; i < N; i++) {
        int64_t begin = pl_now_ns();
        ok(pl_draft_lookup.draft(d, &t, K, &out, &err));
        int64_t looked = pl_now_ns();
        ok(pl_accept(&rule, &p, logits, V, 1, path, &a, &next, &err));
        look[i] = (double)(looked - begin) / 1e3;
        judge[i] = (double)(pl_now_ns() - looked) / 1e3;
    }
    printf("round: prompt lookup in %d tokens %.1f µs, judging a draft of %d %.1f µs\n", TEXT,
           median(look, N), K, median(judge, N));
    pl_draft_release(&out);
    pl_draft_lookup.free(d);
}

/* Both tokenizers of a pair that shares none, on held-out text. */
static void retokenize_cost(size_t prompt)
{
    enum { STEP = 5, DRAFTED = 4, N = 60 };
    static const char *const names[2] = {MODELS "small-llama", MODELS "small-gpt2"};
    struct pl_tokenizer *t[2] = {NULL, NULL};
    struct pl_retok *r[2] = {NULL, NULL};
    struct pl_untok text, drafted;
    struct pl_ids ids = {0};
    struct pl_buf file = {0}, whole = {0};
    double us[N], first;
    size_t same, n = 0, rounds = 0;
    bool border;

    ok(pl_read_file(PL_SOURCE_DIR "/examples/data/heldout.txt", 1u << 24, &file, &err));
    for (int i = 0; i < 2; i++) {
        ok(pl_tokenizer_load(names[i], &t[i], &err));
        ok(pl_retok_new(t[i], &r[i], &err));
        pl_retok_begin(r[i], false);
    }
    ok(pl_tokenizer_encode(t[0], file.data + 5000, 20000, true, &ids, &err));
    ok(pl_untok_init(&text, t[0], &err));
    ok(pl_untok_init(&drafted, t[1], &err));
    pl_buf_init(&whole, 1u << 24);
    int64_t begin = pl_now_ns(); /* the prompt: once a trial */
    ok(pl_untok_add(&text, ids.ids, prompt, &err));
    ok(pl_retok_set(r[1], text.text.data, text.text.len, &same, &err));
    ok(pl_retok_set(r[0], text.text.data, text.text.len, &same, &err));
    first = (double)(pl_now_ns() - begin) / 1e3;
    for (size_t at = prompt; rounds < N; at += STEP, rounds++) {
        begin = pl_now_ns();
        ok(pl_untok_add(&text, ids.ids + at, STEP, &err));
        ok(pl_retok_set(r[1], text.text.data, text.text.len, &same, &err));
        const int32_t *own =
            pl_retok_ids(r[1], &n); /* a draft as good as any: its last ids again */
        pl_untok_clear(&drafted);
        ok(pl_untok_add(&drafted, own + n - DRAFTED, DRAFTED, &err));
        pl_buf_clear(&whole);
        ok(pl_buf_add(&whole, text.text.data, text.text.len, &err));
        ok(pl_buf_add(&whole, drafted.text.data, drafted.text.len, &err));
        ok(pl_retok_set(r[0], whole.data, whole.len, &same, &err));
        (void)pl_retok_before(r[0], text.text.len, &border);
        us[rounds] = (double)(pl_now_ns() - begin) / 1e3;
    }
    printf("retokenize: %.1f µs a round of %d tokens behind a prompt of %zu, which took %.0f µs\n",
           median(us, N), STEP, prompt, first);
    pl_untok_release(&text);
    pl_untok_release(&drafted);
    pl_buf_release(&whole);
    pl_buf_release(&file);
    pl_ids_release(&ids);
    for (int i = 0; i < 2; i++) {
        pl_retok_free(r[i]);
        pl_tokenizer_free(t[i]);
    }
}

static void adapters(void)
{
    static const char *const kinds[] = {"L1", "L2", "L3", "L4", "L5", "L5F", "B1"};
    enum { ROWS = 5, N = 201 };
    struct pl_model *v = load(MODELS "tiny-video-llava", 0);
    const struct pl_arch *arch = &pl_model_info(v)->arch;
    size_t width = 128;
    float *e = calloc(ROWS * width, sizeof(*e)),
          *h = calloc(ROWS * (size_t)arch->hidden, sizeof(*h)),
          *out = calloc(ROWS * (size_t)arch->hidden, sizeof(*out));

    for (size_t i = 0; i < ROWS * width; i++)
        e[i] = (float)(i * 7919 % 1000) / 500 - 1;
    for (size_t i = 0; i < ROWS * (size_t)arch->hidden; i++)
        h[i] = (float)(i * 104729 % 1000) / 500 - 1;
    printf("adapter on %d states, ms:", ROWS);
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct pl_adapter *a = NULL;
        char path[512];
        double ms[N];
        int32_t ids[ROWS];
        snprintf(path, sizeof(path), "%spair-adapters/%s.safetensors", MODELS, kinds[k]);
        ok(pl_adapter_open(
            &(struct pl_adapter_opts){.path = path,
                                      .kind = kinds[k],
                                      .verifier = v,
                                      .drafter_width = !strcmp(kinds[k], "B1") ? 0 : width,
                                      .max_rows = ROWS},
            &a, &err));
        for (int i = 0; i < N; i++) {
            int64_t begin = pl_now_ns();
            ok(pl_adapter_run(a, e, h, ROWS, out, &err));
            ok(pl_adapter_tokens(a, out, ROWS, ids, &err));
            ms[i] = (double)(pl_now_ns() - begin) / 1e6;
        }
        printf(" %s %.3f", kinds[k], median(ms, N));
        pl_adapter_free(a);
    }
    printf("\n");
    free(e);
    free(h);
    free(out);
    pl_model_free(v);
}

int main(void)
{
    bool holds = overlap();

    round_cost();
    retokenize_cost(100);
    retokenize_cost(3000);
    adapters();
    return holds ? 0 : 1;
}
