// Parses lines `token value … value`, separated by ASCII spaces or tabs.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.hpp"
#include "number.hpp"

// Defect of a line, numbered as in smallfry.kernels.numpy.text.
enum Problem : int64_t { kTooFew = 0, kTooMany = 1, kNotANumber = 2 };

inline bool is_separator(char c) { return c == ' ' || c == '\t'; }

struct Field {
    const char *begin, *end;
};

class LineParser {
  public:
    Buffer<float> vectors;
    Buffer<uint8_t> tokens;
    Buffer<int64_t> offsets;
    Buffer<int64_t> lines;     // the line of each row
    Buffer<int64_t> problems;  // triples: line, problem, number of values or position of the invalid one
    int64_t line_count = 0, empty = 0, crlf = 0, spaced = 0;

    LineParser(size_t dim, const char *limit) : dim_(dim), limit_(limit) { offsets.push(0); }

    // Parses the line at p, which ends with '\n', and returns the start of the next one.
    const char *parse(const char *p) {
        const char *next = parse_simple(p);
        if (next == nullptr) {
            auto *newline = static_cast<const char *>(std::memchr(p, '\n', static_cast<size_t>(limit_ - p)));
            parse_fields(p, newline);
            next = newline + 1;
        }
        if (next - p > 1 && next[-2] == '\r') ++crlf;
        ++line_count;
        return next;
    }

  private:
    // Parses a token of one word and dim numbers. Returns nullptr and keeps nothing for any other line.
    const char *parse_simple(const char *p) {
        const char *token = p;
        while (*p != ' ' && *p != '\t' && *p != '\n') ++p;
        const char *token_end = p;
        if (token == token_end || static_cast<size_t>(limit_ - p) / 2 < dim_) return nullptr;
        vectors.reserve(dim_);
        float *values = vectors.data() + vectors.size();
        for (size_t j = 0; j < dim_; ++j) {
            if (!is_separator(*p)) return nullptr;
            while (is_separator(*p)) ++p;
            double value;
            p = parse_number(p, limit_, value);
            if (p == nullptr) return nullptr;
            values[j] = static_cast<float>(value);
        }
        while (is_separator(*p)) ++p;
        if (*p == '\r') ++p;
        if (*p != '\n') return nullptr;
        keep({token, token_end});
        return p + 1;
    }

    // Parses any line: the last dim fields are the vector, the text before them the token.
    void parse_fields(const char *begin, const char *end) {
        if (end > begin && end[-1] == '\r') --end;
        fields_.resize(0);
        for (const char *p = begin; p < end;) {
            if (is_separator(*p)) {
                ++p;
                continue;
            }
            const char *field = p;
            while (p < end && !is_separator(*p)) ++p;
            fields_.push({field, p});
        }
        if (fields_.size() == 0) {
            ++empty;
            return;
        }
        if (fields_.size() <= dim_) return report(kTooFew, fields_.size() - 1);
        size_t first = fields_.size() - dim_;
        for (size_t i = 1; i < first; ++i)
            if (is_fraction(fields_[i])) return report(kTooMany, fields_.size() - 1);
        vectors.reserve(dim_);
        float *values = vectors.data() + vectors.size();
        for (size_t j = 0; j < dim_; ++j) {
            double value;
            if (!is_number(fields_[first + j], value)) return report(kNotANumber, j);
            values[j] = static_cast<float>(value);
        }
        if (first > 1) ++spaced;
        keep({fields_[0].begin, fields_[first - 1].end});
    }

    bool is_number(Field field, double &value) const {
        return parse_number(field.begin, limit_, value) == field.end;
    }

    // A number with a decimal point is a value of a vector, not a part of a token.
    bool is_fraction(Field field) const {
        double value;
        return std::find(field.begin, field.end, '.') != field.end && is_number(field, value);
    }

    void keep(Field token) {
        vectors.resize(vectors.size() + dim_);
        tokens.append(reinterpret_cast<const uint8_t *>(token.begin),
                      static_cast<size_t>(token.end - token.begin));
        offsets.push(static_cast<int64_t>(tokens.size()));
        lines.push(line_count);
    }

    void report(Problem problem, size_t detail) {
        problems.push(line_count);
        problems.push(problem);
        problems.push(static_cast<int64_t>(detail));
    }

    size_t dim_;
    const char *limit_;
    Buffer<Field> fields_;
};
