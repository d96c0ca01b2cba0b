/* `paceline-runner`: picks the command and leaves the rest to it. */
#include "base/proc.h"
#include "cli/runner/cmd_exec.h"
#include "cli/runner/cmds.h"
#include "cli/runner/opts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"serve", pl_rcmd_serve, "the runner protocol on stdin and stdout, as a worker starts it"},
    {"logits", pl_rcmd_logits, "logits or hidden states of a prompt, as .npy"},
    {"generate", pl_rcmd_generate, "greedy continuation of a prompt, with times"},
    {"tokenize", pl_rcmd_tokenize, "text to ids and back, line by line"},
    {"pixels", pl_rcmd_pixels, "what a model's image tower is given, as .npy"},
    {"bench", pl_rcmd_bench, "prompt and generation speed, beside the machine's limits"},
    {"inspect", pl_rcmd_inspect,
     "what a model or a checkpoint holds; --build: what this build has"},
    {"check", pl_rcmd_check, "memory that models need and what can be done with them"},
    {"exec", pl_exec_main, "the trampoline that runners start through"},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int usage(FILE *to)
{
    fprintf(to, "usage: paceline-runner COMMAND …\n\ncommands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\n`paceline-runner COMMAND --help` shows its options; --version the version.\n");
    return to == stdout ? pl_rcmd_done("help", 0) : 2;
}

static int unknown(const char *name)
{
    const char *names[N_COMMANDS + 1], *near;

    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    names[N_COMMANDS] = NULL;
    near = pl_rnearest(name, names);
    if (near)
        fprintf(stderr, "paceline-runner: unknown command \"%s\", did you mean %s?\n", name, near);
    else
        fprintf(stderr, "paceline-runner: unknown command \"%s\"; --help lists them\n", name);
    return 2;
}

int pl_rcmd_fail(const char *command, enum pl_status st, const struct pl_err *err)
{
    fprintf(stderr, "paceline-runner %s: %s\n", command,
            err->text[0] ? err->text : pl_status_text(st));
    return pl_status_exit(st);
}

int pl_rcmd_done(const char *command, int code)
{
    if (fflush(stdout) != 0 && code == 0) {
        fprintf(stderr, "paceline-runner %s: could not write to stdout: %s\n", command,
                strerror(errno));
        return 6;
    }
    return code;
}

int pl_rcmd_run(const struct pl_rcommand *c, int argc, char **argv,
                enum pl_status (*run)(void *arg, const char *path, struct pl_err *err), void *arg)
{
    struct pl_err err = {""};
    const char *path = NULL;
    enum pl_status st;
    size_t n;
    int code = pl_ropts_parse(c, argc, argv, &path, &n);

    if (code >= 0)
        return code;
    st = run(arg, path, &err);
    return st ? pl_rcmd_fail(argv[0], st, &err) : pl_rcmd_done(argv[0], 0);
}

int main(int argc, char **argv)
{
    pl_standard_fds();
    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        printf("paceline-runner %s\n", PL_VERSION);
        return pl_rcmd_done("--version", 0);
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, argv[1]) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return unknown(argv[1]);
}
