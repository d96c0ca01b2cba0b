/* Create, write, read back: rows, logs, labels, refusals, and rows that were damaged. */
#include "fixture.h"
#include "unit.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct pl_err err;
static struct pl_shape shape;
static char path[512];

static int setup(void **state)
{
    (void)state;
    shape = fixture_shape();
    snprintf(path, sizeof path, "%s", fixture_path("file.h5"));
    unlink(path);
    err.text[0] = '\0';
    return fixture_create(path, &shape, &err) == PL_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void labels_come_back(void **state)
{
    (void)state;
    struct pl_reader *r = NULL;
    assert_ok(pl_reader_open(path, &r, &err));
    assert_memory_equal(pl_reader_shape(r), &shape, sizeof shape);
    assert_string_equal(pl_reader_arm(r, 0), "baseline");
    assert_string_equal(pl_reader_arm(r, 1), "drafted-γ3");
    assert_string_equal(pl_reader_arm(r, 2), "");
    assert_string_equal(json_string_value(json_object_get(pl_reader_arm_json(r, 1), "model")),
                        "llm");
    assert_int_equal(pl_reader_context(r, 1), 512);
    assert_string_equal(pl_reader_sample(r, 2), "text@2");
    assert_string_equal(pl_reader_metric(r, 0), "exact_match");
    assert_string_equal(pl_reader_sweep_text(r), "name: fixture\nseed: 1\n");
    assert_int_equal(json_integer_value(json_object_get(pl_reader_sweep(r), "seed")), 1);
    assert_int_equal(strlen(pl_reader_sha256(r)), 64);
    assert_int_equal(json_array_size(json_object_get(pl_reader_provenance(r), "gpus")), 2);
    pl_reader_free(r);
}

struct seen {
    uint64_t n, next;
    struct pl_row want;
};

static bool compare(void *ctx, const struct pl_row_view *v)
{
    struct seen *s = ctx;
    assert_true(v->index >= s->next);
    for (; s->next < v->index; s->next++)
        assert_int_equal(fixture_state(s->next), PL_ROW_EMPTY);
    s->next++;
    s->n++;
    assert_false(v->torn);
    assert_int_equal(v->commit.state, fixture_state(v->index));
    fixture_row(&shape, v->index, 0, &s->want);
    if (v->commit.state == PL_ROW_FAILED)
        s->want.trial->reason = PL_REASON_TIMEOUT;
    assert_int_equal(v->row.n_bytes, s->want.n_bytes);
    assert_memory_equal(v->row.bytes, s->want.bytes, s->want.n_bytes);
    assert_int_equal(pl_row_index(&shape, &v->id), v->index);
    return true;
}

static void rows_come_back(void **state)
{
    (void)state;
    struct pl_reader *r = NULL;
    struct seen s = {.n = 0};
    struct pl_verify_counts n;
    struct pl_commit marks[24];
    assert_ok(fixture_fill(path, &shape, &err));
    assert_ok(pl_row_init(&s.want, &shape, &err));
    assert_ok(pl_reader_open(path, &r, &err));
    assert_ok(pl_reader_each(r, compare, &s, &err));
    assert_int_equal(s.n, 22);
    assert_ok(pl_reader_markers(r, 0, 24, marks, &err));
    for (uint64_t i = 0; i < 24; i++)
        assert_int_equal(marks[i].state, fixture_state(i));
    assert_int_equal(pl_reader_markers(r, 20, 5, marks, &err), PL_ERANGE);
    assert_ok(pl_reader_verify(r, NULL, NULL, &n, &err));
    assert_int_equal(n.rows, 24);
    assert_int_equal(n.done, 19);
    assert_int_equal(n.failed, 3);
    assert_int_equal(n.empty, 2);
    assert_int_equal(n.problems, 0);
    pl_row_release(&s.want);
    pl_reader_free(r);
}

static bool stop_at_once(void *ctx, const struct pl_row_view *v)
{
    (void)v;
    ++*(int *)ctx;
    return false;
}

static void a_visitor_may_stop(void **state)
{
    (void)state;
    struct pl_reader *r = NULL;
    int n = 0;
    assert_ok(fixture_fill(path, &shape, &err));
    assert_ok(pl_reader_open(path, &r, &err));
    assert_ok(pl_reader_each(r, stop_at_once, &n, &err));
    assert_int_equal(n, 1);
    pl_reader_free(r);
}

static void logs_come_back(void **state)
{
    (void)state;
    struct pl_reader *r = NULL;
    struct pl_writer *w = NULL;
    void *records = NULL;
    uint32_t n = 0;
    uint64_t over = 0;
    struct pl_log_block b = {.used = 1};
    assert_ok(fixture_fill(path, &shape, &err));
    assert_ok(pl_reader_open(path, &r, &err));
    assert_ok(pl_reader_log(r, PL_LOG_BLOCKS, &records, &n, &over, &err));
    assert_int_equal(n, 2);
    assert_int_equal(over, 5);
    assert_int_equal(((struct pl_log_block *)records)[1].done, 4);
    assert_true(isnan(((struct pl_log_block *)records)[1].mhz_start));
    free(records);
    assert_ok(pl_reader_log(r, PL_LOG_FAILURES, &records, &n, &over, &err));
    assert_int_equal(n, 1);
    assert_int_equal(over, 0);
    const struct pl_log_failure *f = records;
    assert_string_equal(f->detail, "no answer in 60 s");
    assert_int_equal(f->reason, PL_REASON_TIMEOUT);
    free(records);
    pl_reader_free(r);
    assert_ok(pl_writer_open(path, &shape, &w, &err));
    assert_int_equal(pl_writer_log(w, PL_LOG_BLOCKS, 4, &b, &err), PL_ERANGE);
    assert_contains(err.text, "slot 4 of 4");
    pl_writer_free(w);
}

static void a_row_can_be_run_again(void **state)
{
    (void)state;
    struct pl_writer *w = NULL;
    struct pl_reader *r = NULL;
    struct pl_row row;
    struct pl_commit m;
    assert_ok(pl_row_init(&row, &shape, &err));
    assert_ok(pl_reader_open(path, &r, &err)); /* sees what is written after it was opened */
    assert_ok(pl_writer_open(path, &shape, &w, &err));
    fixture_row(&shape, 9, 0, &row);
    row.trial->reason = PL_REASON_CRASH;
    assert_ok(pl_writer_row(w, 9, &row, PL_ROW_FAILED, 0, 1, &err));
    assert_ok(pl_reader_markers(r, 9, 1, &m, &err));
    assert_true(m.state == PL_ROW_FAILED && m.attempt == 0 && m.session == 1);
    fixture_row(&shape, 9, 3, &row);
    assert_ok(pl_writer_row(w, 9, &row, PL_ROW_DONE, 1, 2, &err));
    assert_ok(pl_reader_markers(r, 9, 1, &m, &err));
    assert_true(m.state == PL_ROW_DONE && m.attempt == 1 && m.session == 2);
    assert_int_equal(m.crc, pl_row_crc(9, &row));
    assert_int_equal(pl_writer_row(w, 24, &row, PL_ROW_DONE, 0, 0, &err), PL_ERANGE);
    assert_int_equal(pl_writer_row(w, 1, &row, PL_ROW_EMPTY, 0, 0, &err), PL_ERANGE);
    pl_writer_free(w);
    pl_reader_free(r);
    pl_row_release(&row);
}

static void refusals_are_clear(void **state)
{
    (void)state;
    struct pl_writer *w = NULL;
    struct pl_reader *r = NULL;
    struct stat sb;
    char other[600];
    assert_int_equal(fixture_create(path, &shape, &err), PL_EEXIST);
    assert_contains(err.text, path);
    assert_int_equal(fixture_create("/dev/full", &shape, &err), PL_EIO);
    assert_contains(err.text, "/dev/full");
    assert_int_equal(fixture_create("/tmp", &shape, &err), PL_EIO);
    assert_contains(err.text, "directory");
    assert_int_equal(fixture_create("/nowhere/at/all.h5", &shape, &err), PL_ENOENT);
    assert_contains(err.text, "No such file");
    snprintf(other, sizeof other, "%s/below", path);
    assert_int_equal(fixture_create(other, &shape, &err), PL_EIO);
    assert_contains(err.text, "Not a directory");
    snprintf(other, sizeof other, "%s.creating", path);
    assert_int_not_equal(stat(other, &sb), 0); /* nothing half-made stays */
    assert_int_equal(pl_reader_open("/nowhere", &r, &err), PL_ENOENT);
    assert_int_equal(pl_reader_open("/dev/null", &r, &err), PL_EFORMAT);
    assert_int_equal(pl_writer_open("/nowhere", &shape, &w, &err), PL_ENOENT);
    struct pl_shape wrong = shape;
    wrong.samples = 5;
    assert_int_equal(pl_writer_open(path, &wrong, &w, &err), PL_EFORMAT);
    assert_contains(err.text, "samples = 3, this sweep has 5");
    assert_null(w);
    assert_null(r);
}

struct told {
    int n;
    char last[512];
};

static void told(void *ctx, const char *text)
{
    struct told *t = ctx;
    t->n++;
    snprintf(t->last, sizeof t->last, "%s", text);
}

/* Finds a run of bytes in the file; they are chosen to be there once. */
static off_t where(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "rb");
    char *all = NULL;
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    const size_t size = (size_t)ftell(f);
    rewind(f);
    all = malloc(size);
    assert_int_equal(fread(all, 1, size, f), size);
    fclose(f);
    const char *hit = memmem(all, size, bytes, n);
    assert_non_null(hit);
    const off_t at = hit - all;
    free(all);
    return at;
}

