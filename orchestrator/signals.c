#include "orchestrator/signals.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t terms, users, last_code, first;

static void on_term(int sig)
{
    if (terms == 0)
        first = sig;
    if (terms < 3)
        terms = terms + 1;
}

static void on_user(int sig)
{
    (void)sig;
    users = 1;
}

static void on_alarm(int sig)
{
    (void)sig;
    _exit(last_code);
}

static void install(int sig, void (*handler)(int))
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = handler;
    a.sa_flags = SA_RESTART;
    sigemptyset(&a.sa_mask);
    sigaction(sig, &a, NULL);
}

void pl_signals_install(void)
{
    install(SIGINT, on_term);
    install(SIGTERM, on_term);
    struct sigaction hup;
    if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler == SIG_DFL)
        install(SIGHUP, on_term);
    install(SIGUSR1, on_user);
    install(SIGPIPE, SIG_IGN);
}

bool pl_signals_stop(void)
{
    return terms > 0 || users > 0;
}

bool pl_signals_again(void)
{
    return terms > 1;
}

bool pl_signals_term(void)
{
    return terms > 0;
}

const char *pl_signals_reason(bool by_mpirun)
{
    if (terms == 0)
        return "USR1: the time is up";
    if (first == SIGHUP)
        return "HUP: the terminal was closed";
    if (first == SIGINT)
        return "ctrl-C (INT)";
    return by_mpirun ? "TERM from mpirun: ctrl-C there, or a rank was lost" : "TERM";
}

void pl_signals_watchdog(unsigned seconds, int exit_code)
{
    last_code = exit_code;
    install(SIGALRM, on_alarm);
    alarm(seconds);
}
