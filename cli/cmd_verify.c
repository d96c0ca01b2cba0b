/* `paceline verify FILE`: checks every row of a results file; exit code 1 when something is wrong.
 */
#include "cli/commands.h"
#include "cli/options.h"
#include "results/reader.h"

#include <inttypes.h>
#include <stdio.h>

#define PROBLEMS_SHOWN 100

struct tally {
    bool json;
    uint64_t problems;
    json_t *list;
};

static void problem(void *ctx, const char *text)
{
    struct tally *t = ctx;
    t->problems++;
    if (t->problems > PROBLEMS_SHOWN)
        return;
    if (t->json)
        json_array_append_new(t->list, json_string(text));
    else
        printf("%s\n", text);
}

static void print(const struct tally *t, const struct pl_verify_counts *c)
{
    if (t->json) {
        json_t *j = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:O}", "rows", (json_int_t)c->rows,
                              "done", (json_int_t)c->done, "failed", (json_int_t)c->failed, "empty",
                              (json_int_t)c->empty, "torn", (json_int_t)c->torn, "broken_identity",
                              (json_int_t)c->broken_identity, "bad_log", (json_int_t)c->bad_log,
                              "problem_count", (json_int_t)t->problems, "problems", t->list);
        if (j)
            json_dumpf(j, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(j);
        return;
    }
    if (t->problems > PROBLEMS_SHOWN)
        printf("… and %" PRIu64 " more\n", t->problems - PROBLEMS_SHOWN);
    printf("rows %" PRIu64 ": done %" PRIu64 ", failed %" PRIu64 ", empty %" PRIu64
           ", torn %" PRIu64 ", broken identities %" PRIu64 ", bad log records %" PRIu64 "\n%s\n",
           c->rows, c->done, c->failed, c->empty, c->torn, c->broken_identity, c->bad_log,
           t->problems ? "problems found" : "ok");
}

int pl_cmd_verify(int argc, char **argv)
{
    struct tally t = {0};
    struct pl_verify_counts c = {0};
    struct pl_reader *r = NULL;
    struct pl_err err = {""};
    const char *path = NULL;
    enum pl_status st;
    const struct pl_opt opts[] = {
        {"json", 0, PL_OPT_FLAG, &t.json, NULL, "one JSON object"},
    };
    int code = pl_opts_parse("verify FILE [--json]", opts, 1, argc, argv, &path, 1, 1, NULL);
    if (code >= 0)
        return code;
    t.list = json_array();
    st = pl_reader_open(path, &r, &err);
    if (st == PL_OK)
        st = pl_reader_verify(r, problem, &t, &c, &err);
    if (st == PL_OK) {
        print(&t, &c);
        code = pl_cli_done(t.problems || c.torn || c.broken_identity || c.bad_log ? 1 : 0);
    } else {
        code = pl_cli_fail(st, &err);
    }
    pl_reader_free(r);
    json_decref(t.list);
    return code;
}
