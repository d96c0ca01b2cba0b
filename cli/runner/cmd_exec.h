/* `paceline-runner exec`: the trampoline that runners are started through. */
#ifndef PL_CLI_RUNNER_CMD_EXEC_H
#define PL_CLI_RUNNER_CMD_EXEC_H

/*
 * argv[0] is "exec"; then [--parent PID] [--cpus LIST] -- CMD [ARGS…]. In the child: dies with its
 * parent (and at once when PID is not its parent any more), a process group of its own,
 * oom_score_adj 1000, bound to LIST, no descriptors but 0, 1 and 2, the variables of MPI launchers
 * and of Slurm tasks removed, default signals; then becomes CMD. Returns only on failure, with a
 * line on stderr: 2 usage, 126 CMD cannot be run, 127 CMD is not found.
 */
int pl_exec_main(int argc, char **argv);

#endif
