#include "worker/rank/devices.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t pl_devices_from_hello(const json_t *hello, struct pl_device_report *report)
{
    const json_t *list = json_object_get(hello, "devices"), *d;
    size_t i;

    report->n = 0;
    json_array_foreach (list, i, d) {
        struct pl_device *to = &report->devices[report->n];
        const char *kind = pl_json_get_str(d, "kind", NULL),
                   *uuid = pl_json_get_str(d, "uuid", kind);
        int64_t bytes = pl_json_get_i64(d, "bytes", 0);
        if (!kind || report->n == PL_DEVICES_MAX)
            continue;
        memset(to, 0, sizeof(*to));
        snprintf(to->kind, sizeof(to->kind), "%s", kind);
        snprintf(to->uuid, sizeof(to->uuid), "%s", uuid);
        snprintf(to->name, sizeof(to->name), "%s", pl_json_get_str(d, "name", uuid));
        to->bytes = bytes > 0 ? (uint64_t)bytes : 0;
        report->n++;
    }
    if (report->n == 0) {
        memset(&report->devices[0], 0, sizeof(report->devices[0]));
        snprintf(report->devices[0].kind, sizeof(report->devices[0].kind), "cpu");
        snprintf(report->devices[0].uuid, sizeof(report->devices[0].uuid), "cpu");
        report->n = 1;
    }
    return report->n;
}

static bool is_cpu(const struct pl_device *d)
{
    return strcmp(d->kind, "cpu") == 0;
}

/* Does `kind` ask for this accelerator? */
static bool wanted(const struct pl_device *d, const char *kind)
{
    return !is_cpu(d) && (strcmp(kind, "auto") == 0 || strcmp(kind, d->kind) == 0);
}

struct place {
    const struct pl_device_report *r;
    struct pl_device_deal *d;
    uint32_t choice; /* wanted accelerators in sight */
};

struct dealing {
    const char *kind;
    uint32_t set_size;
    struct place *places; /* by host */
    const char *
        *taken; /* UUIDs dealt so far, on all hosts: a hash set of n_slots (a power of two) */
    size_t n_slots;
};

/* Where the UUID stands in the set, or the free slot where it would. */
static const char **slot_of(const struct dealing *x, const char *uuid)
{
    size_t i = pl_hash_str(uuid) & (x->n_slots - 1);

    while (x->taken[i] && strcmp(x->taken[i], uuid) != 0)
        i = (i + 1) & (x->n_slots - 1);
    return &x->taken[i];
}

/* The wanted accelerators of a report in its order, without doubles, into at[]; those already dealt
 * only if asked. */
static uint32_t list_devices(const struct dealing *x, const struct pl_device_report *r,
                             bool also_taken, uint32_t at[PL_DEVICES_MAX])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->n; i++) {
        const char *uuid = r->devices[i].uuid;
        bool skip = !wanted(&r->devices[i], x->kind) || (!also_taken && *slot_of(x, uuid));
        for (uint32_t k = 0; k < n && !skip; k++)
            skip = strcmp(r->devices[at[k]].uuid, uuid) == 0;
        if (!skip)
            at[n++] = i;
    }
    return n;
}

static int by_host(const struct place *a, const struct place *b)
{
    return strncmp(a->r->host, b->r->host, sizeof(a->r->host));
}

static int by_host_and_rank(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int c = by_host(x, y);

    if (c == 0)
        c = (x->r->worker == 0) - (y->r->worker == 0); /* workers first */
    if (c == 0)
        c = x->r->rank < y->r->rank ? -1 : x->r->rank > y->r->rank;
    return c ? c : x->r < y->r ? -1 : x->r > y->r;
}

/* Who has least choice chooses first: where every worker sees either all of the node's devices or
 * only its own, nobody goes without who could have had one. */
static int by_choice(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->choice != y->choice)
        return x->choice < y->choice ? -1 : 1;
    return x->d->local_index - y->d->local_index;
}

