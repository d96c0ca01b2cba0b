#include "base/log.h"

#include "base/clock.h"
#include "base/utf8.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX 4096u

static struct {
    enum pl_log_level level;
    bool json;
    char prefix[64];
} conf = {.level = PL_LOG_INFO};

void pl_log_setup(enum pl_log_level level, const char *prefix, bool json)
{
    conf.level = level;
    conf.json = json;
    snprintf(conf.prefix, sizeof(conf.prefix), "%s", prefix ? prefix : "");
}

static const char *level_name(enum pl_log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    return (unsigned)level < 4 ? names[level] : "info";
}

/* s as the inside of a JSON string, cut at size; always NUL-terminated. */
static void json_text(char *out, size_t size, const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t at = 0;
    uint32_t c;

    while (*p && size - at > 7) { /* the longest piece is \u00XX */
        size_t n = pl_utf8_char((const char *)p, strnlen((const char *)p, 4), &c);
        if (n == 0) {
            memcpy(out + at, "\xEF\xBF\xBD", 3); /* U+FFFD */
            at += 3;
            n = 1;
        } else if (*p == '"' || *p == '\\') {
            out[at++] = '\\';
            out[at++] = (char)*p;
        } else if (*p < 0x20) {
            at += (size_t)snprintf(out + at, size - at, "\\u%04x", *p);
        } else {
            memcpy(out + at, p, n);
            at += n;
        }
        p += n;
    }
    out[at] = '\0';
}

/* One write(2). A pipe that is full and non-blocking is waited for, briefly: a log must not stop a
 * run. */
static void put(const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(STDERR_FILENO, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0) {
            struct pollfd f = {.fd = STDERR_FILENO, .events = POLLOUT};
            if (errno == EAGAIN && poll(&f, 1, 100) > 0)
                continue;
            return;
        }
        p += w;
        n -= (size_t)w;
    }
}

void pl_log(enum pl_log_level level, const char *fmt, ...)
{
    char text[TEXT_MAX], line[2 * TEXT_MAX];
    int saved = errno, n;
    va_list ap;

    if (level > conf.level)
        return;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    if (conf.json) {
        char who[6 * sizeof(conf.prefix)], msg[sizeof(line) - 512];
        json_text(who, sizeof(who), conf.prefix);
        json_text(msg, sizeof(msg), text);
        n = snprintf(line, sizeof(line),
                     "{\"t_ms\":%lld,\"level\":\"%s\",\"who\":\"%s\",\"msg\":\"%s\"}\n",
                     (long long)(pl_wall_ns() / PL_NS_PER_MS), level_name(level), who, msg);
    } else {
        for (char *p = text; (p = strpbrk(p, "\r\n"));)
            *p = ' ';
        n = snprintf(line, sizeof(line), "paceline: %s%s%s%s%s\n", conf.prefix,
                     conf.prefix[0] ? ": " : "", level == PL_LOG_INFO ? "" : level_name(level),
                     level == PL_LOG_INFO ? "" : ": ", text);
    }
    if (n > 0)
        put(line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
    errno = saved;
}
