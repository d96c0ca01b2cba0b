/*
 * The commands of `paceline`: one file a command, cmd_NAME.c. argv[0] is the command's name,
 * argv[argc] is NULL. Each parses its own options (cli/options.h), prints data on stdout and
 * messages on stderr, and returns the exit code of CONTRACTS §4.
 */
#ifndef PL_CLI_COMMANDS_H
#define PL_CLI_COMMANDS_H

int pl_cmd_validate(int argc, char **argv);
int pl_cmd_plan(int argc, char **argv);
int pl_cmd_run(int argc, char **argv);
int pl_cmd_status(int argc, char **argv);
int pl_cmd_report(int argc, char **argv);
int pl_cmd_verify(int argc, char **argv);
int pl_cmd_inspect(int argc, char **argv);

#endif
