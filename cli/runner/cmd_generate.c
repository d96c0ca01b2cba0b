#include "base/clock.h"
#include "cli/runner/cmds.h"
#include "cli/runner/draft_args.h"
#include "cli/runner/model_args.h"
#include "cli/runner/prune_args.h"
#include "model/session.h"
#include "worker/runner/jsonout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct generation {
    struct pl_model_input in;
    int32_t *ids;      /* [tokens] */
    int64_t *token_ns; /* [tokens] since the start */
    size_t n;
    int64_t prefill_ns, encode_ns, stages_ns; /* −1: no encoder; nothing is pruned */
    bool random;
    const struct pl_prune_args *prune_args;
    struct pl_prune_setup prune;
    const char *draft; /* NULL: it does not draft */
    json_t *trace;     /* NULL: none is wanted */
};

/* The tokens behind the first from a device that makes them by itself. */
static enum pl_status by_itself(struct pl_session *s, const int32_t *eos, size_t n_eos, bool stop,
                                int64_t tokens, int64_t start, struct generation *g,
                                struct pl_err *err)
{
    const size_t n = (size_t)tokens - 1;
    const struct pl_generation to = {
        .ids = g->ids, .n_ids = 1, .n = n, .ends = eos, .n_ends = stop ? 0 : n_eos};
    struct pl_generated *out = calloc(n, sizeof(*out));
    int64_t *ns = calloc(n, sizeof(*ns));
    size_t made = 0, used = 0;
    enum pl_status st =
        out && ns ? pl_session_generate_until(s, &to, eos, stop ? n_eos : 0, out, &made, &used, err)
                  : pl_fail(err, PL_ENOMEM, "no memory for %zu tokens", n);

    if (!st)
        pl_generated_times(out, 1, made, pl_now_ns() - start, g->token_ns[0], ns);
    for (size_t i = 0; i < used && !st; i++) {
        if (out[i].token.id < 0)
            st = pl_fail(err, PL_EFORMAT, "the logits of token %zu are NaN or infinite", g->n);
        g->ids[g->n] = out[i].token.id;
        g->token_ns[g->n++] = ns[i];
    }
    free(out);
    free(ns);
    return st;
}

static enum pl_status decode(struct pl_session *s, const struct pl_arch *a, const int32_t *eos,
                             size_t n_eos, bool stop, int64_t tokens, int64_t start, float *logits,
                             struct generation *g, struct pl_err *err)
{
    const struct pl_prompt p = pl_model_input_prompt(&g->in, a);
    const struct pl_source source = pl_model_input_source(&g->in, a, 0);
    size_t masked = stop ? 0 : n_eos;
    int64_t t0 = pl_now_ns();
    enum pl_status st = PL_OK;

    g->encode_ns = g->stages_ns = -1;
    if (a->encoder_layers) {
        st = pl_session_encode(s, &source, NULL, err);
        g->encode_ns = pl_now_ns() - t0;
        t0 += g->encode_ns;
    }
    if (!st)
        st = pl_prune_args_begin(&g->prune, p.ids, p.n, err);
    if (!st)
        st = pl_session_prefill(s, &p, logits, err);
    if (!st)
        st = pl_prune_args_finish(g->prune_args, &g->prune, s, &g->trace, err);
    if (g->prune.pruner)
        g->stages_ns = pl_session_hooks_ns(s);
    while (!st) {
        int32_t id = pl_pick(logits, (size_t)a->vocab, eos, masked);
        int64_t now = pl_now_ns();
        if (id < 0)
            return pl_fail(err, PL_EFORMAT, "the logits of token %zu are NaN or infinite", g->n);
        if (g->n == 0)
            g->prefill_ns = now - t0;
        g->ids[g->n] = id;
        g->token_ns[g->n++] = now - start;
        for (size_t i = 0; stop && i < n_eos; i++)
            if (eos[i] == id)
                return PL_OK;
        if (g->n == (size_t)tokens)
            return PL_OK;
        if (pl_session_generates(s))
            return by_itself(s, eos, n_eos, stop, tokens, start, g, err);
        st = pl_session_decode(s, id, logits, err);
    }
    return st;
}

static enum pl_status draft(const struct pl_model_args *a, struct pl_model *m,
                            const struct pl_entry *e, const struct pl_tokenizer *t,
                            const int32_t *eos, size_t n_eos, bool stop, int64_t tokens,
                            struct generation *g, struct pl_err *err)
{
    const struct pl_draft_call c = {.args = a,
                                    .verifier = m,
                                    .entry = e,
                                    .tokenizer = t,
                                    .prompt =
                                        pl_model_input_prompt(&g->in, &pl_model_info(m)->arch),
                                    .tokens = (size_t)tokens,
                                    .eos = eos,
                                    .n_eos = n_eos,
                                    .stop = stop,
                                    .start_ns = pl_now_ns() - g->in.tokenize_ns - g->in.vision_ns};

