/*
 * Child processes with pipes. All pipe ends of the parent are non-blocking and close-on-exec. A child is started by posix_spawn
 * with stdin/stdout/stderr on pipes in a process group of its own, through whatever argv says (for runners: `paceline-runner
 * exec …`, the trampoline, which sets the parent-death signal, affinity and a clean environment in the child).
 * One thread per pl_child. Nothing here waits unless its name says so.
 */
#ifndef PL_BASE_PROC_H
#define PL_BASE_PROC_H

#include "base/buf.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pl_child {
    pid_t pid;             /* 0: none */
    int in, out, err;      /* parent's ends; -1 when closed. in: the child's stdin */
    bool exited;           /* reaped; status is valid */
    int status;            /* waitpid's */
    struct pl_buf line;    /* bytes of stdout not yet handed out */
    size_t scanned;        /* of them known to hold no newline */
    struct pl_buf pending; /* bytes for stdin not yet written */
    char tail[4096];       /* last bytes of stderr, oldest first, NUL-terminated */
    size_t tail_len;
};

/* max_line caps a line of stdout (and what may wait for stdin). PL_ENOENT when argv[0] cannot be started. On success the child
 * runs; release it with pl_child_release. */
PL_MUST_CHECK enum pl_status pl_child_start(struct pl_child *c, const char *const argv[],
                                            size_t max_line, struct pl_err *err);
/* Queues bytes for stdin and writes what fits; PL_ERANGE when more than max_line waits, PL_EIO once the child closed it. */
PL_MUST_CHECK enum pl_status pl_child_send(struct pl_child *c, const void *data, size_t n,
                                           struct pl_err *err);
/* Moves bytes: waits up to timeout_ns for any of the pipes (0: does not wait), reads stdout and stderr, writes pending
 * stdin, reaps. Returns true when something happened. extra_fd ≥ 0 is polled for reading too. */
bool pl_child_pump(struct pl_child *c, int64_t timeout_ns, int extra_fd);
/* Next complete line without its newline (NUL-terminated, valid until the next call on c), NULL when there is none yet.
 * *too_long is set when the cap was reached without a newline (the buffer is then dropped). */
char *pl_child_line(struct pl_child *c, size_t *len, bool *too_long);
/* True when the child closed stdout and every line was handed out. */
bool pl_child_eof(const struct pl_child *c);
/* Signals the whole process group; no-op once reaped. */
void pl_child_kill(struct pl_child *c, int sig);
/* Tries to reap without waiting. */
bool pl_child_reap(struct pl_child *c);
/* SIGKILLs what still lives, waits up to 10 s for it, closes the pipes, frees. Returns false when it could not be reaped
 * (a process stuck in the kernel): its device must be quarantined. Accepts a zeroed struct. */
bool pl_child_release(struct pl_child *c);
/* "exit code 3" or "killed by SIGSEGV" */
void pl_child_describe(const struct pl_child *c, char *out, size_t size);

#endif
