#include "worker/rank/runner.h"

#include "base/clock.h"
#include "base/proc.h"
#include "worker/rank/oom.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROTOCOL 1
#define HELLO_NS (60 * PL_NS_PER_S)
#define CLOSED_NS PL_NS_PER_S /* between the end of a pipe and that of the process */
#define DRAINS_MAX 64         /* pumps of ≤ 1 MiB: more than any line, and an end to a flood */
#define DRAIN_NS (20 * PL_NS_PER_MS)
#define QUOTE 120 /* bytes of a bad line that an error text shows */

enum state { STARTING, IDLE, BUSY, DEAD };

struct pl_runner {
    struct pl_child child;
    enum state state;
    int64_t deadline;     /* monotonic ns; INT64_MAX: none */
    int64_t closed_since; /* 0: it closed neither its stdin nor its stdout yet */
    uint64_t id;          /* of the request in flight or the last one */
    json_t *hello;
    struct pl_buf request;
    struct pl_oom_count oom; /* at the start */
    char what[PATH_MAX];     /* the command, for messages */
    enum pl_reason reason;   /* of DEAD */
    bool wrong_protocol;
    struct pl_err why;
};

static int64_t after(int64_t ns)
{
    int64_t now = pl_now_ns();

    return ns <= 0 || ns > INT64_MAX - now ? INT64_MAX : now + ns;
}

enum pl_status pl_runner_start(const struct pl_runner_opts *opts, struct pl_runner **out,
                               struct pl_err *err)
{
    const char *own[] = {opts->program, "serve", NULL};
    const char *const *cmd = opts->exec ? opts->exec : own;
    const char **argv = NULL;
    struct pl_runner *r = NULL;
    char parent[24];
    size_t n_cmd = 0, n = 0;
    enum pl_status st;

    while (cmd[n_cmd])
        n_cmd++;
    if (n_cmd == 0)
        return pl_fail(err, PL_EUSAGE, "an engine's command is empty");
    r = calloc(1, sizeof(*r));
    argv = calloc(n_cmd + 8, sizeof(*argv));
    if (!r || !argv) {
        st = pl_fail(err, PL_ENOMEM, "no memory for a runner");
        goto out;
    }
    snprintf(parent, sizeof(parent), "%ld", (long)getpid());
    argv[n++] = opts->program;
    argv[n++] = "exec";
    argv[n++] = "--parent";
    argv[n++] = parent;
    if (opts->cpus && *opts->cpus) {
        argv[n++] = "--cpus";
        argv[n++] = opts->cpus;
    }
    argv[n++] = "--";
    memcpy(argv + n, cmd, n_cmd * sizeof(*argv));
    snprintf(r->what, sizeof(r->what), "%s", cmd[0]);
    pl_buf_init(&r->request, PL_JSON_MAX);
    pl_oom_read(&r->oom);
    st = pl_child_start(&r->child, argv, PL_JSON_MAX, err);
    if (st)
        goto out;
    r->deadline = after(opts->hello_timeout_ns > 0 ? opts->hello_timeout_ns : HELLO_NS);
    *out = r;
    r = NULL;
out:
    free(argv);
    free(r);
    return st;
}

bool pl_runner_free(struct pl_runner *r)
{
    bool reaped;

    if (!r)
        return true;
    reaped = pl_child_release(&r->child);
    json_decref(r->hello);
    pl_buf_release(&r->request);
    free(r);
    return reaped;
}

const json_t *pl_runner_hello(const struct pl_runner *r)
{
    return r->hello;
}

bool pl_runner_synthetic(const struct pl_runner *r)
{
    return json_is_true(json_object_get(r->hello, "synthetic"));
}

bool pl_runner_wrong_protocol(const struct pl_runner *r)
{
    return r->wrong_protocol;
}

const char *pl_runner_stderr_tail(const struct pl_runner *r)
{
    return r->child.tail;
}

