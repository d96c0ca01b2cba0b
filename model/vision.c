/* Towers and projector on a backend: pixels → rows. */
#include "model/vision_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- weights ---- */

static const char *const event_towers[] = {
    "model.visual_tower.visual_tower.vision_model.", "visual_tower.visual_tower.vision_model.",
    "model.visual_tower.visual_tower.", "visual_tower.visual_tower.", NULL};
static const char *const video_towers[] = {"video_tower.vision_model.", "video_tower.",
                                           "model.video_tower.vision_model.", "model.video_tower.",
                                           NULL};
static const char *const image_towers[] = {"image_tower.vision_model.", "image_tower.",
                                           "model.image_tower.vision_model.", "model.image_tower.",
                                           NULL};
static const char *const event_parts[] = {"model.", "", NULL};
static const char *const video_parts[] = {"multi_modal_projector.", "model.multi_modal_projector.",
                                          NULL};

static bool starts(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

bool pl_vision_known_extra(const char *name)
{
    return strstr(name, "position_ids") || strstr(name, "rotary_emb.inv_freq") ||
           strstr(name, "post_layernorm") || strstr(name, ".temporal_");
}

static bool has_any(const struct pl_checkpoint *c, const char *const *prefixes)
{
    for (size_t i = 0; i < pl_checkpoint_count(c); i++)
        for (size_t p = 0; prefixes[p]; p++)
            if (starts(pl_checkpoint_tensor(c, i)->name, prefixes[p]))
                return true;
    return false;
}

/* The blocks of a tower behind the last one that runs are in the file, and of no use: that is no
 * news. */
static void mark_cut_blocks(struct pl_finder *f, const struct pl_vision_config *c)
{
    for (size_t i = 0; f->c && i < pl_checkpoint_count(f->c); i++) {
        const char *name = pl_checkpoint_tensor(f->c, i)->name;
        const char *at = strstr(name, "_tower.") ? strstr(name, "encoder.layers.") : NULL;
        long l = at ? strtol(at + strlen("encoder.layers."), NULL, 10) : -1;
        if (l >= c->tower.layers && l < c->tower_layers)
            f->passed[i] = true;
    }
}

static enum pl_status find_linear(struct pl_finder *f, const char *const *prefixes,
                                  const char *name, int64_t out, int64_t in, bool bias, float std,
                                  struct pl_weight_source *w, struct pl_weight_source *b,
                                  struct pl_err *err)
{
    char full[64];
    enum pl_status st;

    snprintf(full, sizeof(full), "%s.weight", name);
    st = pl_finder_tensor(f, prefixes, full, out, in, std, w, err);
    snprintf(full, sizeof(full), "%s.bias", name);
    return st || !bias ? st : pl_finder_tensor(f, prefixes, full, 0, out, 0, b, err);
}

enum pl_status pl_vision_find(struct pl_finder *f, const struct pl_vision_config *c, float std,
                              struct pl_vision_sources *out, struct pl_err *err)
{
    bool events = c->kind == PL_VISION_EVENTGPT;
    const char *const *parts = events ? event_parts : video_parts;
    int64_t in = c->tower.hidden, h = c->hidden;
    enum pl_status st;

    *out = (struct pl_vision_sources){.has = {true, !events}};
    if (f->c && !events)
        out->has[1] = has_any(f->c, image_towers);
    st = pl_finder_network(f, &c->tower, events ? event_towers : video_towers, &out->tower[0], err);
    if (!st && out->has[1])
        st = pl_finder_network(f, &c->tower, image_towers, &out->tower[1], err);
    if (!st)
        st = find_linear(f, parts, events ? "visual_projector.0" : "linear_1", h, in,
                         c->projector_bias, std, &out->first, &out->first_bias, err);
    if (!st)
        st = find_linear(f, parts, events ? "visual_projector.2" : "linear_2", h, h,
                         c->projector_bias, std, &out->second, &out->second_bias, err);
    if (!st && c->adaptor)
        st = find_linear(f, parts, "feature_adaptor", h, h, true, std, &out->adaptor,
                         &out->adaptor_bias, err);
    if (!st)
        mark_cut_blocks(f, c);
    return st;
}

static int64_t linear_bytes(const struct pl_weight_source *w, const struct pl_weight_source *b,
                            enum pl_dtype dt)
{
    if (pl_weight_absent(w))
        return 0;
    if (dt == PL_DT_AUTO)
        dt = w->view ? w->view->dtype : PL_DT_F32;
    return (int64_t)pl_dtype_bytes(dt, (size_t)(w->rows * w->cols)) +
           (pl_weight_absent(b) ? 0 : b->cols * (int64_t)sizeof(float));
}

static int64_t parts_bytes(const struct pl_vision_sources *s, enum pl_dtype dt)
{
    return linear_bytes(&s->first, &s->first_bias, dt) +
           linear_bytes(&s->second, &s->second_bias, dt) +
           linear_bytes(&s->adaptor, &s->adaptor_bias, dt);
}

int64_t pl_vision_need(const struct pl_backend *b, const struct pl_vision_config *c,
                       const struct pl_vision_sources *s, enum pl_dtype dt)
{
    int64_t sum = parts_bytes(s, dt);

    for (int i = 0; i < 2; i++)
        if (s->has[i])
            sum += b->network_need(&c->tower, &s->tower[i], dt) + pl_vision_gaze_bytes(&c->tower);
    return sum;
}

enum pl_status pl_vision_linear_create(struct pl_vision *v, const struct pl_weight_source *w,
                                       const struct pl_weight_source *b, enum pl_dtype dt,
                                       struct pl_vision_linear *out, struct pl_err *err)
{
    float *bias;
    enum pl_status st;

    if (pl_weight_absent(w))
        return PL_OK;
    out->out = (size_t)w->rows;
    st = v->backend->weight_create(v->device, w, dt, &out->w, err);
    if (st || pl_weight_absent(b))
        return st;
    bias = malloc(out->out * sizeof(*bias));
    if (!bias)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", b->name);
    pl_weight_read(b, 0, bias, out->out);
    st = v->backend->tensor_create(v->device, 1, out->out, &out->b, err);
    if (!st)
        st = v->backend->upload(out->b, 0, 1, bias, err);
    free(bias);
    return st;
}

enum pl_status pl_vision_create(const struct pl_backend *b, struct pl_device *d,
                                const struct pl_vision_config *c, const struct pl_vision_sources *s,
                                enum pl_dtype dt, struct pl_vision **out, struct pl_err *err)
{
    struct pl_vision *v = calloc(1, sizeof(*v));
    enum pl_status st = PL_OK;

    if (!v)
        return pl_fail(err, PL_ENOMEM, "no memory for an image tower");
    v->config = *c;
    v->backend = b;
    v->device = d;
    v->weights_bytes = parts_bytes(s, dt);
    for (int i = 0; i < 2 && !st; i++) {
        if (!s->has[i])
            continue;
        st = b->network_create(d, &c->tower, &s->tower[i], dt, &v->tower[i], err);
        v->weights_bytes += st ? 0 : b->network_bytes(v->tower[i]);
        v->weights_bytes += pl_vision_gaze_bytes(&c->tower);
        if (!st)
            st = pl_vision_gaze_create(v, &s->tower[i], &v->gaze[i], err);
    }
    if (!st)
        st = pl_vision_linear_create(v, &s->first, &s->first_bias, dt, &v->first, err);
    if (!st)
        st = pl_vision_linear_create(v, &s->second, &s->second_bias, dt, &v->second, err);
    if (!st)
        st = pl_vision_linear_create(v, &s->adaptor, &s->adaptor_bias, dt, &v->adaptor, err);
    if (st)
        pl_vision_free(v);
    else
        *out = v;
    return st;
}

static void free_room(struct pl_vision *v)
{
    struct pl_tensor **const all[] = {&v->a, &v->b, &v->sum, &v->temporal, &v->zero};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        v->backend->tensor_free(*all[i]);
        *all[i] = NULL;
    }
    for (int i = 0; i < 2; i++) {
        if (v->cache[i])
            v->backend->cache_free(v->cache[i]);
        v->cache[i] = NULL;
        pl_vision_gaze_free_room(v, &v->gaze[i]);
    }
    v->frames = 0;
    v->merges = false;
}

