/*
 * Whose turn it is in a closed loop of clients (docs/METRICS.md, "Several sequences"): client c
 * asks for requests c, c + clients, c + 2·clients, …, each when its last one was answered. Requests
 * are admitted in the order in which they came. Pure: no clock.
 */
#ifndef PL_WORKER_RUNNER_LOOP_H
#define PL_WORKER_RUNNER_LOOP_H

#include <stdint.h>

#define PL_LOOP_NONE UINT32_MAX

struct pl_loop {
    uint32_t clients, requests;
    uint32_t *queue;   /* [requests] as they came */
    uint32_t head, n;  /* of queue: the next to admit; how many came so far */
    uint32_t *running; /* [clients] admitted and not answered, in the order of admission */
    uint32_t n_running;
};

/* Everyone has asked, nobody is served. queue and running are the caller's. */
void pl_loop_begin(struct pl_loop *l, uint32_t clients, uint32_t requests, uint32_t *queue,
                   uint32_t *running);
/* The request that waited longest, now running; PL_LOOP_NONE: nobody waits. */
uint32_t pl_loop_admit(struct pl_loop *l);
/* A running request is answered: its client asks for its next one, if it has any. */
void pl_loop_answer(struct pl_loop *l, uint32_t request);
/* When a request came, of the times at which each was answered, the loop having begun at `begin`.
 */
int64_t pl_loop_came(const struct pl_loop *l, uint32_t request, int64_t begin,
                     const int64_t *answered);

#endif
