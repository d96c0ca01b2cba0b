/* `bench --transport` (spec_decode/transport.h): latency and bandwidth between two devices. */
#ifndef PL_CLI_RUNNER_BENCH_TRANSPORT_H
#define PL_CLI_RUNNER_BENCH_TRANSPORT_H

#include "base/status.h"
#include "cli/runner/bench_print.h"

/* From one device to another ("cpu", "cuda", "cuda:N"; NULL: two GPUs where there are, else one
 * that is both ends, else the CPU), by each transport that joins them; why the others do not is
 * told, too. Prints to stdout. */
PL_MUST_CHECK
enum pl_status pl_bench_transport(const char *from, const char *to, enum pl_bench_format format,
                                  struct pl_err *err);

#endif