static void damage_is_found(void **state)
{
    (void)state;
    struct pl_reader *r = NULL;
    struct pl_verify_counts n;
    struct told t = {.n = 0};
    struct pl_row row;
    assert_ok(fixture_fill(path, &shape, &err));
    assert_ok(pl_row_init(&row, &shape, &err));
    fixture_row(&shape, 2, 0, &row);
    const off_t at = where(&row.trial->ids_hash, sizeof row.trial->ids_hash);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "?", 1, at), 1);
    close(fd);
    assert_ok(pl_reader_open(path, &r, &err));
    assert_ok(pl_reader_verify(r, told, &t, &n, &err));
    assert_int_equal(n.torn, 1);
    assert_int_equal(n.done, 18);
    assert_int_equal(n.empty, 2);
    assert_int_equal(t.n, 1);
    assert_int_equal(n.problems, 1);
    assert_contains(t.last, "row 2 (arm baseline, context 64, sample 1, repeat 0)");
    assert_contains(t.last, "checksum");
    pl_reader_free(r);
    pl_row_release(&row);
}

static void contradictions_are_found(void **state)
{
    (void)state;
    struct pl_reader *r = NULL;
    struct pl_writer *w = NULL;
    struct pl_verify_counts n;
    struct told t = {.n = 0};
    struct pl_row row;
    struct pl_log_failure f = {.used = 1, .reason = PL_REASON_CRASH, .row = 24};
    assert_ok(pl_row_init(&row, &shape, &err));
    assert_ok(pl_writer_open(path, &shape, &w, &err));
    fixture_row(&shape, 0, 0, &row);
    row.trial->wait_ms = 100;
    assert_ok(pl_writer_row(w, 0, &row, PL_ROW_DONE, 0, 0, &err));
    fixture_row(&shape, 1, 0, &row);
    assert_ok(pl_writer_row(w, 1, &row, PL_ROW_FAILED, 0, 0, &err));
    assert_ok(pl_writer_log(w, PL_LOG_FAILURES, 0, &f, &err));
    pl_writer_free(w);
    assert_ok(pl_reader_open(path, &r, &err));
    assert_ok(pl_reader_verify(r, told, &t, &n, &err));
    assert_int_equal(n.broken_identity, 2);
    assert_int_equal(n.bad_log, 1);
    assert_int_equal(n.problems, 3);
    assert_int_equal(n.torn, 0);
    pl_reader_free(r);
    pl_row_release(&row);
}

static void without_rounds_or_quality(void **state)
{
    (void)state;
    struct pl_reader *r = NULL;
    struct pl_shape plain = shape;
    struct pl_verify_counts n;
    unlink(path);
    plain.rounds = plain.metrics = 0;
    assert_ok(fixture_create(path, &plain, &err));
    assert_ok(fixture_fill(path, &plain, &err));
    assert_ok(pl_reader_open(path, &r, &err));
    assert_memory_equal(pl_reader_shape(r), &plain, sizeof plain);
    assert_string_equal(pl_reader_metric(r, 0), "");
    assert_ok(pl_reader_verify(r, NULL, NULL, &n, &err));
    assert_int_equal(n.problems, 0);
    assert_int_equal(n.done, 19);
    pl_reader_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(labels_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_visitor_may_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(logs_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_row_can_be_run_again, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals_are_clear, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(contradictions_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(without_rounds_or_quality, setup, teardown),
    };
    return cmocka_run_group_tests_name("results/file", tests, NULL, NULL);
}
