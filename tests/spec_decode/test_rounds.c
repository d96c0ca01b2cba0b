/* Rounds on the example models: bounds, ends, failures of a drafter, spans. */
#include "fixture.h"

#include "base/clock.h"
#include "spec_decode/draft_opts.h"
#include "spec_decode/round.h"

#include <sched.h>
#include <stdatomic.h>

#define MODELS PL_SOURCE_DIR "/examples/models/"
#define TOKENS 40
#define PROMPT 24

static struct pl_err err;

static struct pl_model *big, *small;
static int32_t prompt[PROMPT];

static struct pl_model *load(const char *name)
{
    const struct pl_model_opts o = {.dtype = PL_DT_F32, .where = {.threads = 1}};
    struct pl_model *m = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s%s", MODELS, name);
    ok(pl_model_load(path, &o, &m, &err));
    return m;
}

static int set_up(void **state)
{
    (void)state;
    big = load("small-llama");
    small = load("tiny-llama");
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = 5 + i * 37 % 900;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pl_model_free(big);
    pl_model_free(small);
    return 0;
}

static struct pl_session *session(struct pl_model *m, size_t tokens)
{
    const struct pl_session_opts o = {.max_tokens = tokens, .max_verify = 64};
    struct pl_session *s = NULL;

    ok(pl_session_create(m, &o, &s, &err));
    return s;
}

/* A drafter that says what it is told to. */
struct puppet {
    const int32_t *say; /* the text that it believes in */
    size_t n;           /* tokens of it */
    size_t ahead;       /* most that run_ahead says */
    enum pl_status fail;
    size_t fail_at;    /* … in the draft of this round, from 1; 0: always */
    size_t drafts;     /* so far */
    atomic_bool spoke; /* run_ahead has said all of it, or failed */
};

static enum pl_status puppet_begin(void *d, const struct pl_prompt *p, uint64_t key,
                                   struct pl_err *e)
{
    (void)key;
    (void)d;
    (void)p;
    (void)e;
    return PL_OK;
}

static enum pl_status puppet_ahead(void *d, bool (*stop)(void *), void *arg, size_t most,
                                   struct pl_draft *out, struct pl_err *e)
{
    struct puppet *p = d;

    out->n = most < p->ahead ? most : p->ahead;
    out->tree = out->has_q = false;
    memcpy(out->ids, p->say, out->n * sizeof(*out->ids));
    atomic_store(&p->spoke, true);
    if (p->fail && !p->fail_at)
        return pl_fail(e, p->fail, "the puppet broke");
    while (!stop(arg))
        sched_yield();
    return PL_OK;
}

static enum pl_status puppet_draft(void *d, const struct pl_verified *t, size_t want,
                                   struct pl_draft *out, struct pl_err *e)
{
    struct puppet *p = d;

    out->n = 0;
    out->tree = out->has_q = false;
    p->drafts++;
    if (p->fail && (!p->fail_at || p->drafts == p->fail_at))
        return pl_fail(e, p->fail, "the puppet broke");
    while (out->n < want && t->n + out->n < p->n) {
        out->ids[out->n] = p->say[t->n + out->n];
        out->n++;
    }
    return PL_OK;
}

static void puppet_free(void *d)
{
    (void)d;
}

static const struct pl_drafter_ops puppet_ops = {.name = "puppet",
                                                 .lane = true,
                                                 .begin = puppet_begin,
                                                 .run_ahead = puppet_ahead,
                                                 .draft = puppet_draft,
                                                 .free = puppet_free};

static struct pl_spec *spec_of(struct pl_session *v, struct puppet *p, size_t gamma, bool overlap,
                               struct pl_lane *lane, size_t tokens)
{
    const struct pl_spec_opts o = {.verifier = v,
                                   .ops = &puppet_ops,
                                   .drafter = p,
                                   .lane = lane,
                                   .gamma = gamma,
                                   .overlap = overlap,
                                   .after = true,
                                   .tap = -1,
                                   .max_tokens = tokens,
                                   .max_prompt = PROMPT};
    struct pl_spec *s = NULL;

    ok(pl_spec_create(&o, &s, &err));
    return s;
}

static void alone(struct pl_session *s, int32_t *out, size_t tokens)
{
    size_t vocab = (size_t)pl_model_info(big)->arch.vocab;
    float *logits = calloc(vocab, sizeof(*logits));
    const struct pl_prompt p = {.ids = prompt, .n = PROMPT};

    pl_session_reset(s);
    ok(pl_session_prefill(s, &p, logits, &err));
    for (size_t i = 0; i < tokens; i++) {
        out[i] = pl_pick(logits, vocab, NULL, 0);
        if (i + 1 < tokens)
            ok(pl_session_decode(s, out[i], logits, &err));
    }
    free(logits);
}

