#include "cli/runner/model_args.h"

#include "base/clock.h"
#include "cli/runner/npy.h"
#include "model/npy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum pl_status pl_model_args_entry(const struct pl_model_args *a, const char *path, json_t **json,
                                   struct pl_entry *entry, struct pl_err *err)
{
    json_t *j = json_pack("{s:s,s:s*,s:s*,s:s*,s:s*,s:s*,s:s*}", "path", path, "device", a->device,
                          "dtype", a->dtype, "weights", a->weights, "kv", a->kv, "activations",
                          a->activations, "preprocess", a->preprocess);
    enum pl_status st;

    if (!j)
        return pl_fail(err, PL_EUSAGE, "an option is not UTF-8");
    json_object_set_new(j, "threads", json_integer(a->threads));
    json_object_set_new(j, "deterministic", json_boolean(a->deterministic));
    st = pl_entry_read(j, entry, err);
    if (st)
        json_decref(j);
    else
        *json = j;
    return st;
}

enum pl_status pl_model_args_load(const struct pl_model_args *a, const char *path, json_t **json,
                                  struct pl_entry *entry, struct pl_model **model,
                                  struct pl_err *err)
{
    struct pl_model_opts o;
    enum pl_status st = pl_model_args_entry(a, path, json, entry, err);

    if (st)
        return st;
    pl_entry_model_opts(entry, 0, NULL, 0, &o);
    st = pl_model_load(path, &o, model, err);
    if (st) {
        json_decref(*json);
        *json = NULL;
    }
    return st;
}

static enum pl_status typed_ids(const char *text, struct pl_ids *ids, struct pl_err *err)
{
    const char *p = text;
    enum pl_status st = PL_OK;

    for (p += strspn(p, " ,\t\n"); !st && *p; p += strspn(p, " ,\t\n")) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < INT32_MIN || v > INT32_MAX || !strchr(" ,\t\n", *end))
            return pl_fail(err, PL_EUSAGE, "--ids: \"%.20s\" is not an id", p);
        st = pl_ids_add(ids, (int32_t)v, err);
        p = end;
    }
    return st;
}

static enum pl_status filed_ids(const char *path, struct pl_ids *ids, struct pl_err *err)
{
    int32_t *v = NULL;
    size_t n = 0;
    enum pl_status st = pl_npy_read_ids(path, &v, &n, err);

    for (size_t i = 0; !st && i < n; i++)
        st = pl_ids_add(ids, v[i], err);
    free(v);
    return st;
}

void pl_model_input_release(struct pl_model_input *in)
{
    pl_ids_release(&in->ids);
    pl_ids_release(&in->decoder_ids);
    pl_ids_release(&in->types);
    free(in->mask);
    free(in->pixels);
    free(in->visual);
    free(in->embeds);
    *in = (struct pl_model_input){.mask = NULL};
}

static enum pl_status read_pixels(const struct pl_model_args *a, const struct pl_arch *arch,
                                  struct pl_model_input *in, struct pl_err *err)
{
    size_t n[4], size = (size_t)arch->image;
    enum pl_status st;

    if (!a->pixels || a->ids || a->ids_file || a->prompt)
        return pl_fail(err, PL_EUSAGE, "%s reads images: --pixels F.npy is needed", arch->name);
    st = pl_npy_read_pixels(a->pixels, &in->pixels, n, err);
    if (st)
        return st;
    if (!n[0] || n[1] != (size_t)arch->channels || n[2] != size || n[3] != size)
        return pl_fail(err, PL_ERANGE,
                       "%s: [%zu, %zu, %zu, %zu], the model reads [frames, %d, %d, %d]", a->pixels,
                       n[0], n[1], n[2], n[3], arch->channels, arch->image, arch->image);
    in->frames = n[0];
    return PL_OK;
}

