/* What video.c and its decoder share. */
#ifndef PL_MODEL_VIDEO_IMPL_H
#define PL_MODEL_VIDEO_IMPL_H

#include "model/video.h"

#include <stdbool.h>

/* Whether frame `frame` of `total` is one of the n that are taken. */
bool pl_video_wanted(int64_t frame, int64_t total, size_t n);
/* As pl_video_parse, len > 0; what it appended before a failure is the caller's to drop. */
PL_MUST_CHECK
enum pl_status pl_video_decode(const char *name, const void *data, size_t len, size_t n,
                               struct pl_images *append, struct pl_video_info *info,
                               struct pl_err *err);

/* Of a build without FFmpeg; of a path. */
#define PL_VIDEO_NONE                                                                              \
    "%s: clips cannot be read: this build has no FFmpeg (install libavformat-dev, libavcodec-dev " \
    "and libswscale-dev, then configure and build again; inspect --build tells); a folder of "     \
    "PNGs can"

#endif
