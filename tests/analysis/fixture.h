/*
 * Results files with known truths, by the simulated engine's model (docs/METRICS.md): each time is
 *   true · scale · L(noise) · L(sample_effect; sample) · L(device_effect; device)
 *   L(σ) = exp(σ·z − σ²/2), keyed by what it belongs to.
 */
#ifndef PL_TESTS_ANALYSIS_FIXTURE_H
#define PL_TESTS_ANALYSIS_FIXTURE_H

#include "results/writer.h"

#include <stdbool.h>

#define FIXTURE_ARMS 24

struct fixture {
    uint32_t arms, contexts, samples, repeats, devices, sessions; /* 0: 1 */
    const char *names[FIXTURE_ARMS];                              /* NULL: arm0 … */
    const char *baseline[FIXTURE_ARMS]; /* NULL: the first arm; "": none */
    double scale[FIXTURE_ARMS];         /* 0: 1 */
    int64_t context[8];                 /* 0: 64 · 4^i */
    double noise, sample_effect, device_effect, drift;
    double delta;    /* 0: 0.01 */
    double fail;     /* share of failed rows; 1: all */
    double leave;    /* share of rows never written */
    uint32_t tokens; /* 0: 32 */
    uint64_t seed;   /* 0: 1 */
    bool real;       /* not synthetic */
    bool prefill;    /* measure.mode: prefill */
    bool few_phases; /* only ttft and total, like a foreign engine */
    bool drafts;     /* the last arm drafts */
    bool encodes;    /* arm 1 has an encoder before its decoder, arm 2 is an encoder */
    bool quality;    /* columns of /quality: arm a has perplexity 10 · 2^a or 40 · 2^a by turns;
                        generated ids of arm a differ from arm 0's in the first a places */
    bool memory;     /* bytes and a KV staircase in the last arm */
    uint32_t
        answer; /* with quality: ids before the model's own end, of the first arm; 0: not told */
    uint32_t questions;  /* samples are so many questions about a scene each; 0: texts */
    double scene_effect; /* σ common to one arm's trials about a scene */
    bool flat;           /* with questions: the file does not tell the scenes */
    const char *name;    /* of the sweep */
};

/* Creates path (removed first). Aborts with a message on failure: a test cannot go on. */
void fixture_write(const char *path, const struct fixture *f);

#endif
