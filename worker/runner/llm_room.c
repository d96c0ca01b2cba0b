/* Room that the real engine's trials need, and the bytes that they took. */
#include "worker/runner/llm.h"

#include "worker/runner/host.h"
#include "worker/runner/llm_batch.h"
#include "worker/runner/llm_prune.h"

#include <stdlib.h>
#include <string.h>

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void llm_need(const struct pl_arch *a, int64_t context, int64_t tokens, int64_t *positions,
              int64_t *source)
{
    int64_t most = a->max_positions;

    *source = a->encoder_layers ? least(context, most) : 0;
    if (!a->causal)
        *positions = least(context, most);
    else /* a decoder behind an encoder begins with its start token */
        *positions = least((a->encoder_layers ? 1 : context) + tokens - 1, most);
}

enum pl_status llm_check_context(const struct pl_arch *a, int64_t context, int64_t tokens,
                                 struct pl_err *err)
{
    bool after = a->causal && !a->encoder_layers; /* tokens stand behind the context */

    if (context > a->max_positions - (after ? tokens - 1 : 0))
        return after ? pl_fail(err, PL_ERANGE,
                               "context %lld + %lld tokens is beyond the model's %lld positions",
                               (long long)context, (long long)tokens, (long long)a->max_positions)
                     : pl_fail(err, PL_ERANGE, "context %lld is beyond the model's %lld positions",
                               (long long)context, (long long)a->max_positions);
    if (a->encoder_layers && tokens > a->max_positions)
        return pl_fail(err, PL_ERANGE, "%lld tokens are beyond the model's %lld positions",
                       (long long)tokens, (long long)a->max_positions);
    return PL_OK;
}

void llm_session_opts(const struct llm_model *m, int64_t context, int64_t tokens,
                      struct pl_session_opts *out)
{
    const struct pl_model_info *info = pl_model_info(m->model);
    const bool decoder = info->arch.causal && !info->arch.encoder_layers;
    int64_t positions, source;

    if (decoder && tokens < (int64_t)m->quality)
        tokens = (int64_t)m->quality;
    llm_need(&info->arch, context, tokens, &positions, &source);
    *out = (struct pl_session_opts){.max_tokens = (size_t)positions,
                                    .max_source = (size_t)source,
                                    .max_verify = decoder && m->quality ? LLM_QUALITY_ROWS : 1,
                                    .kv_dtype = pl_entry_kv(&m->entry, info->dtype)};
}

enum pl_status llm_foresee(const struct llm_state *s, const struct llm_arm *arm, int64_t context,
                           int64_t tokens, struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(arm->model->model)->arch;
    struct pl_session_opts o;
    struct pl_session_memory mem;
    int64_t need = 0;

    if (!s->memory || strcmp(pl_model_backend(arm->model->model)->name, "cpu") != 0)
        return PL_OK;
    llm_session_opts(arm->model, context, tokens, &o);
    pl_sessions_bytes(pl_model_info(arm->model->model), &o, arm->sequences.slots, &mem);
    for (const struct llm_model *m = s->models; m; m = m->next)
        need += pl_model_info(m->model)->weights_bytes;
    const int64_t weights = need;
    need += mem.kv_bytes + mem.workspace_bytes;
    if (arm->pruned.prune) /* the prompt's hidden states stand by between its stages */
        need += (int64_t)o.max_tokens * a->hidden * (int64_t)sizeof(float);
    if (need <= s->memory)
        return PL_OK;
    return pl_fail(
        err, PL_ERANGE,
        "context %lld needs %.1f GiB (weights %.1f, KV cache %.1f), the machine has %.1f",
        (long long)context, (double)need / 1073741824.0, (double)weights / 1073741824.0,
        (double)mem.kv_bytes / 1073741824.0, (double)s->memory / 1073741824.0);
}

enum pl_status llm_session(struct llm_model *m, int64_t context, int64_t tokens, struct pl_err *err)
{
    const struct pl_model_info *info = pl_model_info(m->model);
    struct pl_session_opts o;

    llm_session_opts(m, context, tokens, &o);
    if (m->session && pl_session_capacity(m->session) >= o.max_tokens &&
        m->max_source >= o.max_source)
        return PL_OK;
    pl_session_free(m->session);
    free(m->states);
    m->session = NULL;
    m->states = NULL;
    m->max_source = o.max_source;
    if (!info->arch.causal) {
        m->states = malloc(o.max_tokens * (size_t)info->arch.hidden * sizeof(*m->states));
        if (!m->states)
            return pl_fail(err, PL_ENOMEM, "no memory for %zu states", o.max_tokens);
    }
    return pl_session_create(m->model, &o, &m->session, err);
}

void llm_reset_peak(const struct llm_model *m)
{
    const struct pl_backend *b = pl_model_backend(m->model);
    struct pl_device_memory memory;

    if (b->memory)
        b->memory(pl_model_device(m->model), true, &memory);
    else
        (void)pl_host_reset_peak();
}

/* The most memory in use since then: a GPU's, whoever used it, or this process's. */
static int64_t peak_of(const struct llm_model *m)
{
    const struct pl_backend *b = pl_model_backend(m->model);
    struct pl_device_memory memory;
    struct pl_resident r;

    if (b->memory) {
        b->memory(pl_model_device(m->model), false, &memory);
        return memory.peak;
    }
    pl_host_resident(&r);
    return r.peak;
}

void llm_measure_bytes(const struct llm_model *m, struct pl_session *const *sessions, size_t n,
                       bool drafted, struct pl_trial_result *out)
{
    const int64_t peak = peak_of(m);
    struct pl_session_memory mem;

    pl_sessions_memory(sessions, n, &mem);
    if (!drafted) {
        out->weights_bytes = pl_model_info(m->model)->weights_bytes;
        out->kv_bytes = mem.kv_bytes_used;
        out->workspace_bytes = mem.workspace_bytes + mem.kv_bytes - mem.kv_bytes_used;
    }
    if (pl_model_vision(m->model))
        out->workspace_bytes += pl_vision_workspace_bytes(pl_model_vision(m->model));
    out->device_peak_bytes = peak;
    int64_t ours = out->weights_bytes + out->kv_bytes + out->workspace_bytes;
    out->other_bytes = peak > ours ? peak - ours : 0;
}
