#include "model/cpu/cpu.h"

#include "model/positions.h"
#include "model/quant.h"

#include <stdlib.h>
#include <string.h>

/* Every matrix of a layer with its source and its bias, in one list that create, free and the byte
 * count walk. */
struct slot {
    const struct pl_weight_source *src, *bias;
    struct pl_panels *to;
};

#define SLOTS 11
#define VECTORS 7

static const enum pl_cpu_op slot_ops[SLOTS] = {
    PL_CPU_QKV,     PL_CPU_QKV,   PL_CPU_QKV,   PL_CPU_OUT,   PL_CPU_FFN_IN, PL_CPU_FFN_IN,
    PL_CPU_FFN_OUT, PL_CPU_CROSS, PL_CPU_CROSS, PL_CPU_CROSS, PL_CPU_CROSS};

/* The same for what is read as floats. */
struct vector {
    const struct pl_weight_source *src;
    float **to;
};

static const struct pl_weight_source no_bias;

static void layer_slots(const struct pl_layer_sources *s, struct pl_cpu_layer *l, struct slot *out)
{
    const struct slot list[SLOTS] = {
        {&s->q, &s->q_bias, &l->q},           {&s->k, &s->k_bias, &l->k},
        {&s->v, &s->v_bias, &l->v},           {&s->o, &s->o_bias, &l->o},
        {&s->gate, &s->gate_bias, &l->gate},  {&s->up, &s->up_bias, &l->up},
        {&s->down, &s->down_bias, &l->down},  {&s->cross_q, &no_bias, &l->cross_q},
        {&s->cross_k, &no_bias, &l->cross_k}, {&s->cross_v, &no_bias, &l->cross_v},
        {&s->cross_o, &no_bias, &l->cross_o},
    };
    memcpy(out, list, sizeof(list));
}

static void layer_vectors(const struct pl_layer_sources *s, struct pl_cpu_layer *l,
                          struct vector *out)
{
    const struct vector list[VECTORS] = {
        {&s->attn_norm, &l->attn_norm},
        {&s->ffn_norm, &l->ffn_norm},
        {&s->attn_norm_bias, &l->attn_norm_bias},
        {&s->ffn_norm_bias, &l->ffn_norm_bias},
        {&s->q_norm, &l->q_norm},
        {&s->k_norm, &l->k_norm},
        {&s->cross_norm, &l->cross_norm},
    };
    memcpy(out, list, sizeof(list));
}

/* What stands around the blocks. */
#define OUTER 6
static void outer_vectors(const struct pl_model_sources *s, struct pl_network *n,
                          struct vector *out)
{
    const struct vector list[OUTER] = {
        {&s->final_norm, &n->final_gain}, {&s->final_norm_bias, &n->final_bias},
        {&s->embed_norm, &n->embed_gain}, {&s->embed_norm_bias, &n->embed_bias},
        {&s->relative, &n->relative},     {&s->cls, &n->cls},
    };
    memcpy(out, list, sizeof(list));
}

static int64_t source_need(const struct pl_weight_source *src, enum pl_dtype dt,
                           enum pl_activations acts)
{
    return pl_weight_absent(src) ? 0
                                 : pl_cpu_panel_bytes((size_t)src->rows, (size_t)src->cols,
                                                      pl_cpu_weight_dtype(src, dt), acts);
}

/* Tables of positions and types are small: blocks are decoded. */
static enum pl_dtype rows_dtype(const struct pl_weight_source *src, enum pl_dtype dt)
{
    enum pl_dtype kept = pl_cpu_weight_dtype(src, dt);

    return pl_quant_decodes(kept) ? PL_DT_F32 : kept;
}

static int64_t rows_need(const struct pl_weight_source *src, enum pl_dtype dt)
{
    return pl_weight_absent(src) ? 0 : (int64_t)pl_dtype_bytes(dt, (size_t)(src->rows * src->cols));
}

int64_t pl_cpu_network_need(const struct pl_arch *a, const struct pl_model_sources *src,
                            enum pl_dtype dt)
{
    struct pl_network none;
    struct pl_cpu_layer no_layer;
    struct vector outer[OUTER], v[VECTORS];
    struct slot s[SLOTS];
    enum pl_activations acts = src->activations;
    int64_t sum = a->head ? source_need(pl_sources_head(src), dt, acts) : 0;

