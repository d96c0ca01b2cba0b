/*
 * Scenes and what is asked of them: `data: {kind: eventgpt|dsec}`. A sample is scene × question.
 *
 * eventgpt: the instruction JSON (data/questions.h) names the event files; `questions` is that
 * JSON, else the one *.json in `dir`. A scene is an event file (or video), each item's questions
 * are its own. dsec: DIR/event_npy/SEQ/N.npy, DIR/event_image/SEQ/N_k.png, DIR/mp4/SEQ/N.mp4; a
 * scene is SEQ/N. `questions` is a list that is asked of every scene, or an instruction JSON. A
 * list of questions with kind eventgpt is asked of every scene of the JSON in `dir`.
 *
 * Files are named, not decoded (model/ does that): one that is missing or broken is told by
 * pl_scenes_check, and fails its trials. Read-only once opened.
 */
#ifndef PL_DATA_SCENES_H
#define PL_DATA_SCENES_H

#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_SCENES_MAX (1u << 24)        /* scenes, and files of a tree */
#define PL_SCENE_SAMPLES_MAX (1u << 28) /* scenes × questions */

struct pl_scene {
    const char *name;   /* "SEQ/N"; eventgpt: the file's path in the JSON without its extension */
    const char *events; /* paths; NULL: the data has none for this scene */
    const char *video;
    const char **images; /* [n_images] event_image/SEQ/N_k.png by k */
    size_t n_images;
};

struct pl_scene_sample {
    uint32_t scene;
    const char *name; /* of the scene, or the id of the JSON's item */
    const char *question;
    const char *answer; /* NULL: not known */
    uint32_t twin;      /* how many samples of the same name and question stand before it */
};

struct pl_scenes;

/* data: the sweep's resolved `data` object (kind, dir, questions, n_questions). Scenes are in a
 * random order of the seed, a scene's questions one after the other. PL_ENOENT, PL_EFORMAT (file
 * and line or item), PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_scenes_open(const json_t *data, uint64_t seed, struct pl_scenes **out,
                              struct pl_err *err);
void pl_scenes_free(struct pl_scenes *s); /* NULL is fine */

uint32_t pl_scenes_samples(const struct pl_scenes *s);
uint32_t pl_scenes_count(const struct pl_scenes *s);
const struct pl_scene *pl_scenes_scene(const struct pl_scenes *s, uint32_t scene);
void pl_scenes_sample(const struct pl_scenes *s, uint32_t i, struct pl_scene_sample *out);
/* The sample whose question has the most bytes: the longest prompt, or nearly. */
uint32_t pl_scenes_longest(const struct pl_scenes *s);
bool pl_scenes_answered(const struct pl_scenes *s); /* some sample has an answer */

/* What can be told of the files without decoding them. */
enum pl_scene_file { PL_SCENE_EVENTS, PL_SCENE_VIDEO };
struct pl_scene_check {
    uint32_t scenes; /* looked at */
    uint32_t absent; /* missing: not named by the data, or not there */
    uint32_t broken; /* empty, of another format, cut off */
    char first[512]; /* the first of them, with what is wrong; "" where all is well */
};
void pl_scenes_check(const struct pl_scenes *s, enum pl_scene_file which,
                     struct pl_scene_check *out);
/* One file: NULL when nothing is wrong that can be seen from outside, else what (static text).
 * *there: it can be opened. */
const char *pl_scene_file_fault(const char *path, enum pl_scene_file which, bool *there);

/* Hash of what the samples are read from: the question file's bytes, and of every file its name,
 * size, first and last 64 KiB (whole files up to 128 KiB), SHA-256 in hexadecimal. Missing files
 * count as missing. */
PL_MUST_CHECK
enum pl_status pl_scenes_hash(const struct pl_scenes *s, char hex[65], struct pl_err *err);

#endif
