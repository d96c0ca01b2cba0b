/* `paceline-runner serve`: docs/RUNNER.md over a pair of descriptors. */
#ifndef PL_WORKER_RUNNER_SERVE_H
#define PL_WORKER_RUNNER_SERVE_H

#include "base/status.h"

/* Says hello, answers until the end of input (PL_OK), until a fatal answer was given (PL_EPROTO) or
 * the reader is gone (PL_EIO). Borrows both descriptors. SIGPIPE is the caller's to ignore. */
PL_MUST_CHECK
enum pl_status pl_serve(int in, int out, struct pl_err *err);

#endif
