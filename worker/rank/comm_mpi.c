/*
 * Messages over MPI: MPI_Isend with a list of requests that are tested at every poll, MPI_Iprobe +
 * MPI_Recv. No collective between MPI_Init and MPI_Finalize, so that a rank that is gone can hang
 * nobody.
 */
#include "worker/rank/comm.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAG 77

struct sending {
    struct sending *next;
    MPI_Request request;
    char bytes[];
};

struct mpi_comm {
    struct pl_comm base;
    MPI_Comm world;
    struct sending *list;
    char *in; /* the last message received */
    size_t in_size;
};

/* Under an error handler that returns, a message to a rank that is gone is no reason to die. */
static void test_sends(struct mpi_comm *c)
{
    for (struct sending **p = &c->list; *p;) {
        struct sending *s = *p;
        int done = 0;
        if (MPI_Test(&s->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done) {
            *p = s->next;
            free(s);
        } else {
            p = &s->next;
        }
    }
}

static enum pl_status mpi_send(struct pl_comm *base, int dst, const void *buf, size_t n,
                               struct pl_err *err)
{
    struct mpi_comm *c = (struct mpi_comm *)base;
    struct sending *s = n <= 0x7fffffff ? malloc(sizeof *s + n) : NULL;
    if (!s)
        return pl_fail(err, PL_ENOMEM, "a message of %zu bytes", n);
    memcpy(s->bytes, buf, n);
    if (MPI_Isend(s->bytes, (int)n, MPI_BYTE, dst, TAG, c->world, &s->request) != MPI_SUCCESS) {
        free(s);
        return pl_fail(err, PL_ESYS, "MPI_Isend to rank %d failed", dst);
    }
    s->next = c->list;
    c->list = s;
    test_sends(c);
    return PL_OK;
}

static bool mpi_poll(struct pl_comm *base, int *src, const void **buf, size_t *n)
{
    struct mpi_comm *c = (struct mpi_comm *)base;
    MPI_Status status;
    int there = 0, count = 0;
    if (c->list)
        test_sends(c);
    if (MPI_Iprobe(MPI_ANY_SOURCE, TAG, c->world, &there, &status) != MPI_SUCCESS || !there)
        return false;
    if (MPI_Get_count(&status, MPI_BYTE, &count) != MPI_SUCCESS || count < 0)
        return false;
    if ((size_t)count > c->in_size) {
        char *bigger = realloc(c->in, (size_t)count);
        if (!bigger)
            return false;
        c->in = bigger;
        c->in_size = (size_t)count;
    }
    if (MPI_Recv(c->in, count, MPI_BYTE, status.MPI_SOURCE, TAG, c->world, MPI_STATUS_IGNORE) !=
        MPI_SUCCESS)
        return false;
    *src = status.MPI_SOURCE;
    *buf = c->in;
    *n = (size_t)count;
    return true;
}

static bool mpi_idle(struct pl_comm *base)
{
    struct mpi_comm *c = (struct mpi_comm *)base;
    test_sends(c);
    return c->list == NULL;
}

static void mpi_abort(struct pl_comm *base, int code)
{
    MPI_Abort(((struct mpi_comm *)base)->world, code);
}

static void mpi_close(struct pl_comm *base)
{
    struct mpi_comm *c = (struct mpi_comm *)base;
    while (c->list) { /* a message that nobody took: let the library forget it */
        struct sending *s = c->list;
        c->list = s->next;
        MPI_Cancel(&s->request);
        MPI_Request_free(&s->request);
        free(s);
    }
    MPI_Finalize();
    free(c->in);
    free(c);
}

static const struct pl_comm_vtable mpi_vtable = {mpi_send, mpi_poll, mpi_idle, mpi_abort,
                                                 mpi_close};

enum pl_status pl_comm_mpi_open(struct pl_comm **out, struct pl_err *err)
{
    int provided = 0;
    struct mpi_comm *c = calloc(1, sizeof *c);
    if (!c)
        return pl_fail(err, PL_ENOMEM, "MPI");
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        free(c);
        return pl_fail(err, PL_ESYS, "MPI_Init_thread failed");
    }
    c->base.vt = &mpi_vtable;
    c->world = MPI_COMM_WORLD;
    MPI_Comm_set_errhandler(c->world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(c->world, &c->base.rank);
    MPI_Comm_size(c->world, &c->base.size);
    *out = &c->base;
    return PL_OK;
}

bool pl_comm_mpi_launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK");
}

bool pl_comm_mpi_by_mpirun(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL;
}

void pl_comm_mpi_version(char *out, size_t size)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    if (MPI_Get_library_version(text, &n) != MPI_SUCCESS)
        text[0] = '\0';
    snprintf(out, size, "%s", text);
}