/* Types and mask: one number an id. */
static enum pl_status read_beside(const struct pl_model_args *a, const struct pl_arch *arch,
                                  struct pl_model_input *in, struct pl_err *err)
{
    bool decodes_alone = arch->causal && !arch->encoder_layers;
    struct pl_ids mask = {0};
    enum pl_status st = PL_OK;

    if (decodes_alone && (a->type_ids_file || a->mask_file || a->decoder_ids_file))
        return pl_fail(err, PL_EUSAGE, "%s has no encoder: --%s does not go with it", arch->name,
                       a->type_ids_file ? "type-ids-file"
                       : a->mask_file   ? "mask-file"
                                        : "decoder-ids-file");
    if (a->type_ids_file && !arch->types)
        return pl_fail(err, PL_EUSAGE, "%s has no token types", arch->name);
    if (a->type_ids_file)
        st = filed_ids(a->type_ids_file, &in->types, err);
    if (!st && a->type_ids_file && in->types.n != in->ids.n)
        st = pl_fail(err, PL_ERANGE, "%s: %zu token types, the input has %zu ids", a->type_ids_file,
                     in->types.n, in->ids.n);
    if (st || !a->mask_file)
        return st;
    st = filed_ids(a->mask_file, &mask, err);
    if (!st && mask.n != in->ids.n)
        st = pl_fail(err, PL_ERANGE, "%s: %zu numbers, the input has %zu ids", a->mask_file, mask.n,
                     in->ids.n);
    if (!st && !(in->mask = malloc(mask.n)))
        st = pl_fail(err, PL_ENOMEM, "no memory for a mask");
    for (size_t i = 0; !st && i < mask.n; i++)
        in->mask[i] = mask.ids[i] != 0;
    pl_ids_release(&mask);
    return st;
}

static enum pl_status check_ids(const struct pl_ids *ids, int32_t vocab, struct pl_err *err)
{
    if (ids->n == 0)
        return pl_fail(err, PL_EUSAGE, "the input holds no id");
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] < 0 || ids->ids[i] >= vocab)
            return pl_fail(err, PL_ERANGE, "id %d at place %zu is outside the vocabulary of %d",
                           ids->ids[i], i, vocab);
    return PL_OK;
}

/* ---- pictures ---- */

static int media_count(const struct pl_model_args *a)
{
    return !!a->events + !!a->video + !!a->image + !!a->pixels;
}

enum pl_status pl_model_args_media(const struct pl_model_args *a, struct pl_media *out,
                                   struct pl_err *err)
{
    if (media_count(a) != 1)
        return pl_fail(err, PL_EUSAGE, "one of --events, --video, --image and --pixels is needed");
    out->max_window_ms = a->max_window_ms;
    out->kind = a->events  ? PL_MEDIA_EVENTS
                : a->video ? PL_MEDIA_VIDEO
                : a->image ? PL_MEDIA_IMAGE
                           : PL_MEDIA_PIXELS;
    out->path = a->events ? a->events : a->video ? a->video : a->image ? a->image : a->pixels;
    return PL_OK;
}

enum pl_status pl_model_args_load_media(const struct pl_model_args *a, const char *command,
                                        const struct pl_vision_config *c,
                                        struct pl_pixel_room *room, struct pl_pixels *out,
                                        struct pl_media_times *times, struct pl_err *err)
{
    struct pl_media media = {.path = NULL};
    struct pl_err warning = {""};
    enum pl_status st = pl_model_args_media(a, &media, err);

    if (!st)
        st = pl_vision_load(c, &media, room, out, times, &warning, err);
    if (!st && warning.text[0])
        fprintf(stderr, "paceline-runner %s: warning: %s\n", command, warning.text);
    return st;
}

