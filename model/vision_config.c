/* What stands before a multimodal model's language model, from config.json and the files beside it.
 */
#include "model/checkpoint.h"
#include "model/config_get.h"
#include "model/vision.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* CLIP's, where no preprocessor_config.json says other ones */
static const float clip_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float clip_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

const char *pl_vision_kind_name(enum pl_vision_kind k)
{
    static const char *const names[] = {"none", "eventgpt", "video-llava"};

    return names[k];
}

static int64_t tokens_of(const struct pl_vision_config *c)
{
    return pl_arch_image_rows(&c->tower);
}

int64_t pl_vision_rows(const struct pl_vision_config *c, size_t frames, bool still)
{
    if (c->kind == PL_VISION_EVENTGPT)
        return (int64_t)frames + tokens_of(c);
    return (int64_t)frames * (tokens_of(c) - (still && c->images_drop_cls));
}

int64_t pl_vision_params(const struct pl_vision_config *c)
{
    int64_t in = c->tower.hidden, out = c->hidden, bias = c->projector_bias ? out : 0;
    int64_t towers = c->kind == PL_VISION_VIDEO_LLAVA ? 2 : 1;

    if (c->kind == PL_VISION_NONE)
        return 0;
    return towers * pl_arch_params(&c->tower) + in * out + out * out + 2 * bias +
           (c->adaptor ? out * out + out : 0);
}

/* ---- the tower ---- */

/* vision_config as a CLIP tower; what it leaves out is CLIPVisionConfig's. */
static enum pl_status parse_tower(const json_t *vision, struct pl_vision_config *c,
                                  struct pl_err *err)
{
    const char *model = json_string_value(pl_config_member(vision, "model_type"));
    json_t *copy;
    enum pl_status st;

    if (!json_is_object(vision))
        return pl_fail(err, PL_EFORMAT, "config.json: vision_config is not an object");
    if (model && strcmp(model, "clip_vision_model") != 0)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: vision_config's model_type \"%.40s\" is not supported "
                       "(clip_vision_model is)",
                       model);
    copy = json_copy((json_t *)(uintptr_t)vision);
    if (!copy || json_object_set_new(copy, "model_type", json_string("clip_vision_model"))) {
        st = pl_fail(err, PL_ENOMEM, "no memory for config.json");
    } else {
        (void)json_object_del(copy, "architectures");
        st = pl_arch_parse(copy, &c->tower, err);
    }
    json_decref(copy);
    return st ? pl_err_prefix(err, st, "vision_config") : PL_OK;
}

static bool has_config(const char *dir)
{
    char file[4200];

    snprintf(file, sizeof(file), "%s/config.json", dir);
    return !access(file, R_OK);
}

/* The folder that EventGPT's mm_visual_tower names: as it stands, or in or beside the model's own,
 * where its last part is enough (the published path is of the machine that trained it). */
static enum pl_status find_tower(const char *dir, const char *named, char *out, size_t size,
                                 struct pl_err *err)
{
    size_t len = strlen(named);
    const char *base;

    while (len > 1 && named[len - 1] == '/')
        len--;
    base = named + len;
    while (base > named && base[-1] != '/')
        base--;
    const struct {
        const char *dir, *between, *name;
        size_t len;
    } places[] = {{named[0] == '/' ? "" : dir, named[0] == '/' ? "" : "/", named, len},
                  {dir, "/", base, (size_t)(named + len - base)},
                  {dir, "/../", base, (size_t)(named + len - base)},
                  {"", "", named, len}};

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int n = snprintf(out, size, "%s%s%.*s", places[i].dir, places[i].between,
                         (int)places[i].len, places[i].name);
        if (n > 0 && (size_t)n < size && has_config(out))
            return PL_OK;
    }
    return pl_fail(
        err, PL_ENOENT,
        "%s: config.json names the image tower %.200s and there is no config.json of it: "
        "put CLIP's (with preprocessor_config.json) into %s/%.*s",
        dir, named, dir, (int)(named + len - base), base);
}

