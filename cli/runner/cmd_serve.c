#include "cli/runner/cmds.h"
#include "cli/runner/opts.h"
#include "worker/runner/protocol.h"
#include "worker/runner/serve.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

int pl_rcmd_serve(int argc, char **argv)
{
    static const struct pl_rcommand c = {
        .usage = "serve", .about = "Speaks the runner protocol (docs/RUNNER.md) until stdin ends."};
    struct pl_err err = {""};
    size_t n;
    int code = pl_ropts_parse(&c, argc, argv, NULL, &n);

    if (code >= 0)
        return code;
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is an error of write */
    int out = pl_protocol_claim_stdout();
    if (out < 0)
        return pl_rcmd_fail("serve", pl_fail_errno(&err, errno, "stdout"), &err);
    enum pl_status st = pl_serve(STDIN_FILENO, out, &err);
    close(out);
    return st ? pl_rcmd_fail("serve", st, &err) : 0;
}