/* The last line of stderr that says something, cut to size. */
static void last_words(const struct pl_runner *r, char *out, size_t size)
{
    const char *tail = r->child.tail, *end = tail + strlen(tail), *from;

    while (end > tail && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
        end--;
    for (from = end; from > tail && from[-1] != '\n'; from--)
        continue;
    snprintf(out, size, "%.*s", (int)(end - from), from);
}

/* Kills the group, keeps what stderr still holds, and remembers the failure. */
PL_PRINTF(3, 4) static void fail(struct pl_runner *r, enum pl_reason reason, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(r->why.text, sizeof(r->why.text), fmt, ap);
    va_end(ap);
    r->reason = reason;
    r->state = DEAD;
    pl_child_kill(&r->child, SIGKILL);
    for (int64_t end = pl_now_ns() + DRAIN_NS; r->child.err >= 0 && pl_now_ns() < end;) {
        if (!pl_child_pump(&r->child, 5 * PL_NS_PER_MS, -1) && r->child.exited)
            break;
        while (pl_child_line(&r->child, NULL, NULL))
            continue;
    }
}

/* The child ended by itself. */
static void fail_ended(struct pl_runner *r)
{
    const struct pl_child *c = &r->child;
    const int code = WIFEXITED(c->status) ? WEXITSTATUS(c->status) : -1;
    const bool killed =
        (WIFSIGNALED(c->status) && WTERMSIG(c->status) == SIGKILL) || code == 128 + SIGKILL;
    const char *evidence = killed ? pl_oom_evidence(&r->oom) : NULL;
    const char *when = r->state == STARTING ? " before its hello"
                       : r->state == IDLE   ? " between requests"
                                            : "";
    const bool started = r->state != STARTING || WIFSIGNALED(c->status);
    char how[64], words[512];

    pl_child_describe(c, how, sizeof(how));
    last_words(r, words, sizeof(words));
    if (evidence)
        fail(r, PL_REASON_OOM, "the runner ran out of host memory%s (%s; %s)", when, how, evidence);
    else if (killed)
        fail(r, PL_REASON_CRASH,
             "the runner ended%s: %s, not by paceline (often the out-of-memory killer, of which "
             "there is no trace)",
             when, how);
    else if (!started && (code == 126 || code == 127))
        fail(r, PL_REASON_START, "%s cannot be started: %s", r->what, *words ? words : how);
    else
        fail(r, started ? PL_REASON_CRASH : PL_REASON_START, "the runner %s ended%s: %s%s%s",
             r->what, when, how, *words ? "; its last words: " : "", words);
}

/* Bytes that are not the protocol, quoted so that one line of text stays one line. */
static void fail_garbage(struct pl_runner *r, const char *what, const char *line, size_t len)
{
    char quoted[QUOTE + 4];
    size_t n = len < QUOTE ? len : QUOTE;

    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)line[i];
        quoted[i] = ch < 0x20 || ch > 0x7e ? '?' : (char)ch;
    }
    snprintf(quoted + n, sizeof(quoted) - n, "%s", len > n ? "..." : "");
    fail(r, PL_REASON_GARBAGE, "%s: %s", what, quoted);
}

/* After a line was taken: nothing may follow it that nobody asked for. */
static bool nothing_follows(struct pl_runner *r)
{
    const struct pl_child *c = &r->child;
    char rest[QUOTE + 1];
    size_t len = c->line.len - c->taken;

    if (len == 0)
        return true;
    snprintf(rest, sizeof(rest), "%s", c->line.data + c->taken);
    fail_garbage(r, "output that no request asked for", rest, len);
    return false;
}

static void take_hello(struct pl_runner *r, const char *line, size_t len)
{
    json_t *hello = NULL;
    struct pl_err err;
    const json_t *protocol;

    if (pl_json_parse("hello", line, len, &hello, &err) || !json_is_object(hello) ||
        strcmp(pl_json_get_str(hello, "type", ""), "hello") != 0) {
        fail_garbage(r, "the first line is no hello", line, len);
    } else if (protocol = json_object_get(hello, "protocol"), !json_is_integer(protocol)) {
        fail_garbage(r, "the hello names no protocol", line, len);
    } else if (json_integer_value(protocol) != PROTOCOL) {
        r->wrong_protocol = true;
        fail(r, PL_REASON_START, "%s speaks protocol %lld, this paceline speaks %d", r->what,
             (long long)json_integer_value(protocol), PROTOCOL);
    } else if (nothing_follows(r)) {
        r->hello = hello;
        r->state = IDLE;
        r->deadline = INT64_MAX;
        return;
    }
    json_decref(hello);
}

