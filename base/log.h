/*
 * Progress and warnings for a person, on stderr only (stdout is data). One line a call, written
 * with one write(2), so that ranks and threads do not mix within a line. The level and the prefix
 * are process-wide, set once by main. Texts are cut at 4 KiB; line breaks in them become spaces
 * (escapes in JSON). errno is kept.
 */
#ifndef PL_BASE_LOG_H
#define PL_BASE_LOG_H

#include "base/status.h"

#include <stdbool.h>

enum pl_log_level { PL_LOG_ERROR, PL_LOG_WARN, PL_LOG_INFO, PL_LOG_DEBUG };

/* prefix: e.g. "rank 2"; copied. json: every line is {"t_ms":…, "level":…, "who":…, "msg":…}. */
void pl_log_setup(enum pl_log_level level, const char *prefix, bool json);
void pl_log(enum pl_log_level level, const char *fmt, ...) PL_PRINTF(2, 3);

#endif
