#include "spec_decode/transport.h"

#include "spec_decode/transport_nccl.h"

#include <stdlib.h>
#include <string.h>

struct pl_transport {
    enum pl_transport_kind kind;
    struct pl_transport_end from, to;
    float *room; /* host: what is on its way */
    size_t most;
    struct pl_nccl *nccl;
};

static const char *const names[PL_TRANSPORT_KINDS] = {
#define PL_X(sym, name) [PL_TRANSPORT_##sym] = name,
    PL_TRANSPORT_LIST(PL_X)
#undef PL_X
};

enum pl_transport_kind pl_transport_by_name(const char *name)
{
    enum pl_transport_kind k = PL_TRANSPORT_AUTO;

    while (k < PL_TRANSPORT_KINDS && strcmp(names[k], name) != 0)
        k++;
    return k;
}

const char *pl_transport_kind_name(enum pl_transport_kind k)
{
    return names[k];
}

enum pl_transport_kind pl_transport_kind(const struct pl_transport *t)
{
    return t->kind;
}

/* The number that its maker's libraries give a GPU; −1: it is none. */
static int ordinal(const struct pl_transport_end *e)
{
    struct pl_device_native n;
    struct pl_err none;

    return e->backend->native && !e->backend->native(e->device, &n, &none) ? n.ordinal : -1;
}

bool pl_transport_shared(const struct pl_transport *t)
{
    return ordinal(&t->from) >= 0 && ordinal(&t->from) == ordinal(&t->to);
}

static enum pl_status open_kind(struct pl_transport *t, const struct pl_transport_opts *o,
                                struct pl_err *err)
{
    const struct pl_backend *b = t->from.backend;
    const bool gpus = b == t->to.backend && b->native;

    if (t->kind == PL_TRANSPORT_HOST) {
        t->room = malloc(o->most * sizeof(*t->room) + 1);
        return t->room ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory for a transport");
    }
    if (!gpus)
        return pl_fail(err, PL_EUNSUPPORTED, "transport %s joins two GPUs, not %s and %s",
                       names[t->kind], t->from.backend->name, t->to.backend->name);
    if (t->kind == PL_TRANSPORT_PEER)
        return b->reaches(t->from.device, t->to.device, err);
    return pl_nccl_open(o, &t->nccl, err);
}

static enum pl_status open_one(enum pl_transport_kind kind, const struct pl_transport_opts *o,
                               struct pl_transport **out, struct pl_err *err)
{
    struct pl_transport *t = calloc(1, sizeof(*t));
    enum pl_status st;

    if (!t)
        return pl_fail(err, PL_ENOMEM, "no memory for a transport");
    t->kind = kind;
    t->from = o->from;
    t->to = o->to;
    t->most = o->most;
    st = open_kind(t, o, err);
    if (st)
        pl_transport_close(t);
    else
        *out = t;
    return st;
}

enum pl_status pl_transport_open(enum pl_transport_kind kind, const struct pl_transport_opts *o,
                                 struct pl_transport **out, struct pl_err *err)
{
    static const enum pl_transport_kind order[] = {PL_TRANSPORT_PEER, PL_TRANSPORT_NCCL};
    struct pl_err why;

    if (kind != PL_TRANSPORT_AUTO)
        return open_one(kind, o, out, err);
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (open_one(order[i], o, out, &why) == PL_OK)
            return PL_OK;
    return open_one(PL_TRANSPORT_HOST, o, out, err);
}

void pl_transport_close(struct pl_transport *t)
{
    if (!t)
        return;
    pl_nccl_close(t->nccl);
    free(t->room);
    free(t);
}

enum pl_status pl_transport_carry(struct pl_transport *t, struct pl_tensor *to,
                                  const struct pl_tensor *from, size_t n, struct pl_err *err)
{
    const struct pl_backend *b = t->from.backend;
    const size_t width = b->cols(from), most = b->rows(from);
    enum pl_status st;

    if (n > most || n > t->to.backend->rows(to) || width != t->to.backend->cols(to) ||
        n * width > t->most)
        return pl_fail(err, PL_ERANGE, "transport: %zu rows of %zu: there is no room for them", n,
                       width);
    if (t->kind == PL_TRANSPORT_PEER)
        return b->copy(to, 0, from, 0, n, err);
    if (t->kind == PL_TRANSPORT_NCCL)
        return pl_nccl_carry(t->nccl, b->address((struct pl_tensor *)from), b->address(to),
                             n * width, err);
    st = b->download(from, 0, n, t->room, err);
    return st ? st : t->to.backend->upload(to, 0, n, t->room, err);
}

static enum pl_status on_device(const struct pl_transport_end *e, struct pl_draft *d,
                                struct pl_err *err)
{
    free(d->states);
    d->states = NULL;
    d->backend = e->backend;
    return e->backend->tensor_create(e->device, d->max + 1, d->width, &d->rows, err);
}

enum pl_status pl_transport_prepare(struct pl_transport *t, struct pl_draft *sent,
                                    struct pl_draft *draft, struct pl_err *err)
{
    enum pl_status st;

    if (!t || t->kind == PL_TRANSPORT_HOST || !sent->states)
        return PL_OK;
    st = on_device(&t->from, sent, err);
    return st ? st : on_device(&t->to, draft, err);
}

enum pl_status pl_transport_move(struct pl_transport *t, struct pl_draft *to,
                                 const struct pl_draft *from, struct pl_err *err)
{
    if (from->n > to->max || to->width != from->width)
        return pl_fail(err, PL_ERANGE, "a draft of %zu tokens for room of %zu", from->n, to->max);
    memcpy(to->ids, from->ids, from->n * sizeof(*to->ids));
    memcpy(to->parents, from->parents, from->n * sizeof(*to->parents));
    if (to->states && from->states)
        memcpy(to->states, from->states, from->n * from->width * sizeof(*to->states));
    if (to->q && from->has_q)
        memcpy(to->q, from->q, from->n * from->vocab * sizeof(*to->q));
    to->n = from->n;
    to->first = 0;
    to->tree = from->tree;
    to->has_q = from->has_q;
    return t && to->rows && from->rows && from->n
               ? pl_transport_carry(t, to->rows, from->rows, from->n, err)
               : PL_OK;
}
