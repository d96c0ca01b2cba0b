#include "cli/runner/opts.h"

#include "cli/runner/cmds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 64

/* Edits (insert, delete, replace) from a to b; words longer than WORD_MAX are far from everything.
 */
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1], na = strlen(a), nb = strlen(b);

    if (na > WORD_MAX || nb > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[nb];
}

const char *pl_rnearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    size_t least = strlen(word) / 3 + 2;

    for (; *names; names++) {
        size_t d = distance(word, *names);
        if (d < least && d < strlen(*names)) {
            least = d;
            best = *names;
        }
    }
    return best;
}

/* Blanks that fill s up to column 26: printf's widths count the bytes of "N,…". */
static int blanks(const char *s)
{
    int n = 26;
    for (; *s && n > 0; s++)
        n -= ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void help(const struct pl_rcommand *c)
{
    printf("usage: paceline-runner %s\n\n%s\n\noptions:\n", c->usage, c->about);
    for (size_t i = 0; i < c->n_opts; i++) {
        const struct pl_ropt *o = &c->opts[i];
        char head[64], letter[8] = "";
        if (o->letter)
            snprintf(letter, sizeof(letter), "-%c, ", o->letter);
        snprintf(head, sizeof(head), "%s--%s%s%s", letter, o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %s%*s %s\n", head, blanks(head), "", o->help);
    }
    printf("  %-26s %s\n", "-h, --help", "this text");
}

static int unknown(const struct pl_rcommand *c, const char *cmd, const char *word)
{
    const char *names[66], *near;
    size_t n = 0;

    for (size_t i = 0; i < c->n_opts && n < 64; i++)
        names[n++] = c->opts[i].name;
    names[n++] = "help";
    names[n] = NULL;
    near = pl_rnearest(word, names);
    if (near)
        fprintf(stderr, "paceline-runner %s: unknown option --%s, did you mean --%s?\n", cmd, word,
                near);
    else
        fprintf(stderr, "paceline-runner %s: unknown option --%s; --help lists them\n", cmd, word);
    return 2;
}

static int store(const char *cmd, const struct pl_ropt *o, const char *value)
{
    char *end = NULL;
    long long v;

    switch (o->kind) {
    case PL_ROPT_FLAG:
        *(bool *)o->out = true;
        return -1;
    case PL_ROPT_STR:
        *(const char **)o->out = value;
        return -1;
    case PL_ROPT_INT:
        break;
    }
    errno = 0;
    v = strtoll(value, &end, 10);
    if (errno || end == value || *end) {
        fprintf(stderr, "paceline-runner %s: --%s: \"%s\" is not a whole number\n", cmd, o->name,
                value);
        return 2;
    }
    if ((o->low || o->high) && (v < o->low || v > o->high)) {
        fprintf(stderr, "paceline-runner %s: --%s: %lld, expected %lld to %lld\n", cmd, o->name, v,
                (long long)o->low, (long long)o->high);
        return 2;
    }
    *(int64_t *)o->out = v;
    return -1;
}

static const struct pl_ropt *find(const struct pl_rcommand *c, const char *name, size_t len,
                                  char letter)
{
    for (size_t i = 0; i < c->n_opts; i++) {
        const struct pl_ropt *o = &c->opts[i];
        if (letter ? o->letter == letter
                   : strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    }
    return NULL;
}

/* The option at argv[*i]; *i moves past its value. −1: go on. */
static int one(const struct pl_rcommand *c, int argc, char **argv, int *i)
{
    const char *a = argv[*i], *value = NULL;
    const struct pl_ropt *o;
    char word[WORD_MAX + 1];

    if (a[1] == '-') {
        const char *eq = strchr(a, '=');
        size_t len = eq ? (size_t)(eq - a) - 2 : strlen(a) - 2;
        value = eq ? eq + 1 : NULL;
        o = find(c, a + 2, len, 0);
        snprintf(word, sizeof(word), "%.*s", (int)(len < WORD_MAX ? len : WORD_MAX), a + 2);
    } else {
        value = a[2] ? a + 2 : NULL;
        o = find(c, NULL, 0, a[1]);
        snprintf(word, sizeof(word), "%s", a + 1);
    }
    if (!o)
        return unknown(c, argv[0], word);
    if (o->kind == PL_ROPT_FLAG && value) {
        fprintf(stderr, "paceline-runner %s: --%s takes no value\n", argv[0], o->name);
        return 2;
    }
    if (o->kind != PL_ROPT_FLAG && !value) {
        if (*i + 1 >= argc) {
            fprintf(stderr, "paceline-runner %s: --%s needs a value: %s\n", argv[0], o->name,
                    o->value);
            return 2;
        }
        value = argv[++*i];
    }
    return store(argv[0], o, value);
}

int pl_ropts_parse(const struct pl_rcommand *c, int argc, char **argv, const char **args,
                   size_t *n_args)
{
    bool only_args = false;
    size_t n = 0;

    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        int code = -1;
        if (only_args || a[0] != '-' || !a[1]) {
            if (n == c->max_args) {
                fprintf(stderr, "paceline-runner %s: unexpected argument \"%s\"; usage: %s\n",
                        argv[0], a, c->usage);
                return 2;
            }
            args[n++] = a;
        } else if (strcmp(a, "--") == 0) {
            only_args = true;
        } else if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            help(c);
            return pl_rcmd_done(argv[0], 0);
        } else {
            code = one(c, argc, argv, &i);
        }
        if (code >= 0)
            return code;
    }
    if (n < c->min_args) {
        fprintf(stderr, "paceline-runner %s: an argument is missing; usage: %s\n", argv[0],
                c->usage);
        return 2;
    }
    *n_args = n;
    return -1;
}