/* The answer (a new reference), or NULL after fail(). */
static json_t *take_answer(struct pl_runner *r, const char *line, size_t len)
{
    json_t *answer = NULL;
    struct pl_err err;
    const char *type;

    if (pl_json_parse("answer", line, len, &answer, &err)) {
        fail_garbage(r, "a line that is not JSON", line, len);
        return NULL;
    }
    type = pl_json_get_str(answer, "type", NULL);
    if (!type || (uint64_t)pl_json_get_i64(answer, "id", -1) != r->id) {
        fail_garbage(r, type ? "an answer to another request" : "a line that is no answer", line,
                     len);
    } else if (!nothing_follows(r)) {
        /* the trial that it belongs to cannot be told */
    } else if (strcmp(type, "error") == 0 && json_is_true(json_object_get(answer, "fatal"))) {
        fail(r, pl_reason_parse(pl_json_get_str(answer, "reason", "")), "%.900s",
             pl_json_get_str(answer, "text", "the runner gave no text"));
    } else {
        r->state = IDLE;
        r->deadline = INT64_MAX;
        return answer;
    }
    json_decref(answer);
    return NULL;
}

/* One line if there is one. True when that settled something. */
static bool take_line(struct pl_runner *r, json_t **answer)
{
    bool too_long = false;
    size_t len = 0;
    const char *line = pl_child_line(&r->child, &len, &too_long);

    if (too_long)
        fail(r, PL_REASON_GARBAGE, "a line of more than %u bytes", PL_JSON_MAX);
    else if (!line)
        return false;
    else if (r->state == STARTING)
        take_hello(r, line, len);
    else if (r->state == BUSY)
        *answer = take_answer(r, line, len);
    else
        fail_garbage(r, "output that no request asked for", line, len);
    return true;
}

/* Ends of the child and of time. True when that settled something. */
static bool check_end(struct pl_runner *r, int64_t now)
{
    struct pl_child *c = &r->child;

    if (c->exited) { /* what it wrote before counts */
        for (int i = 0; i < DRAINS_MAX && pl_child_pump(c, 0, -1); i++)
            continue;
        if (memchr(c->line.data ? c->line.data + c->scanned : "", '\n', c->line.len - c->scanned))
            return false;
        fail_ended(r);
        return true;
    }
    if (c->out < 0 && !r->closed_since)
        r->closed_since = now;
    if (r->closed_since && now - r->closed_since >= CLOSED_NS) {
        fail(r, PL_REASON_CRASH, "the runner closed its standard %s",
             c->out < 0 ? "output" : "input");
        return true;
    }
    if (now >= r->deadline) {
        fail(r, PL_REASON_TIMEOUT, "%s",
             r->state == STARTING       ? "no hello before the deadline"
             : c->sent < c->pending.len ? "the runner did not read its request before the "
                                          "deadline"
                                        : "no answer before the deadline");
        return true;
    }
    return false;
}

/* Waits and moves bytes until something is settled or the time is over. */
static void wait_for_line(struct pl_runner *r, int64_t wait_ns, json_t **answer)
{
    int64_t now = pl_now_ns();
    const int64_t until = wait_ns > INT64_MAX - now ? INT64_MAX : now + wait_ns;

    do {
        int64_t stop = until < r->deadline ? until : r->deadline;
        if (r->closed_since && stop > r->closed_since + CLOSED_NS)
            stop = r->closed_since + CLOSED_NS;
        (void)pl_child_pump(&r->child, stop - now, -1);
        if (take_line(r, answer))
            return;
        now = pl_now_ns();
        if (check_end(r, now))
            return;
    } while (now < until);
}

enum pl_runner_event pl_runner_pump(struct pl_runner *r, int64_t wait_ns, json_t **answer,
                                    enum pl_reason *reason, struct pl_err *err)
{
    const bool starting = r->state == STARTING;
    json_t *got = NULL;

    if (r->state != DEAD && !take_line(r, &got))
        wait_for_line(r, wait_ns, &got);
    if (r->state == DEAD) {
        *reason = r->reason;
        if (err)
            *err = r->why;
        return PL_RUNNER_FAILED;
    }
    if (got) {
        *answer = got;
        return PL_RUNNER_ANSWER;
    }
    return starting && r->state == IDLE ? PL_RUNNER_READY : PL_RUNNER_NOTHING;
}

enum pl_status pl_runner_send(struct pl_runner *r, json_t *request, int64_t timeout_ns,
                              struct pl_err *err)
{
    struct pl_child *c = &r->child;
    enum pl_status st;