void pl_vision_free(struct pl_vision *v)
{
    struct pl_vision_linear *const pairs[] = {v ? &v->first : NULL, v ? &v->second : NULL,
                                              v ? &v->adaptor : NULL};

    if (!v)
        return;
    free_room(v);
    pl_pixel_room_release(&v->room);
    for (size_t i = 0; i < 3; i++) {
        v->backend->tensor_free(pairs[i]->w);
        v->backend->tensor_free(pairs[i]->b);
    }
    for (int i = 0; i < 2; i++) {
        pl_vision_gaze_free(v, &v->gaze[i]);
        if (v->tower[i])
            v->backend->network_free(v->tower[i]);
    }
    free(v);
}

const struct pl_vision_config *pl_vision_config(const struct pl_vision *v)
{
    return &v->config;
}

void pl_vision_make_pixels(struct pl_vision *v)
{
    v->room = (struct pl_pixel_room){.backend = v->backend, .device = v->device};
}

struct pl_pixel_room *pl_vision_room(struct pl_vision *v)
{
    return v->room.backend ? &v->room : NULL;
}

int64_t pl_vision_weights_bytes(const struct pl_vision *v)
{
    return v->weights_bytes;
}

/* ---- room ---- */

static bool pools(const struct pl_vision *v)
{
    return v->config.kind == PL_VISION_EVENTGPT;
}

