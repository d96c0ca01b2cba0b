#include "worker/rank/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>

/* From NVML's reference: the functions as the library exports them, and the numbers they take. */
#define CLOCK_SM 1
#define TEMPERATURE_GPU 0
typedef void *device_t;

struct pl_nvml {
    void *so;
    device_t device;
    int (*init)(void);
    int (*stop)(void);
    const char *(*text)(int);
    int (*by_uuid)(const char *, device_t *);
    int (*clock)(device_t, int, unsigned *);
    int (*temperature)(device_t, int, unsigned *);
    int (*reasons)(device_t, unsigned long long *);
    int (*energy)(device_t, unsigned long long *); /* mJ */
};

static void *find(struct pl_nvml *n, const char *name, const char **missing)
{
    void *f = dlsym(n->so, name);

    if (!f && !*missing)
        *missing = name;
    return f;
}

static enum pl_status resolve(struct pl_nvml *n, struct pl_err *err)
{
    const char *missing = NULL, *old = "";

    *(void **)&n->init = find(n, "nvmlInit_v2", &missing);
    *(void **)&n->stop = find(n, "nvmlShutdown", &missing);
    *(void **)&n->text = find(n, "nvmlErrorString", &missing);
    *(void **)&n->by_uuid = find(n, "nvmlDeviceGetHandleByUUID", &missing);
    *(void **)&n->clock = find(n, "nvmlDeviceGetClockInfo", &missing);
    *(void **)&n->temperature = find(n, "nvmlDeviceGetTemperature", &missing);
    *(void **)&n->energy = find(n, "nvmlDeviceGetTotalEnergyConsumption", &missing);
    /* renamed in driver 525; either does */
    *(void **)&n->reasons = find(n, "nvmlDeviceGetCurrentClocksEventReasons", &old);
    if (!n->reasons)
        *(void **)&n->reasons = find(n, "nvmlDeviceGetCurrentClocksThrottleReasons", &missing);
    return missing ? pl_fail(err, PL_ENOENT, "NVML has no %s", missing) : PL_OK;
}

enum pl_status pl_nvml_open(const char *library, const char *uuid, struct pl_nvml **out,
                            struct pl_err *err)
{
    struct pl_nvml *n = calloc(1, sizeof(*n));
    enum pl_status st = PL_OK;
    int rc;

    if (!n)
        return pl_fail(err, PL_ENOMEM, "NVML");
    n->so = dlopen(library ? library : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    st = n->so ? resolve(n, err) : pl_fail(err, PL_ENOENT, "NVML: %s", dlerror());
    if (!st && (rc = n->init()) != 0)
        st = pl_fail(err, PL_ESYS, "NVML does not start: %s", n->text(rc));
    else if (!st && (rc = n->by_uuid(uuid, &n->device)) != 0) {
        st = pl_fail(err, PL_ESYS, "NVML: %s: %s", uuid, n->text(rc));
        (void)n->stop();
    }
    if (st) {
        if (n->so)
            dlclose(n->so);
        free(n);
        return st;
    }
    *out = n;
    return PL_OK;
}

void pl_nvml_close(struct pl_nvml *n)
{
    if (!n)
        return;
    (void)n->stop();
    dlclose(n->so);
    free(n);
}

void pl_nvml_read(struct pl_nvml *n, struct pl_nvml_reading *out)
{
    unsigned v = 0;
    unsigned long long big = 0;

    *out = (struct pl_nvml_reading){.mhz = NAN, .celsius = NAN, .joules = NAN};
    if (!n)
        return;
    if (n->clock(n->device, CLOCK_SM, &v) == 0)
        out->mhz = v;
    if (n->temperature(n->device, TEMPERATURE_GPU, &v) == 0)
        out->celsius = v;
    if (n->reasons(n->device, &big) == 0)
        out->throttle = big;
    if (n->energy(n->device, &big) == 0)
        out->joules = (double)big / 1e3;
}
