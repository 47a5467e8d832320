/* The C interface of smallfry: rows of a .sfq file, decoded into memory of the caller.
 *
 *     #include <smallfry.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     int main(void) {
 *         smallfry_table *table;
 *         if (smallfry_open("ngram.sfq", &table) != SMALLFRY_OK) {
 *             fprintf(stderr, "%s\n", smallfry_last_error());
 *             return 1;
 *         }
 *         const int64_t ids[2] = {0, 1};
 *         float *rows = malloc(2 * (size_t)smallfry_dim(table) * sizeof *rows);
 *         if (smallfry_gather(table, ids, 2, rows, SMALLFRY_F32) != SMALLFRY_OK)
 *             fprintf(stderr, "%s\n", smallfry_last_error());
 *         free(rows);
 *         smallfry_close(table);
 *     }
 *
 * Threads: any number of threads can use one table at the same time. smallfry_close must not run until every
 * other call with the table has returned. smallfry starts no threads and holds no locks.
 *
 * Memory: a table is a read-only map of its file, shared by all processes that open it. Replace a file by
 * renaming, not by writing over it: a process that reads past the end of a file that was truncated in place
 * is killed (SIGBUS). Nothing of the caller is kept after a call returns.
 *
 * Errors: no function writes to stdout or stderr, calls exit or abort, or throws. A damaged or hostile file
 * gives an error or wrong values, never a read outside the map.
 */
#ifndef SMALLFRY_H
#define SMALLFRY_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SMALLFRY_API __attribute__((visibility("default")))
#else
#define SMALLFRY_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct smallfry_table smallfry_table;

/* What a call returns. Later versions can add values. */
typedef enum {
    SMALLFRY_OK = 0,
    SMALLFRY_INVALID_ARGUMENT = 1, /* a null pointer, an unknown dtype, a count that does not fit the heads */
    SMALLFRY_IO_ERROR = 2,         /* the file cannot be opened, read or mapped, or is not a regular file */
    SMALLFRY_INVALID_FILE = 3,     /* the file violates a rule of the .sfq format */
    SMALLFRY_OUT_OF_RANGE = 4,     /* an id is not a row of the table, or of its head */
    SMALLFRY_OUT_OF_MEMORY = 5,
    SMALLFRY_INTERNAL_ERROR = 6
} smallfry_status;

/* The type of decoded values. float16 and bfloat16 are the float32 values, rounded to the nearest, ties to
 * even; values beyond float16 become infinite. */
typedef enum { SMALLFRY_F32 = 0, SMALLFRY_F16 = 1, SMALLFRY_BF16 = 2 } smallfry_dtype;

/* Maps the file and stores its table in *table, or NULL after an error. It takes the same time for any number
 * of rows, because no rows are read. Each call maps the file again. */
SMALLFRY_API smallfry_status smallfry_open(const char *path, smallfry_table **table);

/* Unmaps the file and frees the table. NULL is ignored. */
SMALLFRY_API void smallfry_close(smallfry_table *table);

/* Rows of the table, 1 to 2^40, of all heads together. In this and the next two, `table` must not be NULL. */
SMALLFRY_API int64_t smallfry_rows(const smallfry_table *table);

/* Values in a row, 1 to 65536. */
SMALLFRY_API int64_t smallfry_dim(const smallfry_table *table);

/* Number of heads, or 0 if the ids of the table are row numbers. A table with heads is several tables of
 * consecutive rows; ids[i] is a row of head i % heads, counted from 0 in each head. */
SMALLFRY_API int64_t smallfry_heads(const smallfry_table *table);

/* Decodes the rows ids[0] to ids[count - 1] to `out`, which has count * dim values of type `dtype` (a
 * smallfry_dtype), one row after the other, at any address that is a multiple of the size of a value. With
 * heads, count is a multiple of their number. Nothing is written unless all ids are in range; the error names
 * the first that is not. */
SMALLFRY_API smallfry_status smallfry_gather(const smallfry_table *table, const int64_t *ids, size_t count,
                                             void *out, int dtype);

/* Asks the kernel to read the pages of these rows that are not in memory, and returns without waiting for
 * them. The ids are as in smallfry_gather. Stores the number of distinct pages in *pages, unless `pages` is
 * NULL. */
SMALLFRY_API smallfry_status smallfry_prefetch(const smallfry_table *table, const int64_t *ids, size_t count,
                                               size_t *pages);

/* Describes the last error of a smallfry function in the calling thread: the file, what was wrong and what
 * was expected. Empty before the first error. Valid until the next error in this thread. */
SMALLFRY_API const char *smallfry_last_error(void);

/* The version of the library, such as "0.2.0". */
SMALLFRY_API const char *smallfry_version(void);

#ifdef __cplusplus
}
#endif

#endif
