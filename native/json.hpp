// Formats rows of floats as JSON.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "digits.hpp"

// Writes values as JSON and keeps their texts: the rows of a table of few levels have few distinct values.
class JsonWriter {
  public:
    // The bytes that `write_row` may write, some of them behind the text.
    static size_t row_size(size_t dim) { return dim * kMaxFloat + 3; }

    // `count` is the number of values to write: more texts are kept for more values.
    explicit JsonWriter(size_t count) {
        while (shift_ > 32 - kMaxBits && count >> (32 - shift_) > 4) --shift_;
        // Every entry begins as that of 0.0, whose bits are 0, so that empty ones need no mark.
        entries_.resize(size_t{1} << (32 - shift_), {0, 4, "0.0,"});
    }

    // Writes a row as a JSON array, and a comma; returns its end.
    char *write_row(char *p, const float *values, size_t dim) {
        *p++ = '[';
        for (size_t i = 0; i < dim; ++i) p = write_value(p, values[i]);
        p -= dim != 0;
        *p++ = ']';
        *p++ = ',';
        return p;
    }

  private:
    static constexpr int kMaxBits = 12;

    // The text of a value, and a comma.
    struct Entry {
        uint32_t bits, size;
        char text[kMaxFloat];
    };

    char *write_value(char *p, float value) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        Entry &entry = entries_[bits * 0x9E3779B1u >> shift_];
        if (entry.bits == bits) {
            std::memcpy(p, entry.text, kMaxFloat);
            return p + entry.size;
        }
        char *end = format_json(p, value);
        *end++ = ',';
        entry.bits = bits;
        entry.size = static_cast<uint32_t>(end - p);
        std::memcpy(entry.text, p, kMaxFloat);
        return end;
    }

    int shift_ = 32 - 5;
    std::vector<Entry> entries_;  // by the upper bits of a hash of the value
};
