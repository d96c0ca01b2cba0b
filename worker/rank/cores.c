#include "worker/rank/cores.h"

#include "base/cgroup.h"

#include <hwloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends "first" or "first-last"; false when it does not fit. */
static bool add_range(char *list, size_t size, size_t *len, uint32_t first, uint32_t last)
{
    const char *comma = *len ? "," : "";
    int n = first == last ? snprintf(list + *len, size - *len, "%s%u", comma, first)
                          : snprintf(list + *len, size - *len, "%s%u-%u", comma, first, last);

    if (n < 0 || (size_t)n >= size - *len)
        return false;
    *len += (size_t)n;
    return true;
}

/* The numbers in their order, rising neighbours as ranges. */
static bool format_list(const uint32_t *pus, size_t n, char *list, size_t size)
{
    size_t len = 0;

    if (size == 0)
        return false;
    list[0] = '\0';
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && pus[end] == pus[end - 1] + 1; end++)
            continue;
        if (!add_range(list, size, &len, pus[i], pus[end - 1]))
            return false;
    }
    return true;
}

/* Cores lo … hi − 1 (numbered as they come): one PU of each first, then the other hyperthreads. */
static size_t take_cores(const struct pl_pu *pus, size_t n, size_t lo, size_t hi, uint32_t *out)
{
    size_t n_out = 0;

    for (int others = 0; others < 2; others++) {
        size_t core = 0;
        for (size_t i = 0; i < n; i++) {
            bool first = i == 0 || pus[i].core != pus[i - 1].core;
            core += first && i > 0;
            if (core >= lo && core < hi && first != others)
                out[n_out++] = pus[i].pu;
        }
    }
    return n_out;
}

enum pl_status pl_cores_split(const struct pl_pu *pus, size_t n, double quota, int local_index,
                              int local_count, char *list, size_t size, int *n_threads,
                              struct pl_err *err)
{
    enum pl_status st = PL_OK;
    size_t cores = 0, n_mine = 0, threads = 1;
    uint32_t *mine = NULL;
    char text[PL_CORES_LIST];

    if (n == 0 || local_index < 0 || local_index >= local_count)
        return pl_fail(err, PL_ERANGE, "worker %d of %d on a node of %zu processors", local_index,
                       local_count, n);
    const size_t w = (size_t)local_index, workers = (size_t)local_count;
    for (size_t i = 0; i < n; i++)
        cores += i == 0 || pus[i].core != pus[i - 1].core;
    mine = calloc(n, sizeof(*mine));
    if (!mine)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu processors", n);
    if (workers <= cores) {
        const size_t lo = w * cores / workers, hi = (w + 1) * cores / workers;
        n_mine = take_cores(pus, n, lo, hi, mine);
        threads = hi - lo;
    } else if (workers <= n) {
        const size_t lo = w * n / workers, hi = (w + 1) * n / workers;
        for (size_t i = lo; i < hi; i++) {
            threads += i > lo && pus[i].core != pus[i - 1].core;
            mine[n_mine++] = pus[i].pu;
        }
    } else {
        mine[n_mine++] = pus[w % n].pu;
    }
    if (quota > 0 && quota / (double)workers < (double)threads)
        threads = quota < 2 * (double)workers ? 1 : (size_t)(quota / (double)workers);
    if (!format_list(mine, n_mine, text, sizeof(text)) || strlen(text) >= size) {
        st = pl_fail(err, PL_ERANGE, "the list of %zu processors is too long", n_mine);
    } else {
        memcpy(list, text, strlen(text) + 1);
        *n_threads = (int)threads;
    }
    free(mine);
    return st;
}

enum pl_status pl_cores_share(int local_index, int local_count, char *list, size_t size,
                              int *n_threads, struct pl_err *err)
{
    hwloc_topology_t topo = NULL;
    struct pl_pu *pus = NULL;
    enum pl_status st;
    size_t n = 0;
    int total;

    /* by default hwloc shows what the cgroup allows, whatever this process is bound to */
    if (hwloc_topology_init(&topo) != 0)
        return pl_fail(err, PL_ESYS, "hwloc: cannot make a topology");
    if (hwloc_topology_load(topo) != 0) {
        st = pl_fail(err, PL_ESYS, "hwloc: cannot read the node's topology");
        goto out;
    }
    total = hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_PU);
    pus = total > 0 ? calloc((size_t)total, sizeof(*pus)) : NULL;
    if (!pus) {
        st = pl_fail(err, PL_ESYS, "hwloc: sees no processor");
        goto out;
    }
    for (int i = 0; i < total; i++) {
        hwloc_obj_t pu = hwloc_get_obj_by_type(topo, HWLOC_OBJ_PU, (unsigned)i);
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topo, HWLOC_OBJ_CORE, pu);
        if (!hwloc_bitmap_isset(hwloc_topology_get_allowed_cpuset(topo), pu->os_index))
            continue;
        pus[n++] =
            (struct pl_pu){.pu = pu->os_index, .core = core ? core->logical_index : (uint32_t)i};
    }
    st = pl_cores_split(pus, n, pl_cpu_quota(""), local_index, local_count, list, size, n_threads,
                        err);
out:
    free(pus);
    hwloc_topology_destroy(topo);
    return st;
}

size_t pl_cores_parse(const char *list, uint32_t *pus, size_t cap)
{
    size_t n = 0;

    for (const char *p = list;; p++) {
        unsigned long v[2];
        for (int side = 0; side < 2; side++) {
            char *end;
            if (*p < '0' || *p > '9')
                return 0;
            v[side] = strtoul(p, &end, 10);
            p = end;
            if (v[side] > UINT32_MAX - 1)
                return 0;
            if (side == 0 && *p != '-')
                v[++side] = v[0];
            else if (side == 0)
                p++;
        }
        if (v[1] < v[0] || v[1] - v[0] >= cap - n)
            return 0;
        for (unsigned long pu = v[0]; pu <= v[1]; pu++)
            pus[n++] = (uint32_t)pu;
        if (*p == '\0')
            return n;
        if (*p != ',')
            return 0;
    }
}
