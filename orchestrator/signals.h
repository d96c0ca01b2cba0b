/* INT, TERM and USR1 ask a run to stop; a second INT or TERM means at once. The handlers only
 * count. */
#ifndef PL_ORCHESTRATOR_SIGNALS_H
#define PL_ORCHESTRATOR_SIGNALS_H

#include <stdbool.h>

/* Process-wide; also makes SIGPIPE an error code. */
void pl_signals_install(void);
bool pl_signals_stop(void);  /* any of the three came */
bool pl_signals_again(void); /* INT or TERM came at least twice */
bool pl_signals_term(void);  /* INT or TERM came, and not USR1 alone */
/* After so many seconds the process ends with this code, whatever hangs. */
void pl_signals_watchdog(unsigned seconds, int exit_code);

#endif