int64_t pl_vision_workspace_bytes(const struct pl_vision *v)
{
    int64_t tokens = pl_arch_image_rows(&v->config.tower), row = v->config.hidden * 4, sum;

    if (!v->frames)
        return 0;
    sum = 2 * tokens * row + (pools(v) ? (tokens + (int64_t)v->frames + 1) * row : 0);
    if (v->room.t)
        sum += (int64_t)(v->backend->rows(v->room.t) * v->backend->cols(v->room.t) * sizeof(float));
    for (int i = 0; i < 2; i++) {
        struct pl_cache_bytes b = {.kv = 0};
        if (v->cache[i])
            b = v->backend->cache_bytes(v->cache[i]);
        if (v->cache[i] && v->merges)
            sum += 2 * tokens * v->config.tower.hidden * (int64_t)sizeof(float);
        sum += b.kv + b.workspace;
    }
    return sum;
}

static enum pl_status make_room(struct pl_vision *v, size_t frames, bool merges, struct pl_err *err)
{
    size_t tokens = (size_t)pl_arch_image_rows(&v->config.tower), h = (size_t)v->config.hidden;
    const int before_last = v->config.tower.layers - 1; /* what its q and k are made of */
    const struct pl_cache_opts o = {.kv_dtype = PL_DT_F32,
                                    .max_tokens = tokens,
                                    .max_rows = tokens,
                                    .taps = &before_last,
                                    .n_taps = merges};
    const struct {
        struct pl_tensor **to;
        size_t rows;
        bool wanted;
    } all[] = {{&v->a, tokens, true},
               {&v->b, tokens, true},
               {&v->sum, tokens, pools(v)},
               {&v->temporal, frames, pools(v)},
               {&v->zero, 1, pools(v)}};
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) && !st; i++)
        if (all[i].wanted)
            st = v->backend->tensor_create(v->device, all[i].rows, h, all[i].to, err);
    for (int i = 0; i < 2 && !st; i++)
        if (v->tower[i])
            st = v->backend->cache_create(v->tower[i], &o, &v->cache[i], err);
    for (int i = 0; i < 2 && !st && merges; i++)
        if (v->tower[i])
            st = pl_vision_gaze_room(v, &v->gaze[i], err);
    if (!st && pools(v)) {
        float *zeros = calloc(h, sizeof(*zeros));
        st = zeros ? v->backend->upload(v->zero, 0, 1, zeros, err)
                   : pl_fail(err, PL_ENOMEM, "no memory for an image tower");
        free(zeros);
    }
    return st;
}

static enum pl_status reserve(struct pl_vision *v, size_t frames, bool merges, struct pl_err *err)
{
    enum pl_status st;

    if (frames <= v->frames && merges <= v->merges)
        return PL_OK;
    merges = merges || v->merges;
    free_room(v);
    st = make_room(v, frames, merges, err);
    if (st)
        free_room(v);
    else
        v->frames = frames;
    v->merges = !st && merges;
    return st;
}

enum pl_status pl_vision_reserve(struct pl_vision *v, size_t frames, struct pl_err *err)
{
    return reserve(v, frames, false, err);
}

enum pl_status pl_vision_reserve_merges(struct pl_vision *v, size_t frames, struct pl_err *err)
{
    return reserve(v, frames, true, err);
}

/* ---- a frame ---- */

enum pl_status pl_vision_project(struct pl_vision *v, const struct pl_tensor *x, size_t n,
                                 struct pl_tensor **out, struct pl_err *err)
{
    const struct pl_backend *b = v->backend;
    struct pl_tensor *from = NULL, *rows_a = NULL, *rows_b = NULL;
    enum pl_status st = b->tensor_view(x, 0, n, &from, err);

    if (!st)
        st = b->tensor_view(v->a, 0, n, &rows_a, err);
    if (!st)
        st = b->tensor_view(v->b, 0, n, &rows_b, err);
    if (!st)
        st = b->linear(rows_a, from, v->first.w, v->first.b, err);
    if (!st)
        st = b->activate(v->config.act, rows_a, rows_a, err);
    if (!st)
        st = b->linear(rows_b, rows_a, v->second.w, v->second.b, err);
    if (!st && v->adaptor.w)
        st = b->linear(rows_a, rows_b, v->adaptor.w, v->adaptor.b, err);
    *out = v->adaptor.w ? v->a : v->b;
    b->tensor_free(from);
    b->tensor_free(rows_a);
    b->tensor_free(rows_b);
    return st;
}