/* In each lane: spans one behind the other, none behind the end, and with the waits between them
 * they are the whole trial. */
static void lanes_add_up(const struct pl_spec_result *r)
{
    int64_t lane[2] = {0, 0}, at[2] = {0, 0}, spanned = 0;

    for (int i = 0; i < PL_SPEC_PHASES; i++) {
        assert_true(r->phase_ns[i] >= 0);
        lane[i >= PL_SPEC_D_VISION] += r->phase_ns[i];
    }
    assert_true(llabs(lane[0] + r->ready_ns - r->last_ns) <= r->last_ns / 100 + 2000);
    assert_true(lane[1] == 0 || lane[1] == r->last_ns);
    for (size_t i = 0; i < r->n_spans; i++) {
        const struct pl_spec_span *v = &r->spans[i];
        assert_true(v->start_ns >= at[v->lane] && v->end_ns >= v->start_ns);
        assert_true(v->end_ns <= r->last_ns);
        at[v->lane] = v->end_ns;
        spanned += v->lane ? v->end_ns - v->start_ns : 0;
    }
    if (r->n_spans < PL_SPEC_MAX_SPANS)
        assert_int_equal(spanned + r->phase_ns[PL_SPEC_D_WAIT], lane[1]);
}

static void identity(const struct pl_spec_result *r)
{
    uint64_t sum = 1 + (uint64_t)r->plain - r->cut, drafted = 0, accepted = 0;

    for (size_t i = 0; i < r->n_rounds; i++) {
        sum += r->rounds[i].accepted + 1;
        drafted += r->rounds[i].drafted;
        accepted += r->rounds[i].accepted;
        assert_true(r->rounds[i].accepted <= r->rounds[i].drafted);
    }
    assert_int_equal(sum, r->n);
    assert_int_equal(drafted, r->drafted);
    assert_int_equal(accepted, r->accepted);
    lanes_add_up(r);
}

/* A perfect drafter: every token but the first is drafted or a bonus; the lanes' times add up. */
static void perfect(void **state)
{
    struct pl_session *v = session(big, PROMPT + TOKENS);
    struct pl_spec_request q = {.ids = prompt, .n_prompt = PROMPT, .tokens = TOKENS};
    int32_t want[TOKENS];
    struct puppet p = {.say = want, .n = TOKENS};

    (void)state;
    alone(v, want, TOKENS);
    for (size_t gamma = 1; gamma <= 16; gamma *= 4) {
        struct pl_spec *s = spec_of(v, &p, gamma, false, NULL, TOKENS);
        struct pl_spec_result r;
        q.start_ns = pl_now_ns();
        ok(pl_spec_generate(s, &q, &r, &err));
        assert_int_equal(r.n, TOKENS);
        assert_memory_equal(r.tokens, want, sizeof(want));
        assert_int_equal(r.drafted, r.accepted);
        assert_int_equal(r.n_rounds, (TOKENS - 1) / (gamma + 1) + ((TOKENS - 1) % (gamma + 1) > 1));
        identity(&r);
        assert_true(r.phase_ns[PL_SPEC_D_DECODE] > 0 && r.phase_ns[PL_SPEC_D_WAIT] > 0);
        pl_spec_free(s);
    }
    pl_session_free(v);
}

/* An end inside a draft ends the text there; what was accepted behind it is cut. */
static void end_inside_a_draft(void **state)
{
    struct pl_session *v = session(big, PROMPT + TOKENS);
    int32_t want[TOKENS];
    struct puppet p = {.say = want, .n = TOKENS};
    struct pl_spec_result r;

    (void)state;
    alone(v, want, TOKENS);
    for (size_t at = 0; at < 12; at++) {
        size_t first = 0;
        while (want[first] != want[at])
            first++;
        const struct pl_spec_request q = {
            .ids = prompt, .n_prompt = PROMPT, .tokens = TOKENS, .eos = &want[at], .n_eos = 1};
        struct pl_spec *s = spec_of(v, &p, 7, false, NULL, TOKENS);
        ok(pl_spec_generate(s, &q, &r, &err));
        assert_int_equal(r.n, first + 1);
        assert_memory_equal(r.tokens, want, r.n * sizeof(*want));
        identity(&r);
        assert_true(first == 0 ? r.n_rounds == 0
                               : r.cut <= r.rounds[r.n_rounds ? r.n_rounds - 1 : 0].accepted);
        pl_spec_free(s);
    }
    pl_session_free(v);
}

