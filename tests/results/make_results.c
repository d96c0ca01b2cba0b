/* make_results FILE: the fixture's file, for the tests that read it with other tools. */
#include "fixture.h"

#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct pl_err err = {.text = ""};
    const struct pl_shape shape = fixture_shape();
    if (argc != 2)
        return 2;
    unlink(argv[1]);
    if (fixture_create(argv[1], &shape, &err) == PL_OK &&
        fixture_fill(argv[1], &shape, &err) == PL_OK)
        return 0;
    fprintf(stderr, "make_results: %s\n", err.text);
    return 1;
}
