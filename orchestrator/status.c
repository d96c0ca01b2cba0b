#include "orchestrator/status.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#define STATUS_MAX (16u << 20)

static enum pl_status replace(const char *path, const struct pl_buf *b, struct pl_err *err)
{
    char tmp[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return pl_fail(err, PL_ERANGE, "%s: a name that long", path);
    const int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return pl_fail_errno(err, errno, "%s", tmp);
    const ssize_t n = write(fd, b->data, b->len);
    const int errnum = n < 0 ? errno : ENOSPC;
    close(fd);
    if (n != (ssize_t)b->len || rename(tmp, path) != 0) {
        unlink(tmp);
        return pl_fail_errno(err, errnum, "%s", tmp);
    }
    return PL_OK;
}

static json_t *number(double v)
{
    return v >= 0 && isfinite(v) ? json_real(v) : json_null();
}

enum pl_status pl_run_status_write(const char *results, const struct pl_run_status *s, bool durable,
                                   struct pl_err *err)
{
    char path[PATH_MAX], host[64] = "";
    struct pl_buf b;
    enum pl_status st;
    if (snprintf(path, sizeof path, "%s.status.json", results) >= (int)sizeof path)
        return pl_fail(err, PL_ERANGE, "%s: a name that long", results);
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    json_t *head = json_pack("{s:s,s:o,s:I,s:I,s:I,s:s}", "state", s->state, "exit",
                             s->exit_code < 0 ? json_null() : json_integer(s->exit_code), "done",
                             (json_int_t)s->done, "failed", (json_int_t)s->failed, "left",
                             (json_int_t)s->left, "reason", s->reason ? s->reason : "");
    json_t *rest = json_pack("{s:i,s:i,s:s,s:i,s:I,s:o,s:o,s:O?}", "session", (int)s->session,
                             "ranks", (int)s->ranks, "host", host, "pid", (int)getpid(), "unix_ns",
                             (json_int_t)pl_wall_ns(), "rate_per_s", number(s->rate_per_s), "eta_s",
                             number(s->eta_s), "workers", s->workers);
    pl_buf_init(&b, STATUS_MAX);
    st = head && rest ? pl_json_dump(head, &b, err) : pl_fail(err, PL_ENOMEM, "%s", path);
    if (st == PL_OK) {
        b.data[b.len - 1] = ','; /* the object goes on in the next line */
        st = pl_buf_add(&b, "\n", 1, err);
    }
    if (st == PL_OK) {
        const size_t at = b.len;
        st = pl_json_dump(rest, &b, err);
        if (st == PL_OK)
            b.data[at] = ' ';
    }
    if (st == PL_OK)
        st = pl_buf_add(&b, "\n", 1, err);
    if (st == PL_OK)
        st = durable ? pl_write_file_atomic(path, b.data, b.len, err) : replace(path, &b, err);
    json_decref(head);
    json_decref(rest);
    pl_buf_release(&b);
    return st;
}

json_t *pl_run_status_read(const char *results)
{
    char path[PATH_MAX];
    json_t *j = NULL;
    if (snprintf(path, sizeof path, "%s.status.json", results) >= (int)sizeof path ||
        pl_json_read_file(path, STATUS_MAX, &j, NULL) != PL_OK)
        return NULL;
    return j;
}
