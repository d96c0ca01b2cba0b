#include "orchestrator/job.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

extern char **environ;

#define SWEEP_MAX (64u << 20)

json_t *pl_job_make(const struct pl_sweep *s, const struct pl_plan *p, const char *results,
                    uint16_t session, uint32_t retries)
{
    const struct pl_shape *h = &p->shape;
    char digest[PL_SAMPLES_DIGEST];
    json_t *arms = json_array();
    pl_samples_digest(s->list, digest);
    for (uint32_t a = 0; a < h->arms; a++)
        json_array_append_new(arms, json_pack("{s:I,s:I,s:b}", "group", (json_int_t)p->group_of[a],
                                              "residence", (json_int_t)p->residence_of[a], "sim",
                                              p->arms[a].sim));
    json_t *shape = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "arms",
                              (json_int_t)h->arms, "contexts", (json_int_t)h->contexts, "samples",
                              (json_int_t)h->samples, "repeats", (json_int_t)h->repeats, "batch",
                              (json_int_t)h->batch, "tokens", (json_int_t)h->tokens, "models",
                              (json_int_t)h->models, "layers", (json_int_t)h->layers, "rounds",
                              (json_int_t)h->rounds, "metrics", (json_int_t)h->metrics);
    int64_t longest = 0; /* prompt; of fixed contexts the worker knows it */
    for (uint32_t a = 0; a < h->arms; a++)
        longest = p->arms[a].prompt > longest ? p->arms[a].prompt : longest;
    return json_pack("{s:O,s:o,s:o,s:I,s:I,s:s,s:i,s:I,s:I,s:s}", "sweep", s->resolved, "shape",
                     shape, "arms", arms, "groups", (json_int_t)p->n_groups, "run_samples",
                     (json_int_t)p->run_samples, "results", results, "session", (int)session,
                     "retries", (json_int_t)retries, "longest_prompt", (json_int_t)longest,
                     "samples", digest);
}

static enum pl_status add_choice(struct pl_buf *b, const char *key, const char *value,
                                 struct pl_err *err)
{
    return pl_buf_addf(b, err, "%c%s=%s", '\0', key, value ? value : "");
}

enum pl_status pl_job_sweep_sha(const char *path, const struct pl_select *sel,
                                char out[PL_SHA256_HEX], struct pl_err *err)
{
    struct pl_buf b;
    pl_buf_init(&b, SWEEP_MAX);
    enum pl_status st = pl_read_file(path, SWEEP_MAX, &b, err);
    if (st == PL_OK)
        st = add_choice(&b, "arms", sel->arms, err);
    if (st == PL_OK)
        st = add_choice(&b, "contexts", sel->contexts, err);
    if (st == PL_OK)
        st = add_choice(&b, "samples", sel->samples, err);
    for (size_t i = 0; st == PL_OK && i < sel->n_set; i++)
        st = add_choice(&b, "set", sel->set[i], err);
    if (st == PL_OK)
        pl_sha256_hex(b.data, b.len, out);
    pl_buf_release(&b);
    return st;
}