    outer_vectors(src, &none, outer);
    for (int j = 0; j < OUTER; j++)
        sum += pl_weight_f32_bytes(outer[j].src);
    sum += pl_sources_own_embed(a, src)
               ? rows_need(&src->embed, pl_cpu_weight_dtype(&src->embed, dt))
               : 0;
    sum += rows_need(&src->positions, rows_dtype(&src->positions, dt));
    sum += rows_need(&src->types, rows_dtype(&src->types, dt));
    sum += source_need(&src->patch, dt, acts);
    sum += source_need(&src->pooler, dt, acts) + pl_weight_f32_bytes(&src->pooler_bias);
    for (int32_t i = 0; i < a->layers; i++) {
        layer_slots(&src->layers[i], &no_layer, s);
        layer_vectors(&src->layers[i], &no_layer, v);
        for (int j = 0; j < SLOTS; j++)
            sum += source_need(s[j].src, dt, acts) + pl_weight_f32_bytes(s[j].bias);
        for (int j = 0; j < VECTORS; j++)
            sum += pl_weight_f32_bytes(v[j].src);
    }
    if (src->encoder) {
        struct pl_arch e = pl_arch_encoder(a);
        sum += pl_cpu_network_need(&e, src->encoder, dt);
    }
    return sum;
}

static enum pl_status pack(struct pl_network *n, const struct pl_weight_source *src,
                           enum pl_dtype dt, struct pl_panels *out, struct pl_err *err)
{
    enum pl_status st = pl_cpu_pack(n->device, src, dt, n->activations, out, err);

    n->int8 = n->int8 || out->acts == PL_ACTIVATIONS_INT8;
    n->bf16 = n->bf16 || out->acts == PL_ACTIVATIONS_BF16;
    return st;
}

static enum pl_status load_layer(struct pl_network *n, const struct pl_layer_sources *src,
                                 struct pl_cpu_layer *l, enum pl_dtype dt, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    struct vector v[VECTORS];
    struct slot s[SLOTS];

    layer_slots(src, l, s);
    layer_vectors(src, l, v);
    for (int j = 0; j < SLOTS && !st; j++) {
        if (pl_weight_absent(s[j].src))
            continue;
        st = pack(n, s[j].src, dt, s[j].to, err);
        s[j].to->op = slot_ops[j];
        if (!st)
            st = pl_cpu_vector(s[j].bias, &s[j].to->bias, err);
    }
    for (int j = 0; j < VECTORS && !st; j++)
        st = pl_cpu_vector(v[j].src, v[j].to, err);
    return st;
}

static enum pl_status make_rope(struct pl_network *n, const struct pl_weight_source *factors,
                                struct pl_err *err)
{
    enum pl_status st;
    float *by = NULL;

    if (n->arch.pos != PL_POS_ROPE)
        return PL_OK;
    n->inv_freq = pl_cpu_alloc((size_t)n->arch.head_dim / 2, sizeof(float));
    if (!n->inv_freq)
        return pl_fail(err, PL_ENOMEM, "no memory for the RoPE table");
    st = pl_cpu_vector(factors, &by, err);
    if (!st)
        pl_rope_frequencies(&n->arch, by, n->inv_freq);
    free(by);
    return st;
}

static size_t patch_floats(const struct pl_arch *a)
{
    return (size_t)a->channels * (size_t)a->patch * (size_t)a->patch;
}

static size_t work_floats(const struct pl_arch *a)
{
    size_t q = (size_t)a->heads * (size_t)a->head_dim;
    size_t kv = (size_t)a->kv_heads * (size_t)a->head_dim;

    return 2 * pl_cpu_pitch((size_t)a->hidden) + 2 * pl_cpu_pitch(q) + 2 * pl_cpu_pitch(kv) +
           2 * pl_cpu_pitch((size_t)a->ffn) + 2 * pl_cpu_pitch((size_t)a->head_dim / 2) +
           pl_cpu_pitch(patch_floats(a));
}

int64_t pl_cpu_work_bytes(const struct pl_arch *a)
{
    return (int64_t)(work_floats(a) * PL_CPU_CHUNK * sizeof(float)) +
           PL_CPU_CHUNK * (int64_t)(sizeof(void *) + sizeof(size_t));
}

