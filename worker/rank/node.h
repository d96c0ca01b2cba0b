/*
 * What happens on this node at this moment: which other workers measure, and whose turn it is under
 * `exclusive: node`.
 *
 * A small file in /dev/shm (else /tmp), "paceline-UID-KEY", mapped by all workers of one run on one
 * node: a slot each. A slot is held by a POSIX lock on its bytes, so a dead worker's slot is free
 * at once and counts as nothing, whatever its flags still say. One handle a process. Nothing here
 * waits.
 */
#ifndef PL_WORKER_RANK_NODE_H
#define PL_WORKER_RANK_NODE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct pl_node;

#define PL_NODE_KEY 80
/* The run's key: SLURM_JOB_ID where there is one, else a hash of the results file's absolute path.
 */
void pl_node_key(const char *results_path, char out[PL_NODE_KEY]);

/* Takes a slot. PL_EBUSY: all slots are held. PL_EIO and others when the file cannot be made or is
 * not ours (another owner, a link, another size): the caller then says that neighbours are not
 * known, and goes on without. */
PL_MUST_CHECK
enum pl_status pl_node_open(const char *key, struct pl_node **out, struct pl_err *err);
/* Gives the slot back, and the node if it is held. NULL is fine. The file stays. */
void pl_node_close(struct pl_node *n);
/* Removes the file: at a run's clean end, by the worker with local index 0, after its close.
 * Workers that still have it open keep counting each other; one that opens later begins a new file
 * and does not see them. */
void pl_node_unlink(const char *key);

/* Says that this worker's trial runs (timed or warm-up), or no longer. */
void pl_node_enter(struct pl_node *n);
void pl_node_leave(struct pl_node *n);
/* Other live workers that measure now. About 1 µs for each that does; sample it at polls for a
 * trial's least and most. */
unsigned pl_node_neighbours(const struct pl_node *n);

/* `exclusive: node`. True when the node is this worker's (also when it already was): then measure
 * and call pl_node_end_exclusive. False: ask again soon, every ≤ 1 ms. Turns go by who has waited
 * longest; who stopped asking for 100 ms has lost its place. Freed when the holder dies. */
bool pl_node_try_exclusive(struct pl_node *n);
/* Frees the node, or leaves the queue. */
void pl_node_end_exclusive(struct pl_node *n);

#endif
