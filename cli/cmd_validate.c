/* `paceline validate SWEEP`: every mistake that can be found without running a trial. */
#include "cli/commands.h"
#include "cli/prepare.h"

#include <inttypes.h>
#include <stdio.h>

int pl_cmd_validate(int argc, char **argv)
{
    struct pl_cli_select sel = {0};
    struct pl_cli_prepared p = {0};
    bool allow_exec = false, resolved = false;
    const char *path = NULL;
    const struct pl_opt opts[] = {
        PL_SELECT_OPTS(&sel),
        {"allow-exec", 0, PL_OPT_FLAG, &allow_exec, NULL, "start foreign engines to ask them"},
        {"resolved", 0, PL_OPT_FLAG, &resolved, NULL, "print the resolved sweep, as JSON"},
    };
    int code = pl_opts_parse("validate SWEEP [options]", opts, sizeof opts / sizeof opts[0], argc,
                             argv, &path, 1, 1, NULL);
    if (code >= 0)
        return code;
    code = pl_cli_prepare(path, &sel, allow_exec, 1, &p);
    if (code >= 0)
        return code;
    pl_cli_problems(&p.warnings, "warning");
    if (resolved) {
        json_dumpf(p.sweep->resolved, stdout, JSON_INDENT(2));
        printf("\n");
    } else {
        const struct pl_sweep *s = p.sweep;
        printf("%s: %" PRIu32 " arm%s, %" PRIu32 " context%s, %" PRIu32 " sample%s, %" PRIu32
               " repeat%s: %" PRIu64 " trials; %zu model%s; %zu warning%s\n",
               path, s->n_arms, s->n_arms == 1 ? "" : "s", s->n_contexts,
               s->n_contexts == 1 ? "" : "s", s->samples, s->samples == 1 ? "" : "s", s->repeats,
               s->repeats == 1 ? "" : "s", pl_shape_rows(&p.plan->shape),
               json_object_size(json_object_get(s->resolved, "models")),
               json_object_size(json_object_get(s->resolved, "models")) == 1 ? "" : "s",
               p.warnings.n, p.warnings.n == 1 ? "" : "s");
        for (uint32_t i = 0; i < s->n_arms; i++)
            printf("  %s%s%s%s\n", pl_sweep_arm_name(s, i),
                   pl_sweep_baseline_of(s, i) == (int)i ? " (baseline)" : "",
                   p.arms[i].sim ? " simulated" : "",
                   p.arms[i].synthetic && !p.arms[i].sim ? " synthetic" : "");
        printf("ok\n");
    }
    pl_cli_prepared_release(&p);
    return pl_cli_done(0);
}
