#include "orchestrator/coord_run.h"

#include "base/clock.h"
#include "base/log.h"
#include "orchestrator/coord.h"
#include "orchestrator/job.h"
#include "orchestrator/lock.h"
#include "orchestrator/provenance.h"
#include "orchestrator/signals.h"
#include "orchestrator/status.h"
#include "results/reader.h"
#include "worker/rank/worker.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEASE_S 30.0
#define LOCK_WAIT_NS (30 * PL_NS_PER_S)
#define WAIT_MIN_NS (50 * PL_NS_PER_US)
#define WAIT_MAX_NS (5 * PL_NS_PER_MS)
#define FLUSH_NS PL_NS_PER_S
#define ABORT_S 10
#define FINALIZE_S 20 /* MPI_Finalize waits for every rank; a host may vanish in that moment */

/* How long to wait for messages: 2 % of how long nothing has happened, so that what comes late is
 * late by 2 % at most and a rank with nothing to do costs next to nothing. */
static int64_t patience(int64_t now, int64_t busy_at)
{
    const int64_t ns = (now - busy_at) / 50;
    return ns < WAIT_MIN_NS ? WAIT_MIN_NS : ns > WAIT_MAX_NS ? WAIT_MAX_NS : ns;
}

static bool hard_stop(const struct pl_run_opts *o)
{
    return pl_signals_again() || (o->by_mpirun && pl_signals_term());
}

static void flush(struct pl_comm *comm)
{
    const int64_t until = pl_now_ns() + FLUSH_NS;
    while (!pl_comm_idle(comm) && pl_now_ns() < until)
        pl_sleep_ns(WAIT_MIN_NS);
}

static void close_comm(struct pl_comm *comm, int code)
{
    flush(comm);
    pl_signals_watchdog(FINALIZE_S, code);
    pl_comm_close(comm);
    pl_signals_watchdog(0, code);
}