struct pl_source pl_vision_source(const struct pl_vision *v, const struct pl_pixels *p,
                                  size_t frame)
{
    const size_t each = 3 * (size_t)p->size * (size_t)p->size;

    return (struct pl_source){.pixels = p->v ? p->v + frame * each : NULL,
                              .picture = p->v ? NULL : p->device,
                              .picture_row = frame,
                              .n = (size_t)pl_arch_image_rows(&v->config.tower)};
}

/* Tower, projector and adaptor of one frame; its rows are then in *out (v->a or v->b). */
static enum pl_status one_frame(struct pl_vision *v, int which, const struct pl_pixels *p,
                                size_t frame, struct pl_tensor **out, struct pl_err *err)
{
    const struct pl_backend *b = v->backend;
    const struct pl_source s = pl_vision_source(v, p, frame);
    enum pl_status st = b->encode(v->tower[which], v->cache[which], &s, err);

    return st ? st : pl_vision_project(v, b->cache_encoded(v->cache[which]), s.n, out, err);
}

/* A mean is what a query of zeros attends to. */
enum pl_status pl_vision_mean_row(struct pl_vision *v, const struct pl_tensor *x, size_t frame,
                                  struct pl_err *err)
{
    size_t h = (size_t)v->config.hidden, heads = h % 64 ? 1 : h / 64; /* as backends like them */
    struct pl_tensor *row = NULL;
    enum pl_status st = v->backend->tensor_view(v->temporal, frame, 1, &row, err);

    if (!st)
        st = v->backend->attention(row, v->zero, x, x, heads, false, err);
    v->backend->tensor_free(row);
    return st;
}

/* EventGPT: a mean over the rows of each frame, then one over the frames of each row. */
static enum pl_status encode_pooled(struct pl_vision *v, const struct pl_pixels *p, float *rows,
                                    struct pl_err *err)
{
    const struct pl_backend *b = v->backend;
    size_t tokens = (size_t)pl_arch_image_rows(&v->config.tower), h = (size_t)v->config.hidden;
    float share = 1.0f / (float)p->frames;
    enum pl_status st = PL_OK;

    for (size_t f = 0; f < p->frames && !st; f++) {
        struct pl_tensor *x;
        st = one_frame(v, 0, p, f, &x, err);
        if (!st)
            st = pl_vision_mean_row(v, x, f, err);
        if (!st)
            st = b->axpby(share, x, f ? 1.0f : 0.0f, v->sum, err);
    }
    if (!st)
        st = b->download(v->temporal, 0, p->frames, rows, err);
    return st ? st : b->download(v->sum, 0, tokens, rows + p->frames * h, err);
}

static enum pl_status encode_all(struct pl_vision *v, const struct pl_pixels *p, float *rows,
                                 struct pl_err *err)
{
    size_t tokens = (size_t)pl_arch_image_rows(&v->config.tower), h = (size_t)v->config.hidden;
    size_t skip = p->still && v->config.images_drop_cls;
    enum pl_status st = PL_OK;

    for (size_t f = 0; f < p->frames && !st; f++) {
        struct pl_tensor *x;
        st = one_frame(v, p->still, p, f, &x, err);
        if (!st)
            st = v->backend->download(x, skip, tokens - skip, rows + f * (tokens - skip) * h, err);
    }
    return st;
}

enum pl_status pl_vision_check(const struct pl_vision *v, const struct pl_pixels *p,
                               struct pl_err *err)
{
    if (!p->frames || p->size != v->config.tower.image)
        return pl_fail(err, PL_EUSAGE, "%zu frames of %d × %d pixels: the tower takes %d × %d",
                       p->frames, p->size, p->size, v->config.tower.image, v->config.tower.image);
    if (p->still && !pools(v) && !v->tower[1])
        return pl_fail(err, PL_EUNSUPPORTED,
                       "a still image: the checkpoint has no image tower (image_tower.*)");
    return PL_OK;
}

enum pl_status pl_vision_encode(struct pl_vision *v, const struct pl_pixels *p, float *rows,
                                struct pl_err *err)
{
    enum pl_status st = pl_vision_check(v, p, err);

    if (!st)
        st = pl_vision_reserve(v, p->frames, err);
    if (st)
        return st;
    return pools(v) ? encode_pooled(v, p, rows, err) : encode_all(v, p, rows, err);
}
