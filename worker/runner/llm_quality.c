/* What a trial's answer is worth, found out once its clock has stopped (docs/METRICS.md,
 * "Quality"). */
#include "worker/runner/llm.h"

#include <math.h>
#include <string.h>

/* −ln p of an id by these logits. */
static double surprise(const float *logits, size_t vocab, int32_t id)
{
    float most = logits[0];
    double sum = 0;

    for (size_t i = 1; i < vocab; i++)
        most = logits[i] > most ? logits[i] : most;
    for (size_t i = 0; i < vocab; i++)
        sum += exp((double)(logits[i] - most));
    return log(sum) - (double)(logits[id] - most);
}

/* The ids that the text goes on with after the prompt in s->ids, in s->next: how many, at most
 * `want`. */
static size_t what_follows(struct llm_state *s, const struct llm_model *m, const json_t *sample,
                           size_t want)
{
    struct pl_err err = {""};
    const char *text = NULL;
    size_t len = 0, n = s->ids.n;

    s->next.n = 0;
    if (!m->tokenizer || json_object_get(sample, "ids") ||
        strcmp(pl_json_get_str(sample, "kind", ""), "text") != 0 ||
        pl_text_cache_get(s->texts, sample, &text, &len, &err) ||
        pl_tokenizer_encode_prefix(m->tokenizer, text, len, n + want, &s->next, &err))
        return 0;
    return memcmp(s->next.ids, s->ids.ids, n * sizeof(int32_t)) == 0 ? want : 0;
}

/* Takes the generated tokens back and shows the model the text's own. */
static double perplexity(struct llm_state *s, struct llm_model *m, const json_t *sample,
                         uint32_t generated)
{
    const struct pl_arch *a = &pl_model_info(m->model)->arch;
    const size_t vocab = (size_t)a->vocab, room = pl_session_capacity(m->session) - s->ids.n;
    const size_t want = m->quality < room + 1 ? m->quality : room + 1;
    const size_t n = what_follows(s, m, sample, want);
    const int32_t *next = s->next.ids + s->ids.n;
    struct pl_err err = {""};
    double sum = 0;

    if (!n || pl_session_rollback(m->session, generated - 1, &err))
        return NAN;
    sum = surprise(m->first, vocab, next[0]);
    for (size_t at = 0; at + 1 < n; at += LLM_QUALITY_ROWS) {
        const size_t left = n - 1 - at, k = left < LLM_QUALITY_ROWS ? left : LLM_QUALITY_ROWS;
        if (pl_session_verify(m->session, next + at, k, m->verify, &err))
            return NAN;
        for (size_t i = 0; i < k; i++)
            sum += surprise(m->verify + i * vocab, vocab, next[at + i + 1]);
    }
    return exp(sum / (double)n);
}

void llm_quality(struct llm_state *s, struct llm_model *m, const struct pl_trial_request *q,
                 struct pl_trial_result *out)
{
    const struct pl_arch *a = &pl_model_info(m->model)->arch;

    if (!q->timed || !m->quality || !a->causal || a->encoder_layers || out->synthetic)
        return;
    pl_trial_result_quality(out, "perplexity", perplexity(s, m, q->sample, out->generated));
}
