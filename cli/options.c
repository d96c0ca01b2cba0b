#include "cli/options.h"

#include "orchestrator/sweep_suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *value_name(const struct pl_opt *o)
{
    return o->arg ? o->arg : "VALUE";
}

/* Characters of a UTF-8 string, which printf's widths do not count; at most 26. */
static int columns(const char *s)
{
    int n = 0;
    for (; *s && n < 26; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void print_help(const char *usage, const struct pl_opt *opts, size_t n)
{
    printf("usage: paceline %s\n", usage);
    if (n)
        printf("\noptions:\n");
    for (size_t i = 0; i < n; i++) {
        char head[80], letter[8] = "";
        const struct pl_opt *o = &opts[i];
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(head, sizeof head, "%s--%s%s%s", letter, o->name,
                 o->kind == PL_OPT_FLAG ? "" : " ", o->kind == PL_OPT_FLAG ? "" : value_name(o));
        printf("  %s%*s %s\n", head, 26 - columns(head), "", o->help);
    }
    printf("  %-26s %s\n", "-h, --help", "this text");
}

static const struct pl_opt *find_long(const struct pl_opt *opts, size_t n, const char *name,
                                      size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(opts[i].name) == len && memcmp(opts[i].name, name, len) == 0)
            return &opts[i];
    return NULL;
}

static const struct pl_opt *find_letter(const struct pl_opt *opts, size_t n, char c)
{
    for (size_t i = 0; i < n; i++)
        if (opts[i].letter && opts[i].letter == c)
            return &opts[i];
    return NULL;
}

static int unknown(const char *cmd, const struct pl_opt *opts, size_t n, const char *text,
                   size_t len)
{
    char word[65];
    struct pl_suggest s;
    if (len > 64)
        len = 64;
    memcpy(word, text, len);
    word[len] = '\0';
    pl_suggest_init(&s, word);
    for (size_t i = 0; i < n; i++)
        pl_suggest_offer(&s, opts[i].name);
    pl_suggest_offer(&s, "help");
    fprintf(stderr, "paceline %s: unknown option --%s", cmd, word);
    if (s.best)
        fprintf(stderr, ", did you mean --%s?\n", s.best);
    else
        fprintf(stderr, "; `paceline %s --help` lists them\n", cmd);
    return 2;
}

static int store(const char *cmd, const struct pl_opt *o, const char *value)
{
    char *end = NULL;
    errno = 0;
    switch (o->kind) {
    case PL_OPT_FLAG:
        *(bool *)o->out = true;
        return -1;
    case PL_OPT_STR:
        *(const char **)o->out = value;
        return -1;
    case PL_OPT_I64: {
        long long v = strtoll(value, &end, 10);
        if (errno || end == value || *end) {
            fprintf(stderr, "paceline %s: --%s: \"%s\" is not a whole number\n", cmd, o->name,
                    value);
            return 2;
        }
        *(int64_t *)o->out = v;
        return -1;
    }
    case PL_OPT_F64: {
        double v = strtod(value, &end);
        if (errno || end == value || *end) {
            fprintf(stderr, "paceline %s: --%s: \"%s\" is not a number\n", cmd, o->name, value);
            return 2;
        }
        *(double *)o->out = v;
        return -1;
    }
    case PL_OPT_LIST: {
        struct pl_opt_list *l = o->out;
        if (l->n == PL_OPT_LIST_MAX) {
            fprintf(stderr, "paceline %s: --%s given more than %d times\n", cmd, o->name,
                    PL_OPT_LIST_MAX);
            return 2;
        }
        l->items[l->n++] = value;
        return -1;
    }
    }
    return 2;
}

/* One option at argv[*i] (moves *i past its value). −1: go on. */
static int one_option(const struct pl_opt *opts, size_t n, int argc, char **argv, int *i)
{
    const char *a = argv[*i], *value = NULL, *cmd = argv[0];
    const struct pl_opt *o;
    if (a[1] == '-') {
        const char *name = a + 2, *eq = strchr(name, '=');
        size_t len = eq ? (size_t)(eq - name) : strlen(name);
        o = find_long(opts, n, name, len);
        if (!o)
            return unknown(cmd, opts, n, name, len);
        value = eq ? eq + 1 : NULL;
        if (eq && o->kind == PL_OPT_FLAG) {
            fprintf(stderr, "paceline %s: --%s takes no value\n", cmd, o->name);
            return 2;
        }
    } else {
        o = find_letter(opts, n, a[1]);
        if (!o || (o->kind == PL_OPT_FLAG && a[2])) {
            fprintf(stderr, "paceline %s: unknown option %s; `paceline %s --help` lists them\n",
                    cmd, a, cmd);
            return 2;
        }
        value = a[2] ? a + 2 : NULL;
    }
    if (o->kind != PL_OPT_FLAG && !value) {
        if (*i + 1 >= argc) {
            fprintf(stderr, "paceline %s: --%s needs a value: %s\n", cmd, o->name, value_name(o));
            return 2;
        }
        value = argv[++*i];
    }
    return store(cmd, o, value);
}

int pl_opts_parse(const char *usage, const struct pl_opt *opts, size_t n_opts, int argc,
                  char **argv, const char **args, size_t min_args, size_t max_args, size_t *n_args)
{
    bool only_args = false;
    size_t n = 0;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (only_args || a[0] != '-' || a[1] == '\0') {
            if (n == max_args) {
                fprintf(stderr, "paceline %s: unexpected argument \"%s\"; usage: paceline %s\n",
                        argv[0], a, usage);
                return 2;
            }
            args[n++] = a;
        } else if (strcmp(a, "--") == 0) {
            only_args = true;
        } else if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            print_help(usage, opts, n_opts);
            return pl_cli_done(0);
        } else {
            int rc = one_option(opts, n_opts, argc, argv, &i);
            if (rc >= 0)
                return rc;
        }
    }
    if (n < min_args) {
        fprintf(stderr, "paceline %s: an argument is missing; usage: paceline %s\n", argv[0],
                usage);
        return 2;
    }
    if (n_args)
        *n_args = n;
    return -1;
}

void pl_cli_problems(const struct pl_problems *p, const char *level)
{
    for (size_t i = 0; i < p->n; i++)
        fprintf(stderr, "%s%s%s\n", level ? level : "", level ? ": " : "", p->items[i]);
}

int pl_cli_fail(enum pl_status st, const struct pl_err *err)
{
    fprintf(stderr, "paceline: %s\n", err && err->text[0] ? err->text : pl_status_text(st));
    return pl_status_exit(st);
}

int pl_cli_done(int code)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0) {
        fprintf(stderr, "paceline: could not write to stdout: %s\n", strerror(errno));
        return 6;
    }
    return code;
}

int pl_cli_load_sweep(const char *path, struct pl_cli_select *sel, struct pl_sweep **out)
{
    struct pl_problems problems = {0};
    struct pl_err err = {""};
    enum pl_status st;
    sel->sel.set = sel->set.items;
    sel->sel.n_set = sel->set.n;
    st = pl_sweep_load(path, &sel->sel, out, &problems, &err);
    pl_cli_problems(&problems, st == PL_OK ? "note" : NULL);
    pl_problems_release(&problems);
    return st == PL_OK ? -1 : pl_cli_fail(st, &err);
}
