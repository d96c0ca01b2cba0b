#include "spec_decode/lane.h"

#include <pthread.h>
#include <stdlib.h>

enum lane_state { IDLE, POSTED, DONE, STOP };

struct pl_lane {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum lane_state state;
    enum pl_status (*fn)(void *arg, struct pl_err *err);
    void *arg;
    enum pl_status status;
    struct pl_err err;
};

static void *work(void *arg)
{
    struct pl_lane *l = arg;

    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (l->state != POSTED && l->state != STOP)
            pthread_cond_wait(&l->changed, &l->lock);
        if (l->state == STOP)
            break;
        pthread_mutex_unlock(&l->lock);
        l->err.text[0] = '\0';
        l->status = l->fn(l->arg, &l->err);
        pthread_mutex_lock(&l->lock);
        l->state = DONE;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

enum pl_status pl_lane_new(struct pl_lane **out, struct pl_err *err)
{
    struct pl_lane *l = calloc(1, sizeof(*l));
    int e;

    if (!l)
        return pl_fail(err, PL_ENOMEM, "no memory for a lane");
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    e = pthread_create(&l->thread, NULL, work, l);
    if (e) {
        pthread_cond_destroy(&l->changed);
        pthread_mutex_destroy(&l->lock);
        free(l);
        return pl_fail_errno(err, e, "cannot start the drafter's lane");
    }
    *out = l;
    return PL_OK;
}

static void set(struct pl_lane *l, enum lane_state state)
{
    pthread_mutex_lock(&l->lock);
    while (l->state == POSTED)
        pthread_cond_wait(&l->changed, &l->lock);
    l->state = state;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

void pl_lane_free(struct pl_lane *l)
{
    if (!l)
        return;
    set(l, STOP);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void pl_lane_post(struct pl_lane *l, enum pl_status (*fn)(void *arg, struct pl_err *err), void *arg)
{
    l->fn = fn;
    l->arg = arg;
    set(l, POSTED);
}

enum pl_status pl_lane_wait(struct pl_lane *l, struct pl_err *err)
{
    enum pl_status st;

    pthread_mutex_lock(&l->lock);
    while (l->state == POSTED)
        pthread_cond_wait(&l->changed, &l->lock);
    l->state = IDLE;
    st = l->status;
    if (st)
        *err = l->err;
    pthread_mutex_unlock(&l->lock);
    return st;
}
