/* What this build has. New reference: {version, compiler, cuda, ffmpeg, png (and their versions),
 * mpi, hdf5, isa, device}. */
#ifndef PL_CLI_RUNNER_BUILD_INFO_H
#define PL_CLI_RUNNER_BUILD_INFO_H

#include <jansson.h>

json_t *pl_build_info(void);

#endif
