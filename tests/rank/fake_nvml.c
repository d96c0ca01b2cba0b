/* A stand-in for libnvidia-ml.so.1 with one GPU that gets warmer, slower and 1.5 J further with
 * each reading. */
#include <string.h>

static unsigned readings;

int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int e);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **d);
int nvmlDeviceGetClockInfo(void *d, int which, unsigned *mhz);
int nvmlDeviceGetTemperature(void *d, int which, unsigned *celsius);
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *bits);
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj);

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    readings = 0;
    return 0;
}

const char *nvmlErrorString(int e)
{
    return e == 6 ? "Not Found" : "Unknown Error";
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **d)
{
    *d = &readings;
    return strcmp(uuid, "GPU-fake") == 0 ? 0 : 6;
}

int nvmlDeviceGetClockInfo(void *d, int which, unsigned *mhz)
{
    readings++;
    *mhz = 2000 - 10 * readings;
    return d == &readings && which == 1 ? 0 : 2;
}

int nvmlDeviceGetTemperature(void *d, int which, unsigned *celsius)
{
    *celsius = 40 + readings;
    return d == &readings && which == 0 ? 0 : 2;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *bits)
{
    *bits = readings > 1 ? 4 : 0;
    return d == &readings ? 0 : 2;
}

int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj)
{
    *mj = 1500ull * readings;
    return d == &readings ? 0 : 2;
}
