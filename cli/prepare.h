/* From a sweep file to its plan: what validate and plan (and run's --dry-run) do before they print.
 */
#ifndef PL_CLI_PREPARE_H
#define PL_CLI_PREPARE_H

#include "cli/options.h"
#include "orchestrator/plan.h"

struct pl_cli_prepared {
    struct pl_sweep *sweep;   /* samples opened */
    struct pl_arm_info *arms; /* [sweep->n_arms] */
    struct pl_plan *plan;
    struct pl_problems warnings;
};

/* Reads the sweep, opens its samples, asks runners about its arms and plans. Mistakes go to stderr,
 * all that one step finds in one go. Returns −1 with *out filled, else the exit code (nothing to
 * release then). */
int pl_cli_prepare(const char *path, struct pl_cli_select *sel, bool allow_exec, uint32_t workers,
                   struct pl_cli_prepared *out);
void pl_cli_prepared_release(struct pl_cli_prepared *p);
/* {trials, blocks, loads, estimate_s, bytes: [{model, weights, kv, fits}], …} of CONTRACTS §4. New
 * reference, NULL: no memory. */
json_t *pl_cli_plan_json(const struct pl_cli_prepared *p, uint32_t workers);
/* The same as text on stdout. */
void pl_cli_plan_print(const struct pl_cli_prepared *p, uint32_t workers);

#endif