    if (r->state == STARTING || r->state == BUSY)
        return pl_fail(err, PL_EBUSY, "%s",
                       r->state == BUSY ? "a request is in flight" : "no hello yet");
    if (r->state == IDLE) {
        (void)pl_child_pump(c, 0, -1);
        if (c->exited)
            (void)check_end(r, pl_now_ns());
        if (r->state == IDLE)
            (void)nothing_follows(r);
    }
    if (r->state == DEAD)
        return PL_OK; /* the next pump tells */
    if (json_object_set_new(request, "id", json_integer((json_int_t)r->id + 1)) != 0)
        return pl_fail(err, PL_EPROTO, "a request that is no JSON object");
    pl_buf_clear(&r->request);
    st = pl_json_dump(request, &r->request, err);
    if (!st)
        st = pl_buf_add(&r->request, "\n", 1, err);
    if (st)
        return st;
    r->id++;
    r->state = BUSY;
    r->deadline = after(timeout_ns);
    if (pl_child_send(c, r->request.data, r->request.len, NULL) != PL_OK && !r->closed_since)
        r->closed_since = pl_now_ns();
    return PL_OK;
}

/* What a failed runner is to a command that waits for it. */
static enum pl_status call_failed(const struct pl_runner *r, enum pl_reason reason,
                                  struct pl_err *err)
{
    const enum pl_status st = reason == PL_REASON_TIMEOUT                       ? PL_ETIMEOUT
                              : reason == PL_REASON_OOM                         ? PL_ENOMEM
                              : reason == PL_REASON_START && !r->wrong_protocol ? PL_ENOENT
                                                                                : PL_EPROTO;
    char words[512];

    last_words(r, words, sizeof(words));
    if (!err || !*words || strstr(err->text, words))
        return st;
    return pl_err_prefix(err, st, "%s", words);
}

enum pl_status pl_runner_call(struct pl_runner *r, json_t *request, int64_t timeout_ns,
                              json_t **answer, struct pl_err *err)
{
    enum pl_runner_event ev = PL_RUNNER_NOTHING;
    enum pl_reason reason = PL_REASON_NONE;
    json_t *got = NULL;
    enum pl_status st;

    while (r->state == STARTING && ev != PL_RUNNER_FAILED)
        ev = pl_runner_pump(r, PL_NS_PER_S, &got, &reason, err);
    if (ev == PL_RUNNER_FAILED)
        return call_failed(r, reason, err);
    if ((st = pl_runner_send(r, request, timeout_ns, err)))
        return st;
    do
        ev = pl_runner_pump(r, PL_NS_PER_S, &got, &reason, err);
    while (ev != PL_RUNNER_FAILED && ev != PL_RUNNER_ANSWER);
    if (ev == PL_RUNNER_FAILED)
        return call_failed(r, reason, err);
    if (strcmp(pl_json_get_str(got, "type", ""), "error") == 0) {
        st =
            pl_fail(err, PL_EFORMAT, "%s", pl_json_get_str(got, "text", "the runner gave no text"));
        json_decref(got);
        return st;
    }
    *answer = got;
    return PL_OK;
}

static bool is_program(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode) && access(path, X_OK) == 0;
}

enum pl_status pl_runner_find(char *out, size_t size, struct pl_err *err)
{
    /* installed beside paceline; in libexec-like layouts; in a build tree: cli/, cli/runner/,
     * tests/ROOM/ */
    static const char *const places[] = {"",           "../bin/",        "runner/",
                                         "../runner/", "../cli/runner/", "../../cli/runner/"};
    const char *env = getenv("PACELINE_RUNNER");
    char dir[PATH_MAX], path[PATH_MAX + 64];
    ssize_t n;

    if (env && *env) {
        if (!is_program(env))
            return pl_fail(err, PL_ENOENT, "$PACELINE_RUNNER is no program: %s", env);
        if (strlen(env) >= size)
            return pl_fail(err, PL_ERANGE, "$PACELINE_RUNNER is too long");
        snprintf(out, size, "%s", env);
        return PL_OK;
    }
    n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
    if (n <= 0)
        return pl_fail(err, PL_ENOENT,
                       "paceline-runner: /proc/self/exe cannot be read; set "
                       "$PACELINE_RUNNER");
    dir[n] = '\0';
    *strrchr(dir, '/') = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, sizeof(path), "%s/%spaceline-runner", dir, places[i]);
        if (!is_program(path))
            continue;
        if (strlen(path) >= size)
            return pl_fail(err, PL_ERANGE, "the path of paceline-runner is too long");
        snprintf(out, size, "%s", path);
        return PL_OK;
    }
    return pl_fail(err, PL_ENOENT,
                   "paceline-runner is not beside this program (in %.700s or ../bin of it); set "
                   "$PACELINE_RUNNER to its path",
                   dir);
}
