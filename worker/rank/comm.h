/*
 * Messages between ranks, without ever waiting: the owner's loop polls. Two kinds: MPI, and a queue
 * within one process (one rank without MPI, tests). Between the same two endpoints the order is
 * kept. One thread.
 */
#ifndef PL_WORKER_RANK_COMM_H
#define PL_WORKER_RANK_COMM_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct pl_comm;

struct pl_comm_vtable {
    PL_MUST_CHECK
    enum pl_status (*send)(struct pl_comm *c, int dst, const void *buf, size_t n,
                           struct pl_err *err);
    bool (*poll)(struct pl_comm *c, int *src, const void **buf, size_t *n);
    bool (*idle)(struct pl_comm *c);
    void (*abort)(struct pl_comm *c, int code);
    void (*close)(struct pl_comm *c);
};

struct pl_comm {
    const struct pl_comm_vtable *vt;
    int rank, size;
};

/* Copies buf and returns at once. PL_ENOMEM, PL_ESYS (the library refused). */
PL_MUST_CHECK
enum pl_status pl_comm_send(struct pl_comm *c, int dst, const void *buf, size_t n,
                            struct pl_err *err);
/* Next message, if one is there; *buf is valid until the next poll. */
bool pl_comm_poll(struct pl_comm *c, int *src, const void **buf, size_t *n);
/* True when nothing sent is still held here. */
bool pl_comm_idle(struct pl_comm *c);
/* Ends every rank with `code`, waiting for none. MPI: does not return. In one process: nothing. */
void pl_comm_abort(struct pl_comm *c, int code);
/* Ends orderly and frees. MPI: waits for every rank (MPI_Finalize), so only when all have said
 * their last word. */
void pl_comm_close(struct pl_comm *c);

/* n endpoints of one process; ends[i] has rank i. Each is closed on its own. */
PL_MUST_CHECK
enum pl_status pl_comm_loop_open(int n, struct pl_comm **ends, struct pl_err *err);

/* True when a launcher started this process as one of several or one MPI rank. */
bool pl_comm_mpi_launched(void);
/* True when the launcher is mpirun (it kills the ranks a second after INT or TERM); false under
 * srun or none. Ask before pl_comm_mpi_open. */
bool pl_comm_mpi_by_mpirun(void);
/* MPI_Init_thread and the world. Once a process. */
PL_MUST_CHECK
enum pl_status pl_comm_mpi_open(struct pl_comm **out, struct pl_err *err);
/* "Open MPI v4.1.4, …" cut to size; also before pl_comm_mpi_open. */
void pl_comm_mpi_version(char *out, size_t size);

#endif
