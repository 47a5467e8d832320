/* Compares rows of a table with the expected ones, also from threads:
 *
 *     program TABLE IDS F32 F16 BF16
 *
 * IDS is a file of int64 numbers, the others are files of values. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <smallfry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 20, DTYPES = 3 };

static const size_t sizes[DTYPES] = {4, 2, 2};

typedef struct {
    void *data;
    size_t size;
} bytes;

static smallfry_table *table;
static bytes ids, expected[DTYPES];

static bytes read_file(const char *path) {
    bytes content = {NULL, 0};
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) exit(2);
    content.size = (size_t)ftell(file);
    content.data = malloc(content.size + 1);
    rewind(file);
    if (content.data == NULL || fread(content.data, 1, content.size, file) != content.size) exit(2);
    fclose(file);
    return content;
}

/* Whether all rows have the expected values in all types. */
static int gathers(void) {
    const size_t count = ids.size / sizeof(int64_t);
    int equal = 1;
    for (int dtype = SMALLFRY_F32; dtype <= SMALLFRY_BF16; ++dtype) {
        const size_t size = count * (size_t)smallfry_dim(table) * sizes[dtype];
        void *out = malloc(size + 1);
        if (out == NULL || smallfry_gather(table, ids.data, count, out, dtype) != SMALLFRY_OK) return 0;
        equal &= size == expected[dtype].size && memcmp(out, expected[dtype].data, size) == 0;
        free(out);
    }
    return equal;
}

/* Gathers rows, and an id that only this thread asks for, whose error must not reach another one. */
static void *run(void *argument) {
    const int64_t wrong = -1 - *(const int *)argument;
    char number[32];
    float row[1];
    snprintf(number, sizeof number, "%d", (int)wrong);
    for (int round = 0; round < ROUNDS; ++round) {
        if (!gathers()) return "a thread got other values";
        if (smallfry_gather(table, &wrong, 1, row, SMALLFRY_F32) != SMALLFRY_OUT_OF_RANGE)
            return "an id that is out of range was accepted";
        if (smallfry_prefetch(table, ids.data, ids.size / sizeof(int64_t), NULL) != SMALLFRY_OK)
            return "a prefetch failed";
        if (strstr(smallfry_last_error(), number) == NULL) return "a thread got the error of another one";
    }
    return NULL;
}

int main(int argc, char **argv) {
    smallfry_table *missing = NULL;
    pthread_t threads[THREADS];
    int numbers[THREADS], failed = 0;
    size_t pages = 0;

    if (argc != 6) return 2;
    ids = read_file(argv[2]);
    for (int dtype = 0; dtype < DTYPES; ++dtype) expected[dtype] = read_file(argv[3 + dtype]);
    if (smallfry_open("missing.sfq", &missing) != SMALLFRY_IO_ERROR || missing != NULL) return 3;
    if (strstr(smallfry_last_error(), "missing.sfq") == NULL) return 3;
    if (smallfry_open(argv[1], &table) != SMALLFRY_OK) {
        fprintf(stderr, "%s\n", smallfry_last_error());
        return 1;
    }
    if (smallfry_prefetch(table, ids.data, ids.size / sizeof(int64_t), &pages) != SMALLFRY_OK || pages == 0)
        return 4;
    for (int i = 0; i < THREADS; ++i) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, run, &numbers[i]) != 0) return 2;
    }
    for (int i = 0; i < THREADS; ++i) {
        void *error = NULL;
        pthread_join(threads[i], &error);
        if (error != NULL) fprintf(stderr, "%s\n", (const char *)error);
        failed |= error != NULL;
    }
    printf("%s %lld %lld %lld\n", smallfry_version(), (long long)smallfry_rows(table),
           (long long)smallfry_dim(table), (long long)smallfry_heads(table));
    smallfry_close(table);
    free(ids.data);
    for (int dtype = 0; dtype < DTYPES; ++dtype) free(expected[dtype].data);
    return failed;
}
