/*
 * Child processes with pipes. All pipe ends of the parent are non-blocking and close-on-exec. A
 * child is started by posix_spawn with stdin/stdout/stderr on pipes in a process group of its own,
 * through whatever argv says (for runners: `paceline-runner exec …`, the trampoline, which sets the
 * parent-death signal, affinity and a clean environment in the child). One thread per pl_child.
 * Nothing here waits unless its name says so.
 *
 * The first start ignores SIGPIPE for the whole process (unless a handler is set): writing to a
 * child that died must be an error code, not the end of the program. Children get every signal's
 * default disposition and an empty mask.
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
    struct pl_buf line;    /* bytes of stdout; those from `taken` on are not yet handed out */
    size_t taken;          /* offset into line; it moves rather than the bytes: no copy a line */
    size_t scanned;        /* offset into line: no newline between taken and here */
    size_t max_line;       /* bytes */
    bool skipping;         /* the rest of a line that was too long is being dropped */
    struct pl_buf pending; /* bytes for stdin; those from `sent` on are not yet written */
    size_t sent;           /* offset into pending */
    int pidfd;             /* readable once the child has exited; -1 where the kernel has none */
    char tail[4096];       /* last bytes of stderr, oldest first, NUL-terminated */
    size_t tail_len;
};

/* First thing in a program: where 0, 1 or 2 was closed, it becomes /dev/null, opened so that
 * reading or writing it still fails. Else the next file opened, a results file say, would get that
 * number, and what is printed there would go into it. */
void pl_standard_fds(void);

/* max_line caps a line of stdout (and what may wait for stdin). argv[0] is looked up in PATH when
 * it has no slash; PL_ENOENT when it cannot be started. c is overwritten, on failure too (zeroed:
 * releasing it is then harmless). On success the child runs; release it with pl_child_release. */
PL_MUST_CHECK
enum pl_status pl_child_start(struct pl_child *c, const char *const argv[], size_t max_line,
                              struct pl_err *err);
/* Queues bytes for stdin and writes what fits; PL_ERANGE when more than max_line would wait (none
 * of them is sent then), PL_EIO once the child closed it. */
PL_MUST_CHECK
enum pl_status pl_child_send(struct pl_child *c, const void *data, size_t n, struct pl_err *err);
/* Moves bytes: waits up to timeout_ns for any of the pipes or the child's end (0: does not wait),
 * reads stdout and stderr, writes pending stdin, reaps. Returns true when something happened; false
 * after the timeout, after a signal, or at once when nothing is left to wait for. extra_fd ≥ 0 is
 * polled for reading too. One call moves at most 1 MiB a pipe. Call pl_child_line until NULL
 * between calls: with more than max_line bytes of lines waiting, stdout is not read. */
bool pl_child_pump(struct pl_child *c, int64_t timeout_ns, int extra_fd);
/* Next complete line without its newline (NUL-terminated, valid until the next call on c), NULL
 * when there is none yet. len and too_long may be NULL. *too_long is set (never cleared) when a
 * line is longer than max_line: it is dropped up to its newline, the call returns NULL, and the
 * next call goes on with the line after it. An unterminated line at the end of stdout is not handed
 * out: a child that died while writing leaves no half message. */
char *pl_child_line(struct pl_child *c, size_t *len, bool *too_long);
/* True when the child closed stdout and every line was handed out. */
bool pl_child_eof(const struct pl_child *c);
/* Signals the whole process group; no-op once reaped. */
void pl_child_kill(struct pl_child *c, int sig);
/* Tries to reap without waiting; true once reaped. What is left of the child's process group is
 * killed with it. */
bool pl_child_reap(struct pl_child *c);
/* SIGKILLs what still lives, waits up to 10 s for it, closes the pipes, frees, zeroes c. Returns
 * false when it could not be reaped (a process stuck in the kernel): its device must be
 * quarantined; c->pid is then kept, so that pl_child_reap can be tried later. Accepts a zeroed
 * struct. */
bool pl_child_release(struct pl_child *c);
/* "exit code 3", "killed by SIGSEGV" or "running" */
void pl_child_describe(const struct pl_child *c, char *out, size_t size);

#endif
