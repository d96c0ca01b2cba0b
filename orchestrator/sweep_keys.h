/*
 * Every key of a sweep file, once: the checks, the defaults, the messages and docs/SWEEP.md (a test
 * compares) come from this table. A new key is a new row.
 */
#ifndef PL_ORCHESTRATOR_SWEEP_KEYS_H
#define PL_ORCHESTRATOR_SWEEP_KEYS_H

#include <stddef.h>

enum pl_sweep_section {
    PL_SECTION_ROOT,
    PL_SECTION_DATA,
    PL_SECTION_MODEL,  /* models.M */
    PL_SECTION_ENGINE, /* models.M.engine, when it is a map */
    PL_SECTION_FAIL,   /* models.M.fail */
    PL_SECTION_ARM,    /* arms.A */
    PL_SECTION_DRAFT,  /* arms.A.draft */
    PL_SECTION_PRUNE,  /* arms.A.prune */
    PL_SECTION_GRID,
    PL_SECTION_GENERATE,
    PL_SECTION_MEASURE
};

enum pl_key_type {
    PL_KEY_STR,
    PL_KEY_PATH,   /* a string; read against the current directory, then the sweep file's */
    PL_KEY_INT,    /* whole number from min to max */
    PL_KEY_U64,    /* 0 to 2^64 − 1; JSON holds the same 64 bits as a signed integer */
    PL_KEY_FLOAT,  /* number from min to max */
    PL_KEY_FLOATS, /* such a number, or a list of them */
    PL_KEY_BOOL,
    PL_KEY_CHOICE,         /* one of `choices` */
    PL_KEY_INTS,           /* list of different whole numbers, not empty */
    PL_KEY_INTS_OR_AUTO,   /* the same, or [auto]; JSON: ["auto"] */
    PL_KEY_INT_OR_ALL,     /* whole number or `all`; JSON: 0 is all */
    PL_KEY_FLOAT_OR_NONE,  /* number or `none`; JSON: null is none */
    PL_KEY_INT_BY_CONTEXT, /* whole number, or a map of them by context length */
    PL_KEY_RANDOM,         /* random:SEED */
    PL_KEY_STRS,           /* list of strings, not empty */
    PL_KEY_MAP,            /* a section, or a map read by code of its own */
    PL_KEY_ANY             /* read by code of its own */
};

enum {
    PL_FOR_OWN = 1,  /* our own runner's models and their arms */
    PL_FOR_EXEC = 2, /* foreign engines */
    PL_FOR_SIM = 4,  /* the simulated engine */
    PL_FOR_REAL = PL_FOR_OWN | PL_FOR_EXEC,
    PL_FOR_ALL = 7
};

struct pl_sweep_key {
    enum pl_sweep_section section;
    const char *name;
    enum pl_key_type type;
    double min, max;          /* numbers; max 0: none */
    const char *choices;      /* PL_KEY_CHOICE: "a|b" */
    const char *dflt;         /* JSON; "null": none, decided later; NULL: required */
    const char *unit;         /* "" when there is none */
    unsigned engines;         /* MODEL and ARM: whose key it is */
    const char *default_text; /* the default in words where the JSON does not say it; else NULL */
    const char *help;
};

extern const struct pl_sweep_key pl_sweep_keys[];
extern const size_t pl_sweep_n_keys;

/* "grid", "models.M", …; "" for the root. */
const char *pl_section_name(enum pl_sweep_section s);
/* What a value must be: "a whole number from 1 to 65535". Cut to size. */
void pl_key_expected(const struct pl_sweep_key *k, char *out, size_t size);
/* The key's row of the table in docs/SWEEP.md, without a newline. */
void pl_key_doc_row(const struct pl_sweep_key *k, char *out, size_t size);

#endif