enum pl_status pl_run_check_output(const char *results, bool may_exist, char *out, size_t size,
                                   struct pl_err *err)
{
    char dir[PATH_MAX], base[PATH_MAX], real[PATH_MAX];
    struct stat sb;
    if (!*results)
        return pl_fail(err, PL_EUSAGE, "-o is empty, expected the results file's name");
    if (snprintf(dir, sizeof dir, "%s", results) >= (int)sizeof dir)
        return pl_fail(err, PL_ERANGE, "%s: a name that long", results);
    memcpy(base, dir, sizeof base);
    if (!realpath(dirname(dir), real))
        return pl_fail_errno(err, errno, "%s: its directory", results);
    if (stat(results, &sb) == 0 && !S_ISREG(sb.st_mode))
        return pl_fail(err, PL_EUSAGE, "%s: is a %s, expected a file's name", results,
                       S_ISDIR(sb.st_mode) ? "directory" : "device or pipe");
    if (access(results, F_OK) != 0 && lstat(results, &sb) == 0)
        return pl_fail(err, PL_EUSAGE, "%s: is a link to a file that is not there", results);
    if (access(results, F_OK) == 0 && !may_exist)
        return pl_fail(err, PL_EEXIST, "%s: already exists; --resume goes on with it", results);
    if (access(results, F_OK) == 0 && access(results, W_OK) != 0)
        return pl_fail_errno(err, errno, "%s", results);
    if (access(real, W_OK | X_OK) != 0)
        return pl_fail_errno(err, errno, "%s: the directory %s is not writable", results, real);
    const char *name = basename(base);
    if (strcmp(name, "/") == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return pl_fail(err, PL_EUSAGE, "%s: is a directory", results);
    if (snprintf(out, size, "%s/%s", strcmp(real, "/") ? real : "", name) >= (int)size)
        return pl_fail(err, PL_ERANGE, "%s: a name that long", results);
    return PL_OK;
}

/* ---- a worker's rank ---- */

struct worker_lock {
    struct pl_lock *lock;
};

static enum pl_status take_worker_lock(void *ctx, const char *results, struct pl_err *err)
{
    struct worker_lock *l = ctx;
    return l->lock ? PL_OK : pl_lock_worker(results, &l->lock, err);
}

static enum pl_status make_worker(const struct pl_run_opts *o, struct pl_comm *comm, int mpi_rank,
                                  struct worker_lock *lock, struct pl_worker **out,
                                  struct pl_err *err)
{
    const double lease = o->lease_s > 0 ? o->lease_s : LEASE_S;
    const struct pl_worker_opts w = {.comm = comm,
                                     .mpi_rank = mpi_rank,
                                     .program = o->program,
                                     .sweep_sha = o->sweep_sha,
                                     .error = o->sweep_error,
                                     .vanish_ns = (int64_t)((60 + 2 * lease) * 1e9),
                                     .lock = take_worker_lock,
                                     .lock_ctx = lock};
    return pl_worker_new(&w, out, err);
}

int pl_run_worker(const struct pl_run_opts *o)
{
    struct worker_lock lock = {NULL};
    struct pl_worker *w = NULL;
    struct pl_err err = {""};
    enum pl_worker_state state = PL_WORKER_RUNS;
    bool soft = false, hard = false;
    if (make_worker(o, o->comm, o->comm->rank, &lock, &w, &err) != PL_OK) {
        pl_log(PL_LOG_ERROR, "%s", err.text);
        pl_comm_abort(o->comm, 6);
        return 6;
    }
    int64_t busy_at = pl_now_ns();
    while (state == PL_WORKER_RUNS) {
        const int64_t now = pl_now_ns();
        state = pl_worker_step(w, patience(now, busy_at));
        if (pl_worker_busy(w))
            busy_at = pl_now_ns();
        if (!hard && hard_stop(o))
            pl_worker_stop(w, soft = hard = true);
        else if (!soft && pl_signals_stop()) {
            soft = true;
            pl_worker_stop(w, false);
        }
    }
    const int code = state == PL_WORKER_ALONE ? 6 : pl_worker_exit_code(w);
    const char *refusal = pl_worker_refusal(w);
    if (refusal && *refusal)
        pl_log(PL_LOG_ERROR, "%s", refusal);
    pl_worker_free(w);
    pl_lock_free(lock.lock);
    if (state == PL_WORKER_ALONE) {
        pl_log(PL_LOG_ERROR, "rank 0 is gone");
        pl_comm_abort(o->comm, 6);
    }
    close_comm(o->comm, code);
    return code;
}

int pl_run_refuse(const struct pl_run_opts *o, int exit_code)
{
    if (!o->comm)
        return exit_code;
    if (!pl_coord_refuse_all(o->comm, exit_code, "", 70 * PL_NS_PER_S))
        pl_comm_abort(o->comm, exit_code);
    close_comm(o->comm, exit_code);
    return exit_code;
}

/* ---- rank 0 ---- */

struct run {
    const struct pl_run_opts *o;
    const struct pl_sweep *sweep;
    const struct pl_plan *plan;
    struct pl_lock *lock;
    struct pl_sched *sched;
    struct pl_session session;
    struct pl_writer *writer;
    struct pl_reader *reader; /* opened when a lease ends without a word */
    json_t *job, *provenance;
    struct pl_comm *comm, *ends[2]; /* ends: of the one process */
    struct pl_coord *coord;
    struct pl_worker *worker;
    struct worker_lock worker_lock;
    bool created;
};

void pl_run_leave_word(const char *results, int code, const char *reason)
{
    struct pl_err err;
    json_t *old = pl_run_status_read(results);
    const struct pl_run_status s = {
        .state = "failed", .exit_code = code, .reason = reason, .rate_per_s = -1, .eta_s = -1};
    if (!old && access(results, F_OK) == 0 && pl_run_status_write(results, &s, true, &err) != PL_OK)
        pl_log(PL_LOG_WARN, "%s", err.text);
    json_decref(old);
}

static enum pl_status same_sweep(struct run *r, struct pl_err *err)
{
    struct pl_buf diff;
    pl_buf_init(&diff, 1u << 16);
    const enum pl_status st = pl_session_same(r->o->results, r->sweep, &diff, err);
    if (st != PL_OK && diff.len) {
        pl_log(PL_LOG_ERROR, "the sweep changed (- in the file, + now):");
        for (char *line = diff.data, *end; line && *line; line = end) {
            end = strchr(line, '\n');
            if (end)
                *end++ = '\0';
            pl_log(PL_LOG_ERROR, "%s", line);
        }
    }
    pl_buf_release(&diff);
    return st;
}

/* Did this session commit the row? Its worker is silent, so the file is asked. */
static bool committed(void *ctx, uint64_t row, bool *failed)
{
    struct run *r = ctx;
    struct pl_commit mark;
    struct pl_err err = {""};
    if ((!r->reader && pl_reader_open(r->o->results, &r->reader, &err) != PL_OK) ||
        pl_reader_markers(r->reader, row, 1, &mark, &err) != PL_OK) {
        pl_log(PL_LOG_WARN, "%s: a silent worker's rows are done again", err.text);
        return false;
    }
    *failed = mark.state == PL_ROW_FAILED;
    return mark.state != PL_ROW_EMPTY && mark.session == r->session.number;
}

/* Lock, file, scheduler: everything that can be wrong before a worker is let in. */
static enum pl_status open_file(struct run *r, struct pl_err *err)
{
    const struct pl_run_opts *o = r->o;
    const double lease = o->lease_s > 0 ? o->lease_s : LEASE_S;
    const struct pl_sched_opts so = {.seed = r->sweep->seed,
                                     .n_workers = (uint32_t)r->comm->size - 1,
                                     .lease_ns = (int64_t)(lease * 1e9),
                                     .grace_ns = (int64_t)(lease * 0.5e9),
                                     .again = o->rerun_failed,
                                     .committed = committed,
                                     .committed_ctx = r};
    enum pl_status st =
        pl_lock_coordinator(o->results, LOCK_WAIT_NS, pl_signals_stop, &r->lock, err);
    if (st != PL_OK)
        return st;
    const bool there = access(o->results, F_OK) == 0;
    if (there && !o->resume)
        return pl_fail(err, PL_EEXIST, "%s: already exists; --resume goes on with it", o->results);
    st = there ? same_sweep(r, err) : PL_OK;
    if (st == PL_OK)
        st = pl_sched_new(r->plan, &so, &r->sched, err);
    if (st == PL_OK && there)
        st = pl_session_resume(o->results, r->plan, r->provenance, o->rerun_failed, r->sched,
                               &r->session, err);
    else if (st == PL_OK) {
        if (o->resume)
            pl_log(PL_LOG_INFO, "%s: not there yet, starting anew", o->results);
        st = pl_session_create(o->results, r->sweep, r->plan, r->provenance, &r->session, err);
        r->created = st == PL_OK;
    }
    if (st == PL_OK && r->session.torn)
        pl_log(PL_LOG_WARN, "%llu rows had a wrong checksum and are done again",
               (unsigned long long)r->session.torn);
    if (st == PL_OK)
        st = pl_writer_open(o->results, &r->plan->shape, &r->writer, err);
    if (st != PL_OK)
        return st;
    r->job = pl_job_make(r->sweep, r->plan, o->results, r->session.number, o->retries);
    return r->job ? PL_OK : pl_fail(err, PL_ENOMEM, "the job");
}

static enum pl_status begin(struct run *r, struct pl_err *err)
{
    const struct pl_run_opts *o = r->o;
    char mpi[256] = "";
    pl_comm_mpi_version(mpi, sizeof mpi); /* of the library, which one process has, too */
    const unsigned ranks = o->comm ? (unsigned)o->comm->size : 1;
    enum pl_status st = pl_provenance(r->sweep, mpi, ranks, &r->provenance, err);
    if (st == PL_OK && !o->comm)
        st = pl_comm_loop_open(2, r->ends, err);
    if (st != PL_OK)
        return st;
    r->comm = o->comm ? o->comm : r->ends[0];
    st = open_file(r, err);
    if (st != PL_OK)
        return st;
    const double lease = o->lease_s > 0 ? o->lease_s : LEASE_S;
    const struct pl_coord_opts co = {.comm = r->comm,
                                     .ranks = ranks,
                                     .results = o->results,
                                     .sweep_sha = o->sweep_sha,
                                     .sweep = r->sweep,
                                     .plan = r->plan,
                                     .sched = r->sched,
                                     .session = &r->session,
                                     .writer = r->writer,
                                     .job = r->job,
                                     .provenance = r->provenance,
                                     .lease_ns = (int64_t)(lease * 1e9),
                                     .grace_ns = (int64_t)(lease * 0.5e9),
                                     .max_fails = o->max_fails,
                                     .log_json = o->log_json};
    st = pl_coord_new(&co, &r->coord, err);
    if (st == PL_OK && !o->comm)
        st = make_worker(o, r->ends[1], 0, &r->worker_lock, &r->worker, err);
    return st;
}

static void loop(struct run *r)
{
    int64_t now = pl_now_ns(), busy_at = now;
    bool soft = false, hard = false;
    bool alive = true;
    while (alive) {
        alive = pl_coord_step(r->coord, now);
        if (pl_coord_busy(r->coord))
            busy_at = now;
        if (!hard && hard_stop(r->o))
            pl_coord_stop(r->coord, soft = hard = true, pl_signals_reason(r->o->by_mpirun));
        else if (!soft && pl_signals_stop()) {
            soft = true;
            pl_coord_stop(r->coord, false, pl_signals_reason(r->o->by_mpirun));
        }
        if (!alive)
            break;
        if (r->worker) {
            (void)pl_worker_step(r->worker, patience(now, busy_at));
            now = pl_now_ns();
            if (pl_worker_busy(r->worker))
                busy_at = now;
        } else {
            if (!pl_coord_busy(r->coord))
                pl_sleep_ns(patience(now, busy_at));
            now = pl_now_ns();
        }
    }
}

static void say_result(const struct run *r, int code, double seconds)
{
    struct pl_sched_counts n;
    pl_sched_count(r->sched, &n);
    pl_log(PL_LOG_INFO, "%s: %llu trials done, %llu failed, %llu left after %.1f s", r->o->results,
           (unsigned long long)n.done, (unsigned long long)n.failed, (unsigned long long)n.left,
           seconds);
    if (code == 5)
        pl_log(PL_LOG_INFO, "go on with the same command and --resume");
}

int pl_run_coordinator(const struct pl_run_opts *o, const struct pl_sweep *sweep,
                       const struct pl_plan *plan)
{
    struct run r = {.o = o, .sweep = sweep, .plan = plan};
    struct pl_err err = {""};
    const int64_t began = pl_now_ns();
    bool missing = false;
    int code;
    const enum pl_status st = begin(&r, &err);
    if (st == PL_OK) {
        loop(&r);
        code = pl_coord_exit_code(r.coord);
        missing = pl_coord_missing(r.coord);
        if (code != 2)
            say_result(&r, code, (double)(pl_now_ns() - began) / 1e9);
    } else {
        code = pl_status_exit(st);
        pl_log(PL_LOG_ERROR, "%s", err.text);
        pl_run_leave_word(o->results, code, err.text);
    }
    pl_coord_free(r.coord);
    pl_worker_free(r.worker);
    pl_writer_free(r.writer);
    pl_reader_free(r.reader);
    pl_sched_free(r.sched);
    json_decref(r.job);
    json_decref(r.provenance);
    if (r.created && code == 2) { /* refused before the first row: leave nothing */
        char path[PATH_MAX];
        unlink(o->results);
        if (snprintf(path, sizeof path, "%s.status.json", o->results) < (int)sizeof path)
            unlink(path);
    }
    pl_lock_free(r.worker_lock.lock);
    pl_lock_free(r.lock);
    pl_comm_close(r.ends[0]);
    pl_comm_close(r.ends[1]);
    if (o->comm && st != PL_OK)
        return pl_run_refuse(o, code);
    if (o->comm && missing) { /* MPI_Finalize would wait for it for ever; so might MPI_Abort */
        pl_signals_watchdog(ABORT_S, code);
        pl_comm_abort(o->comm, code);
    }
    if (o->comm)
        close_comm(o->comm, code);
    return code;
}
