/*
 * Number formats are data: one table of traits. A value takes bytes / block elements, so that
 * block-quantised formats fit the same table.
 */
#ifndef PL_MODEL_DTYPE_H
#define PL_MODEL_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(symbol, name, safetensors' name or NULL, elements a block, bytes a block, is a float the engine
 * computes with). Those with blocks of more than one element are ggml's (quant.h); the ones that
 * quant.h cannot decode are here so that they can be listed and named. */
#define PL_DTYPE_LIST(X)                                                                           \
    X(PL_DT_AUTO, "auto", NULL, 1, 0, false)                                                       \
    X(PL_DT_F32, "f32", "F32", 1, 4, true)                                                         \
    X(PL_DT_F16, "f16", "F16", 1, 2, true)                                                         \
    X(PL_DT_BF16, "bf16", "BF16", 1, 2, true)                                                      \
    X(PL_DT_F64, "f64", "F64", 1, 8, false)                                                        \
    X(PL_DT_I64, "i64", "I64", 1, 8, false)                                                        \
    X(PL_DT_I32, "i32", "I32", 1, 4, false)                                                        \
    X(PL_DT_I16, "i16", "I16", 1, 2, false)                                                        \
    X(PL_DT_I8, "i8", "I8", 1, 1, false)                                                           \
    X(PL_DT_U64, "u64", "U64", 1, 8, false)                                                        \
    X(PL_DT_U32, "u32", "U32", 1, 4, false)                                                        \
    X(PL_DT_U16, "u16", "U16", 1, 2, false)                                                        \
    X(PL_DT_U8, "u8", "U8", 1, 1, false)                                                           \
    X(PL_DT_BOOL, "bool", "BOOL", 1, 1, false)                                                     \
    X(PL_DT_F8_E4M3, "f8_e4m3", "F8_E4M3", 1, 1, false)                                            \
    X(PL_DT_F8_E5M2, "f8_e5m2", "F8_E5M2", 1, 1, false)                                            \
    X(PL_DT_Q4_0, "q4_0", NULL, 32, 18, false)                                                     \
    X(PL_DT_Q4_1, "q4_1", NULL, 32, 20, false)                                                     \
    X(PL_DT_Q5_0, "q5_0", NULL, 32, 22, false)                                                     \
    X(PL_DT_Q5_1, "q5_1", NULL, 32, 24, false)                                                     \
    X(PL_DT_Q8_0, "q8_0", NULL, 32, 34, false)                                                     \
    X(PL_DT_Q2_K, "q2_k", NULL, 256, 84, false)                                                    \
    X(PL_DT_Q3_K, "q3_k", NULL, 256, 110, false)                                                   \
    X(PL_DT_Q4_K, "q4_k", NULL, 256, 144, false)                                                   \
    X(PL_DT_Q5_K, "q5_k", NULL, 256, 176, false)                                                   \
    X(PL_DT_Q6_K, "q6_k", NULL, 256, 210, false)                                                   \
    X(PL_DT_IQ2_XXS, "iq2_xxs", NULL, 256, 66, false)                                              \
    X(PL_DT_IQ2_XS, "iq2_xs", NULL, 256, 74, false)                                                \
    X(PL_DT_IQ3_XXS, "iq3_xxs", NULL, 256, 98, false)                                              \
    X(PL_DT_IQ1_S, "iq1_s", NULL, 256, 50, false)                                                  \
    X(PL_DT_IQ4_NL, "iq4_nl", NULL, 32, 18, false)                                                 \
    X(PL_DT_IQ3_S, "iq3_s", NULL, 256, 110, false)                                                 \
    X(PL_DT_IQ2_S, "iq2_s", NULL, 256, 82, false)                                                  \
    X(PL_DT_IQ4_XS, "iq4_xs", NULL, 256, 136, false)                                               \
    X(PL_DT_IQ1_M, "iq1_m", NULL, 256, 56, false)                                                  \
    X(PL_DT_TQ1_0, "tq1_0", NULL, 256, 54, false)                                                  \
    X(PL_DT_TQ2_0, "tq2_0", NULL, 256, 66, false)                                                  \
    X(PL_DT_MXFP4, "mxfp4", NULL, 32, 17, false)                                                   \
    X(PL_DT_NVFP4, "nvfp4", NULL, 64, 36, false)

enum pl_dtype {
#define PL_X(sym, name, st, block, bytes, computes) sym,
    PL_DTYPE_LIST(PL_X)
#undef PL_X
        PL_DT_COUNT
};

struct pl_dtype_traits {
    const char *name;        /* ours: "bf16" */
    const char *safetensors; /* theirs: "BF16"; NULL when they have none */
    uint32_t block, bytes;   /* elements and bytes of one block */
    bool computes;           /* weights can be held as it, values computed with one by one */
};

/* Never NULL for a valid dtype. */
const struct pl_dtype_traits *pl_dtype_traits(enum pl_dtype dt);
/* By our name ("f32", "bf16", "auto" …); PL_DT_COUNT when unknown. */
enum pl_dtype pl_dtype_by_name(const char *name);
enum pl_dtype pl_dtype_by_safetensors(const char *name);

/* Exact widening; rounding to nearest even on narrowing (f16: overflow → ±Inf, subnormals kept). */
float pl_f16_to_f32(uint16_t h);
uint16_t pl_f32_to_f16(float f);
float pl_bf16_to_f32(uint16_t h);
uint16_t pl_f32_to_bf16(float f);
/* Bytes of n elements (whole blocks). */
static inline size_t pl_dtype_bytes(enum pl_dtype dt, size_t n)
{
    return n / pl_dtype_traits(dt)->block * pl_dtype_traits(dt)->bytes;
}

/* n elements of dt (f32, f16 or bf16) at src → f32. */
void pl_dtype_to_f32(enum pl_dtype dt, const void *src, float *dst, size_t n);
/* n floats → elements of dt (f32, f16 or bf16) at dst. */
void pl_dtype_from_f32(enum pl_dtype dt, const float *src, void *dst, size_t n);

#endif