/* Drafts that are all wrong cost rounds, nothing else; a full context ends the drafts. */
static void wrong_and_full(void **state)
{
    struct pl_session *v = session(big, PROMPT + TOKENS - 1); /* not one place more */
    int32_t want[TOKENS], lies[TOKENS];
    struct puppet p = {.say = lies, .n = TOKENS};
    const struct pl_spec_request q = {.ids = prompt, .n_prompt = PROMPT, .tokens = TOKENS};
    struct pl_spec *s = spec_of(v, &p, 16, false, NULL, TOKENS);
    struct pl_spec_result r;

    (void)state;
    alone(v, want, TOKENS);
    for (size_t i = 0; i < TOKENS; i++)
        lies[i] = (want[i] + 1) % 1024;
    ok(pl_spec_generate(s, &q, &r, &err));
    assert_memory_equal(r.tokens, want, sizeof(want));
    assert_int_equal(r.accepted, 0);
    assert_int_equal(r.n_rounds, TOKENS - 2);
    assert_int_equal(r.plain, 1); /* the last token: nothing is left to draft */
    identity(&r);
    pl_spec_free(s);
    pl_session_free(v);
}

/* The verifier's prefill lasts until the puppet has spoken; every row is kept. */
static enum pl_status await_puppet(void *user, const struct pl_stage *stage, int32_t *kept,
                                   size_t *n_kept, struct pl_err *e)
{
    struct puppet *p = user;
    const int64_t late = pl_now_ns() + 20 * PL_NS_PER_S;

    (void)stage;
    (void)kept;
    (void)n_kept;
    while (!atomic_load(&p->spoke)) {
        if (pl_now_ns() > late)
            return pl_fail(e, PL_EIO, "the drafter's lane does not run beside the prefill");
        sched_yield();
    }
    return PL_OK;
}

/* A drafter that fails or runs on: an error, or a stop when the verifier's prefill is done. */
static void lanes(void **state)
{
    int32_t want[TOKENS];
    struct puppet p = {.say = want, .n = TOKENS, .ahead = 9, .spoke = true};
    const struct pl_stage_hook wait = {.name = "await_puppet",
                                       .layers = &(const int32_t){0},
                                       .n_layers = 1,
                                       .run = await_puppet,
                                       .user = &p};
    const struct pl_session_opts o = {
        .max_tokens = PROMPT + TOKENS, .max_verify = 64, .hooks = &wait, .n_hooks = 1};
    struct pl_session *v = NULL;
    struct pl_lane *lane = NULL;
    struct pl_spec_request q = {.ids = prompt, .n_prompt = PROMPT, .tokens = TOKENS};
    struct pl_spec_result r;
    struct pl_spec *s;

    (void)state;
    ok(pl_session_create(big, &o, &v, &err));
    ok(pl_lane_new(&lane, &err));
    alone(v, want, TOKENS);
    s = spec_of(v, &p, 4, true, lane, TOKENS);
    p.spoke = false;
    ok(pl_spec_generate(s, &q, &r, &err));
    assert_memory_equal(r.tokens, want, sizeof(want));
    assert_int_equal(r.free_tokens, 8); /* of 9 the first is dropped */
    assert_int_equal(r.rounds[0].drafted, 8);
    assert_int_equal(r.rounds[0].accepted, 8);
    identity(&r);
    bool beside = false;
    for (size_t i = 0; i < r.n_spans; i++)
        beside |= r.spans[i].lane == 1 && r.spans[i].start_ns < r.first_ns;
    assert_true(beside);
    /* and goes on in rounds: one of them breaks, with the verifier's KV in the middle of the text
     */
    assert_true(r.n_rounds > 2);
    for (size_t at = 1; at <= r.n_rounds - 1; at++) {
        p.fail = PL_EIO;
        p.fail_at = at;
        p.drafts = 0;
        p.spoke = false;
        assert_int_equal(pl_spec_generate(s, &q, &r, &err), PL_EIO);
        assert_int_equal(p.drafts, at);
        p.fail = PL_OK;
        ok(pl_spec_generate(s, &q, &r, &err));
        assert_memory_equal(r.tokens, want, sizeof(want));
        identity(&r);
    }
    p.fail_at = 0;
    /* the text ends at its first token: what ran ahead for it is not counted */
    q.eos = want;
    q.n_eos = 1;
    ok(pl_spec_generate(s, &q, &r, &err));
    assert_int_equal(r.n, 1);
    assert_true(!r.n_rounds && !r.free_tokens && !r.drafted);
    assert_true(r.last_ns == r.first_ns);
    identity(&r);
    q.n_eos = 0;
    p.fail = PL_EIO;
    assert_int_equal(pl_spec_generate(s, &q, &r, &err), PL_EIO);
    assert_non_null(strstr(err.text, "drafter's lane: the puppet broke"));
    p.fail = PL_OK; /* and it can be used again */
    ok(pl_spec_generate(s, &q, &r, &err));
    assert_memory_equal(r.tokens, want, sizeof(want));
    pl_spec_free(s);
    s = spec_of(v, &p, 4, false, NULL, TOKENS);
    p.fail = PL_ENOMEM;
    assert_int_equal(pl_spec_generate(s, &q, &r, &err), PL_ENOMEM);
    pl_spec_free(s);
    pl_lane_free(lane);
    pl_session_free(v);
}

