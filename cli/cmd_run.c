/* `paceline run SWEEP -o FILE`: alone, or as a rank of mpirun or srun. */
#include "base/log.h"
#include "cli/commands.h"
#include "cli/prepare.h"
#include "orchestrator/coord_run.h"
#include "orchestrator/job.h"
#include "orchestrator/signals.h"
#include "worker/rank/runner.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NO_LIMIT INT64_MIN /* --max-fails was not given */

struct options {
    struct pl_cli_select sel;
    const char *sweep, *output;
    bool resume, rerun_failed, dry_run, allow_exec, log_json;
    int64_t retries, max_fails;
    double lease_s;
};

static int parse(int argc, char **argv, struct options *o)
{
    const struct pl_opt opts[] = {
        {"output", 'o', PL_OPT_STR, &o->output, "FILE", "the results file (HDF5)"},
        {"resume", 0, PL_OPT_FLAG, &o->resume, NULL,
         "go on with FILE; start anew when it is not there"},
        {"rerun-failed", 0, PL_OPT_FLAG, &o->rerun_failed, NULL,
         "with --resume: try failed trials again, too"},
        {"retries", 0, PL_OPT_I64, &o->retries, "N", "tries after a failed one (default 1)"},
        {"max-fails", 0, PL_OPT_I64, &o->max_fails, "N", "stop when more than N trials failed"},
        {"dry-run", 0, PL_OPT_FLAG, &o->dry_run, NULL, "print the plan and stop"},
        {"allow-exec", 0, PL_OPT_FLAG, &o->allow_exec, NULL, "foreign engines may be started"},
        {"log-json", 0, PL_OPT_FLAG, &o->log_json, NULL, "messages on stderr as JSON lines"},
        {"lease", 0, PL_OPT_F64, &o->lease_s, "S",
         "a worker silent for 1.5 S loses its trials (default 30)"},
        PL_SELECT_OPTS(&o->sel),
    };
    const int code = pl_opts_parse("run SWEEP -o FILE [options]", opts,
                                   sizeof opts / sizeof opts[0], argc, argv, &o->sweep, 1, 1, NULL);
    if (code >= 0)
        return code;
    const char *wrong = NULL;
    struct stat sb;
    if (!o->output && !o->dry_run)
        wrong = "-o FILE is missing: where do the results go?";
    else if (o->retries < 0 || o->retries > 100)
        wrong = "--retries: expected 0 to 100";
    else if (o->max_fails < 0 && o->max_fails != NO_LIMIT)
        wrong = "--max-fails: expected 0 or more";
    else if (!(o->lease_s >= 0 && o->lease_s <= 1e6))
        wrong = "--lease: expected seconds, 0 to 1000000";
    else if (o->rerun_failed && !o->resume)
        wrong = "--rerun-failed needs --resume";
    else if (stat(o->sweep, &sb) == 0 && S_ISFIFO(sb.st_mode))
        wrong = "the sweep is a pipe, expected a file: every rank reads it, and so does --resume";
    if (wrong)
        fprintf(stderr, "paceline run: %s\n", wrong);
    return wrong ? 2 : -1;
}

static int dry_run(struct options *o)
{
    struct pl_cli_prepared p = {0};
    const int code = pl_cli_prepare(o->sweep, &o->sel, o->allow_exec, 1, &p);
    if (code >= 0)
        return code;
    pl_cli_problems(&p.warnings, "warning");
    pl_cli_plan_print(&p, 1);
    pl_cli_prepared_release(&p);
    return pl_cli_done(0);
}

static int coordinate(struct options *o, struct pl_run_opts *run)
{
    struct pl_cli_prepared p = {0};
    struct pl_err err = {""};
    char results[PATH_MAX];
    const uint32_t workers = run->comm ? (uint32_t)run->comm->size - 1 : 1;
    enum pl_status st = pl_run_check_output(o->output, o->resume, results, sizeof results, &err);
    if (st != PL_OK)
        return pl_run_refuse(run, pl_cli_fail(st, &err));
    int code = pl_cli_prepare(o->sweep, &o->sel, o->allow_exec, workers, &p);
    if (code >= 0) {
        pl_run_leave_word(results, code, "the sweep cannot be run");
        return pl_run_refuse(run, code);
    }
    pl_cli_problems(&p.warnings, "warning");
    run->results = results;
    code = pl_run_coordinator(run, p.sweep, p.plan);
    pl_cli_prepared_release(&p);
    return code;
}

int pl_cmd_run(int argc, char **argv)
{
    struct options o = {.retries = 1, .max_fails = NO_LIMIT};
    struct pl_run_opts run = {0};
    struct pl_err err = {""};
    char program[PATH_MAX] = "", sha[PL_SHA256_HEX] = "", who[32] = "";
    enum pl_status st = PL_OK;
    run.by_mpirun = pl_comm_mpi_by_mpirun();
    pl_signals_install();
    /* mistakes in the command line are the same on every rank: one says them, all go */
    int code = parse(argc, argv, &o);
    if (code >= 0)
        return code;
    if (pl_comm_mpi_launched() && !o.dry_run)
        st = pl_comm_mpi_open(&run.comm, &err);
    if (st != PL_OK)
        return pl_cli_fail(st, &err);
    struct pl_comm *alone = NULL; /* a world of one: one process does both, as without a launcher */
    if (run.comm && run.comm->size == 1) {
        alone = run.comm;
        run.comm = NULL;
    }
    if (run.comm)
        snprintf(who, sizeof who, "rank %d", run.comm->rank);
    pl_log_setup(PL_LOG_INFO, who, o.log_json);
    if (o.dry_run)
        return dry_run(&o);
    o.sel.sel.set = o.sel.set.items;
    o.sel.sel.n_set = o.sel.set.n;
    if (pl_job_sweep_sha(o.sweep, &o.sel.sel, sha, &err) != PL_OK)
        run.sweep_error = err.text;
    struct pl_err no_runner = {""};
    st = pl_runner_find(program, sizeof program, &no_runner);
    if (st != PL_OK && !run.sweep_error)
        run.sweep_error = no_runner.text;
    run.program = program;
    run.sweep_sha = sha;
    run.resume = o.resume;
    run.rerun_failed = o.rerun_failed;
    run.log_json = o.log_json;
    run.retries = (uint32_t)o.retries;
    run.max_fails = o.max_fails == NO_LIMIT ? -1 : o.max_fails;
    run.lease_s = o.lease_s;
    code = run.comm && run.comm->rank > 0 ? pl_run_worker(&run) : coordinate(&o, &run);
    if (alone)
        pl_comm_close(alone);
    return code;
}
