#include "results/quality.h"

#include <string.h>

static const char *const names[] = {
#define PL_X(sym, name, more, geometric) name,
    PL_QUALITY_LIST(PL_X)
#undef PL_X
};

static const struct {
    bool more, geometric;
} traits[] = {
#define PL_X(sym, name, more, geometric) {more, geometric},
    PL_QUALITY_LIST(PL_X)
#undef PL_X
};

const char *pl_quality_name(enum pl_quality q)
{
    return (unsigned)q < PL_QUALITY_COUNT ? names[q] : "unknown";
}

enum pl_quality pl_quality_parse(const char *name)
{
    for (int i = 0; i < PL_QUALITY_COUNT; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum pl_quality)i;
    return PL_QUALITY_COUNT;
}

bool pl_quality_more_is_better(enum pl_quality q)
{
    return (unsigned)q < PL_QUALITY_COUNT && traits[q].more;
}

bool pl_quality_geometric(enum pl_quality q)
{
    return (unsigned)q < PL_QUALITY_COUNT && traits[q].geometric;
}

const char *const *pl_quality_names(void)
{
    return names;
}