/* A tower whose shape is another model's config.json. */
static enum pl_status read_tower(const char *dir, const json_t *config, struct pl_vision_config *c,
                                 char *tower_dir, size_t size, struct pl_err *err)
{
    static const char *const keys[] = {"mm_visual_tower", "visual_tower", "mm_vision_tower"};
    const char *named = NULL;
    enum pl_status st;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && !named; i++)
        named = json_string_value(pl_config_member(config, keys[i]));
    if (!named || !*named)
        return pl_fail(err, PL_EFORMAT,
                       "config.json has neither mm_visual_tower (a folder with CLIP's config.json) "
                       "nor vision_config");
    st = find_tower(dir, named, tower_dir, size, err);
    if (!st)
        st = pl_arch_read(tower_dir, &c->tower, err);
    if (!st && strcmp(c->tower.family, "clip") != 0)
        st = pl_fail(err, PL_EUNSUPPORTED, "%s: %s is no image tower (CLIP's is)", tower_dir,
                     c->tower.name);
    return st;
}

/* ---- preprocessing ---- */

static enum pl_status get_three(const json_t *o, const char *key, float out[3], struct pl_err *err)
{
    const json_t *v = pl_config_member(o, key);

    if (!v)
        return PL_OK;
    for (size_t i = 0; i < 3; i++) {
        const json_t *n = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_number(n) || !isfinite(json_number_value(n)))
            return pl_fail(err, PL_EFORMAT, "%s is not three numbers", key);
        out[i] = (float)json_number_value(n);
    }
    return PL_OK;
}

/* 224, {"shortest_edge": 224}, {"height": 224, "width": 224} */
static enum pl_status get_size(const json_t *o, const char *key, int32_t *out, struct pl_err *err)
{
    const json_t *v = pl_config_member(o, key), *h = v;

    if (!v)
        return PL_OK;
    if (json_is_object(v)) {
        h = pl_config_member(v, "shortest_edge") ? pl_config_member(v, "shortest_edge")
                                                 : pl_config_member(v, "height");
        if (pl_config_member(v, "width") && !strcmp(key, "size") &&
            !pl_config_member(v, "shortest_edge"))
            return pl_fail(err, PL_EUNSUPPORTED,
                           "size without shortest_edge (the picture is squeezed) is not supported");
        if (pl_config_member(v, "width") && h &&
            json_integer_value(pl_config_member(v, "width")) != json_integer_value(h))
            return pl_fail(err, PL_EUNSUPPORTED, "%s is not square", key);
    }
    if (!json_is_integer(h) || json_integer_value(h) < 1 ||
        json_integer_value(h) > PL_IMAGE_MAX_SIDE)
        return pl_fail(err, PL_EFORMAT, "%s is not a number of pixels", key);
    *out = (int32_t)json_integer_value(h);
    return PL_OK;
}

static enum pl_status parse_preprocess(const json_t *o, struct pl_preprocess *p, struct pl_err *err)
{
    static const char *const steps[] = {"do_resize", "do_center_crop", "do_rescale",
                                        "do_normalize"};
    double scale = json_number_value(pl_config_member(o, "rescale_factor"));
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && !st; i++)
        if (json_is_false(json_object_get(o, steps[i])))
            st = pl_fail(err, PL_EUNSUPPORTED, "%s false is not supported", steps[i]);
    if (!st && pl_config_member(o, "resample") &&
        json_integer_value(pl_config_member(o, "resample")) != 3)
        st = pl_fail(err, PL_EUNSUPPORTED, "resample other than 3 (bicubic) is not supported");
    if (!st && scale != 0 && fabs(scale * 255 - 1) > 1e-6)
        st = pl_fail(err, PL_EUNSUPPORTED, "rescale_factor other than 1/255 is not supported");
    if (!st)
        st = get_size(o, "size", &p->resize, err);
    if (!st)
        st = get_size(o, "crop_size", &p->crop, err);
    if (!st)
        st = get_three(o, "image_mean", p->mean, err);
    if (!st)
        st = get_three(o, "image_std", p->std, err);
    for (size_t i = 0; i < 3 && !st; i++)
        if (p->std[i] == 0)
            st = pl_fail(err, PL_EFORMAT, "image_std is 0");
    return st;
}

