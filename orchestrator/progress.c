#include "orchestrator/progress.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIVE_NS (200 * PL_NS_PER_MS)
#define PLAIN_NS (10 * PL_NS_PER_S)
#define MARK_NS PL_NS_PER_S

void pl_progress_init(struct pl_progress *p, bool json, int64_t now, uint64_t settled)
{
    const char *term = getenv("TERM");
    *p = (struct pl_progress){.began = now,
                              .last_said = now,
                              .last_mark = now,
                              .first = settled,
                              .marked = settled,
                              .rate = -1,
                              .json = json};
    p->live = !json && isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

static void print_time(char *out, size_t size, double s)
{
    const uint64_t t = s > 0 ? (uint64_t)(s + 0.5) : 0;
    if (s < 0)
        snprintf(out, size, "?");
    else if (t >= 3600)
        snprintf(out, size, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, t / 3600, t / 60 % 60, t % 60);
    else
        snprintf(out, size, "%" PRIu64 ":%02" PRIu64, t / 60, t % 60);
}

double pl_progress_eta(const struct pl_progress *p, uint64_t left)
{
    return p->rate > 0 ? (double)left / p->rate : left ? -1 : 0;
}

static void mark(struct pl_progress *p, int64_t now, uint64_t settled)
{
    const double dt = (double)(now - p->last_mark) / 1e9;
    const double rate = (double)(settled - p->marked) / dt;
    /* the mean so far at first, then a memory of about half a minute */
    const double age = (double)(now - p->began) / 1e9;
    const double weight = age < 30 ? dt / age : dt / 30;
    p->rate = p->rate < 0 ? rate : p->rate + (weight < 1 ? weight : 1) * (rate - p->rate);
    p->last_mark = now;
    p->marked = settled;
}

void pl_progress_step(struct pl_progress *p, int64_t now, const struct pl_progress_now *at)
{
    char left[32], line[200];
    const uint64_t settled = at->done + at->failed;
    if (now - p->last_mark >= MARK_NS)
        mark(p, now, settled);
    if (now - p->last_said < (p->live ? LIVE_NS : PLAIN_NS))
        return;
    p->last_said = now;
    print_time(left, sizeof left, pl_progress_eta(p, at->left));
    const int n = snprintf(
        line, sizeof line,
        "%" PRIu64 " of %" PRIu64 " trials (%.0f %%), %" PRIu64
        " failed, %.3g/s, %s left, %u worker%s",
        settled, at->rows, at->rows ? 100.0 * (double)settled / (double)at->rows : 0, at->failed,
        p->rate > 0 ? p->rate : 0, left, at->workers, at->workers == 1 ? "" : "s");
    if (!p->live) {
        pl_log(PL_LOG_INFO, "%s", line);
        return;
    }
    char out[sizeof line + 8];
    const int m = snprintf(out, sizeof out, "\r%.*s\x1b[K", n, line);
    if (write(STDERR_FILENO, out, (size_t)m) == m)
        p->shown = true;
}

void pl_progress_clear(struct pl_progress *p)
{
    if (p->shown && write(STDERR_FILENO, "\r\x1b[K", 4) == 4)
        p->shown = false;
}
