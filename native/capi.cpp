// The C interface, include/smallfry.h: no exception leaves it.
#include <cstdarg>
#include <cstdio>
#include <new>
#include <string>

#include "halves.hpp"
#include "packed_table.hpp"
#include "pages.hpp"
#include "sfq_file.hpp"
#include "smallfry.h"

struct smallfry_table {
    explicit smallfry_table(const char *path)
        : path(path),
          file(path),
          packed({file.codes, file.rows, file.paged, file.mean, file.row_scale, file.zero_rows,
                  file.zero_row_count},
                 RowLayout(file.dim, file.nbit, file.codebook, file.codebook_size, file.column_scale),
                 simd_level()) {}

    std::string path;
    SfqFile file;
    PackedTable packed;
};

namespace {

// The message of the last error in this thread: at most the longest path of Linux, and what was wrong.
thread_local char last_error[4096 + 512] = "";

constexpr Dtype kDtypes[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16};  // by smallfry_dtype

// Arguments that break the rules of smallfry.h.
struct ArgumentError {
    smallfry_status status;
    std::string message;
};

smallfry_status fail(smallfry_status status, const char *path, const char *message) noexcept {
    std::snprintf(last_error, sizeof last_error, "%.4096s: %s", path, message);
    return status;
}

// The ids of a call, all of them rows of the table. Throws ArgumentError.
Ids checked_ids(const smallfry_table &table, const int64_t *ids, size_t count) {
    if (!ids && count) throw ArgumentError{SMALLFRY_INVALID_ARGUMENT, "ids is a null pointer"};
    const auto &offsets = table.file.head_offsets;
    const size_t heads = offsets.empty() ? 1 : offsets.size() - 1;
    if (count % heads)
        throw ArgumentError{
            SMALLFRY_INVALID_ARGUMENT,
            std::to_string(count) + " ids, expected a multiple of the " + std::to_string(heads) + " heads"};
    const Ids checked(ids, Ids::Type::int64, offsets.empty() ? nullptr : offsets.data(), heads);
    const size_t invalid = table.packed.find_invalid(checked, count);
    if (invalid != count)
        throw ArgumentError{SMALLFRY_OUT_OF_RANGE, table.packed.describe_invalid(checked, invalid)};
    return checked;
}

// Calls `work` and returns the status of what it throws. `path` is put before the message.
template <class Work>
smallfry_status guarded(const char *path, const Work &work) noexcept {
    try {
        work();
        return SMALLFRY_OK;
    } catch (const ArgumentError &error) {
        return fail(error.status, path, error.message.c_str());
    } catch (const SfqError &error) {
        return fail(SMALLFRY_INVALID_FILE, path, error.what());
    } catch (const FileError &error) {
        return fail(SMALLFRY_IO_ERROR, path, error.what());
    } catch (const std::bad_alloc &) {
        return fail(SMALLFRY_OUT_OF_MEMORY, path, "out of memory");
    } catch (const std::exception &error) {
        return fail(SMALLFRY_INTERNAL_ERROR, path, error.what());
    } catch (...) {
        return fail(SMALLFRY_INTERNAL_ERROR, path, "unknown error");
    }
}

}  // namespace

smallfry_status smallfry_open(const char *path, smallfry_table **table) {
    if (table) *table = nullptr;
    if (!path || !table)
        return fail(SMALLFRY_INVALID_ARGUMENT, "smallfry_open", "the path or the table is a null pointer");
    return guarded(path, [&] { *table = new smallfry_table(path); });
}

void smallfry_close(smallfry_table *table) { delete table; }

int64_t smallfry_rows(const smallfry_table *table) { return static_cast<int64_t>(table->file.rows); }

int64_t smallfry_dim(const smallfry_table *table) { return static_cast<int64_t>(table->file.dim); }

int64_t smallfry_heads(const smallfry_table *table) {
    const size_t offsets = table->file.head_offsets.size();
    return offsets ? static_cast<int64_t>(offsets) - 1 : 0;
}

smallfry_status smallfry_gather(const smallfry_table *table, const int64_t *ids, size_t count, void *out,
                                int dtype) {
    if (!table) return fail(SMALLFRY_INVALID_ARGUMENT, "smallfry_gather", "the table is a null pointer");
    return guarded(table->path.c_str(), [&] {
        const size_t itemsize = dtype == SMALLFRY_F32 ? 4 : 2;
        if (dtype != SMALLFRY_F32 && dtype != SMALLFRY_F16 && dtype != SMALLFRY_BF16)
            throw ArgumentError{SMALLFRY_INVALID_ARGUMENT,
                                "dtype is " + std::to_string(dtype) +
                                    ", expected SMALLFRY_F32, SMALLFRY_F16 or SMALLFRY_BF16"};
        if (!out && count) throw ArgumentError{SMALLFRY_INVALID_ARGUMENT, "out is a null pointer"};
        if (count > PTRDIFF_MAX / (table->packed.dim() * itemsize))
            throw ArgumentError{SMALLFRY_INVALID_ARGUMENT,
                                std::to_string(count) + " rows do not fit into memory"};
        const Ids rows = checked_ids(*table, ids, count);
        table->packed.gather(rows, count, kDtypes[dtype], out, 1);
    });
}

smallfry_status smallfry_prefetch(const smallfry_table *table, const int64_t *ids, size_t count,
                                  size_t *pages) {
    if (!table) return fail(SMALLFRY_INVALID_ARGUMENT, "smallfry_prefetch", "the table is a null pointer");
    return guarded(table->path.c_str(), [&] {
        const Ids rows = checked_ids(*table, ids, count);
        size_t bytes = 0;
        for (const PageRange &range : table->packed.read_ahead(rows, count)) bytes += range.bytes;
        if (pages) *pages = bytes / page_size();
    });
}

const char *smallfry_last_error() { return last_error; }

const char *smallfry_version() { return SMALLFRY_VERSION; }
