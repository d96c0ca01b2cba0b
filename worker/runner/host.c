#include "worker/runner/host.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Up to size − 1 bytes of a small file as a string; "" when it cannot be read. */
static void slurp(const char *path, char *out, size_t size)
{
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    while (fd >= 0 && len < size - 1) {
        ssize_t got = read(fd, out + len, size - 1 - len);
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    out[len] = '\0';
    if (fd >= 0)
        close(fd);
}

/* "KEY: value" → value's start, NULL when the key is not there. */
static const char *field(const char *text, const char *key)
{
    size_t n = strlen(key);

    for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        if (strncmp(p, key, n) != 0)
            continue;
        p += n;
        return p + strspn(p, " \t:");
    }
    return NULL;
}

static int64_t kib_field(const char *text, const char *key)
{
    const char *v = field(text, key);

    return v ? strtoll(v, NULL, 10) * 1024 : 0;
}

void pl_host_read(struct pl_host *h)
{
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max",
                                         "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    char text[8192];
    const char *name;

    memset(h, 0, sizeof(*h));
    slurp("/proc/cpuinfo", text, sizeof(text));
    name = field(text, "model name");
    if (name)
        snprintf(h->cpu_name, sizeof(h->cpu_name), "%.*s", (int)strcspn(name, "\n"), name);
    slurp("/proc/meminfo", text, sizeof(text));
    h->memory_bytes = kib_field(text, "MemTotal");
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        slurp(limits[i], text, sizeof(text));
        long long v = strtoll(text, NULL, 10);
        if (v > 0 && (h->memory_bytes == 0 || v < h->memory_bytes))
            h->memory_bytes = v;
    }
}

void pl_host_resident(struct pl_resident *r)
{
    char text[4096];
    struct rusage u;

    slurp("/proc/self/status", text, sizeof(text));
    r->now = kib_field(text, "VmRSS");
    r->peak = kib_field(text, "VmHWM");
    if (r->peak == 0 && getrusage(RUSAGE_SELF, &u) == 0)
        r->peak = (int64_t)u.ru_maxrss * 1024;
    if (r->peak < r->now)
        r->peak = r->now;
}

bool pl_host_reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, "5", 1) == 1;

    if (fd >= 0)
        close(fd);
    return ok;
}

void pl_host_gpu_driver(char *out, size_t size)
{
    FILE *f = fopen("/sys/module/nvidia/version", "re");

    if (!f || !fgets(out, (int)size, f))
        *out = '\0';
    out[strcspn(out, "\n")] = '\0';
    if (f)
        fclose(f);
}

size_t pl_host_gpus(struct pl_device_info out[PL_HOST_GPUS])
{
    const struct pl_backend *b = pl_backend_by_name("cuda");

    return b && b->list ? b->list(out, PL_HOST_GPUS) : 0;
}

int pl_host_gpu_number(const char *uuid)
{
    struct pl_device_info gpus[PL_HOST_GPUS];
    size_t n = pl_host_gpus(gpus);

    for (size_t i = 0; i < n && uuid; i++)
        if (strcmp(gpus[i].uuid, uuid) == 0)
            return (int)i;
    return -1;
}
