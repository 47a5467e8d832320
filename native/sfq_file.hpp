// A memory-mapped .sfq file, checked by the rules of smallfry/sfq for what decoding a table reads. Tokens,
// tokenizers and digests are not. Does not use Python.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "sfq_header.hpp"

// The file cannot be opened, read or mapped.
struct FileError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A read-only map of a whole regular file.
class FileMap {
  public:
    // Throws SfqError for a file that is too short or has no header, or FileError.
    explicit FileMap(const char *path);
    FileMap(const FileMap &) = delete;
    FileMap &operator=(const FileMap &) = delete;
    ~FileMap();

    const uint8_t *data() const { return data_; }
    uint64_t size() const { return size_; }
    // The start of the file, up to the end of the header of a .sfq file. It is read, not mapped: a file that
    // is truncated meanwhile is an error.
    const std::string &header() const { return header_; }

  private:
    uint8_t *data_ = nullptr;
    uint64_t size_ = 0;
    std::string header_;
};

class SfqFile {
  public:
    // Throws SfqError or FileError, whose message does not name the path.
    explicit SfqFile(const char *path);

    size_t rows = 0, dim = 0;
    int nbit = 0;
    bool paged = false;  // the codes are blocks of records, otherwise consecutive rows
    // Tensors in the map: null if absent.
    const uint8_t *codes = nullptr;
    const float *codebook = nullptr, *mean = nullptr, *column_scale = nullptr;
    const uint16_t *row_scale = nullptr;
    const uint32_t *zero_rows = nullptr;
    size_t codebook_size = 0, zero_row_count = 0;
    std::vector<uint64_t> head_offsets;  // empty without heads; a copy, which stays as it was checked

  private:
    FileMap map_;
};
