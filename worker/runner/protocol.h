/*
 * The runner's end of docs/RUNNER.md: lines in, lines out. Blocking; one thread.
 */
#ifndef PL_WORKER_RUNNER_PROTOCOL_H
#define PL_WORKER_RUNNER_PROTOCOL_H

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "worker/runner/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_PROTOCOL_VERSION 1
#define PL_PROTOCOL_LINE_MAX (8u << 20) /* bytes of a line without its newline */

struct pl_protocol {
    int in, out;
    struct pl_buf rx; /* bytes read and not yet consumed */
    size_t start;     /* of rx: the first byte not handed out */
    size_t scanned;   /* of rx: known to hold no newline */
    bool skipping;    /* inside a line that was too long */
    struct pl_buf tx; /* the answer under construction */
};

/* Borrows both descriptors. */
void pl_protocol_init(struct pl_protocol *p, int in, int out);
void pl_protocol_release(struct pl_protocol *p);

/* Moves fd 1 away and points 1 at stderr, since libraries print; returns the new descriptor for
 * answers (close-on-exec, ≥ 3), −1 with errno. */
int pl_protocol_claim_stdout(void);

/* The next line, without its newline, NUL-terminated, valid until the next call; blank lines are
 * passed over. *line NULL: end of input (what stands before it without a newline is dropped).
 * PL_ERANGE: a line over the cap, which is skipped; the next call goes on behind it. PL_EIO. */
PL_MUST_CHECK
enum pl_status pl_protocol_next(struct pl_protocol *p, char **line, size_t *len,
                                struct pl_err *err);
/* Sends tx and a newline, clears tx. PL_ERANGE: over the cap, nothing sent. PL_EIO: the reader is
 * gone. */
PL_MUST_CHECK
enum pl_status pl_protocol_send(struct pl_protocol *p, struct pl_err *err);
/* The same for an object. */
PL_MUST_CHECK
enum pl_status pl_protocol_send_json(struct pl_protocol *p, const json_t *j, struct pl_err *err);

/* The whole of n bytes to fd, also when it is non-blocking. */
PL_MUST_CHECK
enum pl_status pl_write_all(int fd, const char *data, size_t n, struct pl_err *err);

/* Replaces tx by a result or an error. PL_ERANGE, PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_protocol_put_result(struct pl_protocol *p, uint64_t id,
                                      const struct pl_trial_result *r, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_protocol_put_error(struct pl_protocol *p, uint64_t id,
                                     const struct pl_fault *fault, struct pl_err *err);

#endif
