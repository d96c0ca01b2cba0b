#include "cmd_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CPUS_MAX 16384 /* PU numbers that --cpus may name */

extern char **environ;

struct options {
    long parent;      /* 0: not given */
    const char *cpus; /* NULL: not given */
    char **cmd;
};

static const char usage_text[] =
    "usage: paceline-runner exec [--parent PID] [--cpus LIST] -- CMD [ARGS...]\n"
    "LIST: processor numbers, as in 0-3,8\n";

static int usage(const char *why, const char *what)
{
    fprintf(stderr, "paceline-runner exec: %s%s%s%s\n", why, what ? " '" : "", what ? what : "",
            what ? "'" : "");
    fputs(usage_text, stderr);
    return 2;
}

/* A decimal number 0 … max that ends at one of `ends` (a NUL among them counts too). */
static bool number(const char **s, long max, const char *ends, long *out)
{
    char *end;

    if (**s < '0' || **s > '9')
        return false;
    errno = 0;
    *out = strtol(*s, &end, 10);
    if (errno || *out > max || (*end && !strchr(ends, *end)))
        return false;
    *s = end;
    return true;
}

static bool parse_cpus(const char *s, cpu_set_t *set, size_t size)
{
    long first, last;

    CPU_ZERO_S(size, set);
    for (;;) {
        if (!number(&s, CPUS_MAX - 1, "-,", &first))
            return false;
        last = first;
        if (*s == '-') {
            s++;
            if (!number(&s, CPUS_MAX - 1, ",", &last) || last < first)
                return false;
        }
        for (long pu = first; pu <= last; pu++)
            CPU_SET_S((size_t)pu, size, set);
        if (!*s)
            return true;
        s++;
    }
}

static int parse(int argc, char **argv, struct options *o)
{
    int i = 1;

    memset(o, 0, sizeof(*o));
    for (; i < argc && strcmp(argv[i], "--") != 0; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--parent") == 0) {
            const char *s = value;
            if (!number(&s, INT_MAX, "", &o->parent) || o->parent < 1)
                return usage("--parent wants a process number, not", value);
        } else if (strcmp(argv[i], "--cpus") == 0) {
            o->cpus = value;
        } else {
            return usage("unknown option", argv[i]);
        }
    }
    if (i + 1 >= argc)
        return usage("no command after --", NULL);
    o->cmd = argv + i + 1;
    return 0;
}

/* 0, or an exit code. */
static int bind_cpus(const char *list)
{
    const size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    int rc = 0;

    if (!set || !parse_cpus(list, set, size)) {
        rc = usage("--cpus wants a list as 0-3,8, not", list);
    } else if (sched_setaffinity(0, size, set) != 0) {
        /* Where a sandbox forbids it, trials still run; a list that is not ours is a mistake. */
        fprintf(stderr, "paceline-runner exec: cannot bind to processors %s: %s\n", list,
                strerror(errno));
        rc = errno == EINVAL ? 2 : 0;
    }
    CPU_FREE(set);
    return rc;
}

/* The first that the kernel kills when memory runs out is the runner, not the rank. */
static void volunteer_for_oom(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    ssize_t n = write(fd, "1000\n", 5);
    (void)n; /* refused in some containers: no harm */
    close(fd);
}

static void close_inherited(void)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0)
        return;
#endif
    long n = sysconf(_SC_OPEN_MAX);
    if (n < 0 || n > 65536)
        n = 65536;
    for (int fd = 3; fd < n; fd++)
        close(fd);
}

/* What would make an MPI or srun inside the runner believe that it is a task of this job. The job's
 * own variables (SLURM_JOB_ID, CUDA_VISIBLE_DEVICES …) stay. A trailing * is a prefix. */
static bool is_task_variable(const char *entry)
{
    static const char *const names[] = {
        "OMPI_*",
        "PMIX_*",
        "PMI_*",
        "PMI2_*",
        "PRTE_*",
        "ORTE_*",
        "HYDI_*",
        "HYDRA_*",
        "MPIR_*",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
        "SLURM_CPU_BIND*",
        "SLURM_MEM_BIND*",
        "SLURM_GPU_BIND*",
        "SLURM_ACCEL_BIND*",
        "SLURM_TRES_PER_TASK",
        "SLURM_TRES_BIND",
        "SLURM_GPUS_PER_TASK",
        "SLURM_CPUS_PER_TASK",
        "SLURM_THREADS_PER_CORE",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_GTIDS",
        "SLURM_TASK_PID",
        "SLURM_TASKS_PER_NODE",
        "SLURM_NTASKS*",
        "SLURM_NPROCS",
        "SLURM_NNODES",
        "SLURM_STEP_*",
        "SLURM_STEPID",
        "SLURM_STEPMGR",
        "SLURM_DISTRIBUTION",
        "SLURM_DIST_*",
        "SLURM_LAUNCH_NODE_IPADDR",
        "SLURM_SRUN_COMM_*",
        "SLURM_MPI_TYPE",
        "SLURM_PMI*",
        "SLURM_UMASK",
        "SLURM_RLIMIT_*",
        "SLURM_HET_*",
    };
    const size_t len = strcspn(entry, "=");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t n = strlen(names[i]);
        if (names[i][n - 1] == '*' ? len >= n - 1 && strncmp(entry, names[i], n - 1) == 0
                                   : len == n && strncmp(entry, names[i], n) == 0)
            return true;
    }
    return false;
}

static void clean_environment(void)
{
    char **to = environ;

    if (!environ)
        return;
    for (char **from = environ; *from; from++) {
        if (!is_task_variable(*from))
            *to++ = *from;
    }
    *to = NULL;
}

static void set_signals(void)
{
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL); /* SIGKILL, SIGSTOP and libc's own refuse: no harm */
    /* Slurm signals a whole step, runners too. When to stop is the rank's to say: it closes the
     * pipe or kills; a trial in hand is finished. Ignored signals stay so across the exec. */
    static const int ranks_own[] = {SIGINT, SIGTERM, SIGUSR1, SIGHUP};
    for (size_t i = 0; i < sizeof ranks_own / sizeof ranks_own[0]; i++)
        (void)signal(ranks_own[i], SIG_IGN);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

int pl_exec_main(int argc, char **argv)
{
    struct options o;
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return fputs(usage_text, stdout) == EOF || fflush(stdout) != 0 ? 6 : 0;
    int rc = parse(argc, argv, &o);

    if (rc)
        return rc;
    /* The signal comes when the thread that spawned us ends: ranks have one. An exec of a
     * set-user-id program would clear it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        fprintf(stderr, "paceline-runner exec: no parent-death signal: %s\n", strerror(errno));
    if (o.parent && getppid() != (pid_t)o.parent) {
        fprintf(stderr, "paceline-runner exec: process %ld is not the parent (any more)\n",
                o.parent);
        return 2;
    }
    (void)setpgid(0, 0); /* the spawner did it already, unless a person typed this */
    if (o.cpus && (rc = bind_cpus(o.cpus)))
        return rc;
    volunteer_for_oom();
    close_inherited();
    clean_environment();
    set_signals();
    execvp(o.cmd[0], o.cmd);
    rc = errno == ENOENT || errno == ENOTDIR ? 127 : 126;
    fprintf(stderr, "paceline-runner exec: cannot run %s: %s\n", o.cmd[0], strerror(errno));
    return rc;
}
