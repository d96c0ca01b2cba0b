/* `paceline inspect`: a path is the runner's to look into (paceline holds no model code); --build
 * says what both programs were built with. */
#include "base/clock.h"
#include "base/proc.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "results/writer.h"
#include "worker/rank/comm.h"
#include "worker/rank/runner.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUILD_WAIT_NS (30 * PL_NS_PER_S)

/* Becomes `paceline-runner inspect PATH`: its output and exit code are ours. */
static int inspect_path(const char *program, const char *path, const char *png, bool json)
{
    const char *argv[7] = {program, "inspect"};
    size_t n = 2;

    if (json)
        argv[n++] = "--json";
    if (png) {
        argv[n++] = "-o";
        argv[n++] = png;
    }
    argv[n] = path;
    execv(program, (char **)(uintptr_t)argv);
    fprintf(stderr, "paceline inspect: %s: %s\n", program, strerror(errno));
    return 6;
}

/* What `paceline-runner inspect --build --json` prints. New reference. */
static enum pl_status runner_build(const char *program, json_t **out, struct pl_err *err)
{
    const char *const argv[] = {program, "inspect", "--build", "--json", NULL};
    struct pl_child c = {0};
    int64_t end = pl_now_ns() + BUILD_WAIT_NS;
    enum pl_status st = pl_child_start(&c, argv, PL_JSON_MAX, err);
    char *line = NULL;
    size_t len = 0;
    bool too_long = false;
    if (st != PL_OK)
        return st;
    while (!line && !pl_child_eof(&c) && pl_now_ns() < end) {
        (void)pl_child_pump(&c, 100 * PL_NS_PER_MS, -1);
        line = pl_child_line(&c, &len, &too_long);
    }
    if (line)
        st = pl_json_parse("paceline-runner inspect --build", line, len, out, err);
    else
        st = pl_fail(err, PL_EPROTO, "%s inspect --build said nothing", program);
    (void)pl_child_release(&c);
    return st;
}

static void print_values(const json_t *o)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)o, key, v) {
        size_t i;
        json_t *item;
        printf("  %-14s ", key);
        if (json_is_boolean(v))
            printf("%s", json_is_true(v) ? "yes" : "no");
        else if (json_is_string(v))
            printf("%s", json_string_value(v));
        json_array_foreach (v, i, item) {
            printf("%s%s", i ? ", " : "", json_is_string(item) ? json_string_value(item) : "");
        }
        printf("\n");
    }
}

static int inspect_build(const char *program, bool json)
{
    struct pl_err err = {""};
    char mpi[256];
    json_t *runner = NULL, *both;
    enum pl_status st = runner_build(program, &runner, &err);
    if (st != PL_OK)
        return pl_cli_fail(st, &err);
    pl_comm_mpi_version(mpi, sizeof mpi);
    mpi[strcspn(mpi, ",\n")] = '\0';
    both = json_pack("{s:{s:s,s:s,s:s},s:O}", "paceline", "version", PL_VERSION, "mpi", mpi, "hdf5",
                     pl_results_hdf5_version(), "runner", runner);
    if (both && json) {
        json_dumpf(both, stdout, JSON_INDENT(2));
        printf("\n");
    } else if (both) {
        printf("paceline\n");
        print_values(json_object_get(both, "paceline"));
        printf("paceline-runner\n");
        print_values(runner);
    }
    json_decref(both);
    json_decref(runner);
    return pl_cli_done(0);
}

int pl_cmd_inspect(int argc, char **argv)
{
    char program[PATH_MAX];
    bool json = false, build = false;
    const char *path = NULL, *png = NULL;
    struct pl_err err = {""};
    enum pl_status st;
    size_t n = 0;
    const struct pl_opt opts[] = {
        {"build", 0, PL_OPT_FLAG, &build, NULL, "what this build has and what was left out"},
        {"json", 0, PL_OPT_FLAG, &json, NULL, "one JSON object"},
        {"output", 'o', PL_OPT_STR, &png, "OUT.png", "a picture of an event file or clip"},
    };
    int code = pl_opts_parse("inspect PATH [--json] [-o OUT.png] | inspect --build [--json]", opts,
                             3, argc, argv, &path, 0, 1, &n);
    if (code >= 0)
        return code;
    if (n != (build ? 0 : 1)) {
        fprintf(stderr, "paceline inspect: expected %s\n",
                build ? "no path with --build" : "a path, or --build");
        return 2;
    }
    st = pl_runner_find(program, sizeof program, &err);
    if (st != PL_OK)
        return pl_cli_fail(st, &err);
    return build ? inspect_build(program, json) : inspect_path(program, path, png, json);
}