/* Of the widest rows that a product reads. */
static size_t widest(const struct pl_arch *a)
{
    size_t widths[] = {(size_t)a->hidden, (size_t)a->heads * (size_t)a->head_dim, (size_t)a->ffn,
                       patch_floats(a)};
    size_t most = 0;

    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
        most = widths[i] > most ? widths[i] : most;
    return most;
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
                 {&w->sin, half},
                 {&w->patch, patch_floats(a)}};
    bool ok = true;

    if (n->int8) {
        size_t chunks = pl_q8_chunks(widest(a)) * PL_CPU_CHUNK;
        w->q8 = pl_cpu_alloc(chunks, sizeof(*w->q8));
        ok = ok && w->q8;
        n->work_bytes += (int64_t)(chunks * sizeof(*w->q8));
    }
    if (n->bf16) {
        size_t pairs = pl_cpu_pairs_pitch(widest(a)) * PL_CPU_CHUNK;
        w->pairs = pl_cpu_alloc(pairs, sizeof(*w->pairs));
        ok = ok && w->pairs;
        n->work_bytes += (int64_t)(pairs * sizeof(*w->pairs));
    }
    w->block = pl_cpu_alloc(work_floats(a), PL_CPU_CHUNK * sizeof(float));
    ok = ok && w->block;
    for (size_t i = 0, at = 0; ok && i < sizeof(parts) / sizeof(parts[0]); i++) {
        *parts[i].at = w->block + at;
        at += PL_CPU_CHUNK * pl_cpu_pitch(parts[i].cols);
    }
    w->row_span = calloc(PL_CPU_CHUNK, sizeof(*w->row_span));
    w->row_in_span = calloc(PL_CPU_CHUNK, sizeof(*w->row_in_span));
    if (!ok || !w->row_span || !w->row_in_span)
        return pl_fail(err, PL_ENOMEM, "no memory for the workspace (%lld bytes)",
                       (long long)pl_cpu_work_bytes(a));
    n->work_bytes += pl_cpu_work_bytes(a);
    size_t attend = pl_attend_scratch((size_t)a->head_dim), own = PL_GEMM_SCRATCH + PL_CPU_OWN;
    return pl_cpu_scratch(n->device, attend > own ? attend : own, err);
}

static void free_panels(struct pl_panels *p)
{
    if (!p->mapped)
        free(p->data);
    free(p->bias);
}

static void free_workspace(struct pl_workspace *w)
{
    free(w->block);
    free(w->pairs);
    free(w->q8);
    free(w->row_span);
    free(w->row_in_span);
    *w = (struct pl_workspace){0};
}

static enum pl_status make_rows(struct pl_network *n, const struct pl_weight_source *src,
                                enum pl_dtype dt, struct pl_rows *out, struct pl_err *err)
{
    if (pl_weight_absent(src))
        return PL_OK;
    out->dtype = rows_dtype(src, dt);
    return pl_cpu_rows_copy(n->device, src, out->dtype, &out->data, err);
}

static enum pl_status pack_optional(struct pl_network *n, const struct pl_weight_source *src,
                                    enum pl_dtype dt, struct pl_panels *out, struct pl_err *err)
{
    return pl_weight_absent(src) ? PL_OK : pack(n, src, dt, out, err);
}

/* Everything but the blocks. */
static enum pl_status load_outer(struct pl_network *n, const struct pl_model_sources *src,
                                 enum pl_dtype dt, struct pl_err *err)
{
    struct vector v[OUTER];
    enum pl_status st = PL_OK;

    outer_vectors(src, n, v);
    for (int j = 0; j < OUTER && !st; j++)
        st = pl_cpu_vector(v[j].src, v[j].to, err);
    if (!st && pl_sources_own_embed(&n->arch,
                                    src)) { /* a tied one is read from the head's panels instead */
        n->embed_dtype = pl_cpu_weight_dtype(&src->embed, dt);
        n->embed_mapped = pl_quant_decodes(n->embed_dtype);
        if (n->embed_mapped) {
            n->embed = (void *)src->embed.view->data;
        } else {
            st = pl_cpu_rows_copy(n->device, &src->embed, dt, &n->embed, err);
        }
    }
    if (!st && n->arch.head)
        st = pack(n, pl_sources_head(src), dt, &n->head_panels, err);
    n->head_panels.op = PL_CPU_HEAD;
    if (!st && n->head_panels.acts == PL_ACTIVATIONS_INT8 &&
        !n->embed) { /* tied: rows are read in the file's order */
        n->embed_dtype = n->head_panels.dtype;
        n->embed_mapped = true;
        n->embed = (void *)src->embed.view->data;
    }
    if (!st)
        st = make_rows(n, &src->positions, dt, &n->positions, err);
    if (!st)
        st = make_rows(n, &src->types, dt, &n->types, err);
    if (!st)
        st = pack_optional(n, &src->patch, dt, &n->patch, err);
    if (!st)
        st = pack_optional(n, &src->pooler, dt, &n->pooler, err);
    if (!st)
        st = pl_cpu_vector(&src->pooler_bias, &n->pooler.bias, err);
    return st;
}

