#include "worker/runner/loop.h"

void pl_loop_begin(struct pl_loop *l, uint32_t clients, uint32_t requests, uint32_t *queue,
                   uint32_t *running)
{
    *l = (struct pl_loop){
        .clients = clients, .requests = requests, .queue = queue, .running = running};
    while (l->n < clients && l->n < requests) {
        queue[l->n] = l->n;
        l->n++;
    }
}

uint32_t pl_loop_admit(struct pl_loop *l)
{
    if (l->head == l->n)
        return PL_LOOP_NONE;
    l->running[l->n_running++] = l->queue[l->head];
    return l->queue[l->head++];
}

void pl_loop_answer(struct pl_loop *l, uint32_t request)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < l->n_running; i++)
        if (l->running[i] != request)
            l->running[kept++] = l->running[i];
    l->n_running = kept;
    if (request < l->requests - l->clients)
        l->queue[l->n++] = request + l->clients;
}

int64_t pl_loop_came(const struct pl_loop *l, uint32_t request, int64_t begin,
                     const int64_t *answered)
{
    return request < l->clients ? begin : answered[request - l->clients];
}
