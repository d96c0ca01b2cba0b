/* What methods that ask the last window's attention share. */
#ifndef PL_PRUNING_WINDOW_H
#define PL_PRUNING_WINDOW_H

#include "pruning/method.h"

/* SnapKV's score of a KV head's rows. */
void pl_prune_window_score(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                           float *scores);
/* The window is kept whole: count, or the window where that is more. */
size_t pl_prune_window_least(const struct pl_pruner *p, size_t count, size_t n);
size_t pl_prune_window(const struct pl_prune_opts *o);

#endif
