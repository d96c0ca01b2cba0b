/* Inside the worker: what its parts share. Nobody else includes this. */
#ifndef PL_WORKER_RANK_WORKER_IMPL_H
#define PL_WORKER_RANK_WORKER_IMPL_H

#include "base/clock.h"
#include "data/sample.h"
#include "results/writer.h"
#include "worker/rank/cores.h"
#include "worker/rank/job.h"
#include "worker/rank/msg.h"
#include "worker/rank/node.h"
#include "worker/rank/nvml.h"
#include "worker/rank/order.h"
#include "worker/rank/rapl.h"
#include "worker/rank/runner.h"
#include "worker/rank/worker.h"

#include <limits.h>

#define HISTORY 8
#define INPUTS 16 /* kept beside those of the trial in hand */
#define NEIGHBOURS_UNKNOWN 65535

struct model {
    const char *name;
    const json_t *json;
    uint32_t engine;
    uint32_t fails;         /* loads in a row that failed because of it */
    enum pl_reason dead_of; /* does not load here; PL_REASON_NONE: it does */
    char why[256];
};

enum engine_state {
    ENGINE_OFF,
    ENGINE_STARTING,
    ENGINE_READY,
    ENGINE_LOADING,
    ENGINE_UNLOADING,
    ENGINE_TRIAL,
    ENGINE_IDS,
    ENGINE_CEILINGS
};

struct engine {
    struct pl_runner *runner;
    enum engine_state state;
    bool *has_arm, *has_model; /* [arms], [models] loaded in this runner */
    bool one_by_one;           /* a load of several models failed: find out which */
    uint32_t start_fails;
    enum pl_reason dead_of; /* does not start here; PL_REASON_NONE: it does */
    char why[256];
    uint32_t load;     /* number of the last load, which rows name */
    uint64_t load_seq; /* of its LOAD message, until rank 0 has said the number; then 0 */
    bool *asked;       /* [models] of the load in flight */
    int64_t asked_at;
};

/* Total times of the last trials of an arm × context, for the deadline. */
struct history {
    float ms[HISTORY];
    uint32_t n;
};

struct input {
    uint32_t model, sample, context; /* index, index, index */
    json_t *ids;
};

struct block {
    uint64_t lease;
    struct pl_msg_lease *msg; /* owned copy */
    const uint8_t *todo, *again;
    struct pl_cells cells;
    struct pl_order_item *items;
    size_t n_items, at;
    uint32_t try;       /* of the item in hand, from 0 */
    bool *given_up;     /* [arms of the group] */
    uint8_t *given_why; /* reason */
    char given_text[256];
    bool cannot, all_warm;
    bool revoked; /* not ours any more: drop what is in hand, write nothing */
    uint32_t done, failed;
    struct pl_log_block record;
    bool warming; /* the trial in flight is a warm-up */
    uint32_t warm_arm;
};

/* What measure.energy has this worker do. */
struct burst {
    bool active, synthetic, processors; /* processors: rapl is read, too */
    uint32_t arm, context, warm, gpu_readings;
    double gpu_from, gpu_joules; /* the GPU's counter at the start; since then */
    uint64_t trials, tokens;
    int64_t began, until, read, unix_ns; /* began 0: warming up */
    struct pl_rapl rapl;
};

enum worker_phase { JOINING, ASKING, RUNNING, OUT, LAST_WORD, ENDED, ALONE };

struct pl_worker {
    struct pl_worker_opts opts;
    struct pl_comm *comm;
    enum worker_phase phase;
    int exit_code;
    char *refusal;
    bool busy, stopping;
    bool going_out, out_fatal; /* pl_worker_go_out was called: done at the end of the step */
    char out_text[512];
    char program[PATH_MAX];

    uint32_t number;
    struct pl_device_deal deal;
    struct pl_nvml *nvml; /* of the GPU that was dealt; NULL: none, or it cannot be asked */
    char cpus[PL_CORES_LIST];
    uint32_t *cpu_list;
    size_t n_cpus;
    int threads;

    struct pl_job *job;
    struct pl_samples *samples;
    struct pl_writer *writer;
    struct pl_text_cache *texts;
    struct pl_node *node;
    struct pl_row row;

    struct model *models;
    uint32_t n_models;       /* ≤ 256 */
    struct engine *engines;  /* [job->n_engines + 1]: the last one makes ids */
    struct engine *waiting;  /* the one whose answer we wait for */
    uint16_t *warm;          /* [arms][contexts] warm-ups since the arm's last load */
    uint16_t *warm_fails;    /* [arms] in a row */
    struct history *history; /* [arms][contexts] */
    struct history load_history;
    struct input *inputs; /* [n_inputs] */
    uint32_t n_inputs, next_input;

    /* leases */
    int64_t lease_ns, lease_until, last_heard, last_sent;
    bool asked; /* a REQ is out */
    struct block block;
    struct burst burst;
    struct pl_msg_lease *next; /* granted beforehand */
    struct pl_msg_cell *cells; /* written, not yet reported */
    uint32_t n_cells, cap_cells;
    int64_t report_since;
    double item_ns; /* running mean of a trial's wall time */

