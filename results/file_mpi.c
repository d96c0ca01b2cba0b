/* MPI-IO for writers. MPI_COMM_SELF keeps every HDF5 call local: none can hang on a dead rank. */
#include "results/h5.h"

#include <mpi.h>

int pl_h5_fapl_mpi(hid_t fapl)
{
    int begun = 0, ended = 0;
    if (MPI_Initialized(&begun) != MPI_SUCCESS || MPI_Finalized(&ended) != MPI_SUCCESS)
        return -1;
    if (!begun || ended)
        return 0;
    return H5Pset_fapl_mpio(fapl, MPI_COMM_SELF, MPI_INFO_NULL) < 0 ? -1 : 0;
}
