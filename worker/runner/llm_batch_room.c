/* What trials of several sequences need: sessions, and buffers for what goes in and comes out. */
#include "worker/runner/llm_batch.h"
#include "worker/runner/llm_prune.h"

#include <stdlib.h>
#include <string.h>

static void free_more(struct llm_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        pl_session_free(b->more[i]);
        free(b->states ? b->states[i] : NULL);
    }
    free(b->more);
    free(b->states);
    b->more = NULL;
    b->states = NULL;
    b->n = 0;
}

void llm_batch_free(struct llm_batch *b)
{
    free_more(b);
    free(b->logits);
    memset(b, 0, sizeof(*b));
}

void llm_batch_buffers_free(struct llm_buffers *b)
{
    free(b->ids);
    free(b->tokens);
    free(b->ns);
    free(b->kv_len);
    free(b->lengths);
    free(b->queue);
    free(b->running);
    free(b->answered);
    free(b->made);
    free(b->made_ns);
    memset(b, 0, sizeof(*b));
}

static bool grow(void *at, size_t n, size_t size)
{
    void **p = at, *more = n <= SIZE_MAX / size ? realloc(*p, n * size) : NULL;

    if (more)
        *p = more;
    return more != NULL;
}

static enum pl_status buffers(struct llm_buffers *b, size_t sequences, size_t context,
                              size_t tokens, size_t layers, struct pl_err *err)
{
    bool ok = b->made || (grow(&b->made, LLM_MADE, sizeof(*b->made)) &&
                          grow(&b->made_ns, LLM_MADE, sizeof(*b->made_ns)));

    if (ok && b->n_ids < sequences * context) {
        ok = grow(&b->ids, sequences * context, sizeof(*b->ids));
        b->n_ids = ok ? sequences * context : b->n_ids;
    }
    if (ok && b->n_tokens < sequences * tokens) {
        ok = grow(&b->tokens, sequences * tokens, sizeof(*b->tokens)) &&
             grow(&b->ns, sequences * tokens, sizeof(*b->ns));
        b->n_tokens = ok ? sequences * tokens : b->n_tokens;
    }
    if (ok && b->n_kv_len < sequences * layers) {
        ok = grow(&b->kv_len, sequences * layers, sizeof(*b->kv_len));
        b->n_kv_len = ok ? sequences * layers : b->n_kv_len;
    }
    if (ok && b->n_lengths < sequences) {
        ok = grow(&b->lengths, sequences, sizeof(*b->lengths)) &&
             grow(&b->queue, sequences, sizeof(*b->queue)) &&
             grow(&b->running, sequences, sizeof(*b->running)) &&
             grow(&b->answered, sequences, sizeof(*b->answered));
        b->n_lengths = ok ? sequences : b->n_lengths;
    }
    return ok ? PL_OK
              : pl_fail(err, PL_ENOMEM, "no memory for the tokens of %zu sequences", sequences);
}

/* Sessions like the model's own, until there are `slots` of them in all. */
static enum pl_status sessions(struct llm_model *m, size_t slots, struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(m->model)->arch;
    struct llm_batch *b = &m->batch;
    size_t capacity = pl_session_capacity(m->session), more = slots - 1;
    struct pl_session_opts o = {.max_tokens = capacity,
                                .max_source = m->max_source,
                                .max_verify = 1,
                                .kv_dtype = pl_entry_kv(&m->entry, pl_model_info(m->model)->dtype)};

    if (b->n >= more &&
        (!more || (pl_session_capacity(b->more[0]) >= capacity && b->max_source >= m->max_source)))
        return PL_OK;
    free_more(b);
    b->more = calloc(more, sizeof(struct pl_session *));
    b->states = calloc(more, sizeof(float *));
    b->max_source = m->max_source;
    if (!b->more || !b->states)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu sequences", slots);
    for (b->n = 0; b->n < more; b->n++) {
        enum pl_status st = pl_session_create(m->model, &o, &b->more[b->n], err);
        if (st)
            return pl_err_prefix(err, st, "sequence %zu of %zu", b->n + 2, slots);
        if (a->causal)
            continue;
        b->states[b->n] = malloc(capacity * (size_t)a->hidden * sizeof(float));
        if (!b->states[b->n]) {
            b->n++;
            return pl_fail(err, PL_ENOMEM, "no memory for the states of %zu sequences", slots);
        }
    }
    return PL_OK;
}

enum pl_status llm_batch_room(struct llm_state *s, struct llm_arm *arm, int64_t context,
                              int64_t tokens, struct pl_err *err)
{
    struct llm_model *m = arm->model;
    const struct llm_sequences *q = &arm->sequences;
    const struct pl_arch *a = &pl_model_info(m->model)->arch;
    enum pl_status st =
        arm->pruned.prune ? llm_prune_room(&arm->pruned, m, s->seed, q->slots, context, tokens, err)
                          : llm_session(m, context, tokens, err);

    if (!st && !arm->pruned.prune)
        st = sessions(m, q->slots, err);
    if (!st)
        st = buffers(&s->buffers, q->all, (size_t)context, (size_t)tokens, (size_t)a->layers, err);
    if (!st && m->batch.n_logits < q->slots) {
        if (!grow(&m->batch.logits, (size_t)q->slots * (size_t)a->vocab, sizeof(float)))
            return pl_fail(err, PL_ENOMEM, "no memory for the logits of %u sequences", q->slots);
        m->batch.n_logits = q->slots;
    }
    return st;
}
