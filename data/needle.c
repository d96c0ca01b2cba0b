#include "data/needle.h"

#include "base/rng.h"

#include <inttypes.h>
#include <stdio.h>

enum { KEY_NEEDLE = 0x6e65656c };

static const char *const nouns[] = {"garden", "river",  "window", "bridge", "market",  "harbour",
                                    "castle", "forest", "mirror", "temple", "orchard", "library",
                                    "island", "valley", "tower",  "kitchen"};
static const char *const colours[] = {"red",  "blue",  "green",  "white",
                                      "gold", "brown", "purple", "silver"};
#define N_NOUNS (sizeof nouns / sizeof nouns[0])
#define N_KEYS (N_NOUNS * (sizeof colours / sizeof colours[0]))
_Static_assert(N_KEYS >= PL_NEEDLES_MAX, "a key for each fact");

static void key_text(uint32_t key, char out[32])
{
    snprintf(out, 32, "%s %s", colours[key / N_NOUNS], nouns[key % N_NOUNS]);
}

json_t *pl_needle_make(uint64_t seed, uint32_t i, uint32_t facts, char answer[8])
{
    uint32_t keys[N_KEYS], asked;
    json_t *list = json_array();
    struct pl_rng rng;
    char key[32];

    pl_rng_init(&rng, pl_keyv(seed, KEY_NEEDLE, i));
    for (uint32_t k = 0; k < N_KEYS; k++)
        keys[k] = k;
    pl_rng_shuffle(&rng, keys, N_KEYS);
    asked = (uint32_t)pl_rng_below(&rng, facts);
    for (uint32_t k = 0; list && k < facts; k++) {
        const double at = (k + (double)pl_rng_below(&rng, 1 << 20) / (1 << 20)) / facts;
        const unsigned number = 10000 + (unsigned)pl_rng_below(&rng, 90000);
        key_text(keys[k], key);
        json_array_append_new(list,
                              json_pack("{s:f,s:o}", "at", at, "text",
                                        json_sprintf(" The code of the %s is %u. ", key, number)));
        if (k == asked)
            snprintf(answer, 8, "%u", number);
    }
    key_text(keys[asked], key);
    return json_pack("{s:o,s:o}", "facts", list, "end",
                     json_sprintf("\n\nQuestion: What is the code of the %s?\nAnswer: The code of "
                                  "the %s is",
                                  key, key));
}