    /* the row in hand */
    struct pl_lane_span spans[PL_SPANS_MAX];
    uint32_t n_spans;
    bool row_ready; /* filled; written as soon as nothing is waited for and the lease lives */
    enum pl_row_state row_state;
    uint8_t row_attempt;
    uint64_t seq;      /* of the last LOAD or FAILURE message */
    uint64_t wait_seq; /* of the FAILURE that must be in the file before the row in hand; or 0 */
    bool want_turn;    /* another worker of this node measures: ask again soon */
    bool measuring;
    bool want_kernels;   /* of the trial that is sent next, if it is a warm-up */
    bool ceilings_asked; /* once, in the first turn of a real engine of our own */
    unsigned neighbours_min, neighbours_max;
    int64_t trial_began, trial_unix;
};

/* worker.c */
void pl_worker_ask(struct pl_worker *w); /* for a block, unless one is asked for already */
void pl_worker_tell(struct pl_worker *w, const void *msg, size_t n);
/* Reports rows and shows signs of life when they are due; now: without waiting for more rows. */
void pl_worker_report(struct pl_worker *w, bool now);
/* No more leases after this step. */
void pl_worker_go_out(struct pl_worker *w, bool fatal, const char *fmt, ...) PL_PRINTF(3, 4);
bool pl_worker_lease_live(const struct pl_worker *w);
/* FAILURE to rank 0; returns its sequence number. row: UINT64_MAX when it is not a row's. */
uint64_t pl_worker_log_failure(struct pl_worker *w, uint64_t row, enum pl_reason reason,
                               unsigned attempt, bool final, const char *detail, const char *tail);

/* worker_engine.c */
enum need { NEED_WAIT, NEED_READY, NEED_NOW /* something changed: look again */ };
PL_MUST_CHECK
enum pl_status pl_engines_init(struct pl_worker *w, struct pl_err *err);
void pl_engines_release(struct pl_worker *w);
/* Brings every engine to the models of (group, residence); ready means that /loads has each load,
 * too. */
enum need pl_engines_need(struct pl_worker *w, uint32_t group, uint32_t residence);
/* The arm cannot run here: which reason, and why (text); PL_REASON_NONE when it can. */
enum pl_reason pl_engine_arm_dead(const struct pl_worker *w, uint32_t arm, const char **why);
/* Kills and forgets the runner of e; false when its process could not be reaped. */
bool pl_engine_drop(struct pl_worker *w, struct engine *e);
PL_MUST_CHECK
enum pl_status pl_engine_start(struct pl_worker *w, struct engine *e, struct pl_err *err);
/* An event of a starting, loading or unloading runner. answer is borrowed, NULL for READY and
 * FAILED. */
void pl_engine_event(struct pl_worker *w, struct engine *e, enum pl_runner_event ev,
                     const json_t *answer, enum pl_reason reason, const char *text);
/* Rank 0 has written what message `seq` said; a load got `number`. */
void pl_engine_acked(struct pl_worker *w, uint64_t seq, uint32_t number);
uint32_t pl_engine_model(const struct pl_worker *w, const char *name); /* UINT32_MAX: none */
int64_t pl_history_deadline(const struct history *h, int64_t given_ns, bool sim);
void pl_history_add(struct history *h, double ms);

/* worker_block.c */
void pl_block_begin(struct pl_worker *w, struct pl_msg_lease *m);
/* Goes on as far as it can without waiting. True: call again. */
bool pl_block_advance(struct pl_worker *w);
void pl_block_trial_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer,
                          enum pl_reason reason, const char *text);
/* The attempt in hand failed: said to rank 0, tried again or written as a failed row. drop: its
 * runner is not used again. */
void pl_block_fail(struct pl_worker *w, enum pl_reason reason, const char *text, const char *tail,
                   bool drop);
/* The GPU's library, where one was dealt; a warning when it cannot be asked. */
void pl_block_open_nvml(struct pl_worker *w);
void pl_block_sample(struct pl_worker *w); /* neighbours, at a poll */
void pl_block_end(struct pl_worker *w);    /* says DONE, forgets it */
void pl_block_release(struct block *b);

/* worker_burst.c */
void pl_burst_begin(struct pl_worker *w, uint32_t arm, uint32_t context);
/* Goes on as far as it can without waiting. True: call again. */
bool pl_burst_advance(struct pl_worker *w);
/* An answer to a trial, or to a question for ids, of the burst. */
void pl_burst_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer,
                    const char *text);

/* worker_trial.c */
/* Sends the trial; NEED_WAIT when something must come first (ids, the node's turn). */
enum need pl_trial_send(struct pl_worker *w, uint32_t arm, uint32_t context, uint32_t sample,
                        uint32_t repeat, uint32_t attempt, bool timed, struct pl_err *err);
void pl_trial_over(struct pl_worker *w); /* frees the node */
void pl_trial_ceilings_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer);
void pl_trial_ids_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer,
                        const char *text);

#endif
