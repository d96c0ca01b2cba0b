/*
 * Options of a command, as a table: parsing, --help and did-you-mean come from the same rows. Long
 * options take their value as
 * `--name VALUE` or `--name=VALUE`; options and arguments may be mixed; `--` ends the options.
 */
#ifndef PL_CLI_OPTIONS_H
#define PL_CLI_OPTIONS_H

#include "orchestrator/sweep.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pl_opt_kind {
    PL_OPT_FLAG, /* bool: set to true */
    PL_OPT_STR,  /* const char *: borrowed from argv */
    PL_OPT_I64,  /* int64_t */
    PL_OPT_F64,  /* double */
    PL_OPT_LIST  /* struct pl_opt_list: may be given again and again */
};

#define PL_OPT_LIST_MAX 64
struct pl_opt_list {
    const char *items[PL_OPT_LIST_MAX];
    size_t n;
};

struct pl_opt {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    enum pl_opt_kind kind;
    void *out;       /* of the kind's type; untouched when the option is absent */
    const char *arg; /* the value's name in --help; NULL for flags */
    const char *help;
};

/* `usage` is the line after "usage: paceline ". Up to max_args arguments that are not options go to
 * args (borrowed); fewer than min_args is an error. Returns −1 to go on, else the exit code: 0
 * after --help (printed on stdout), 2 after a mistake (printed on stderr, one line, with
 * did-you-mean). */
int pl_opts_parse(const char *usage, const struct pl_opt *opts, size_t n_opts, int argc,
                  char **argv, const char **args, size_t min_args, size_t max_args, size_t *n_args);

/* Run-time selection: what validate, plan, run and simulate share. Put PL_SELECT_OPTS(p) among the
 * rows of the option table, then load the sweep with pl_cli_load_sweep. */
struct pl_cli_select {
    struct pl_select sel;
    struct pl_opt_list set;
};
#define PL_SELECT_OPTS(p)                                                                          \
    {"arms", 0, PL_OPT_STR, &(p)->sel.arms, "A,B", "only these arms"},                             \
        {"contexts", 0, PL_OPT_STR, &(p)->sel.contexts, "N,…", "these context lengths"},           \
        {"samples", 0, PL_OPT_STR, &(p)->sel.samples, "N|all", "this many samples"},               \
    {                                                                                              \
        "set", 0, PL_OPT_LIST, &(p)->set, "key=value",                                             \
            "override a key of the sweep, e.g. "                                                   \
            "grid.repeats=5"                                                                       \
    }

/* Reads and checks the sweep; all mistakes and notes go to stderr. Returns −1 with *out set, else
 * the exit code. */
int pl_cli_load_sweep(const char *path, struct pl_cli_select *sel, struct pl_sweep **out);
/* Prints every line on stderr, "level: " before it when level is not NULL. */
void pl_cli_problems(const struct pl_problems *p, const char *level);
/* Prints "paceline: <text>" on stderr and returns the status's exit code. */
int pl_cli_fail(enum pl_status st, const struct pl_err *err);
/* Flushes stdout; a full disk or closed pipe turns `code` 0 into 6, with a message. */
int pl_cli_done(int code);

#endif
