#include "orchestrator/provenance.h"

#include "base/clock.h"
#include "base/hash.h"
#include "commit.h"
#include "data/scenes.h"
#include "results/writer.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

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

static json_t *of_start(const char *mpi, unsigned ranks)
{
    struct utsname u;
    char host[256] = "", cpu[256];
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    if (uname(&u) != 0)
        memset(&u, 0, sizeof u);
    cpu_model(cpu, sizeof cpu);
    return json_pack("{s:s,s:s,s:s,s:s,s:i,s:I,s:s,s:s,s:s,s:i,s:I,s:o}", "paceline", PL_VERSION,
                     "commit", PL_COMMIT, "host", host, "cpu", cpu, "cpus",
                     (int)sysconf(_SC_NPROCESSORS_CONF), "memory_bytes",
                     (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), "kernel",
                     u.release, "mpi", mpi, "hdf5", pl_results_hdf5_version(), "ranks", (int)ranks,
                     "created_unix_ns", (json_int_t)pl_wall_ns(), "slurm", slurm());
}

/* ---- contents ---- */

static int regular(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static enum pl_status add_file(struct pl_buf *list, const char *path, const char *name,
                               struct pl_err *err)
{
    char hex[PL_SHA256_HEX];
    enum pl_status st = pl_sha256_file(path, hex, err);
    return st == PL_OK ? pl_buf_addf(list, err, "%s %s\n", hex, name) : st;
}

/* A file's hash, or that of a folder's regular files: SHA-256 of the lines "hash name", as
 * sha256sum would print them in the order of the names. */
static enum pl_status hash_path(const char *path, char hex[PL_SHA256_HEX], struct pl_err *err)
{
    struct stat sb;
    struct dirent **names = NULL;
    struct pl_buf list;
    enum pl_status st = PL_OK;
    if (stat(path, &sb) != 0)
        return pl_fail_errno(err, errno, "%s", path);
    if (!S_ISDIR(sb.st_mode))
        return pl_sha256_file(path, hex, err);
    const int n = scandir(path, &names, regular, alphasort);
    if (n < 0)
        return pl_fail_errno(err, errno, "%s", path);
    pl_buf_init(&list, 1u << 26);
    for (int i = 0; i < n; i++) {
        char *file = NULL;
        if (st == PL_OK && asprintf(&file, "%s/%s", path, names[i]->d_name) < 0) {
            file = NULL;
            st = pl_fail(err, PL_ENOMEM, "%s", path);
        }
        if (st == PL_OK && stat(file, &sb) == 0 && S_ISREG(sb.st_mode))
            st = add_file(&list, file, names[i]->d_name, err);
        free(file);
        free(names[i]);
    }
    free(names);
    if (st == PL_OK)
        pl_sha256_hex(list.data ? list.data : "", list.len, hex);
    pl_buf_release(&list);
    return st;
}

enum pl_status pl_provenance(const struct pl_sweep *s, const char *mpi, unsigned ranks,
                             json_t **out, struct pl_err *err)
{
    json_t *o = of_start(mpi, ranks), *weights = json_object(), *model;
    char hex[PL_SHA256_HEX];
    const char *name, *path;
    enum pl_status st = o && weights ? PL_OK : pl_fail(err, PL_ENOMEM, "provenance");
    json_object_foreach (json_object_get(s->resolved, "models"), name, model) {
        path = pl_json_get_str(model, "path", NULL);
        if (st != PL_OK || !path)
            continue;
        st = hash_path(path, hex, err);
        if (st == PL_OK && json_object_set_new(weights, name, json_string(hex)) != 0)
            st = pl_fail(err, PL_ENOMEM, "provenance");
    }
    path = pl_json_get_str(json_object_get(s->resolved, "data"), "path", NULL);
    const struct pl_scenes *scenes = s->list ? pl_samples_scenes(s->list) : NULL;
    if (st == PL_OK && (path || scenes)) {
        st = scenes ? pl_scenes_hash(scenes, hex, err) : hash_path(path, hex, err);
        if (st == PL_OK && json_object_set_new(o, "data", json_string(hex)) != 0)
            st = pl_fail(err, PL_ENOMEM, "provenance");
    }
    if (st == PL_OK && json_object_set(o, "weights", weights) != 0)
        st = pl_fail(err, PL_ENOMEM, "provenance");
    json_decref(weights);
    if (st == PL_OK && s->work && json_object_set(o, "work", s->work) != 0)
        st = pl_fail(err, PL_ENOMEM, "provenance");
    if (st == PL_OK)
        *out = o;
    else
        json_decref(o);
    return st;
}
