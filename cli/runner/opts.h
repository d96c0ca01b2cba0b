/*
 * Options of a command as a table: parsing, --help and did-you-mean come from the same rows. Values
 * come as `--name VALUE`, `--name=VALUE`, `-n VALUE` or `-nVALUE`; options and arguments may be
 * mixed; `--` ends the options.
 */
#ifndef PL_CLI_RUNNER_OPTS_H
#define PL_CLI_RUNNER_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pl_ropt_kind {
    PL_ROPT_FLAG, /* bool: set to true */
    PL_ROPT_STR,  /* const char *: borrowed from argv */
    PL_ROPT_INT   /* int64_t */
};

struct pl_ropt {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    enum pl_ropt_kind kind;
    void *out;         /* untouched when the option is absent */
    const char *value; /* the value's name in --help; NULL for flags */
    const char *help;
    int64_t low, high; /* of a PL_ROPT_INT; both 0: any */
};

struct pl_rcommand {
    const char *usage; /* after "usage: paceline-runner " */
    const char *about; /* one sentence for --help */
    const struct pl_ropt *opts;
    size_t n_opts;
    size_t min_args, max_args;
};

/* argv[0] is the command's name. Fills args[max_args] (borrowed) and *n_args. −1: go on; else the
 * exit code: 0 after --help (on stdout), 2 after a mistake (one line on stderr). */
int pl_ropts_parse(const struct pl_rcommand *c, int argc, char **argv, const char **args,
                   size_t *n_args);

/* The name nearest to `word` by edits, NULL when none is near. names: NULL-terminated. */
const char *pl_rnearest(const char *word, const char *const *names);

#endif
