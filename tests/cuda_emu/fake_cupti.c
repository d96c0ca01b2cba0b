/* A stand-in for libcupti.so: whatever is popped as an external correlation left one kernel behind that took (id + 1) µs. Says nothing of
 * a GPU's times; it tries what model/cuda/profile.c makes of records. */
#include "model/cuda/cupti_abi.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RECORDS 100000
#define STRIDE 128

int cuptiActivityRegisterCallbacks(pl_cupti_wanted *wanted, pl_cupti_full *full);
int cuptiActivityEnable(uint32_t kind);
int cuptiActivityDisable(uint32_t kind);
int cuptiActivityFlushAll(uint32_t flag);
int cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, void **record);
int cuptiActivityPushExternalCorrelationId(uint32_t kind, uint64_t id);
int cuptiActivityPopExternalCorrelationId(uint32_t kind, uint64_t *id);
int cuptiGetResultString(int result, const char **text);

static pl_cupti_wanted *on_wanted;
static pl_cupti_full *on_full;
static uint64_t pushed[16];
static size_t depth, n_done, enabled;
static uint32_t done[RECORDS]; /* the ids that were popped, in order */

int cuptiActivityRegisterCallbacks(pl_cupti_wanted *wanted, pl_cupti_full *full)
{
    on_wanted = wanted;
    on_full = full;
    return 0;
}

int cuptiActivityEnable(uint32_t kind)
{
    enabled++;
    return kind == PL_CUPTI_KIND_KERNEL || kind == PL_CUPTI_KIND_EXTERNAL ? 0 : 1;
}

int cuptiActivityDisable(uint32_t kind)
{
    (void)kind;
    enabled--;
    return 0;
}

int cuptiActivityPushExternalCorrelationId(uint32_t kind, uint64_t id)
{
    if (kind != PL_CUPTI_EXTERNAL_CUSTOM0 || depth == 16)
        return 1;
    pushed[depth++] = id;
    return 0;
}

int cuptiActivityPopExternalCorrelationId(uint32_t kind, uint64_t *id)
{
    if (kind != PL_CUPTI_EXTERNAL_CUSTOM0 || !depth)
        return 1;
    *id = pushed[--depth];
    if (enabled && n_done < RECORDS)
        done[n_done++] = (uint32_t)*id;
    return 0;
}

int cuptiActivityFlushAll(uint32_t flag)
{
    size_t at = 0;

    (void)flag;
    while (at < n_done) {
        uint8_t *buffer = NULL;
        size_t size = 0, most = 0, used = 0;
        on_wanted(&buffer, &size, &most);
        for (; at < n_done && used + 2 * STRIDE <= size; at++) {
            const struct pl_cupti_kernel k = {
                .kind = PL_CUPTI_KIND_KERNEL, .start = 1000 * at, .end = 1000 * at + 1000 * (done[at] + 1), .correlation = (uint32_t)at + 7, .name = "_Z10gemv_denseI7pl_bf16Li1EEvPv"};
            const struct pl_cupti_external e = {.kind = PL_CUPTI_KIND_EXTERNAL, .external_kind = PL_CUPTI_EXTERNAL_CUSTOM0, .id = done[at], .correlation = (uint32_t)at + 7};
            memcpy(buffer + used, &k, sizeof(k));
            memcpy(buffer + used + STRIDE, &e, sizeof(e));
            used += 2 * STRIDE;
        }
        on_full(NULL, 0, buffer, size, used);
    }
    n_done = 0;
    return 0;
}

int cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, void **record)
{
    uint8_t *next = *record ? (uint8_t *)*record + STRIDE : buffer;

    if (next >= buffer + valid)
        return 12;
    *record = next;
    return 0;
}

int cuptiGetResultString(int result, const char **text)
{
    *text = result ? "CUPTI_ERROR_INVALID_PARAMETER" : "CUPTI_SUCCESS";
    return 0;
}
