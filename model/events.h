/*
 * Event streams: what an event camera saw, one event (x, y, polarity, time in µs) after another,
 * and their rasterisation as EventGPT was trained on it.
 *
 * Files: .npy that holds a 0-d object array, a pickled dict of arrays x, y, t, p (pickle.h; other
 * keys are ignored); .npy of a structured dtype with fields x, y, t, p; .npz with arrays x, y, t, p
 * (stored or deflated). Numbers may be of any integer type, f4 or f8 as long as they are whole (t
 * is rounded down), bool.
 */
#ifndef PL_MODEL_EVENTS_H
#define PL_MODEL_EVENTS_H

#include "base/status.h"
#include "model/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_EVENTS_MAX_BYTES (2u << 30) /* of a file */

struct pl_events {
    size_t n;        /* ≥ 1 */
    uint16_t *x, *y; /* < PL_IMAGE_MAX_SIDE */
    uint8_t *p;      /* 0: darker, 1: brighter (any number but 0) */
    int64_t *t;      /* µs, as in the file */
    int64_t t_min, t_max;
    int32_t width, height; /* max x + 1, max y + 1 */
    bool sorted;           /* t never falls */
};

/* PL_ENOENT; PL_EFORMAT names what the file lies about, or what stands where an array x, y, t or p
 * should; PL_ERANGE: a coordinate below 0 or ≥ PL_IMAGE_MAX_SIDE, by its place; no events at all.
 */
PL_MUST_CHECK
enum pl_status pl_events_read(const char *path, struct pl_events *out, struct pl_err *err);
/* The same of bytes in memory; name: for messages. Any bytes are safe. */
PL_MUST_CHECK
enum pl_status pl_events_parse(const char *name, const void *data, size_t len,
                               struct pl_events *out, struct pl_err *err);
void pl_events_release(struct pl_events *e); /* of a zeroed or released one, too */

/* PL_ERANGE: t_max − t_min ≥ max_window_ms, as upstream refuses; 0: any. */
PL_MUST_CHECK
enum pl_status pl_events_check_window(const struct pl_events *e, int64_t max_window_ms,
                                      struct pl_err *err);

/* Events [begin, end) of a stream as a frame of that size. */
struct pl_event_frame {
    size_t begin, end;
    int32_t width, height;
};

/*
 * n frames of equal count, in file order (the remainder goes to the last), each of its own size
 * (max x + 1, max y + 1 of its events), white; an event's pixel is blue (0, 0, 255) where p = 0,
 * else red (255, 0, 0), and the last event at a pixel wins. PL_ERANGE: fewer than n events.
 */
PL_MUST_CHECK
enum pl_status pl_events_render(const struct pl_events *e, size_t n, struct pl_images *append,
                                struct pl_err *err);
/* Where those n frames begin and end, and their sizes; out[n]. Errors as above, those of sizes as
 * pl_images_add has them. */
PL_MUST_CHECK
enum pl_status pl_events_cut(const struct pl_events *e, size_t n, struct pl_event_frame *out,
                             struct pl_err *err);

#endif
