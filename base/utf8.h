/* Characters of UTF-8 text that may be anything. */
#ifndef PL_BASE_UTF8_H
#define PL_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed character (Unicode 15, table 3-7) that the n ≥ 1 bytes at s begin with,
 * and the character; 0, and *c untouched, when they begin with none. A NUL is a character. */
size_t pl_utf8_char(const char *s, size_t n, uint32_t *c);

#endif
