/* EAGLE and Medusa heads against torch (tools/make_head_goldens.py): logits, chains and trees, of
 * random heads and of the trained ones; and files that are not what they say. */
#include "fixture.h"

#include "spec_decode/eagle.h"
#include "spec_decode/medusa.h"

#include <inttypes.h>
#include <math.h>

#define HEADS PL_SOURCE_DIR "/tests/spec_decode/goldens/heads/"
#define MODELS PL_SOURCE_DIR "/examples/models/"
#define MAX 32
#define DEPTH 5

static struct pl_model *load(const char *name)
{
    const struct pl_model_opts o = {.dtype = PL_DT_F32, .where = {.threads = 1}};
    struct pl_model *m = NULL;
    char path[512];

    snprintf(path, sizeof(path), MODELS "%s", name);
    ok(pl_model_load(path, &o, &m, &err));
    return m;
}

/* What tools/make_head_goldens.py wrote of a case. */
struct golden {
    const char *name, *model, *eagle, *medusa;
    size_t heads; /* of Medusa */
    int32_t ids[2 * MAX];
    size_t n, hidden, vocab;
    float *states, *logits; /* [n][hidden], [3 + heads][vocab] */
};
static struct golden cases[] = {{.name = "random",
                                 .model = "tiny-llama",
                                 .eagle = HEADS "eagle.safetensors",
                                 .medusa = HEADS "medusa.safetensors",
                                 .heads = 2},
                                {.name = "trained",
                                 .model = "small-llama",
                                 .eagle = MODELS "small-llama-heads/eagle.safetensors",
                                 .medusa = MODELS "small-llama-heads/medusa.safetensors",
                                 .heads = 3}};

/* A line of the case's text: "ids n id …", or "WORD n id parent …". */
static size_t read_line(const struct golden *g, const char *word, int32_t *out)
{
    char path[512], name[32];
    size_t n = 0;
    bool found = false;

    snprintf(path, sizeof(path), HEADS "%s.txt", g->name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (!found && fscanf(f, "%31s %zu", name, &n) == 2) {
        const size_t width = strcmp(name, "ids") ? 2 : 1;
        assert_true(n <= MAX);
        for (size_t i = 0; i < n * width; i++)
            assert_int_equal(fscanf(f, "%" SCNd32, &out[i]), 1);
        found = strcmp(name, word) == 0;
    }
    fclose(f);
    assert_true(found);
    return n;
}

static float *read_floats(const struct golden *g, const char *what, size_t n)
{
    float *v = calloc(n, sizeof(*v));
    char path[512];

    snprintf(path, sizeof(path), HEADS "%s.%s.f32", g->name, what);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_non_null(v);
    assert_int_equal(fread(v, sizeof(*v), n, f), n);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    return v;
}

static void open_golden(struct golden *g, const struct pl_model *m)
{
    const struct pl_arch *a = &pl_model_info(m)->arch;

    g->hidden = (size_t)a->hidden;
    g->vocab = (size_t)a->vocab;
    g->n = read_line(g, "ids", g->ids);
    g->states = read_floats(g, "states", g->n * g->hidden);
    g->logits = read_floats(g, "logits", (3 + g->heads) * g->vocab);
}

static void close_golden(struct golden *g)
{
    free(g->states);
    free(g->logits);
}

static void near(const struct golden *g, const char *what, size_t at, const float *got,
                 const float *want)
{
    double worst = 0, largest = 0;

    for (size_t i = 0; i < g->vocab; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        largest = fmax(largest, fabs((double)want[i]));
    }
    if (!(worst <= 2e-5 * largest))
        fail_msg("%s: %s %zu differs from torch by %g of %g", g->name, what, at, worst, largest);
}

static void *eagle_of(const struct golden *g, struct pl_model *m, size_t top, size_t nodes,
                      bool fixed)
{
    const struct pl_eagle_opts o = {.path = g->eagle,
                                    .verifier = m,
                                    .max_prompt = MAX,
                                    .max_tokens = MAX,
                                    .depth = DEPTH,
                                    .top = top,
                                    .nodes = nodes,
                                    .fixed = fixed};
    void *d = NULL;

    ok(pl_draft_eagle_open(&o, &d, &err));
    return d;
}

/* What the drafter says after the case's text is the golden's line. */
static void drafts(const struct golden *g, const char *word, const struct pl_drafter_ops *ops,
                   void *d, size_t n_states)
{
    const struct pl_prompt prompt = {.ids = g->ids, .n = g->n - 1};
    const struct pl_verified text = {
        .ids = g->ids, .n_prompt = g->n - 1, .n = 1, .states = g->states, .n_states = n_states};
    int32_t want[2 * MAX];
    size_t n = read_line(g, word, want);
    struct pl_draft out;

    ok(pl_draft_init(&out, MAX, 0, 0, &err));
    for (int again = 0; again < 2; again++) { /* a second text finds nothing of the first */
        ok(ops->begin(d, &prompt, 0, &err));
        ok(ops->draft(d, &text, DEPTH, &out, &err));
        assert_int_equal(out.n, n);
        assert_int_equal(out.tree, strstr(word, "chain") == NULL);
        for (size_t i = 0; i < n; i++) {
            const int32_t parent = out.tree ? out.parents[i] : (int32_t)i - 1;
            if (out.ids[i] != want[2 * i] || parent != want[2 * i + 1])
                fail_msg("%s, %s: node %zu is %d behind %d, torch's %d behind %d", g->name, word, i,
                         out.ids[i], parent, want[2 * i], want[2 * i + 1]);
        }
    }
    pl_draft_release(&out);
    ops->free(d);
}

static void goldens(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct golden *g = &cases[c];
        struct pl_model *m = load(g->model);
        open_golden(g, m);
        const size_t rows[] = {1, g->n / 2 + 1, g->n - 1};
        float *got = calloc(g->vocab, sizeof(*got));
        void *d = eagle_of(g, m, 1, 0, false);

        for (size_t i = 0; i < 3; i++) {
            ok(pl_draft_eagle_logits(d, g->ids + 1, g->states, rows[i], got, &err));
            near(g, "EAGLE's row", rows[i], got, g->logits + i * g->vocab);
        }
        drafts(g, "eagle_chain", &pl_draft_eagle, d, g->n - 1);
        drafts(g, "eagle_static", &pl_draft_eagle, eagle_of(g, m, 10, 60, true), g->n - 1);
        drafts(g, "eagle_dynamic", &pl_draft_eagle, eagle_of(g, m, 4, 20, false), g->n - 1);
        d = NULL;
        ok(pl_draft_medusa_open(g->medusa, m, NULL, 0, 1, 0, &d, &err));
        for (size_t k = 0; k < g->heads; k++) {
            ok(pl_draft_medusa_logits(d, g->states + (g->n - 1) * g->hidden, k, got, &err));
            near(g, "Medusa's head", k, got, g->logits + (3 + k) * g->vocab);
        }
        fails(PL_ERANGE, "there are", pl_draft_medusa_logits(d, g->states, g->heads, got, &err));
        drafts(g, "medusa_chain", &pl_draft_medusa, d, g->n);
        free(got);
        close_golden(g);
        pl_model_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(goldens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
