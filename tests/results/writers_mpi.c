/*
 * Ranks write one file, each for itself: rank 0 creates, all open with MPI-IO and write their share
 * of the rows, rank 0 reads. Run under mpirun with any number of ranks. writers_mpi FILE [ROWS]
 * prints committed rows a second writers_mpi --full DIR       one rank: DIR is a small file system
 * that this fills; a row must then fail with PL_EIO
 */
#include "fixture.h"

#include "base/clock.h"

#include <mpi.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct pl_err err;

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "writers_mpi: %s: %s\n", what, err.text);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static bool audit(void *ctx, const struct pl_row_view *v)
{
    uint64_t *good = ctx;
    struct pl_row want;
    struct pl_shape s = fixture_shape();
    s.samples = (uint32_t)good[1];
    check(pl_row_init(&want, &s, &err) == PL_OK, "row");
    fixture_row(&s, v->index, 0, &want);
    good[0] += !v->torn && memcmp(want.bytes, v->row.bytes, want.n_bytes) == 0;
    pl_row_release(&want);
    return true;
}

static void share(const char *path, uint32_t samples, int rank, int ranks)
{
    struct pl_shape s = fixture_shape();
    struct pl_writer *w = NULL;
    struct pl_reader *r = NULL;
    struct pl_row row;
    s.samples = samples;
    const uint64_t rows = pl_shape_rows(&s);
    if (rank == 0) {
        unlink(path);
        check(fixture_create(path, &s, &err) == PL_OK, "create");
    }
    MPI_Barrier(MPI_COMM_WORLD);
    check(pl_writer_open(path, &s, &w, &err) == PL_OK, "open");
    check(pl_row_init(&row, &s, &err) == PL_OK, "row");
    MPI_Barrier(MPI_COMM_WORLD);
    const int64_t t0 = pl_now_ns();
    for (uint64_t i = (uint64_t)rank; i < rows; i += (uint64_t)ranks) {
        fixture_row(&s, i, 0, &row);
        check(pl_writer_row(w, i, &row, PL_ROW_DONE, 0, 0, &err) == PL_OK, "write");
    }
    MPI_Barrier(MPI_COMM_WORLD);
    const double seconds = (double)(pl_now_ns() - t0) / 1e9;
    if (rank == 0) {
        uint64_t good[2] = {0, samples};
        check(pl_reader_open(path, &r, &err) == PL_OK, "read");
        check(pl_reader_each(r, audit, good, &err) == PL_OK, "read");
        pl_reader_free(r);
        check(good[0] == rows, "rows differ");
        printf("%" PRIu64 " rows, %d ranks: %.0f rows/s\n", rows, ranks, (double)rows / seconds);
        unlink(path);
    }
    pl_row_release(&row);
    pl_writer_free(w);
}

static void fill_disk(const char *dir)
{
    static const char zeros[4096];
    char other[700];
    snprintf(other, sizeof other, "%s/other", dir);
    const int fd = open(other, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check(fd >= 0, other);
    while (write(fd, zeros, sizeof zeros) > 0)
        ;
    close(fd);
}

static void full(const char *dir)
{
    struct pl_shape s = fixture_shape();
    struct pl_writer *w = NULL;
    struct pl_row row;
    char path[600];
    enum pl_status st = PL_OK;
    uint64_t i = 0;
    s.samples = 300;
    snprintf(path, sizeof path, "%s/r.h5", dir);
    unlink(path);
    check(fixture_create(path, &s, &err) == PL_OK, "create");
    check(pl_writer_open(path, &s, &w, &err) == PL_OK, "open");
    check(pl_row_init(&row, &s, &err) == PL_OK, "row");
    fixture_row(&s, 0, 0, &row);
    fill_disk(dir);
    for (; st == PL_OK && i < pl_shape_rows(&s); i++)
        st = pl_writer_row(w, i, &row, PL_ROW_DONE, 0, 0, &err);
    check(st == PL_EIO && strcasestr(err.text, "no space left on device"),
          "a full disk is PL_EIO and says so");
    printf("row %" PRIu64 ": %s\n", i - 1, err.text);
    pl_row_release(&row);
    pl_writer_free(w);
}

int main(int argc, char **argv)
{
    int rank = 0, ranks = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (argc == 3 && strcmp(argv[1], "--full") == 0)
        full(argv[2]);
    else if (argc >= 2)
        share(argv[1], argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 500, rank, ranks);
    MPI_Finalize();
    return argc < 2 ? 2 : 0;
}
