#include "model/cpu/cpu.h"

#include "model/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Every matrix of a layer with its source and its bias, in one list that create, free and the byte
 * count walk. */
struct slot {
    const struct pl_weight_source *src, *bias;
    struct pl_panels *to;
};

#define SLOTS 7

static void layer_slots(const struct pl_layer_sources *s, struct pl_cpu_layer *l, struct slot *out)
{
    const struct slot list[SLOTS] = {
        {&s->q, &s->q_bias, &l->q},          {&s->k, &s->k_bias, &l->k},
        {&s->v, &s->v_bias, &l->v},          {&s->o, &s->o_bias, &l->o},
        {&s->gate, &s->gate_bias, &l->gate}, {&s->up, &s->up_bias, &l->up},
        {&s->down, &s->down_bias, &l->down},
    };
    memcpy(out, list, sizeof(list));
}

static int64_t source_need(const struct pl_weight_source *src, enum pl_dtype dt)
{
    return src->absent ? 0
                       : pl_cpu_panel_bytes((size_t)src->rows, (size_t)src->cols,
                                            pl_cpu_weight_dtype(src, dt));
}

int64_t pl_cpu_network_need(const struct pl_arch *a, const struct pl_model_sources *src,
                            enum pl_dtype dt)
{
    const struct pl_weight_source *head = src->lm_head.absent ? &src->embed : &src->lm_head;
    int64_t sum = source_need(head, dt) + src->final_norm.cols * 4;

    if (!src->lm_head.absent)
        sum += (int64_t)pl_dtype_bytes(pl_cpu_weight_dtype(&src->embed, dt),
                                       (size_t)(src->embed.rows * src->embed.cols));
    for (int32_t i = 0; i < a->layers; i++) {
        struct slot s[SLOTS];
        struct pl_cpu_layer none;
        layer_slots(&src->layers[i], &none, s);
        for (int j = 0; j < SLOTS; j++)
            sum += source_need(s[j].src, dt) + (s[j].bias->absent ? 0 : s[j].bias->cols * 4);
        sum += (src->layers[i].attn_norm.cols + src->layers[i].ffn_norm.cols) * 4;
    }
    return sum;
}

static enum pl_status load_layer(struct pl_network *n, const struct pl_layer_sources *src,
                                 struct pl_cpu_layer *l, enum pl_dtype dt, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    struct slot s[SLOTS];

    layer_slots(src, l, s);
    for (int j = 0; j < SLOTS && !st; j++) {
        if (s[j].src->absent)
            continue;
        st = pl_cpu_pack(n->device, s[j].src, dt, s[j].to, err);
        if (!st)
            st = pl_cpu_vector(s[j].bias, &s[j].to->bias, err);
    }
    if (!st)
        st = pl_cpu_vector(&src->attn_norm, &l->attn_norm, err);
    if (!st)
        st = pl_cpu_vector(&src->ffn_norm, &l->ffn_norm, err);
    return st;
}

/* θ_i = theta^(−2i/d) in f32, as transformers computes it; scaling: modeling_rope_utils.py. */
static enum pl_status make_rope(struct pl_network *n, const struct pl_weight_source *factors,
                                struct pl_err *err)
{
    const struct pl_rope *r = &n->arch.rope;
    size_t half = (size_t)n->arch.head_dim / 2;

    n->inv_freq = pl_cpu_alloc(half, sizeof(float));
    if (!n->inv_freq)
        return pl_fail(err, PL_ENOMEM, "no memory for the RoPE table");
    for (size_t i = 0; i < half; i++) {
        float e = (float)(2 * i) / (float)n->arch.head_dim;
        float f = 1.0f / powf((float)r->theta, e);
        if (r->kind == PL_ROPE_LINEAR) {
            f /= (float)r->factor;
        } else if (r->kind == PL_ROPE_LLAMA3) {
            double old = (double)r->original_max_positions;
            double wave = 2 * 3.14159265358979323846 / (double)f;
            double smooth =
                (old / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
            if (wave > old / r->low_freq_factor)
                f = (float)((double)f / r->factor);
            else if (wave >= old / r->high_freq_factor)
                f = (float)((1 - smooth) * ((double)f / r->factor) + smooth * (double)f);
        }
        n->inv_freq[i] = f;
    }
    if (!factors->absent && factors->cols) {
        float *by = NULL;
        enum pl_status st = pl_cpu_vector(factors, &by, err);
        for (size_t i = 0; !st && i < half; i++)
            n->inv_freq[i] /= by[i];
        free(by);
        return st;
    }
    return PL_OK;
}

static size_t work_floats(const struct pl_arch *a)
{
    size_t q = (size_t)a->heads * (size_t)a->head_dim;
    size_t kv = (size_t)a->kv_heads * (size_t)a->head_dim;

    return 2 * (size_t)a->hidden + 2 * q + 2 * kv + 2 * (size_t)a->ffn + (size_t)a->head_dim;
}

int64_t pl_cpu_work_bytes(const struct pl_arch *a)
{
    return (int64_t)(work_floats(a) * PL_CPU_CHUNK * sizeof(float)) +
           PL_CPU_CHUNK * (int64_t)(sizeof(void *) + sizeof(size_t));
}

static enum pl_status make_workspace(struct pl_network *n, struct pl_err *err)
{
    const struct pl_arch *a = &n->arch;
    size_t q = (size_t)a->heads * (size_t)a->head_dim, half = (size_t)a->head_dim / 2;
    size_t kv = (size_t)a->kv_heads * (size_t)a->head_dim;
    struct pl_workspace *w = &n->work;
    struct {
        float **at;
        size_t cols;
    } parts[] = {{&w->x, (size_t)a->hidden},
                 {&w->xn, (size_t)a->hidden},
                 {&w->q, q},
                 {&w->att, q},
                 {&w->k, kv},
                 {&w->v, kv},
                 {&w->gate, (size_t)a->ffn},
                 {&w->up, (size_t)a->ffn},
                 {&w->cos, half},
                 {&w->sin, half}};
    bool ok = true;

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        *parts[i].at = pl_cpu_alloc(PL_CPU_CHUNK * parts[i].cols, sizeof(float));
        ok = ok && *parts[i].at;
    }
    w->row_span = calloc(PL_CPU_CHUNK, sizeof(*w->row_span));
    w->row_in_span = calloc(PL_CPU_CHUNK, sizeof(*w->row_in_span));
    if (!ok || !w->row_span || !w->row_in_span)
        return pl_fail(err, PL_ENOMEM, "no memory for the workspace (%lld bytes)",
                       (long long)pl_cpu_work_bytes(a));
    n->work_bytes = pl_cpu_work_bytes(a);
    size_t attend = pl_attend_scratch((size_t)a->head_dim), own = PL_GEMM_SCRATCH + PL_CPU_OWN;
    return pl_cpu_scratch(n->device, attend > own ? attend : own, err);
}