    g->encode_ns = g->stages_ns = -1;
    if (g->prune_args->prune)
        return pl_fail(err, PL_EUSAGE, "--draft does not go with --prune");
    return pl_draft_args_generate(g->draft, &c, g->ids, g->token_ns, &g->n, &g->prefill_ns,
                                  g->prune_args->trace ? &g->trace : NULL, err);
}

static enum pl_status generate(const struct pl_model_args *a, struct pl_model *m,
                               const struct pl_entry *e, const struct pl_tokenizer *t,
                               const struct pl_err *why, int64_t tokens, bool stop,
                               struct generation *g, struct pl_err *err)
{
    const struct pl_model_info *info = pl_model_info(m);
    int32_t eos[PL_MAX_EOS];
    size_t n_eos = pl_eos_ids(&info->arch, t ? pl_tokenizer_info(t)->eos : -1, eos);
    struct pl_session *s = NULL;
    float *logits = malloc(((size_t)info->arch.vocab + 1) * sizeof(*logits));
    struct pl_model_args own = *a;

    if (g->draft) /* the other picture is the drafter's */
        pl_draft_args_split(&own, info->vision.kind);
    enum pl_status st = pl_prune_args_merge(g->prune_args, m, &g->prune, &own.merge, err);

    if (!st)
        st = pl_model_args_input(&own, "generate", t, why, m, &g->in, err);

    if (!st && !info->arch.causal)
        st = pl_fail(err, PL_EUSAGE, "%s is an encoder: it makes no tokens", info->arch.name);
    g->random = info->random;
    g->ids = malloc((size_t)tokens * sizeof(*g->ids));
    g->token_ns = malloc((size_t)tokens * sizeof(*g->token_ns));
    if (!st && (!logits || !g->ids || !g->token_ns))
        st = pl_fail(err, PL_ENOMEM, "no memory for %lld tokens", (long long)tokens);
    if (!st && g->draft) {
        st = draft(a, m, e, t, eos, n_eos, stop, tokens, g, err);
        goto out;
    }
    if (!st)
        st = pl_prune_args_open(g->prune_args, m, pl_model_input_prompt(&g->in, &info->arch).n,
                                g->in.visual, &g->prune, err);
    if (!st) {
        struct pl_session_opts o = {.max_tokens = pl_model_input_prompt(&g->in, &info->arch).n +
                                                  (size_t)tokens - 1,
                                    .max_source = info->arch.encoder_layers ? g->in.ids.n : 0,
                                    .max_verify = 1,
                                    .kv_dtype = pl_entry_kv(e, info->dtype)};
        pl_prune_args_session(&g->prune, &o);
        st = pl_session_create(m, &o, &s, err);
    }
    if (!st)
        st = decode(s, &info->arch, eos, n_eos, stop, tokens,
                    pl_now_ns() - g->in.tokenize_ns - g->in.vision_ns, logits, g, err);
out:
    pl_session_free(s);
    free(logits);
    return st;
}

static double ms(int64_t ns)
{
    return (double)ns / 1e6;
}

/* *text_len SIZE_MAX: no tokenizer, so no text. */
static void print_json(const struct generation *g, const struct pl_buf *text, bool has_text)
{
    struct pl_buf b;
    struct pl_jsonout out = {.buf = &b}, *o = &out;

    pl_buf_init(&b, SIZE_MAX);
    pl_jsonout_lit(o, "{\"ids\":");
    pl_jsonout_i32s(o, g->ids, g->n);
    pl_jsonout_lit(o, ",\"text\":");
    if (has_text)
        pl_jsonout_str(o, text->data ? text->data : "", text->len);
    else
        pl_jsonout_lit(o, "null");
    fputs(b.data, stdout);
    printf(",\"prompt_tokens\":%zu,", g->in.embeds ? g->in.rows : g->in.ids.n);
    if (g->in.embeds) /* the parts of vision_ms */
        printf("\"vision_ms\":%.6f,\"decode_file_ms\":%.6f,\"raster_ms\":%.6f,"
               "\"preprocess_ms\":%.6f,\"tower_ms\":%.6f,",
               ms(g->in.vision_ns), ms(g->in.media.decode), ms(g->in.media.raster),
               ms(g->in.media.preprocess), ms(g->in.tower_ns));
    if (g->encode_ns >= 0)
        printf("\"encode_ms\":%.6f,", ms(g->encode_ns));
    if (g->stages_ns >= 0) /* of prefill_ms: scoring, choosing and dropping rows */
        printf("\"stages_ms\":%.6f,", ms(g->stages_ns));
    printf("\"ttft_ms\":%.6f,\"prefill_ms\":%.6f,\"decode_ms\":%.6f,\"token_ms\":[",
           ms(g->token_ns[0]), ms(g->prefill_ns), ms(g->token_ns[g->n - 1] - g->token_ns[0]));
    for (size_t i = 0; i < g->n; i++)
        printf("%s%.6f", i ? "," : "", ms(g->token_ns[i]));
    printf("],\"synthetic\":%s}\n", g->random ? "true" : "false");
    pl_buf_release(&b);
}