/* The first of the files in which the libraries have kept it, else CLIP's. */
static enum pl_status read_preprocess(const char *dir, struct pl_vision_config *c,
                                      struct pl_err *err)
{
    static const struct {
        const char *file, *member;
    } places[] = {{"video_preprocessor_config.json", NULL},
                  {"preprocessor_config.json", NULL},
                  {"processor_config.json", "video_processor"},
                  {"processor_config.json", "image_processor"}};
    struct pl_preprocess *p = &c->preprocess;
    enum pl_status st = PL_OK;
    bool found = false;
    struct stat sb;

    *p = (struct pl_preprocess){.resize = c->tower.image, .crop = c->tower.image};
    memcpy(p->mean, clip_mean, sizeof(p->mean));
    memcpy(p->std, clip_std, sizeof(p->std));
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]) && !st && !found; i++) {
        char file[4200];
        json_t *j = NULL;
        const json_t *o;
        if (c->kind == PL_VISION_EVENTGPT && i == 0)
            continue;
        snprintf(file, sizeof(file), "%s/%s", dir, places[i].file);
        if (stat(file, &sb))
            continue;
        st = pl_config_read(file, "", &j, err);
        if (st)
            break;
        o = places[i].member ? pl_config_member(j, places[i].member) : j;
        found = json_is_object(o);
        if (found && (st = parse_preprocess(o, p, err)))
            pl_err_prefix(err, st, "%s", file);
        json_decref(j);
    }
    if (!st && p->crop != c->tower.image)
        st = pl_fail(err, PL_EFORMAT, "%s: pictures are cropped to %d, the tower takes %d", dir,
                     p->crop, c->tower.image);
    return st;
}

/* ---- the two kinds ---- */

static enum pl_status parse_eventgpt(const json_t *config, struct pl_vision_config *c,
                                     struct pl_err *err)
{
    bool qformer = false;
    enum pl_status st = pl_config_flag(config, "event_feature_adaptor", true, &c->adaptor, err);

    if (!st)
        st = pl_config_flag(config, "use_event_qformer", false, &qformer, err);
    if (!st)
        st = pl_config_flag(config, "mm_use_im_start_end", false, &c->start_end, err);
    if (!st) /* the published program's default */
        st = pl_config_flag(config, "mm_use_im_patch_token", true, &c->patch, err);
    if (!st && qformer)
        st = pl_fail(err, PL_EUNSUPPORTED, "config.json: use_event_qformer is not supported");
    c->feature_layer = -1;
    c->act = PL_ACT_GELU;
    c->projector_bias = true;
    c->frames = 5;
    c->vision_token = PL_EVENT_TOKEN;
    c->image_token = -1;
    c->max_rows = 2048;
    c->max_window_ms = 100;
    return st;
}

static enum pl_status parse_video_llava(const json_t *config, const struct pl_arch *llm,
                                        struct pl_vision_config *c, struct pl_err *err)
{
    const json_t *layer = pl_config_member(config, "vision_feature_layer");
    const json_t *strategy = pl_config_member(config, "vision_feature_select_strategy");
    const char *select = strategy ? json_string_value(strategy) : "default";
    struct pl_arch act = {.layers = 0};
    int64_t video = 0, image = 0;
    enum pl_status st =
        pl_config_int(config, "video_token_index", 32001, 0, llm->vocab - 1, &video, err);

    if (!st)
        st = pl_config_int(config, "image_token_index", 32000, 0, llm->vocab - 1, &image, err);
    if (!st)
        st = pl_config_act(config, "projector_hidden_act", "gelu", &act, err);
    if (!st)
        st = pl_config_flag(config, "multimodal_projector_bias", true, &c->projector_bias, err);
    if (st)
        return st;
    if (!select || (strcmp(select, "default") != 0 && strcmp(select, "full") != 0))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: vision_feature_select_strategy is neither default nor full");
    if (layer && !json_is_integer(layer))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: vision_feature_layer is not one number (several layers side "
                       "by side are not supported)");
    c->images_drop_cls = !strcmp(select, "default");
    c->feature_layer = layer ? (int32_t)json_integer_value(layer) : -2;
    c->act = act.act;
    c->frames = 8;
    c->vision_token = (int32_t)video;
    c->image_token = (int32_t)image;
    return PL_OK;
}

