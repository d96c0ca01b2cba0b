/* Paths of the CPU backend by name, "emulated" among them: the AVX-512 kernels with their
 * instructions written out in C (avx512_emulated.h), which need AVX2. */
#ifndef PL_TESTS_MODEL_EMULATED_H
#define PL_TESTS_MODEL_EMULATED_H

#include "fixture.h"

#include "model/cpu/cpu.h"

#ifdef PL_HAVE_EMULATED
extern const struct pl_kernels pl_kernels_emulated;
#endif

/* To be called before anything is opened. */
static inline void offer_emulated(void)
{
#ifdef PL_HAVE_EMULATED
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        pl_cpu_offer(&pl_kernels_emulated);
#endif
}

/* NULL: this machine cannot run it, and that was said. */
static inline struct pl_device *open_path(const char *isa, int threads)
{
    struct pl_device *d = NULL;
    struct pl_err err = {""};
    enum pl_status st =
        pl_cpu_backend.open(&(struct pl_device_opts){.threads = threads, .isa = isa}, &d, &err);

    if (st == PL_EUNSUPPORTED)
        print_message("SKIPPED: %s cannot run here\n", isa);
    else if (st)
        fail_msg("%s", err.text);
    return d;
}

#endif
