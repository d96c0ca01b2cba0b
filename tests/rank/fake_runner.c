/*
 * A runner that misbehaves on demand, and its own trampoline: `fake_runner exec …` is
 * paceline-runner's exec; `fake_runner MODE` speaks the protocol until MODE says otherwise. It
 * reads requests as text: it looks for "id": and "type":, nothing more.
 */
#include "../../cli/runner/cmd_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

static void say(const char *s)
{
    fputs(s, stdout);
    fflush(stdout);
}

static void hello(int protocol)
{
    printf("{\"type\":\"hello\",\"protocol\":%d,\"runner\":\"fake\",\"version\":\"1\","
           "\"synthetic\":true,"
           "\"devices\":[{\"kind\":\"cpu\",\"uuid\":\"cpu\",\"name\":\"fake\",\"bytes\":1}],"
           "\"group\":%ld}\n",
           protocol, (long)getpgrp());
    fflush(stdout);
}

static void flood(FILE *to, size_t bytes)
{
    static char block[65536];

    memset(block, 'x', sizeof(block));
    for (size_t n = 0; n < bytes; n += sizeof(block)) {
        if (fwrite(block, 1, sizeof(block), to) != sizeof(block))
            _exit(9);
    }
    fflush(to);
}

/* What the trampoline made of this process, one "key value" line each on stdout. */
static int show(void)
{
    char buf[64] = "";
    int sig = 0, fds = 0, fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    cpu_set_t set;
    sigset_t mask;

    if (fd >= 0 && read(fd, buf, sizeof(buf) - 1) < 0)
        buf[0] = '\0';
    if (fd >= 0)
        close(fd);
    buf[strcspn(buf, "\n")] = '\0';
    prctl(PR_GET_PDEATHSIG, &sig);
    for (int i = 3; i < 1024; i++)
        fds += fcntl(i, F_GETFD) >= 0;
    sched_getaffinity(0, sizeof(set), &set);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    printf("oom %s\npdeathsig %d\nfds %d\ncpus %d\nleader %d\nusr1 %s\nblocked %d\n", buf, sig, fds,
           CPU_COUNT(&set), getpgrp() == getpid(),
           signal(SIGUSR1, SIG_DFL) == SIG_IGN ? "ignored" : "other", sigismember(&mask, SIGUSR2));
    for (char **e = environ; *e; e++)
        printf("env %s\n", *e);
    return 0;
}

/* Before any request. True: go on and serve. */
static bool begin(const char *mode, int *rc)
{
    *rc = 0;
    if (strcmp(mode, "exit-at-once") == 0) {
        fputs("cannot find my configuration\n", stderr);
        *rc = 3;
        return false;
    }
    if (strcmp(mode, "crash-at-hello") == 0) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would turn it into an exit code */
        raise(SIGSEGV);
    }
    if (strcmp(mode, "silent") == 0) {
        pause();
        return false;
    }
    if (strcmp(mode, "garbage-hello") == 0)
        say("Loading checkpoint shards: 100%\n");
    if (strcmp(mode, "stderr-flood") == 0)
        flood(stderr, 32 << 20);
    if (strcmp(mode, "close-stdout") == 0) {
        hello(1);
        close(1);
        pause();
        return false;
    }
    hello(strcmp(mode, "protocol-2") == 0 ? 2 : 1);
    if (strcmp(mode, "babble-after-hello") == 0) {
        usleep(20000);
        say("ready!\n");
    }
    if (strcmp(mode, "stop-reading") == 0) {
        for (;;)
            pause();
    }
    if (strcmp(mode, "close-stdin") == 0) {
        close(0);
        for (;;)
            pause();
    }
    return true;
}

/* One request; the mode's misbehaviour begins with the second. */
static bool answer(const char *mode, unsigned long long id, const char *type, int n)
{
    const bool now = n >= 2;

    if (now && strcmp(mode, "crash") == 0) {
        fputs("assertion failed: kv_len == 7\n", stderr);
        abort();
    }
    if (now && strcmp(mode, "exit") == 0)
        exit(4);
    if (now && strcmp(mode, "half-line") == 0) {
        printf("{\"type\":\"result\",\"id\":%llu,", id);
        fflush(stdout);
        _exit(0);
    }
    if (now && strcmp(mode, "kill-9") == 0)
        raise(SIGKILL);
    if (now && strcmp(mode, "hang") == 0) {
        fputs("waiting for the device\n", stderr);
        for (;;)
            pause();
    }
    if (now && strcmp(mode, "grandchild") == 0) {
        if (fork() == 0)
            for (;;)
                pause();
        for (;;)
            pause();
    }
    if (now && strcmp(mode, "garbage") == 0) {
        say("\x1b[31mWarning:\x1b[0m deprecated\n");
        return true;
    }
    if (now && strcmp(mode, "no-object") == 0) {
        say("[1,2,3]\n");
        return true;
    }
    if (now && strcmp(mode, "long-line") == 0) {
        flood(stdout, (size_t)1 << 30);
        say("\n");
        return true;
    }
    if (now && strcmp(mode, "big-answer-then-exit") == 0) {
        printf("{\"type\":\"result\",\"id\":%llu,\"pad\":\"", id);
        flood(stdout, 7 << 20);
        say("\"}\n");
        _exit(0);
    }
    if (now && strcmp(mode, "error") == 0) {
        printf("{\"type\":\"error\",\"id\":%llu,\"reason\":\"context\",\"text\":\"too short\","
               "\"fatal\":false}\n",
               id);
        fflush(stdout);
        return true;
    }
    if (now && strcmp(mode, "fatal") == 0) {
        printf("{\"type\":\"error\",\"id\":%llu,\"reason\":\"oom\",\"text\":\"no device memory\","
               "\"fatal\":true}\n",
               id);
        fflush(stdout);
        return false;
    }
    if (now && strcmp(mode, "wrong-id") == 0)
        id += 41;
    printf("{\"type\":\"%s\",\"id\":%llu,\"pid\":%ld,\"generated\":[32],\"ttft_ns\":1,\"total_ns\":"
           "2}\n",
           strcmp(type, "trial") == 0 ? "result" : type, id, (long)getpid());
    if (now && strcmp(mode, "babble-with-answer") == 0)
        fputs("done\n", stdout);
    fflush(stdout);
    if (now && strcmp(mode, "babble-after-answer") == 0) {
        usleep(20000);
        say("done");
    }
    if (now && strcmp(mode, "exit-after-answer") == 0)
        _exit(5);
    return true;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "normal";
    char *line = NULL;
    size_t size = 0;
    int rc;

    if (strcmp(mode, "exec") == 0)
        return pl_exec_main(argc - 1, argv + 1);
    if (strcmp(mode, "show") == 0)
        return show();
    if (strcmp(mode, "loop-exec") == 0) { /* the trampoline's descriptor and signal duties */
        fcntl(1, F_DUPFD, 100);
        signal(SIGUSR1, SIG_IGN);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, NULL);
        return pl_exec_main(argc - 1, argv + 1);
    }
    if (!begin(mode, &rc))
        return rc;
    for (int n = 1; getline(&line, &size, stdin) > 0; n++) {
        const char *id = strstr(line, "\"id\":"), *type = strstr(line, "\"type\":\"");
        char name[32] = "";
        if (type)
            snprintf(name, sizeof(name), "%.*s", (int)strcspn(type + 8, "\""), type + 8);
        if (!answer(mode, id ? strtoull(id + 5, NULL, 10) : 0, name, n))
            break;
    }
    free(line);
    return 0;
}
