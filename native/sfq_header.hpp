// The header of a .sfq file, parsed from untrusted bytes by the rules of smallfry/sfq/header.py.
#pragma once
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

// A violated rule of the format.
struct SfqError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Where a tensor lies: `begin` and `end` count from the first data byte. Numbers beyond 64 bits are stored as
// the largest one.
struct TensorEntry {
    std::string dtype;
    std::vector<uint64_t> shape;
    uint64_t begin = 0, end = 0;
};

// A header whose tensors are contiguous and end the file.
struct SfqHeader {
    std::map<std::string, TensorEntry> tensors;
    std::map<std::string, std::string>
        metadata;  // of format sfq and version 2; the other values are unchecked
    uint64_t data_start = 0;
};

constexpr size_t kSfqPrefix = 8;  // bytes of the length of the header
constexpr uint64_t kDataAlignment = 4096;

// Returns the file offset at which the header ends, given the first 9 bytes of the file. Throws SfqError.
uint64_t sfq_header_end(const uint8_t *start, uint64_t file_size);

// Checks the structure of a whole header, which is the file up to `sfq_header_end`. Throws SfqError.
SfqHeader parse_sfq_header(std::string_view raw, uint64_t file_size);

// Returns the metadata `name`, which must be a decimal from `low` to `high`. Throws SfqError.
uint64_t sfq_integer(const SfqHeader &header, const char *name, uint64_t low, uint64_t high);

// Returns the metadata `name`. Throws SfqError if it is missing.
const std::string &sfq_string(const SfqHeader &header, const char *name);

// Text from a file for a message: at most 60 characters, printable ASCII, in quotes.
std::string quoted(std::string_view text);
