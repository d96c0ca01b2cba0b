/*
 * Facts hidden in a text, and a question about one of them: `data: {kind: needle}`. Sample i is a
 * pure function of (seed, i, how many facts): "The code of the KEY is NNNNN." for as many KEYs, put
 * into the text at depths drawn one from each of as many equal parts of it, in random order. The
 * prompt ends so that the answer goes on with the number.
 */
#ifndef PL_DATA_NEEDLE_H
#define PL_DATA_NEEDLE_H

#include "base/json.h"

#include <stdint.h>

#define PL_NEEDLES_MAX 64

/* Of a trial's request: {"facts": [{"at": 0…1, "text"}, …] by depth, "end": the question, which
 * ends the prompt}. answer: the number that is asked for. NULL: no memory. New reference. */
json_t *pl_needle_make(uint64_t seed, uint32_t i, uint32_t facts, char answer[8]);

#endif
