/* `paceline status FILE`: how far a run is, asked from another shell, also while it writes. */
#include "cli/commands.h"
#include "cli/options.h"

#include "base/clock.h"
#include "orchestrator/lock.h"
#include "orchestrator/status.h"
#include "results/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 65536

struct counts {
    uint64_t rows, done, failed;
};

/* The markers say what is committed; the status file may be seconds old. */
static enum pl_status count_markers(struct pl_reader *r, struct counts *out, struct pl_err *err)
{
    struct counts n = {.rows = pl_shape_rows(pl_reader_shape(r))};
    struct pl_commit *marks = malloc(CHUNK * sizeof *marks);
    enum pl_status st = marks ? PL_OK : pl_fail(err, PL_ENOMEM, "markers");
    for (uint64_t at = 0; st == PL_OK && at < n.rows; at += CHUNK) {
        const uint64_t k = n.rows - at < CHUNK ? n.rows - at : CHUNK;
        st = pl_reader_markers(r, at, k, marks, err);
        for (uint64_t i = 0; st == PL_OK && i < k; i++) {
            n.done += marks[i].state == PL_ROW_DONE;
            n.failed += marks[i].state == PL_ROW_FAILED;
        }
    }
    free(marks);
    if (st == PL_OK)
        *out = n;
    return st;
}

/* Workers of the last session as /workers has them: where no status file tells more. */
static json_t *logged_workers(struct pl_reader *r)
{
    void *records = NULL;
    uint32_t n = 0;
    uint64_t overflow = 0;
    json_t *list = json_array();
    if (pl_reader_log(r, PL_LOG_WORKERS, &records, &n, &overflow, NULL) != PL_OK)
        return list;
    const struct pl_log_worker *w = records;
    for (uint32_t i = 0; i < n; i++)
        if (w[i].session == w[n - 1].session)
            json_array_append_new(
                list, json_pack("{s:I,s:i,s:s%,s:i,s:s%}", "worker", (json_int_t)w[i].worker,
                                "rank", (int)w[i].rank, "host", w[i].host,
                                strnlen(w[i].host, sizeof w[i].host), "pid", (int)w[i].pid,
                                "device", w[i].device, strnlen(w[i].device, sizeof w[i].device)));
    free(records);
    return list;
}

/* "running" in a file whose lock nobody holds is a run that was killed. */
static const char *state_of(const char *path, const json_t *said, const struct counts *n)
{
    const char *state = pl_json_get_str(said, "state", "");
    if (pl_lock_held(path))
        return "running";
    if (*state && strcmp(state, "running") != 0)
        return state;
    return n->rows > 0 && n->done + n->failed == n->rows ? (n->done ? "done" : "failed")
                                                         : "interrupted";
}

static json_t *gather(const char *path, struct pl_reader *r, const struct counts *n)
{
    json_t *said = pl_run_status_read(path);
    const char *state = state_of(path, said, n);
    const bool running = strcmp(state, "running") == 0;
    const uint64_t left = n->rows - n->done - n->failed;
    json_t *workers = json_object_get(said, "workers");
    json_t *rate = running ? json_object_get(said, "rate_per_s") : NULL;
    const double per_s = json_number_value(rate);
    json_t *out = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:o,s:o,s:s,s:O?,s:O?}", "state", state, "rows", (json_int_t)n->rows,
        "done", (json_int_t)n->done, "failed", (json_int_t)n->failed, "left", (json_int_t)left,
        "rate_per_s", per_s > 0 ? json_real(per_s) : json_null(), "eta_s",
        per_s > 0 ? json_real((double)left / per_s) : json_null(), "reason",
        pl_json_get_str(said, "reason", ""), "exit", running ? NULL : json_object_get(said, "exit"),
        "session", json_object_get(said, "session"));
    if (workers)
        json_object_set(out, "workers", workers);
    else
        json_object_set_new(out, "workers", r ? logged_workers(r) : json_array());
    json_decref(said);
    return out;
}

static void print_text(const char *path, const json_t *j)
{
    const double rate = pl_json_get_f64(j, "rate_per_s", 0);
    const char *reason = pl_json_get_str(j, "reason", "");
    const int64_t rows = pl_json_get_i64(j, "rows", 0), done = pl_json_get_i64(j, "done", 0),
                  failed = pl_json_get_i64(j, "failed", 0);
    size_t i;
    json_t *w;
    printf("%s: %s%s%s\n", path, pl_json_get_str(j, "state", ""), *reason ? ": " : "", reason);
    printf("trials    %" PRId64 " of %" PRId64 " (%.1f %%), %" PRId64 " failed, %" PRId64 " left\n",
           done + failed, rows, rows ? 100.0 * (double)(done + failed) / (double)rows : 0.0, failed,
           pl_json_get_i64(j, "left", 0));
    if (rate > 0)
        printf("rate      %.3g/s, %.0f s left\n", rate, pl_json_get_f64(j, "eta_s", 0));
    json_array_foreach (json_object_get(j, "workers"), i, w) {
        printf("worker %-3" PRId64 "rank %" PRId64 " on %s, %s", pl_json_get_i64(w, "worker", 0),
               pl_json_get_i64(w, "rank", 0), pl_json_get_str(w, "host", "?"),
               pl_json_get_str(w, "device", "?"));
        if (json_object_get(w, "state"))
            printf(": %s, %" PRId64 " done, %" PRId64 " failed", pl_json_get_str(w, "state", ""),
                   pl_json_get_i64(w, "done", 0), pl_json_get_i64(w, "failed", 0));
        printf("\n");
    }
}

int pl_cmd_status(int argc, char **argv)
{
    bool json = false;
    const char *path = NULL;
    struct pl_reader *r = NULL;
    struct counts n = {0};
    struct pl_err err = {""};
    const struct pl_opt opts[] = {{"json", 0, PL_OPT_FLAG, &json, NULL, "one JSON object"}};
    const int code = pl_opts_parse("status FILE [--json]", opts, 1, argc, argv, &path, 1, 1, NULL);
    if (code >= 0)
        return code;
    enum pl_status st = pl_reader_open(path, &r, &err);
    if (st == PL_OK)
        st = count_markers(r, &n, &err);
    else if (st == PL_ENOENT && pl_lock_held(path))
        st = PL_OK; /* the run is about to make it */
    if (st != PL_OK) {
        pl_reader_free(r);
        return pl_cli_fail(st, &err);
    }
    json_t *j = gather(path, r, &n);
    pl_reader_free(r);
    if (json)
        json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    else
        print_text(path, j);
    if (json)
        printf("\n");
    json_decref(j);
    return pl_cli_done(0);
}