static void deal_cpu(const struct place *p)
{
    for (uint32_t i = 0; i < p->r->n && p->d->n == 0; i++) {
        if (is_cpu(&p->r->devices[i]))
            p->d->set[p->d->n++] = p->r->devices[i];
    }
    if (p->d->n == 0)
        snprintf(p->d->why, sizeof(p->d->why), "its runner offers no CPU");
}

static void deal_accelerators(const struct dealing *x, const struct place *p)
{
    struct pl_device_deal *d = p->d;
    uint32_t at[PL_DEVICES_MAX];

    if (list_devices(x, p->r, false, at) >= x->set_size) {
        for (; d->n < x->set_size; d->n++) {
            const struct pl_device *device = &p->r->devices[at[d->n]];
            d->set[d->n] = *device;
            *slot_of(x, device->uuid) = device->uuid;
        }
    } else if (p->choice < x->set_size) {
        snprintf(d->why, sizeof(d->why), "it sees %u %s and needs %u", p->choice,
                 strcmp(x->kind, "auto") == 0 ? "accelerators" : x->kind, x->set_size);
    } else {
        snprintf(d->why, sizeof(d->why),
                 "other workers of its node have too many of the %u devices that it sees",
                 p->choice);
    }
}

/* One host: places[0 … n − 1], its workers (the first n_workers of them) in rank order. */
static void deal_host(const struct dealing *x, struct place *places, size_t n)
{
    uint32_t at[PL_DEVICES_MAX];
    bool accelerators = false;
    size_t n_workers = 0;

    while (n_workers < n && places[n_workers].r->worker)
        n_workers++;
    for (size_t i = 0; i < n; i++) {
        struct pl_device_deal *d = places[i].d;
        memset(d, 0, sizeof(*d));
        d->rank = places[i].r->rank;
        d->local_index = i < n_workers ? (int32_t)i : -1;
        d->local_count = i < n_workers ? (int32_t)n_workers : 0;
        places[i].choice = list_devices(x, places[i].r, true, at);
        if (i < n_workers)
            accelerators = accelerators || places[i].choice > 0;
        else
            snprintf(d->why, sizeof(d->why), "it takes no trials");
    }
    if (strcmp(x->kind, "cpu") == 0 || (strcmp(x->kind, "auto") == 0 && !accelerators)) {
        for (size_t i = 0; i < n_workers; i++)
            deal_cpu(&places[i]);
        return;
    }
    qsort(places, n_workers, sizeof(*places), by_choice);
    for (size_t i = 0; i < n_workers; i++)
        deal_accelerators(x, &places[i]);
}

enum pl_status pl_devices_deal(const struct pl_device_report *reports, size_t n, const char *kind,
                               uint32_t set_size, struct pl_device_deal *deals, struct pl_err *err)
{
    struct dealing x = {.kind = kind, .set_size = set_size, .n_slots = 16};
    enum pl_status st = PL_OK;

    if (set_size < 1 || set_size > 2)
        return pl_fail(err, PL_ERANGE, "device sets of %u", set_size);
    for (size_t i = 0; i < n; i++) {
        if (reports[i].n > PL_DEVICES_MAX)
            return pl_fail(err, PL_ERANGE, "rank %d reports %u devices", reports[i].rank,
                           reports[i].n);
    }
    while (x.n_slots < 4 * n) /* at most half full: every worker takes two at most */
        x.n_slots *= 2;
    x.places = calloc(n + 1, sizeof(*x.places));
    x.taken = calloc(x.n_slots, sizeof(*x.taken));
    if (!x.places || !x.taken) {
        st = pl_fail(err, PL_ENOMEM, "no memory for %zu ranks", n);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        x.places[i] = (struct place){.r = &reports[i], .d = &deals[i]};
    qsort(x.places, n, sizeof(*x.places), by_host_and_rank);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && by_host(&x.places[i], &x.places[end]) == 0; end++)
            continue;
        deal_host(&x, x.places + i, end - i);
    }
out:
    free(x.places);
    free(x.taken);
    return st;
}
