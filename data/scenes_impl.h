/* Inside the scenes: what listing, joining and checking share. Nobody else includes this. */
#ifndef PL_DATA_SCENES_IMPL_H
#define PL_DATA_SCENES_IMPL_H

#include "base/arena.h"
#include "data/questions.h"
#include "data/scenes.h"

struct scene_item { /* one question of the file; of a list: asked of every scene */
    const char *name, *question, *answer;
    uint32_t twin;
};

struct pl_scenes {
    struct pl_arena arena;
    struct pl_scene *scenes; /* [n_scenes] in the order of the samples */
    uint32_t n_scenes;
    struct scene_item *items;
    uint32_t *first; /* [n_scenes + 1] into items; NULL: every scene has all n_items */
    uint32_t n_items;
    uint32_t n_samples, longest;
    bool answered;
    char *question_file;
};

/* The scenes of DIR's event_npy, event_image and mp4 folders, by SEQ, then N. */
PL_MUST_CHECK
enum pl_status pl_scenes_list_tree(struct pl_scenes *s, const char *dir, struct pl_err *err);
/* The scenes that instructions name, with at most n_questions of each. tree: event_data may leave
 * out event_npy/ and scenes go by SEQ/N. */
PL_MUST_CHECK
enum pl_status pl_scenes_from_instructions(struct pl_scenes *s, const char *dir, bool tree,
                                           const struct pl_instructions *in, uint32_t n_questions,
                                           struct pl_err *err);

#endif
