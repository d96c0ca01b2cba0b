#include "base/status.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const texts[] = {
#define PL_X(sym, exit_code, text) [sym] = text,
    PL_STATUS_LIST(PL_X)
#undef PL_X
};

static const int exits[] = {
#define PL_X(sym, exit_code, text) [sym] = exit_code,
    PL_STATUS_LIST(PL_X)
#undef PL_X
};

const char *pl_status_text(enum pl_status st)
{
    return (unsigned)st < PL_STATUS_COUNT ? texts[st] : "unknown status";
}

int pl_status_exit(enum pl_status st)
{
    return (unsigned)st < PL_STATUS_COUNT ? exits[st] : 6;
}

/* A cut text must not end inside a UTF-8 character: it goes into JSON, whose writers refuse such
 * strings. */
static size_t whole_chars(const char *s, size_t n)
{
    size_t i = n;

    while (i > 0 && n - i < 4 && ((unsigned char)s[i - 1] & 0xC0) == 0x80)
        i--;
    if (i == 0 || (unsigned char)s[i - 1] < 0xC0)
        return n;
    unsigned char lead = (unsigned char)s[i - 1];
    size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    return n - (i - 1) < need ? i - 1 : n;
}

/* Texts are one line: what a library or a file name brings in is flattened here. */
static void flatten(char *s)
{
    size_t n = strlen(s);

    while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == '\r'))
        s[--n] = '\0';
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\n' || s[i] == '\r')
            s[i] = ' ';
    }
}

static void format(char *out, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(out, size, fmt, ap);

    if (n < 0)
        out[0] = '\0';
    else if ((size_t)n >= size)
        out[whole_chars(out, size - 1)] = '\0';
}

/* head + tail into err; both may have been made from err->text, so they are copies. */
static void set_text(struct pl_err *err, const char *head, const char *tail)
{
    size_t room = sizeof(err->text) - 1;
    size_t h = strnlen(head, room);
    size_t t = strnlen(tail, room - h);
    bool cut = head[h] != '\0' || tail[t] != '\0';

    memcpy(err->text, head, h);
    memcpy(err->text + h, tail, t);
    err->text[cut ? whole_chars(err->text, h + t) : h + t] = '\0';
    flatten(err->text);
}

enum pl_status pl_fail(struct pl_err *err, enum pl_status st, const char *fmt, ...)
{
    char text[sizeof(err->text)];
    va_list ap;

    if (!err)
        return st;
    va_start(ap, fmt);
    format(text, sizeof(text), fmt, ap);
    va_end(ap);
    set_text(err, text, "");
    return st;
}

static enum pl_status status_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
        return PL_ENOENT;
    case EEXIST:
        return PL_EEXIST;
    case ENOMEM:
        return PL_ENOMEM;
    case EISDIR:
        return PL_EUSAGE;
    default:
        return PL_EIO;
    }
}

enum pl_status pl_fail_errno(struct pl_err *err, int errnum, const char *fmt, ...)
{
    char text[sizeof(err->text)], reason[256], tail[sizeof(reason) + 2];
    va_list ap;

    if (!err)
        return status_of_errno(errnum);
    va_start(ap, fmt);
    format(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* the GNU variant: may return a static text instead of filling the buffer */
    snprintf(tail, sizeof(tail), ": %s", strerror_r(errnum, reason, sizeof(reason)));
    /* the reason matters more than the end of a very long path */
    size_t keep = sizeof(err->text) - 1 - strlen(tail);
    if (strlen(text) > keep)
        text[whole_chars(text, keep)] = '\0';
    set_text(err, text, tail);
    return status_of_errno(errnum);
}

enum pl_status pl_err_prefix(struct pl_err *err, enum pl_status st, const char *fmt, ...)
{
    char head[sizeof(err->text)], tail[sizeof(err->text) + 2];
    va_list ap;

    if (!err)
        return st;
    va_start(ap, fmt);
    format(head, sizeof(head), fmt, ap);
    va_end(ap);
    snprintf(tail, sizeof(tail), ": %s", err->text);
    set_text(err, head, tail);
    return st;
}
