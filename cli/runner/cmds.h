/*
 * The commands of `paceline-runner`: one file a command, cmd_NAME.c. argv[0] is the command's name.
 * Data goes to stdout, messages to stderr, one line each; the value is the exit code of
 * CONTRACTS §4 (2: usage or bad input, 6: environment).
 */
#ifndef PL_CLI_RUNNER_CMDS_H
#define PL_CLI_RUNNER_CMDS_H

#include "base/status.h"
#include "cli/runner/opts.h"

int pl_rcmd_serve(int argc, char **argv);
int pl_rcmd_logits(int argc, char **argv);
int pl_rcmd_pixels(int argc, char **argv);
int pl_rcmd_generate(int argc, char **argv);
int pl_rcmd_tokenize(int argc, char **argv);
int pl_rcmd_bench(int argc, char **argv);
int pl_rcmd_inspect(int argc, char **argv);
int pl_rcmd_check(int argc, char **argv);

/* A command of one argument, as most are: parses, runs, flushes; the exit code. arg: what the
 * options were read into. */
int pl_rcmd_run(const struct pl_rcommand *c, int argc, char **argv,
                enum pl_status (*run)(void *arg, const char *path, struct pl_err *err), void *arg);
/* Prints "paceline-runner COMMAND: text" and returns the status's exit code. */
int pl_rcmd_fail(const char *command, enum pl_status st, const struct pl_err *err);
/* Flushes stdout; what could not be written (a full disk) turns `code` 0 into 6, with a message. */
int pl_rcmd_done(const char *command, int code);

#endif
