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
    json_t *arms = json_array();
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
    return json_pack("{s:O,s:o,s:o,s:I,s:I,s:s,s:i,s:I}", "sweep", s->resolved, "shape", shape,
                     "arms", arms, "groups", (json_int_t)p->n_groups, "run_samples",
                     (json_int_t)p->run_samples, "results", results, "session", (int)session,
                     "retries", (json_int_t)retries);
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

/* ---- provenance ---- */

static void cpu_model(char *out, size_t size)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(out, size, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            snprintf(out, size, "%s", colon + 2);
            out[strcspn(out, "\n")] = '\0';
            break;
        }
    }
    if (f)
        fclose(f);
}

/* The scheduler's variables that say where and how a job ran; not the ones that may hold secrets or
 * paths of others. */
static json_t *slurm(void)
{
    static const char *const names[] = {
        "SLURM_JOB_ID",       "SLURM_JOB_NAME",      "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES",
        "SLURM_NTASKS",       "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE", "SLURM_JOB_PARTITION",
        "SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"};
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (getenv(names[i]))
            json_object_set_new(o, names[i], json_string(getenv(names[i])));
    return o;
}

json_t *pl_job_provenance(const char *mpi, unsigned ranks)
{
    struct utsname u;
    char host[256] = "", cpu[256];
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    if (uname(&u) != 0)
        memset(&u, 0, sizeof u);
    cpu_model(cpu, sizeof cpu);
    json_t *o =
        json_pack("{s:s,s:s,s:s,s:i,s:s,s:s,s:i,s:I}", "paceline", PL_VERSION, "host", host, "cpu",
                  cpu, "cpus", (int)sysconf(_SC_NPROCESSORS_CONF), "kernel", u.release, "mpi", mpi,
                  "ranks", (int)ranks, "created_unix_ns", (json_int_t)pl_wall_ns());
#ifdef PL_COMMIT
    json_object_set_new(o, "commit", json_string(PL_COMMIT));
#endif
    json_object_set_new(o, "slurm", slurm());
    return o;
}
