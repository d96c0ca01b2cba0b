/*
 * SIGKILL at random moments: writers that keep writing and re-writing rows of one file are killed,
 * then the file is opened by a reader. Every row that was reported committed (and not begun anew
 * since) is there and whole; no row is a mixture. A reader that looks on while they write sees no
 * torn row either.
 */
#include "fixture.h"
#include "unit.h"

#include "base/rng.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 20
#define WRITERS 3
#define ROWS 600u

/* What a writer says about a row, in shared memory: attempt + 1 of the last committed, and of the
 * one begun. */
struct said {
    volatile uint32_t begun, committed;
};

static struct pl_err err;
static struct pl_shape shape;
static char path[512];
static struct said *said;

/* Rows i ≡ me (mod WRITERS) in turn, over and over, each time with another salt. */
static void write_for_ever(uint32_t me)
{
    struct pl_writer *w = NULL;
    struct pl_row row;
    struct pl_log_block rec = {.used = 1};
    if (pl_writer_open(path, &shape, &w, &err) != PL_OK || pl_row_init(&row, &shape, &err) != PL_OK)
        _exit(1);
    for (uint32_t salt = 1;; salt++)
        for (uint64_t i = me; i < ROWS; i += WRITERS) {
            fixture_row(&shape, i, salt, &row);
            said[i].begun = salt;
            if (pl_writer_row(w, i, &row, PL_ROW_DONE, (uint8_t)salt, 0, &err) != PL_OK)
                _exit(1);
            said[i].committed = salt;
            rec.block = (uint32_t)i;
            rec.throttle_end = ~(uint64_t)i;
            if (pl_writer_log(w, PL_LOG_BLOCKS, (uint32_t)i, &rec, &err) != PL_OK)
                _exit(1);
        }
}

struct audit {
    struct pl_row want;
    uint64_t seen, torn, wrong;
    bool live; /* writers are at it: only torn rows are counted */
    bool there[ROWS];
};

static bool audit_row(void *ctx, const struct pl_row_view *v)
{
    struct audit *a = ctx;
    a->torn += v->torn;
    a->seen++;
    if (a->live || v->torn)
        return true;
    const uint32_t salt = v->row.trial->worker;
    a->there[v->index] = true;
    fixture_row(&shape, v->index, salt, &a->want);
    a->wrong += memcmp(a->want.bytes, v->row.bytes, a->want.n_bytes) != 0 ||
                v->commit.attempt != (uint8_t)salt ||
                (salt != said[v->index].committed && salt != said[v->index].begun);
    return true;
}

static void audit_logs(struct pl_reader *r)
{
    void *records = NULL;
    uint32_t n = 0;
    uint64_t over = 0;
    assert_ok(pl_reader_log(r, PL_LOG_BLOCKS, &records, &n, &over, &err));
    for (uint32_t i = 0; i < n; i++) {
        const struct pl_log_block b = ((struct pl_log_block *)records)[i];
        assert_true(b.throttle_end == ~(uint64_t)b.block);
    }
    free(records);
}

static void look(bool live, struct audit *a)
{
    struct pl_reader *r = NULL;
    a->live = live;
    a->seen = a->torn = a->wrong = 0;
    memset(a->there, 0, sizeof a->there);
    assert_ok(pl_reader_open(path, &r, &err));
    assert_ok(pl_reader_each(r, audit_row, a, &err));
    if (!live)
        audit_logs(r);
    pl_reader_free(r);
}

static void make_file(void)
{
    static const char *const names[] = {"a"}, *const json[] = {"{}"}, *const metrics[] = {"m"};
    static const char *const ids[] = {"s"};
    static const int64_t contexts[] = {64};
    const struct pl_results_spec spec = {.shape = shape,
                                         .arm_names = names,
                                         .arm_json = json,
                                         .contexts = contexts,
                                         .sample_ids = ids,
                                         .metric_names = metrics,
                                         .sweep_text = "",
                                         .resolved = "{}",
                                         .sha256 = "",
                                         .log_capacity = {1, 1, 1, ROWS, 1, 1, 1, 1}};
    unlink(path);
    memset(said, 0, ROWS * sizeof *said);
    assert_ok(pl_results_create(path, &spec, &err));
}

static void one_round(struct pl_rng *rng, struct audit *a, uint64_t *rows)
{
    pid_t pid[WRITERS];
    make_file();
    for (uint32_t k = 0; k < WRITERS; k++) {
        pid[k] = fork();
        if (pid[k] == 0)
            write_for_ever(k);
        assert_true(pid[k] > 0);
    }
    const struct timespec nap = {.tv_nsec = (long)(1000000 + pl_rng_below(rng, 60000000))};
    nanosleep(&nap, NULL);
    look(true, a);
    assert_int_equal(a->torn, 0);
    for (uint32_t k = 0; k < WRITERS; k++) {
        int status = 0;
        kill(pid[k], SIGKILL);
        assert_int_equal(waitpid(pid[k], &status, 0), pid[k]);
        assert_true(WIFSIGNALED(status));
    }
    look(false, a);
    assert_int_equal(a->wrong, 0);
    uint64_t torn_or_empty = 0;
    for (uint64_t i = 0; i < ROWS; i++) {
        /* each writer had one row in hand at most */
        if (!a->there[i] && said[i].committed && said[i].committed == said[i].begun)
            fail_msg("row %u was committed and is gone", (unsigned)i);
        torn_or_empty += !a->there[i] && said[i].begun;
    }
    assert_true(torn_or_empty <= WRITERS);
    *rows += a->seen;
}

static void committed_rows_survive_kills(void **state)
{
    (void)state;
    struct pl_rng rng;
    struct audit a = {.seen = 0};
    uint64_t rows = 0;
    shape = fixture_shape();
    shape.arms = shape.contexts = shape.samples = 1;
    shape.repeats = ROWS;
    shape.tokens = 700; /* 5.8 KB a row: several pages */
    snprintf(path, sizeof path, "%s", fixture_path("kill.h5"));
    said =
        mmap(NULL, ROWS * sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(said != MAP_FAILED);
    assert_ok(pl_row_init(&a.want, &shape, &err));
    pl_rng_init(&rng, 20260101);
    for (int i = 0; i < ROUNDS; i++)
        one_round(&rng, &a, &rows);
    print_message("%d rounds, %u writers, %u rows audited\n", ROUNDS, WRITERS, (unsigned)rows);
    assert_true(rows > ROUNDS);
    pl_row_release(&a.want);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(committed_rows_survive_kills)};
    return cmocka_run_group_tests_name("results/kill", tests, NULL, NULL);
}
