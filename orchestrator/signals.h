/* INT, TERM, HUP (unless it was ignored, as under nohup) and USR1 ask a run to stop; a second one
 * of the first three means at once. The handlers only count. */
#ifndef PL_ORCHESTRATOR_SIGNALS_H
#define PL_ORCHESTRATOR_SIGNALS_H

#include <stdbool.h>

/* Process-wide; also makes SIGPIPE an error code. */
void pl_signals_install(void);
bool pl_signals_stop(void);  /* any of them came */
bool pl_signals_again(void); /* INT, TERM or HUP came at least twice */
bool pl_signals_term(void);  /* one of these came, and not USR1 alone */
/* What came first, in words, for the status file and the user. */
const char *pl_signals_reason(bool by_mpirun);
/* After so many seconds the process ends with this code, whatever hangs. */
void pl_signals_watchdog(unsigned seconds, int exit_code);

#endif
