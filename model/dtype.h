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
 * computes with) */
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
    X(PL_DT_F8_E5M2, "f8_e5m2", "F8_E5M2", 1, 1, false)

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
    bool computes;           /* weights of this type can be run */
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
/* n elements of dt (f32, f16 or bf16) at src → f32. */
void pl_dtype_to_f32(enum pl_dtype dt, const void *src, float *dst, size_t n);
/* n floats → elements of dt (f32, f16 or bf16) at dst. */
void pl_dtype_from_f32(enum pl_dtype dt, const float *src, void *dst, size_t n);

#endif
