#include "worker/rank/rapl.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum pl_status read_line(const char *path, char *out, size_t size, struct pl_err *err)
{
    FILE *f = fopen(path, "re");
    const bool got = f && fgets(out, (int)size, f);
    const int e = errno;
    if (f)
        fclose(f);
    if (!got)
        return pl_fail_errno(err, f ? EIO : e, "%s", path);
    out[strcspn(out, "\n")] = '\0';
    return PL_OK;
}

static enum pl_status read_number(const char *path, uint64_t *out, struct pl_err *err)
{
    char text[32], *end;
    const enum pl_status st = read_line(path, text, sizeof text, err);
    if (st != PL_OK)
        return st;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-')
        return pl_fail(err, PL_EFORMAT, "%s holds \"%s\", expected µJ", path, text);
    return PL_OK;
}

/* Packages, and the memory inside their zone. Cores and graphics are parts of a package; "psys" is
 * the whole board, which holds the packages. */
static bool counts(const char *name)
{
    return strncmp(name, "package-", 8) == 0 || strcmp(name, "dram") == 0;
}

static enum pl_status add_zone(struct pl_rapl *r, const char *root, const char *folder,
                               struct pl_err *err)
{
    struct pl_rapl_zone *z = &r->zones[r->n];
    char path[320];
    memset(z, 0, sizeof *z);
    snprintf(path, sizeof path, "%s/%s/name", root, folder);
    enum pl_status st = read_line(path, z->name, sizeof z->name, err);
    if (st != PL_OK || !counts(z->name))
        return st;
    snprintf(path, sizeof path, "%s/%s/max_energy_range_uj", root, folder);
    st = read_number(path, &z->range, err);
    snprintf(z->path, sizeof z->path, "%s/%s/energy_uj", root, folder);
    if (st == PL_OK)
        st = read_number(z->path, &z->last, err);
    if (st == PL_OK)
        r->n++;
    return st;
}

static int is_zone(const struct dirent *d)
{
    return strncmp(d->d_name, "intel-rapl:", 11) == 0 && strlen(d->d_name) < 64;
}

enum pl_status pl_rapl_open(const char *root, struct pl_rapl *out, struct pl_err *err)
{
    struct dirent **list = NULL;
    struct pl_rapl r = {.readings = 1};
    enum pl_status st = PL_OK;
    const int n = strlen(root) < 192 ? scandir(root, &list, is_zone, alphasort) : -1;
    for (int i = 0; i < n; i++) {
        if (st == PL_OK && r.n < PL_RAPL_ZONES)
            st = add_zone(&r, root, list[i]->d_name, err);
        free(list[i]);
    }
    free(list);
    if (st != PL_OK)
        return st;
    if (r.n == 0)
        return pl_fail(err, PL_ENOENT, "%s has no energy counter of a package", root);
    size_t at = 0;
    if (strcmp(root, PL_RAPL_ROOT) != 0)
        at = (size_t)snprintf(r.source, sizeof r.source, "%.40s:", root);
    for (uint32_t i = 0; i < r.n && at < sizeof r.source; i++)
        at += (size_t)snprintf(r.source + at, sizeof r.source - at, "%s%s", at ? " " : "",
                               r.zones[i].name);
    *out = r;
    return PL_OK;
}

enum pl_status pl_rapl_read(struct pl_rapl *r, struct pl_err *err)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct pl_rapl_zone *z = &r->zones[i];
        uint64_t now;
        const enum pl_status st = read_number(z->path, &now, err);
        if (st != PL_OK)
            return st;
        if (now < z->last && z->range < z->last)
            return pl_fail(err, PL_EFORMAT,
                           "%s fell from %" PRIu64 " to %" PRIu64 ", beyond its range of %" PRIu64,
                           z->path, z->last, now, z->range);
        z->joules += (double)(now >= z->last ? now - z->last : z->range - z->last + now) / 1e6;
        z->last = now;
    }
    r->readings++;
    return PL_OK;
}

double pl_rapl_joules(const struct pl_rapl *r)
{
    double sum = 0;
    for (uint32_t i = 0; i < r->n; i++)
        sum += r->zones[i].joules;
    return sum;
}