static enum pl_status check_spliced_ids(const struct pl_vision_config *c, const struct pl_ids *ids,
                                        int32_t vocab, struct pl_err *err)
{
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] != c->vision_token && (ids->ids[i] < 0 || ids->ids[i] >= vocab))
            return pl_fail(err, PL_ERANGE,
                           "id %d at place %zu is outside the vocabulary of %d, and not the "
                           "vision token %d",
                           ids->ids[i], i, vocab, c->vision_token);
    return ids->n ? PL_OK : pl_fail(err, PL_EUSAGE, "the input holds no id");
}

/* Pixels by themselves may be of a still image: the ids' vision token says so. */
static bool of_still(const struct pl_vision_config *c, const struct pl_ids *ids)
{
    bool image = false;

    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] == c->vision_token)
            return false;
        image = image || (c->image_token >= 0 && ids->ids[i] == c->image_token);
    }
    return image;
}

static enum pl_status encode(struct pl_model *m, const struct pl_pixels *p,
                             const struct pl_vision_merge *merge, float *rows, size_t *n_rows,
                             struct pl_err *err)
{
    return merge ? pl_vision_encode_merged(pl_model_vision(m), p, merge, rows, n_rows, err)
                 : pl_vision_encode(pl_model_vision(m), p, rows, err);
}

/* pixels + ids → embeddings */
static enum pl_status look(struct pl_model *m, struct pl_pixels *p,
                           const struct pl_vision_merge *merge, struct pl_model_input *in,
                           struct pl_err *err)
{
    const struct pl_vision_config *c = &pl_model_info(m)->vision;
    size_t n_rows, h = (size_t)c->hidden;
    float *rows;
    int64_t t0;
    enum pl_status st;

    p->still = p->still || of_still(c, &in->ids);
    n_rows = (size_t)pl_vision_rows(c, p->frames, p->still);
    st = pl_vision_spliced(c, in->ids.ids, in->ids.n, n_rows, p->still, &in->rows, err);
    if (!st)
        st = pl_vision_reserve(pl_model_vision(m), p->frames, err);
    if (st)
        return st;
    rows = malloc(n_rows * h * sizeof(*rows));
    in->embeds = malloc(in->rows * h * sizeof(*in->embeds));
    if (!rows || !in->embeds)
        st = pl_fail(err, PL_ENOMEM, "no memory for %zu rows of %zu", n_rows, h);
    t0 = pl_now_ns();
    if (!st)
        st = encode(m, p, merge, rows, &n_rows, err);
    in->tower_ns = pl_now_ns() - t0;
    if (!st) /* fewer rows, where they were merged */
        st = pl_vision_spliced(c, in->ids.ids, in->ids.n, n_rows, p->still, &in->rows, err);
    if (!st)
        st = pl_vision_splice(m, in->ids.ids, in->ids.n, rows, n_rows, p->still, in->embeds, err);
    if (!st && !(in->visual = malloc(in->rows)))
        st = pl_fail(err, PL_ENOMEM, "no memory for %zu rows", in->rows);
    if (!st)
        pl_vision_mark(c, in->ids.ids, in->ids.n, n_rows, p->still, in->visual, in->rows);
    free(rows);
    return st;
}

/* ---- ids ---- */

static enum pl_status prompt_ids(const struct pl_model_args *a, const struct pl_tokenizer *t,
                                 const struct pl_err *why, const struct pl_vision_config *c,
                                 struct pl_ids *ids, struct pl_err *err)
{
    if (!t)
        return pl_fail(err, PL_ENOENT, "%s", why->text);
    if (!*a->prompt)
        return pl_fail(err, PL_EUSAGE, "--prompt: the text is empty");
    if (media_count(a) && c->kind != PL_VISION_NONE)
        return pl_vision_prompt_ids(c, t, a->prompt, a->image && c->kind == PL_VISION_VIDEO_LLAVA,
                                    ids, err);
    return pl_tokenizer_encode(t, a->prompt, strlen(a->prompt), true, ids, err);
}

