/*
 * Clips: files that FFmpeg's libraries read (where this build has them), or a folder of PNGs in the
 * order of their names (numbers in them count as numbers).
 */
#ifndef PL_MODEL_VIDEO_H
#define PL_MODEL_VIDEO_H

#include "base/status.h"
#include "model/image.h"

#include <stddef.h>
#include <stdint.h>

#define PL_VIDEO_MAX_FRAMES 1000000

struct pl_video_info {
    int64_t frames; /* in the clip, counted */
    int32_t width, height;
    double fps, seconds;            /* 0: not known (PNGs) */
    char codec[32], pixel_type[32]; /* "h264", "yuv420p"; "png", "rgb24" */
};

/*
 * At most n frames as the reference takes them: of total frames those numbered
 * ⌊i · total / n⌋, i = 0 … n − 1, each once (a clip of fewer than n frames gives all of them). n 0:
 * every frame. Colours by the clip's own matrix and range (BT.601
 * where it names none), as swscale converts to rgb24. info may be NULL.
 * PL_ENOENT, PL_EFORMAT (no video stream, nothing that can be decoded, no PNG in the folder),
 * PL_EUNSUPPORTED (a clip in a build without FFmpeg; the codec by name).
 */
PL_MUST_CHECK
enum pl_status pl_video_read(const char *path, size_t n, struct pl_images *append,
                             struct pl_video_info *info, struct pl_err *err);
/* A clip in memory; name: for messages. Any bytes are safe. */
PL_MUST_CHECK
enum pl_status pl_video_parse(const char *name, const void *data, size_t len, size_t n,
                              struct pl_images *append, struct pl_video_info *info,
                              struct pl_err *err);

/* "libavformat 59.27.100"; NULL in a build without FFmpeg. */
const char *pl_video_version(void);
/* Whether this build could read what stands at path: a folder, or a clip and there is FFmpeg.
 * PL_EUNSUPPORTED says how to get it. What is not there is no matter. */
PL_MUST_CHECK
enum pl_status pl_video_readable(const char *path, struct pl_err *err);

#endif