/* hidden_states has one entry more than there are blocks; only the blocks before it run. */
static enum pl_status cut_tower(struct pl_vision_config *c, struct pl_err *err)
{
    int32_t states = c->tower.layers + 1;
    int32_t at = c->feature_layer < 0 ? states + c->feature_layer : c->feature_layer;

    c->tower_layers = c->tower.layers;
    if (at < 1 || at > c->tower.layers)
        return pl_fail(err, PL_ERANGE,
                       "config.json: vision_feature_layer %d: the tower has %d blocks",
                       c->feature_layer, c->tower.layers);
    c->tower.layers = at;
    c->feature_layer = at - states;
    return PL_OK;
}

static enum pl_status parse_all(const char *dir, const json_t *config, struct pl_vision_config *c,
                                struct pl_err *err)
{
    const json_t *vision = pl_config_member(config, "vision_config");
    char tower_dir[4096];
    struct pl_arch llm;
    json_t *dflt = NULL;
    enum pl_status st = pl_arch_parse(config, &llm, err);

    if (st)
        return st;
    c->hidden = llm.hidden;
    snprintf(tower_dir, sizeof(tower_dir), "%s", dir);
    st = c->kind == PL_VISION_EVENTGPT ? parse_eventgpt(config, c, err)
                                       : parse_video_llava(config, &llm, c, err);
    if (!st && !vision && c->kind == PL_VISION_VIDEO_LLAVA) {
        /* VideoLlavaConfig's defaults */
        dflt = json_pack("{s:i,s:i,s:i,s:i,s:i,s:i}", "intermediate_size", 4096, "hidden_size",
                         1024, "patch_size", 14, "image_size", 224, "num_hidden_layers", 24,
                         "num_attention_heads", 16);
        vision = dflt;
    }
    if (!st)
        st = vision ? parse_tower(vision, c, err)
                    : read_tower(dir, config, c, tower_dir, sizeof(tower_dir), err);
    json_decref(dflt);
    if (!st && c->tower.channels != 3)
        st = pl_fail(err, PL_EUNSUPPORTED, "an image tower of %d channels is not supported (3)",
                     c->tower.channels);
    if (!st)
        st = cut_tower(c, err);
    return st ? st : read_preprocess(tower_dir, c, err);
}

enum pl_status pl_vision_config_read(const char *path, struct pl_vision_config *out,
                                     struct pl_err *err)
{
    struct pl_vision_config c = {.kind = PL_VISION_NONE};
    const char *name, *model;
    char dir[4096];
    struct stat sb;
    json_t *j = NULL;
    enum pl_status st;

    if (pl_checkpoint_is_gguf(path)) {
        *out = c;
        return PL_OK;
    }
    if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir))
        return pl_fail(err, PL_ERANGE, "the path %.100s… is too long", path);
    st = pl_config_read(path, "config.json", &j, err);
    if (st)
        return st;
    if (stat(path, &sb) || !S_ISDIR(sb.st_mode)) { /* its config.json: the folder it stands in */
        char *slash = strrchr(dir, '/');
        snprintf(slash ? slash : dir, 2, slash ? "" : ".");
    }
    name = json_string_value(json_array_get(pl_config_member(j, "architectures"), 0));
    model = json_string_value(pl_config_member(j, "model_type"));
    if (name ? !strncmp(name, "EventChat", 9) || !strncmp(name, "EventGPT", 8)
             : model && !strcmp(model, "EventChat_llama"))
        c.kind = PL_VISION_EVENTGPT;
    else if (name ? !strcmp(name, "VideoLlavaForConditionalGeneration")
                  : model && !strcmp(model, "video_llava"))
        c.kind = PL_VISION_VIDEO_LLAVA;
    if (c.kind != PL_VISION_NONE)
        st = parse_all(*dir ? dir : "/", j, &c, err);
    json_decref(j);
    if (st)
        return pl_err_prefix(err, st, "%s", path);
    *out = c;
    return PL_OK;
}
