/*
 * One supervised runner child: start through the trampoline, hello, one request in flight at a
 * time, deadlines. Non-blocking: the owner calls pl_runner_pump often. The protocol is
 * docs/RUNNER.md. Local, no MPI.
 */
#ifndef PL_WORKER_RANK_RUNNER_H
#define PL_WORKER_RANK_RUNNER_H

#include "base/json.h"
#include "base/status.h"
#include "results/record.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_runner;

struct pl_runner_opts {
    const char
        *program; /* path of paceline-runner (the trampoline, and the engine when exec is NULL) */
    const char *const *exec;  /* foreign engine's argv, NULL-terminated; NULL: `program serve` */
    const char *cpus;         /* "0-1,4"; NULL: leave the affinity alone */
    int64_t hello_timeout_ns; /* 0: 60 s */
};

/* Starts the child; PL_ENOENT when it cannot be. Does not wait for hello. */
PL_MUST_CHECK
enum pl_status pl_runner_start(const struct pl_runner_opts *opts, struct pl_runner **out,
                               struct pl_err *err);
/* Kills, reaps (≤ 10 s), frees. false: it could not be reaped and its device must be quarantined.
 * NULL is fine. */
bool pl_runner_free(struct pl_runner *r);

/* Once hello came: its object (borrowed); NULL before. */
const json_t *pl_runner_hello(const struct pl_runner *r);
bool pl_runner_synthetic(const struct pl_runner *r);

/* True when it failed because its hello names another protocol version: the run should end
 * (err->text names both). */
bool pl_runner_wrong_protocol(const struct pl_runner *r);

/* Sends a request (an "id" is added; the object is not kept). Only after READY and when none is in
 * flight (PL_EBUSY). timeout_ns from now; 0: none. PL_ERANGE: it is over 8 MiB. A child that died
 * or babbled meanwhile is not an error here: the next pl_runner_pump says PL_RUNNER_FAILED. */
PL_MUST_CHECK
enum pl_status pl_runner_send(struct pl_runner *r, json_t *request, int64_t timeout_ns,
                              struct pl_err *err);

enum pl_runner_event {
    PL_RUNNER_NOTHING, /* still waiting */
    PL_RUNNER_READY,   /* hello came */
    PL_RUNNER_ANSWER,  /* *answer is a new reference (type may be "error") */
    PL_RUNNER_FAILED   /* the child is dead or was killed by us: *reason, err->text, and the stderr
                          tail say why */
};
/*
 * Waits up to wait_ns for something to happen (0: polls). The reasons of a failure: TIMEOUT (no
 * hello or no answer before the deadline, whether it computes, hangs, or stopped reading), CRASH
 * (it exited or died by a signal), OOM (killed, and the cgroup or the kernel counted an
 * out-of-memory kill), GARBAGE (not the protocol: not JSON, another id, a line over 8 MiB, bytes
 * that nobody asked for), START (it exited before its hello, or speaks another protocol), or the
 * reason of an "error" answer that says fatal. Every later call gives the same failure.
 */
enum pl_runner_event pl_runner_pump(struct pl_runner *r, int64_t wait_ns, json_t **answer,
                                    enum pl_reason *reason, struct pl_err *err);
const char *pl_runner_stderr_tail(const struct pl_runner *r);

/* Blocking convenience for validate, plan and inspect (never used while a trial runs): waits for
 * hello if need be, sends and waits. An "error" answer becomes PL_EFORMAT with its text; a failure
 * PL_ETIMEOUT (TIMEOUT), PL_ENOENT (START), PL_ENOMEM (OOM) or PL_EPROTO with the last line of
 * stderr. New reference in *answer. */
PL_MUST_CHECK
enum pl_status pl_runner_call(struct pl_runner *r, json_t *request, int64_t timeout_ns,
                              json_t **answer, struct pl_err *err);
/* Path of paceline-runner: $PACELINE_RUNNER, else beside /proc/self/exe, else ../bin, else where a
 * build tree has it. Buffer of PATH_MAX. PL_ENOENT says where it looked. */
PL_MUST_CHECK
enum pl_status pl_runner_find(char *out, size_t size, struct pl_err *err);

#endif
