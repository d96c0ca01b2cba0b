#include "cli/runner/cmds.h"
#include "cli/runner/opts.h"
#include "model/tokenizer.h"
#include "worker/runner/jsonout.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct work {
    const struct pl_tokenizer *t;
    struct pl_ids ids;
    struct pl_buf text, out;
};

static enum pl_status encode(struct work *w, const json_t *line, struct pl_err *err)
{
    struct pl_jsonout o = {.buf = &w->out};
    enum pl_status st;

    if (!json_is_string(line))
        return pl_fail(err, PL_EFORMAT, "a JSON string is expected");
    w->ids.n = 0;
    st = pl_tokenizer_encode(w->t, json_string_value(line), json_string_length(line), true, &w->ids,
                             err);
    if (st)
        return st;
    pl_jsonout_i32s(&o, w->ids.ids, w->ids.n);
    return o.failed ? pl_fail(err, PL_ENOMEM, "no memory") : PL_OK;
}

static enum pl_status decode(struct work *w, const json_t *line, struct pl_err *err)
{
    struct pl_jsonout o = {.buf = &w->out};
    enum pl_status st = PL_OK;

    if (!json_is_array(line))
        return pl_fail(err, PL_EFORMAT, "a JSON list of ids is expected");
    w->ids.n = 0;
    pl_buf_clear(&w->text);
    for (size_t i = 0; !st && i < json_array_size(line); i++) {
        const json_t *v = json_array_get(line, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < INT32_MIN || id > INT32_MAX)
            return pl_fail(err, PL_EFORMAT, "place %zu: an id is expected", i);
        st = pl_ids_add(&w->ids, (int32_t)id, err);
    }
    if (!st)
        st = pl_tokenizer_decode(w->t, w->ids.ids, w->ids.n, &w->text, err);
    if (st)
        return st;
    pl_jsonout_str(&o, w->text.data ? w->text.data : "", w->text.len);
    return o.failed ? pl_fail(err, PL_ENOMEM, "no memory") : PL_OK;
}

static enum pl_status one_line(struct work *w, const char *line, size_t len, bool back,
                               struct pl_err *err)
{
    json_error_t e;
    json_t *j = json_loadb(line, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    enum pl_status st;

    if (!j)
        return pl_fail(err, PL_EFORMAT, "column %d: %s", e.column, e.text);
    pl_buf_clear(&w->out);
    st = back ? decode(w, j, err) : encode(w, j, err);
    json_decref(j);
    if (st)
        return st;
    /* A line for a line: whoever waits for this answer gets it before the next question. */
    fwrite(w->out.data, 1, w->out.len, stdout);
    putchar('\n');
    if (fflush(stdout) != 0)
        return pl_fail_errno(err, errno, "stdout");
    return PL_OK;
}

static enum pl_status run(void *arg, const char *path, struct pl_err *err)
{
    const bool back = *(const bool *)arg;
    struct pl_tokenizer *t = NULL;
    struct work w = {.ids = {0}};
    char *line = NULL;
    size_t size = 0;
    unsigned long long number = 0;
    enum pl_status st = pl_tokenizer_load(path, &t, err);

    if (st)
        return st;
    w.t = t;
    pl_buf_init(&w.text, PL_TOKENIZER_MAX_TEXT);
    pl_buf_init(&w.out, SIZE_MAX);
    while (!st) {
        ssize_t len = getline(&line, &size, stdin);
        if (len < 0)
            break;
        number++;
        st = one_line(&w, line, (size_t)len, back, err);
        if (st)
            st = pl_err_prefix(err, st, "line %llu", number);
    }
    if (!st && ferror(stdin))
        st = pl_fail_errno(err, errno, "stdin");
    free(line);
    pl_buf_release(&w.text);
    pl_buf_release(&w.out);
    pl_ids_release(&w.ids);
    pl_tokenizer_free(t);
    return st;
}

int pl_rcmd_tokenize(int argc, char **argv)
{
    bool back = false;
    const struct pl_ropt opts[] = {
        {"decode", 0, PL_ROPT_FLAG, &back, NULL, "lists of ids in, strings out", 0, 0}};
    const struct pl_rcommand c = {
        .usage = "tokenize MODEL [--decode]",
        .about = "Reads a JSON string a line and writes a JSON list of ids a line (with BOS\nwhere "
                 "the model's tokenizer adds it).",
        .opts = opts,
        .n_opts = 1,
        .min_args = 1,
        .max_args = 1};

    return pl_rcmd_run(&c, argc, argv, run, &back);
}
