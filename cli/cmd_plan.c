/* `paceline plan SWEEP`: what a sweep comes to, before it runs. */
#include "cli/commands.h"
#include "cli/prepare.h"

#include <stdio.h>

int pl_cmd_plan(int argc, char **argv)
{
    struct pl_cli_select sel = {0};
    struct pl_cli_prepared p = {0};
    bool json = false, allow_exec = false;
    int64_t workers = 1;
    const char *path = NULL;
    const struct pl_opt opts[] = {
        PL_SELECT_OPTS(&sel),
        {"workers", 'n', PL_OPT_I64, &workers, "N", "plan for N workers (default 1)"},
        {"allow-exec", 0, PL_OPT_FLAG, &allow_exec, NULL, "start foreign engines to ask them"},
        {"json", 0, PL_OPT_FLAG, &json, NULL, "one JSON object"},
    };
    int code = pl_opts_parse("plan SWEEP [--json] [--workers N] [options]", opts,
                             sizeof opts / sizeof opts[0], argc, argv, &path, 1, 1, NULL);
    if (code >= 0)
        return code;
    if (workers < 1 || workers > 1000000) {
        fprintf(stderr, "paceline plan: --workers %lld, expected 1 to 1000000\n",
                (long long)workers);
        return 2;
    }
    code = pl_cli_prepare(path, &sel, allow_exec, (uint32_t)workers, &p);
    if (code >= 0)
        return code;
    pl_cli_problems(&p.warnings, "warning");
    if (json) {
        json_t *j = pl_cli_plan_json(&p, (uint32_t)workers);
        if (j)
            json_dumpf(j, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(j);
    } else {
        pl_cli_plan_print(&p, (uint32_t)workers);
    }
    pl_cli_prepared_release(&p);
    return pl_cli_done(0);
}