/* decoder: NULL, or the one that this encoder stands before: the same shapes, so its workspace
 * serves both, and its embeddings. */
static enum pl_status create(struct pl_device *d, const struct pl_arch *a,
                             const struct pl_model_sources *src, enum pl_dtype dt,
                             const struct pl_network *decoder, struct pl_network **out,
                             struct pl_err *err)
{
    struct pl_network *n = calloc(1, sizeof(*n));
    enum pl_status st = PL_OK;

    if (!n)
        return pl_fail(err, PL_ENOMEM, "no memory for a model");
    n->device = d;
    n->arch = *a;
    n->activations = src->activations;
    n->layers = calloc((size_t)a->layers, sizeof(*n->layers));
    if (!n->layers)
        st = pl_fail(err, PL_ENOMEM, "no memory for a model");
    for (int32_t i = 0; i < a->layers && !st; i++)
        st = load_layer(n, &src->layers[i], &n->layers[i], dt, err);
    if (!st)
        st = load_outer(n, src, dt, err);
    if (!st)
        st = make_rope(n, &src->rope_factors, err);
    if (!st && src->encoder) {
        struct pl_arch e = pl_arch_encoder(a);
        st = create(d, &e, src->encoder, dt, n, &n->encoder, err);
        n->int8 = n->int8 || (!st && n->encoder->int8);
        n->bf16 = n->bf16 || (!st && n->encoder->bf16);
    }
    if (!st && !decoder)
        st = make_workspace(n, err);
    if (st) {
        pl_cpu_network_free(n);
        return st;
    }
    n->embedder = decoder;
    if (n->encoder)
        n->encoder->work = n->work;
    n->head = (struct pl_tensor){.device = d,
                                 .rows = n->head_panels.out,
                                 .cols = n->head_panels.in,
                                 .weight = n->head_panels.data ? &n->head_panels : NULL};
    n->final_norm = (struct pl_tensor){
        .device = d, .rows = 1, .cols = (size_t)a->hidden, .data = n->final_gain};
    n->bytes = pl_cpu_network_need(a, src, dt);
    *out = n;
    return PL_OK;
}

enum pl_status pl_cpu_network_create(struct pl_device *d, const struct pl_arch *a,
                                     const struct pl_model_sources *src, enum pl_dtype dt,
                                     struct pl_network **out, struct pl_err *err)
{
    return create(d, a, src, dt, NULL, out, err);
}

void pl_cpu_network_free(struct pl_network *n)
{
    static const struct pl_layer_sources none;
    static const struct pl_model_sources no_model;
    struct vector v[VECTORS], outer[OUTER];
    struct slot s[SLOTS];

    if (!n)
        return;
    if (n->encoder)
        n->encoder->work = (struct pl_workspace){0};
    pl_cpu_network_free(n->encoder);
    for (int32_t i = 0; n->layers && i < n->arch.layers; i++) {
        layer_slots(&none, &n->layers[i], s);
        layer_vectors(&none, &n->layers[i], v);
        for (int j = 0; j < SLOTS; j++)
            free_panels(s[j].to);
        for (int j = 0; j < VECTORS; j++)
            free(*v[j].to);
    }
    outer_vectors(&no_model, n, outer);
    for (int j = 0; j < OUTER; j++)
        free(*outer[j].to);
    free_workspace(&n->work);
    free_panels(&n->head_panels);
    free_panels(&n->patch);
    free_panels(&n->pooler);
    free(n->positions.data);
    free(n->types.data);
    if (!n->embed_mapped)
        free(n->embed);
    free(n->inv_freq);
    free(n->layers);
    free(n);
}

void pl_cpu_embed(const struct pl_network *n, const int32_t *ids, size_t n_ids, float *out)
{
    const struct pl_network *from = n->embedder ? n->embedder : n;
    const struct pl_panels *tied = &from->head_panels;
    enum pl_dtype dt = from->embed ? from->embed_dtype : tied->dtype;
    const char *rows = from->embed ? from->embed : tied->data;
    size_t h = (size_t)n->arch.hidden;

    for (size_t i = 0; i < n_ids; i++) {
        size_t id = (size_t)ids[i];
        const char *row = rows + pl_dtype_bytes(dt, id * h);
        if (pl_quant_decodes(dt))
            pl_quant_to_f32(dt, row, out + i * h, h);
        else if (from->embed)
            pl_dtype_to_f32(dt, row, out + i * h, h);
        else
            for (size_t d = 0; d < h; d++)
                out[i * h + d] = pl_cpu_load(dt, tied->data, pl_cpu_panel_at(tied, id, d));
    }
}
