#include "cli/runner/cmds.h"
#include "cli/runner/model_args.h"
#include "cli/runner/npy.h"
#include "cli/runner/prune_args.h"
#include "model/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What comes out: logits of every place of the decoder's ids, or hidden states. */
struct shape {
    size_t rows, cols;
    bool hidden; /* of an encoder, or after a block */
};

static struct shape shape_of(const struct pl_arch *a, const struct pl_model_input *in,
                             int64_t layer)
{
    struct shape s = {.rows = pl_model_input_prompt(in, a).n, .hidden = layer > 0 || !a->head};

    if (in->pixels)
        s.rows = in->frames * (size_t)pl_arch_image_rows(a); /* of a tower by itself */
    s.cols = (size_t)(s.hidden ? a->hidden : a->vocab);
    return s;
}

/* An encoder's states: the last ones, or those after a block. */
static enum pl_status encode(struct pl_session *s, const struct pl_arch *a,
                             const struct pl_model_input *in, int64_t layer, float *out,
                             struct pl_err *err)
{
    size_t images = in->pixels ? in->frames : 1;
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < images && !st; i++) {
        struct pl_source source = pl_model_input_source(in, a, i);
        float *to = out + i * source.n * (size_t)a->hidden;
        st = pl_session_encode(s, &source, layer ? NULL : to, err);
        if (!st && layer)
            st = pl_session_hidden_copy(s, 0, 0, source.n, to, err);
    }
    return st;
}

/* One pass over the whole input. */
static enum pl_status compute(struct pl_model *m, const struct pl_entry *e,
                              const struct pl_model_input *in, int64_t layer, float *out,
                              struct pl_err *err)
{
    const struct pl_model_info *info = pl_model_info(m);
    const struct pl_arch *a = &info->arch;
    struct pl_prompt p = pl_model_input_prompt(in, a);
    struct pl_source source = pl_model_input_source(in, a, 0);
    const int tap = (int)layer;
    struct pl_session_opts o = {.max_tokens = a->causal ? p.n : source.n,
                                .max_source = a->encoder_layers ? source.n : 0,
                                .kv_dtype = pl_entry_kv(e, info->dtype),
                                .taps = layer ? &tap : NULL,
                                .n_taps = layer ? 1 : 0};
    struct pl_session *s = NULL;
    enum pl_status st = pl_session_create(m, &o, &s, err);

    p.all_logits = layer == 0;
    if (!st && !a->causal)
        st = encode(s, a, in, layer, out, err);
    if (!st && a->encoder_layers)
        st = pl_session_encode(s, &source, NULL, err);
    if (!st && a->causal)
        st = pl_session_prefill(s, &p, layer ? NULL : out, err);
    if (!st && a->causal && layer)
        st = pl_session_hidden_copy(s, 0, 0, p.n, out, err);
    pl_session_free(s);
    return st;
}

/* Logits of the rows that reached the end: the head over their last hidden states. */
static enum pl_status head_of(struct pl_session *s, size_t rows, size_t vocab, float *out,
                              struct pl_err *err)
{
    enum { CHUNK = 64 };
    struct pl_model *m = pl_session_model(s);
    const struct pl_backend *b = pl_model_backend(m);
    struct pl_tensor *y = NULL, *x = NULL, *part = NULL;
    enum pl_status st = b->tensor_create(pl_model_device(m), CHUNK, vocab, &y, err);

    for (size_t at = 0; at < rows && !st; at += CHUNK) {
        const size_t n = rows - at < CHUNK ? rows - at : CHUNK;
        st = b->tensor_view(pl_session_hidden(s, 0), at, n, &x, err);
        if (!st)
            st = b->tensor_view(y, 0, n, &part, err);
        if (!st)
            st = b->linear(part, x, pl_model_head(m), NULL, err);
        if (!st)
            st = b->download(part, 0, n, out + at * vocab, err);
        b->tensor_free(part);
        b->tensor_free(x);
        x = part = NULL;
    }
    b->tensor_free(y);
    return st;
}

/* The same over a pruned prompt; *rows: those that are left (or reached block `layer`). */
static enum pl_status compute_pruned(const struct pl_prune_args *args, struct pl_model *m,
                                     const struct pl_entry *e, const struct pl_model_input *in,
                                     int64_t layer, struct pl_prune_setup *prune, float *out,
                                     size_t *rows, struct pl_err *err)
{
    const struct pl_model_info *info = pl_model_info(m);
    const struct pl_prompt p = pl_model_input_prompt(in, &info->arch);
    const int tap = layer ? (int)layer : PL_TAP_FINAL;
    struct pl_session_opts o = {
        .max_tokens = p.n, .kv_dtype = pl_entry_kv(e, info->dtype), .taps = &tap, .n_taps = 1};
    struct pl_session *s = NULL;
    json_t *trace = NULL;
    enum pl_status st = pl_prune_args_open(args, m, p.n, in->visual, prune, err);

    pl_prune_args_session(prune, &o);
    if (!st)
        st = pl_session_create(m, &o, &s, err);
    if (!st)
        st = pl_prune_args_begin(prune, p.ids, p.n, err);
    if (!st)
        st = pl_session_prefill(s, &p, NULL, err);
    if (!st)
        st = pl_prune_args_finish(args, prune, s, &trace, err);
    if (!st)
        st = pl_prune_args_write(args, trace, err);
    *rows = s ? pl_session_hidden_rows(s, 0) : 0;
    if (!st && layer)
        st = pl_session_hidden_copy(s, 0, 0, *rows, out, err);
    else if (!st)
        st = head_of(s, *rows, (size_t)info->arch.vocab, out, err);
    json_decref(trace);
    pl_session_free(s);
    return st;
}

