#include "base/json.h"

#include <string.h>

enum pl_status pl_json_parse(const char *name, const char *text, size_t len, json_t **out,
                             struct pl_err *err)
{
    json_error_t e;
    json_t *j = json_loadb(text ? text : "", len, JSON_REJECT_DUPLICATES, &e);

    if (!j) {
        enum pl_status st =
            json_error_code(&e) == json_error_out_of_memory ? PL_ENOMEM : PL_EFORMAT;
        return pl_fail(err, st, "%s:%d:%d: %s", name, e.line, e.column, e.text);
    }
    *out = j;
    return PL_OK;
}

enum pl_status pl_json_read_file(const char *path, size_t cap, json_t **out, struct pl_err *err)
{
    struct pl_buf b;
    enum pl_status st = pl_read_file(path, cap, &b, err);

    if (st)
        return st;
    st = pl_json_parse(path, b.data, b.len, out, err);
    pl_buf_release(&b);
    return st;
}

struct sink {
    struct pl_buf *buf;
    struct pl_err *err;
    enum pl_status st;
};

static int sink_add(const char *data, size_t n, void *arg)
{
    struct sink *s = arg;

    s->st = pl_buf_add(s->buf, data, n, s->err);
    return s->st ? -1 : 0;
}

enum pl_status pl_json_dump(const json_t *j, struct pl_buf *out, struct pl_err *err)
{
    struct sink s = {.buf = out, .err = err, .st = PL_OK};
    size_t before = out->len;

    if (json_dump_callback(j, sink_add, &s,
                           JSON_COMPACT | JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY) == 0)
        return PL_OK;
    out->len = before;
    if (out->data)
        out->data[before] = '\0';
    if (s.st)
        return pl_err_prefix(err, s.st, "JSON output");
    return pl_fail(err, PL_EFORMAT, "JSON output: the value cannot be written");
}

static const char *type_name(const json_t *j)
{
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

/* The member, NULL when it is absent or null: writers of configuration files use both for "not
 * set". */
static const json_t *member(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_null(v) ? NULL : v;
}

static enum pl_status wrong_type(struct pl_err *err, const char *key, const char *want,
                                 const json_t *v)
{
    return pl_fail(err, PL_EFORMAT, "\"%s\": %s is expected, not %s", key, want, type_name(v));
}

enum pl_status pl_json_i64(const json_t *o, const char *key, int64_t dflt, int64_t *out,
                           struct pl_err *err)
{
    const json_t *v = member(o, key);

    if (v && !json_is_integer(v))
        return wrong_type(err, key, "an integer", v);
    *out = v ? json_integer_value(v) : dflt;
    return PL_OK;
}

enum pl_status pl_json_f64(const json_t *o, const char *key, double dflt, double *out,
                           struct pl_err *err)
{
    const json_t *v = member(o, key);

    if (v && !json_is_number(v))
        return wrong_type(err, key, "a number", v);
    *out = v ? json_number_value(v) : dflt;
    return PL_OK;
}

enum pl_status pl_json_bool(const json_t *o, const char *key, bool dflt, bool *out,
                            struct pl_err *err)
{
    const json_t *v = member(o, key);

    if (v && !json_is_boolean(v))
        return wrong_type(err, key, "a boolean", v);
    *out = v ? json_is_true(v) : dflt;
    return PL_OK;
}

enum pl_status pl_json_str(const json_t *o, const char *key, const char *dflt, const char **out,
                           struct pl_err *err)
{
    const json_t *v = member(o, key);

    if (v && !json_is_string(v))
        return wrong_type(err, key, "a string", v);
    *out = v ? json_string_value(v) : dflt;
    return PL_OK;
}

const char *pl_json_get_str(const json_t *o, const char *key, const char *dflt)
{
    const json_t *v = json_object_get(o, key);

    return json_is_string(v) ? json_string_value(v) : dflt;
}

int64_t pl_json_get_i64(const json_t *o, const char *key, int64_t dflt)
{
    const json_t *v = json_object_get(o, key);

    return json_is_integer(v) ? json_integer_value(v) : dflt;
}

double pl_json_get_f64(const json_t *o, const char *key, double dflt)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : dflt;
}