enum pl_status pl_cpu_network_create(struct pl_device *d, const struct pl_arch *a,
                                     const struct pl_model_sources *src, enum pl_dtype dt,
                                     struct pl_network **out, struct pl_err *err)
{
    struct pl_network *n = calloc(1, sizeof(*n));
    enum pl_status st = PL_OK;

    if (!n)
        return pl_fail(err, PL_ENOMEM, "no memory for a model");
    n->device = d;
    n->arch = *a;
    n->layers = calloc((size_t)a->layers, sizeof(*n->layers));
    if (!n->layers)
        st = pl_fail(err, PL_ENOMEM, "no memory for a model");
    for (int32_t i = 0; i < a->layers && !st; i++)
        st = load_layer(n, &src->layers[i], &n->layers[i], dt, err);
    if (!st && !src->lm_head.absent) { /* a tied one is read from the head's panels instead */
        n->embed_dtype = pl_cpu_weight_dtype(&src->embed, dt);
        n->embed_mapped = pl_quant_decodes(n->embed_dtype);
        if (n->embed_mapped) {
            pl_cpu_touch(d, src->embed.view);
            n->embed = (void *)src->embed.view->data;
        } else {
            st = pl_cpu_rows_copy(d, &src->embed, dt, &n->embed, err);
        }
    }
    if (!st)
        st = pl_cpu_pack(d, src->lm_head.absent ? &src->embed : &src->lm_head, dt, &n->head_panels,
                         err);
    if (!st)
        st = pl_cpu_vector(&src->final_norm, &n->final_gain, err);
    if (!st)
        st = make_rope(n, &src->rope_factors, err);
    if (!st)
        st = make_workspace(n, err);
    if (st) {
        pl_cpu_network_free(n);
        return st;
    }
    n->head = (struct pl_tensor){.device = d,
                                 .rows = n->head_panels.out,
                                 .cols = n->head_panels.in,
                                 .panels = n->head_panels.data,
                                 .dtype = n->head_panels.dtype,
                                 .paired = n->head_panels.paired};
    n->final_norm = (struct pl_tensor){
        .device = d, .rows = 1, .cols = (size_t)a->hidden, .data = n->final_gain};
    n->bytes = pl_cpu_network_need(a, src, dt);
    *out = n;
    return PL_OK;
}

static void free_panels(struct pl_panels *p)
{
    if (!p->mapped)
        free(p->data);
    free(p->bias);
}

void pl_cpu_network_free(struct pl_network *n)
{
    static const struct pl_layer_sources none;
    struct pl_workspace *w;

    if (!n)
        return;
    for (int32_t i = 0; n->layers && i < n->arch.layers; i++) {
        struct slot s[SLOTS];
        layer_slots(&none, &n->layers[i], s);
        for (int j = 0; j < SLOTS; j++)
            free_panels(s[j].to);
        free(n->layers[i].attn_norm);
        free(n->layers[i].ffn_norm);
    }
    w = &n->work;
    float *const parts[] = {w->x, w->xn, w->q, w->att, w->k, w->v, w->gate, w->up, w->cos, w->sin};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        free(parts[i]);
    free(w->row_span);
    free(w->row_in_span);
    free_panels(&n->head_panels);
    free(n->final_gain);
    if (!n->embed_mapped)
        free(n->embed);
    free(n->inv_freq);
    free(n->layers);
    free(n);
}

void pl_cpu_embed(const struct pl_network *n, const int32_t *ids, size_t n_ids, float *out)
{
    const struct pl_panels *tied = &n->head_panels;
    enum pl_dtype dt = n->embed ? n->embed_dtype : tied->dtype;
    const char *rows = n->embed ? n->embed : tied->data;
    size_t h = (size_t)n->arch.hidden;

    for (size_t i = 0; i < n_ids; i++) {
        size_t id = (size_t)ids[i];
        const char *row = rows + pl_dtype_bytes(dt, id * h);
        if (pl_quant_decodes(dt))
            pl_quant_to_f32(dt, row, out + i * h, h);
        else if (n->embed)
            pl_dtype_to_f32(dt, row, out + i * h, h);
        else
            for (size_t d = 0; d < h; d++)
                out[i * h + d] =
                    pl_cpu_load(dt, tied->data, (id / PL_PANEL * h + d) * PL_PANEL + id % PL_PANEL);
    }
}