static void print_text(const struct generation *g, const struct pl_buf *text, bool has_text)
{
    int64_t decode_ns = g->token_ns[g->n - 1] - g->token_ns[0];

    if (has_text)
        fwrite(text->data ? text->data : "", 1, text->len, stdout);
    for (size_t i = 0; !has_text && i < g->n; i++)
        printf("%s%d", i ? " " : "", g->ids[i]);
    putchar('\n');
    fprintf(stderr, "%zu + %zu tokens, first after %.3f ms, %.1f tokens/s%s\n",
            g->in.embeds ? g->in.rows : g->in.ids.n, g->n, ms(g->token_ns[0]),
            decode_ns > 0 ? (double)(g->n - 1) * 1e9 / (double)decode_ns : 0.0,
            g->random ? ", random weights" : "");
}

struct request {
    struct pl_model_args a;
    struct pl_prune_args prune;
    const char *draft;
    int64_t tokens;
    bool stop, as_json;
};

static enum pl_status run(void *arg, const char *path, struct pl_err *err)
{
    const struct request *q = arg;
    json_t *json = NULL;
    struct pl_entry e;
    struct pl_model *m = NULL;
    struct pl_tokenizer *t = NULL;
    struct generation g = {.prune_args = &q->prune, .draft = q->draft};
    struct pl_err why = {""};
    struct pl_buf text;
    enum pl_status st = q->tokens ? PL_OK : pl_fail(err, PL_EUSAGE, "--tokens N is needed");

    pl_buf_init(&text, PL_TOKENIZER_MAX_TEXT);
    if (!st)
        st = pl_model_args_load(&q->a, path, &json, &e, &m, err);
    if (!st && pl_entry_tokenizer(path, &pl_model_info(m)->arch, &t, &why) != PL_OK)
        t = NULL;
    if (!st)
        st = generate(&q->a, m, &e, t, &why, q->tokens, q->stop, &g, err);
    if (!st && t)
        st = pl_tokenizer_decode(t, g.ids, g.n, &text, err);
    if (!st)
        st = pl_prune_args_write(&q->prune, g.trace, err);
    if (!st && q->as_json)
        print_json(&g, &text, t != NULL);
    else if (!st)
        print_text(&g, &text, t != NULL);
    pl_buf_release(&text);
    free(g.ids);
    free(g.token_ns);
    json_decref(g.trace);
    pl_prune_args_release(&g.prune);
    pl_model_input_release(&g.in);
    pl_tokenizer_free(t);
    pl_model_free(m);
    json_decref(json);
    return st;
}

int pl_rcmd_generate(int argc, char **argv)
{
    struct request q = {.a = {.max_window_ms = -1}};
    const struct pl_ropt opts[] = {
        PL_INPUT_OPTS(&q.a),
        {"tokens", 'n', PL_ROPT_INT, &q.tokens, "N", "tokens to make", 1, 1 << 24},
        {"stop-at-eos", 0, PL_ROPT_FLAG, &q.stop, NULL, "end there (else EOS is suppressed)", 0, 0},
        {"json", 0, PL_ROPT_FLAG, &q.as_json, NULL, "ids, text and times as one object", 0, 0},
        PL_PRUNE_OPTS(&q.prune),
        PL_DRAFT_OPTS(&q.draft),
        PL_MODEL_OPTS(&q.a)};
    const struct pl_rcommand c = {
        .usage =
            "generate MODEL (--ids \"1 2\" | --ids-file F.npy | --prompt TEXT) [--events F.npy "
            "| --video F | --image F.png | --pixels F.npy] --tokens N",
        .about = "Continues the input greedily.",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .min_args = 1,
        .max_args = 1};

    return pl_rcmd_run(&c, argc, argv, run, &q);
}
