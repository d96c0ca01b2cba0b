/* `inspect` of what a vision model is shown: event files, clips, folders of PNGs, pictures. */
#ifndef PL_CLI_RUNNER_INSPECT_MEDIA_H
#define PL_CLI_RUNNER_INSPECT_MEDIA_H

#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>

/* Whether a path is no model but a file or folder of pictures or events, by its name and first
 * bytes. */
bool pl_media_is(const char *path);
/* {path, format: events | clip | folder | picture, …}; png NULL, or where a picture of it goes: an
 * event file's five frames or a clip's eight, side by side. */
PL_MUST_CHECK
enum pl_status pl_media_inspect(const char *path, const char *png, json_t **out,
                                struct pl_err *err);
void pl_media_print(const json_t *j);

#endif