static enum pl_status read_ids(const struct pl_model_args *a, const struct pl_tokenizer *t,
                               const struct pl_err *why, const struct pl_vision_config *c,
                               struct pl_model_input *in, struct pl_err *err)
{
    int64_t t0 = pl_now_ns();
    enum pl_status st;

    if (!!a->ids + !!a->ids_file + !!a->prompt != 1)
        return pl_fail(err, PL_EUSAGE, "one of --ids, --ids-file and --prompt is needed");
    if (a->ids)
        return typed_ids(a->ids, &in->ids, err);
    if (a->ids_file)
        return filed_ids(a->ids_file, &in->ids, err);
    st = prompt_ids(a, t, why, c, &in->ids, err);
    in->tokenize_ns = pl_now_ns() - t0;
    return st;
}

static enum pl_status read_with_picture(const struct pl_model_args *a, const char *command,
                                        struct pl_model *m, struct pl_model_input *in,
                                        struct pl_err *err)
{
    const struct pl_vision_config *c = &pl_model_info(m)->vision;
    struct pl_pixels p = {.v = NULL};
    int64_t t0;
    enum pl_status st = check_spliced_ids(c, &in->ids, pl_model_info(m)->arch.vocab, err);

    t0 = pl_now_ns();
    if (!st)
        st = pl_model_args_load_media(a, command, c, pl_vision_room(pl_model_vision(m)), &p,
                                      &in->media, err);
    in->vision_ns = pl_now_ns() - t0;
    if (!st)
        st = look(m, &p, a->merge, in, err);
    in->vision_ns += in->tower_ns;
    pl_pixels_release(&p);
    return st;
}

enum pl_status pl_model_args_input(const struct pl_model_args *a, const char *command,
                                   const struct pl_tokenizer *t, const struct pl_err *why,
                                   struct pl_model *m, struct pl_model_input *in,
                                   struct pl_err *err)
{
    const struct pl_arch *arch = &pl_model_info(m)->arch;
    const struct pl_vision_config *c = &pl_model_info(m)->vision;
    enum pl_status st;

    if (arch->patch)
        return read_pixels(a, arch, in, err);
    if (media_count(a) && c->kind == PL_VISION_NONE)
        return pl_fail(err, PL_EUSAGE, "%s reads ids: --%s does not go with it", arch->name,
                       a->events  ? "events"
                       : a->video ? "video"
                       : a->image ? "image"
                                  : "pixels");
    st = read_ids(a, t, why, c, in, err);
    if (!st && media_count(a))
        return read_with_picture(a, command, m, in, err);
    if (!st)
        st = check_ids(&in->ids, arch->vocab, err);
    if (!st)
        st = read_beside(a, arch, in, err);
    if (st || !arch->encoder_layers)
        return st;
    if (a->decoder_ids_file)
        st = filed_ids(a->decoder_ids_file, &in->decoder_ids, err);
    else
        st = pl_ids_add(&in->decoder_ids, arch->decoder_start, err);
    return st ? st : check_ids(&in->decoder_ids, arch->vocab, err);
}

struct pl_prompt pl_model_input_prompt(const struct pl_model_input *in, const struct pl_arch *arch)
{
    const struct pl_ids *ids = arch->encoder_layers ? &in->decoder_ids : &in->ids;

    if (in->embeds)
        return (struct pl_prompt){.embeds = in->embeds, .n = in->rows};
    return (struct pl_prompt){.ids = ids->ids, .n = ids->n};
}

struct pl_source pl_model_input_source(const struct pl_model_input *in, const struct pl_arch *arch,
                                       size_t frame)
{
    size_t each = (size_t)arch->channels * (size_t)arch->image * (size_t)arch->image;

    if (in->pixels)
        return (struct pl_source){.pixels = in->pixels + frame * each,
                                  .n = (size_t)pl_arch_image_rows(arch)};
    return (struct pl_source){
        .ids = in->ids.ids, .types = in->types.ids, .mask = in->mask, .n = in->ids.n};
}
