/* Building text with one check at the end, and the escapes of every output format. */
#include "analysis/out.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pl_out_init(struct pl_out *o, size_t cap)
{
    memset(o, 0, sizeof *o);
    pl_buf_init(&o->buf, cap);
}

void pl_out_release(struct pl_out *o)
{
    pl_buf_release(&o->buf);
}

void pl_out_add(struct pl_out *o, const char *data, size_t n)
{
    if (o->st == PL_OK)
        o->st = pl_buf_add(&o->buf, data, n, &o->err);
}

void pl_out_text(struct pl_out *o, const char *s)
{
    pl_out_add(o, s, strlen(s));
}

void pl_out_f(struct pl_out *o, const char *fmt, ...)
{
    va_list ap;

    if (o->st != PL_OK)
        return;
    va_start(ap, fmt);
    const int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *at = n < 0 ? NULL : pl_buf_reserve(&o->buf, (size_t)n);
    if (!at) {
        o->st = pl_fail(&o->err, PL_ENOMEM, "no room for %d more bytes of text", n);
        return;
    }
    va_start(ap, fmt);
    vsnprintf(at, (size_t)n + 1, fmt, ap);
    va_end(ap);
    o->buf.len += (size_t)n;
}

static const char *html(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

static const char *json(char c)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

static const char *markdown(char c)
{
    switch (c) {
    case '|':
        return "\\|";
    case '\\':
        return "\\\\";
    case '`':
        return "\\`";
    case '*':
        return "\\*";
    case '<':
        return "\\<";
    case '&':
        return "\\&";
    case '[':
        return "\\[";
    case ']':
        return "\\]";
    case '\n':
    case '\t':
        return " ";
    default:
        return NULL;
    }
}

static const char *tex(char c)
{
    switch (c) {
    case '&':
        return "\\&";
    case '%':
        return "\\%";
    case '$':
        return "\\$";
    case '#':
        return "\\#";
    case '_':
        return "\\_";
    case '{':
        return "\\{";
    case '}':
        return "\\}";
    case '~':
        return "\\textasciitilde{}";
    case '^':
        return "\\textasciicircum{}";
    case '\\':
        return "\\textbackslash{}";
    case '<':
        return "\\textless{}";
    case '>':
        return "\\textgreater{}";
    case '|':
        return "\\textbar{}";
    case '"':
        return "\\textquotedbl{}";
    case '\n':
    case '\t':
        return " ";
    default:
        return NULL;
    }
}

static const char *gnuplot(char c)
{
    if (c == '\'')
        return "''";
    return c == '\n' || c == '\t' ? " " : NULL;
}

static const char *quote_only(char c)
{
    return c == '"' ? "\"\"" : NULL;
}

static const char *line(char c)
{
    return c == '\n' || c == '\t' ? " " : NULL;
}

static void mapped(struct pl_out *o, const char *s, const char *(*map)(char))
{
    const char *from = s;
    for (; *s; s++) {
        const char *to = map(*s);
        if (!to)
            continue;
        pl_out_add(o, from, (size_t)(s - from));
        pl_out_text(o, to);
        from = s + 1;
    }
    pl_out_add(o, from, (size_t)(s - from));
}

static void csv(struct pl_out *o, const char *s)
{
    const size_t n = strlen(s);
    const bool bare = !strpbrk(s, ",\"\n\r") && (n == 0 || (s[0] != ' ' && s[n - 1] != ' '));
    if (bare && n) {
        pl_out_add(o, s, n);
        return;
    }
    pl_out_text(o, "\"");
    mapped(o, s, quote_only);
    pl_out_text(o, "\"");
}

void pl_out_esc(struct pl_out *o, enum pl_escape e, const char *s)
{
    switch (e) {
    case PL_ESC_NONE:
        pl_out_text(o, s);
        break;
    case PL_ESC_HTML:
        mapped(o, s, html);
        break;
    case PL_ESC_JSON:
        pl_out_text(o, "\"");
        mapped(o, s, json);
        pl_out_text(o, "\"");
        break;
    case PL_ESC_CSV:
        csv(o, s);
        break;
    case PL_ESC_MD:
        mapped(o, s, markdown);
        break;
    case PL_ESC_TEX:
        mapped(o, s, tex);
        break;
    case PL_ESC_GNUPLOT:
        pl_out_text(o, "'");
        mapped(o, s, gnuplot);
        pl_out_text(o, "'");
        break;
    case PL_ESC_LINE:
        mapped(o, s, line);
        break;
    }
}

void pl_out_num(struct pl_out *o, double v)
{
    char text[40];

    if (!isfinite(v)) {
        pl_out_text(o, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    pl_out_text(o, text);
}

enum pl_status pl_out_status(const struct pl_out *o, struct pl_err *err)
{
    return o->st == PL_OK ? PL_OK : pl_fail(err, o->st, "%s", o->err.text);
}

enum pl_status pl_out_write(const struct pl_out *o, const char *path, struct pl_err *err)
{
    if (o->st != PL_OK)
        return pl_fail(err, o->st, "%s: %s", path, o->err.text);
    return pl_write_file_atomic(path, o->buf.len ? o->buf.data : "", o->buf.len, err);
}

/* Length of the UTF-8 character at s (RFC 3629), 0 when there is none. */
static size_t utf8_len(const unsigned char *s)
{
    unsigned low = 0x80, high = 0xbf;
    size_t n;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        n = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        n = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return n;
}

void pl_text_clean(char *s)
{
    unsigned char *p = (unsigned char *)s;
    while (*p) {
        const size_t n = utf8_len(p);
        const bool control = n == 1 && (*p < 0x20 || *p == 0x7f) && *p != '\n' && *p != '\t';
        const bool c1 = n == 2 && p[0] == 0xc2 && p[1] < 0xa0; /* U+0080 … U+009F */
        if (n == 0 || control)
            *p++ = '?';
        else if (c1)
            p[0] = p[1] = '?', p += 2;
        else
            p += n;
    }
}

size_t pl_text_width(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}
