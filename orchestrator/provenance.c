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

/* Whether a variable may stand in a file that is passed on: a token may not. */
static bool may_tell(const char *name)
{
    static const char *const secret[] = {"JWT", "TOKEN", "KEY", "PASSWORD", "SECRET"};
    for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++)
        if (strstr(name, secret[i]))
            return false;
    return true;
}

/* The scheduler's variables: SLURM_*, less what may be a secret. */
static json_t *slurm(void)
{
    json_t *o = json_object();
    char name[128];
    for (char **e = environ; o && e && *e; e++) {
        const size_t n = strcspn(*e, "=");
        if (strncmp(*e, "SLURM_", 6) != 0 || n >= sizeof name || !(*e)[n])
            continue;
        memcpy(name, *e, n);
        name[n] = '\0';
        if (may_tell(name)) /* what is no UTF-8 jansson refuses: left out */
            json_object_set_new(o, name, json_string(*e + n + 1));
    }
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

/* The hashes of files that an arm brings beside its models: scorers, adapters, heads. */
static enum pl_status add_arm_files(const json_t *arms, json_t *weights, json_t *seen,
                                    struct pl_err *err)
{
    static const char *const parts[] = {"prune", "draft"};
    char hex[PL_SHA256_HEX], *key;
    size_t i;
    json_t *arm;
    json_array_foreach (arms, i, arm)
        for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
            const char *path = pl_json_get_str(json_object_get(arm, parts[k]), "weights", NULL);
            const char *known = path ? pl_json_get_str(seen, path, NULL) : NULL;
            enum pl_status st = path && !known ? hash_path(path, hex, err) : PL_OK;
            if (st != PL_OK)
                return st;
            if (!path)
                continue;
            if (asprintf(&key, "%s.%s", pl_json_get_str(arm, "name", ""), parts[k]) < 0)
                return pl_fail(err, PL_ENOMEM, "provenance");
            json_t *hash = json_string(known ? known : hex);
            const int bad =
                json_object_set(weights, key, hash) || json_object_set(seen, path, hash);
            json_decref(hash);
            free(key);
            if (bad)
                return pl_fail(err, PL_ENOMEM, "provenance");
        }
    return PL_OK;
}

/* Those who described the sweep; and what drives the GPUs that our own runner saw there. */
static enum pl_status add_engines(json_t *engines, json_t *o, struct pl_err *err)
{
    const json_t *own = json_object_get(engines, "paceline-runner");
    json_t *devices = json_object_get(own, "devices"), *d;
    json_t *software = json_object_get(own, "software");
    struct pl_buf gpus;
    size_t i;
    enum pl_status st = PL_OK;
    pl_buf_init(&gpus, 1u << 16);
    json_array_foreach (devices, i, d)
        if (st == PL_OK && strcmp(pl_json_get_str(d, "kind", "cpu"), "cpu") != 0)
            st = pl_buf_addf(&gpus, err, "%s%s", gpus.len ? "," : "",
                             pl_json_get_str(d, "uuid", "?"));
    if (st == PL_OK && gpus.len && json_object_set_new(o, "gpus", json_string(gpus.data)) != 0)
        st = pl_fail(err, PL_ENOMEM, "provenance");
    if (st == PL_OK && software && json_object_update_missing(o, software) != 0)
        st = pl_fail(err, PL_ENOMEM, "provenance");
    if (st == PL_OK && engines && json_object_set(o, "engines", engines) != 0)
        st = pl_fail(err, PL_ENOMEM, "provenance");
    pl_buf_release(&gpus);
    return st;
}

enum pl_status pl_provenance(const struct pl_sweep *s, const char *mpi, unsigned ranks,
                             json_t **out, struct pl_err *err)
{
    json_t *o = of_start(mpi, ranks), *weights = json_object(), *model;
    json_t *seen = json_object();
    char hex[PL_SHA256_HEX];
    const char *name, *path;
    enum pl_status st = o && weights && seen ? PL_OK : pl_fail(err, PL_ENOMEM, "provenance");
    json_object_foreach (json_object_get(s->resolved, "models"), name, model) {
        path = pl_json_get_str(model, "path", NULL);
        if (st != PL_OK || !path)
            continue;
        st = hash_path(path, hex, err);
        if (st == PL_OK && json_object_set_new(weights, name, json_string(hex)) != 0)
            st = pl_fail(err, PL_ENOMEM, "provenance");
    }
    if (st == PL_OK)
        st = add_arm_files(json_object_get(s->resolved, "arms"), weights, seen, err);
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
    json_decref(seen);
    if (st == PL_OK && s->work && json_object_set(o, "work", s->work) != 0)
        st = pl_fail(err, PL_ENOMEM, "provenance");
    if (st == PL_OK)
        st = add_engines(s->engines, o, err);
    if (st == PL_OK)
        *out = o;
    else
        json_decref(o);
    return st;
}