static void vocabularies(void **state)
{
    struct pl_arch a = pl_model_info(big)->arch, b = a;

    (void)state;
    ok(pl_draft_check_vocab(&a, &b, &err));
    b.vocab = 1000;
    assert_int_equal(pl_draft_check_vocab(&b, &a, &err), PL_ERANGE);
    assert_non_null(strstr(err.text, "1000 ids, the verifier's 1024"));
}

static void refuses(const char *text, const char *part)
{
    json_error_t e;
    json_t *j = json_loads(text, 0, &e);
    struct pl_draft_opts o;

    assert_non_null(j);
    enum pl_status st = pl_draft_opts_read(j, &o, &err);
    if (st != PL_ESWEEP || !strstr(err.text, part))
        fail_msg("%s: expected \"%s\", got %s: %s", text, part, pl_status_text(st), err.text);
    json_decref(j);
}

static struct pl_draft_opts reads(const char *text)
{
    json_error_t e;
    json_t *j = json_loads(text, 0, &e);
    struct pl_draft_opts o;

    assert_non_null(j);
    ok(pl_draft_opts_read(j, &o, &err));
    json_decref(j);
    return o;
}

static void options(void **state)
{
    (void)state;
    refuses("[]", "expected a map");
    refuses("{}", "draft.method is missing");
    refuses("{\"method\":\"magic\"}", "\"magic\", expected prompt_lookup");
    refuses("{\"method\":\"prompt_lookup\",\"gamma\":0}", "from 1 to 255");
    refuses("{\"method\":\"prompt_lookup\",\"gamma\":256}", "from 1 to 255");
    refuses("{\"method\":\"prompt_lookup\",\"gamma\":1.5}", "from 1 to 255");
    refuses("{\"method\":\"prompt_lookup\",\"model\":\"m\"}", "drafts without a model");
    refuses("{\"method\":\"model\"}", "draft.model is missing");
    refuses("{\"method\":\"eagle\"}", "draft.weights is missing");
    refuses("{\"method\":\"adapter\",\"model\":\"m\"}", "draft.adapter is missing");
    refuses("{\"model\":\"m\",\"adapter\":\"L4\"}", "draft.weights is missing");
    refuses("{\"method\":\"prompt_lookup\",\"overlap\":\"decode\"}", "expected prefill or none");
    refuses("{\"method\":\"prompt_lookup\",\"temperature\":-1}", "from 0 to 100");
    refuses("{\"method\":\"prompt_lookup\",\"min_ngram\":3,\"max_ngram\":2}", "at least min_ngram");
    struct pl_draft_opts o = reads("{\"method\":\"prompt_lookup\",\"gamma\":8}");
    assert_true(o.after && !o.overlap && o.gamma == 8);
    o = reads("{\"model\":\"m\",\"gamma\":3}");
    assert_true(o.method == PL_DRAFT_MODEL && o.after && o.overlap);
    o = reads("{\"model\":\"m\",\"adapter\":\"L4\",\"weights\":\"w\"}");
    assert_true(o.method == PL_DRAFT_ADAPTER && !o.after && o.overlap);
    o = reads("{\"model\":\"m\",\"adapter\":\"L4\",\"weights\":\"w\",\"overlap\":\"none\"}");
    assert_true(o.after && !o.overlap);
    o = reads("{\"adapter\":\"B1\",\"weights\":\"w\",\"gamma\":5}"); /* needs no model */
    assert_true(o.after && !o.overlap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perfect),        cmocka_unit_test(end_inside_a_draft),
        cmocka_unit_test(wrong_and_full), cmocka_unit_test(lanes),
        cmocka_unit_test(vocabularies),   cmocka_unit_test(options)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