static void count_nonfinite(const float *v, size_t n)
{
    size_t bad = 0;

    for (size_t i = 0; i < n; i++)
        bad += !isfinite(v[i]);
    if (bad)
        fprintf(stderr, "paceline-runner logits: warning: %zu of %zu numbers are NaN or infinite\n",
                bad, n);
}

struct request {
    struct pl_model_args a;
    struct pl_prune_args prune;
    const char *out;
    int64_t layer;
};

static enum pl_status run(void *arg, const char *path, struct pl_err *err)
{
    const struct request *q = arg;
    const struct pl_model_args *a = &q->a;
    const struct pl_prune_args *prune = &q->prune;
    json_t *json = NULL;
    struct pl_entry e;
    struct pl_model *m = NULL;
    struct pl_tokenizer *t = NULL;
    struct pl_model_input in = {.mask = NULL};
    struct pl_prune_setup setup = {.pruner = NULL};
    struct pl_model_args own = *a;
    struct pl_err why = {""};
    char *buf = NULL;
    enum pl_status st = q->out ? PL_OK : pl_fail(err, PL_EUSAGE, "-o OUT.npy is needed");

    if (!st)
        st = pl_model_args_load(a, path, &json, &e, &m, err);
    if (st)
        goto out;
    const struct pl_arch *arch = &pl_model_info(m)->arch;
    if (q->layer > arch->layers) {
        st = pl_fail(err, PL_ERANGE, "--layer %lld: the model has %d blocks", (long long)q->layer,
                     arch->layers);
        goto out;
    }
    if (a->prompt && pl_entry_tokenizer(path, arch, &t, &why) != PL_OK)
        t = NULL;
    st = pl_prune_args_merge(prune, m, &setup, &own.merge, err);
    if (!st)
        st = pl_model_args_input(&own, "logits", t, &why, m, &in, err);
    if (st)
        goto out;
    struct shape shape = shape_of(arch, &in, q->layer);
    buf = malloc(PL_NPY_HEADER + shape.rows * shape.cols * sizeof(float));
    if (!buf) {
        st = pl_fail(err, PL_ENOMEM, "no memory for %zu x %zu numbers", shape.rows, shape.cols);
        goto out;
    }
    float *numbers = (float *)(void *)(buf + PL_NPY_HEADER);
    if (prune->prune || prune->trace)
        st = compute_pruned(prune, m, &e, &in, q->layer, &setup, numbers, &shape.rows, err);
    else
        st = compute(m, &e, &in, q->layer, numbers, err);
    if (!st) {
        count_nonfinite(numbers, shape.rows * shape.cols);
        st = pl_npy_write(q->out, buf, (const size_t[]){shape.rows, shape.cols}, 2, err);
    }
out:
    free(buf);
    pl_prune_args_release(&setup);
    pl_model_input_release(&in);
    pl_tokenizer_free(t);
    pl_model_free(m);
    json_decref(json);
    return st;
}

int pl_rcmd_logits(int argc, char **argv)
{
    struct request q = {.a = {.max_window_ms = -1}};
    const struct pl_ropt opts[] = {
        PL_INPUT_OPTS(&q.a),
        {"output", 'o', PL_ROPT_STR, &q.out, "OUT.npy", "where to (float32)", 0, 0},
        {"layer", 0, PL_ROPT_INT, &q.layer, "L", "hidden states after block L (1-based)", 1,
         1 << 20},
        PL_PRUNE_OPTS(&q.prune),
        PL_MODEL_OPTS(&q.a)};
    const struct pl_rcommand c = {
        .usage = "logits MODEL (--ids \"1 2\" | --ids-file F.npy | --prompt TEXT | --pixels F.npy) "
                 "[--events F.npy | --video F | --image F.png | --pixels F.npy] -o OUT.npy",
        .about = "Writes the logits [n, vocab] of every place of the input (behind an encoder: of "
                 "the decoder's\nids), an encoder's last hidden states [n, H] (images: one after "
                 "the other), or those\nafter a block. With --prune: of the tokens that are left, "
                 "in their order.",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .min_args = 1,
        .max_args = 1};

    return pl_rcmd_run(&c, argc, argv, run, &q);
}
