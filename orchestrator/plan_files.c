#include "orchestrator/plan_files.h"

#include "data/scenes.h"

#include <inttypes.h>
#include <string.h>

static const char *const nouns[] = {"event file", "clip"};

static bool some_scene_has(const struct pl_scenes *s, enum pl_scene_file which)
{
    for (uint32_t i = 0; i < pl_scenes_count(s); i++) {
        const struct pl_scene *c = pl_scenes_scene(s, i);
        if (which == PL_SCENE_EVENTS ? c->events : c->video)
            return true;
    }
    return false;
}

/* *must: an arm said that it reads them, so that without any there is nothing to run. Foreign
 * engines that say nothing read what there is; the simulated one reads nothing. */
static bool needed(const struct pl_sweep *s, const struct pl_arm_info *arms,
                   const struct pl_scenes *scenes, enum pl_scene_file which, const char **must)
{
    bool perhaps = false;
    *must = NULL;
    for (uint32_t i = 0; i < s->n_arms; i++) {
        const bool reads = which == PL_SCENE_EVENTS ? arms[i].reads_events : arms[i].reads_video;
        if (reads && !*must)
            *must = pl_sweep_arm_name(s, i);
        perhaps = perhaps || (!arms[i].sim && !arms[i].reads_told);
    }
    return *must || (perhaps && some_scene_has(scenes, which));
}

void pl_plan_check_files(const struct pl_sweep *s, const struct pl_arm_info *arms,
                         struct pl_problems *problems, struct pl_problems *warnings)
{
    const struct pl_scenes *scenes = s->list ? pl_samples_scenes(s->list) : NULL;
    for (int which = PL_SCENE_EVENTS; scenes && which <= PL_SCENE_VIDEO; which++) {
        struct pl_scene_check c;
        const char *must;
        if (!needed(s, arms, scenes, (enum pl_scene_file)which, &must))
            continue;
        pl_scenes_check(scenes, (enum pl_scene_file)which, &c);
        if (must && c.absent == c.scenes)
            pl_problems_add(
                problems, "%s: data: none of %" PRIu32 " scenes has its %s, which arm %s reads: %s",
                s->path ? s->path : "sweep", c.scenes, nouns[which], must, c.first);
        else if (c.absent || c.broken)
            pl_problems_add(warnings,
                            "data: of %" PRIu32 " scenes, %" PRIu32 " lack their %s and %" PRIu32
                            " have a broken one: those trials will fail (reason data). The first: "
                            "%s",
                            c.scenes, c.absent, nouns[which], c.broken, c.first);
    }
}
