/* `paceline`: picks the command and leaves the rest to it. */
#include "base/proc.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "orchestrator/sweep_suggest.h"

#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"validate", pl_cmd_validate, "check a sweep file: every mistake with its place"},
    {"plan", pl_cmd_plan, "trials, blocks, loads, memory and time of a sweep"},
    {"run", pl_cmd_run, "run a sweep into a results file"},
    {"status", pl_cmd_status, "how far a run is"},
    {"report", pl_cmd_report, "tables, figures and one HTML page of a results file"},
    {"verify", pl_cmd_verify, "check every row of a results file"},
    {"inspect", pl_cmd_inspect, "what a model holds; --build: what this build has"},
};
static const size_t n_commands = sizeof commands / sizeof commands[0];

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < n_commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int usage(FILE *to)
{
    fprintf(to, "usage: paceline COMMAND …\n\ncommands:\n");
    for (size_t i = 0; i < n_commands; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\n`paceline help COMMAND` shows its options; `paceline --version` the version.\n");
    return to == stdout ? pl_cli_done(0) : 2;
}

static int unknown(const char *name)
{
    struct pl_suggest s;
    pl_suggest_init(&s, name);
    pl_suggest_offer(&s, "help");
    for (size_t i = 0; i < n_commands; i++)
        pl_suggest_offer(&s, commands[i].name);
    fprintf(stderr, "paceline: unknown command \"%s\"", name);
    if (s.best)
        fprintf(stderr, ", did you mean %s?\n", s.best);
    else
        fprintf(stderr, "; `paceline --help` lists them\n");
    return 2;
}

int main(int argc, char **argv)
{
    const struct command *c;
    pl_standard_fds();
    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        printf("paceline %s\n", PL_VERSION);
        return pl_cli_done(0);
    }
    if (strcmp(argv[1], "help") == 0) {
        char help[] = "--help";
        if (argc == 2)
            return usage(stdout);
        c = find(argv[2]);
        return c ? c->run(2, (char *[]){argv[2], help, NULL}) : unknown(argv[2]);
    }
    c = find(argv[1]);
    return c ? c->run(argc - 1, argv + 1) : unknown(argv[1]);
}
