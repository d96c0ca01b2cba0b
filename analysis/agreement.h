/* How much of what an arm generated its baseline generated too. */
#ifndef PL_ANALYSIS_AGREEMENT_H
#define PL_ANALYSIS_AGREEMENT_H

#include "analysis/dataset.h"

/*
 * Fills the quality column `agreement` of every arm that is not its own baseline: of the places
 * where either of the two trials of a sample and repeat has an id, the part where both have the
 * same one. Synthetic rows have none: their ids say nothing. A file without that column is left as
 * it is. Reads the rows again, twice. PL_ENOMEM, and what the reader says.
 */
PL_MUST_CHECK
enum pl_status pl_agreement_add(struct pl_dataset *d, struct pl_err *err);

#endif
