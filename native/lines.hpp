// Parses lines `token value … value`.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.hpp"
#include "number.hpp"

// Defect of a line, numbered as in smallfry.kernels.numpy.text.
enum Problem : int64_t { kTooFew = 0, kTooMany = 1, kNotANumber = 2 };

struct Field {
    const char *begin, *end;
    ptrdiff_t size() const { return end - begin; }
};

inline bool is_blank(char c) { return c == ' ' || c == '\t'; }

inline Field trim(Field field) {
    while (field.begin < field.end && is_blank(*field.begin)) ++field.begin;
    while (field.begin < field.end && is_blank(field.end[-1])) --field.end;
    return field;
}

inline bool is_quoted(Field field) {
    return field.size() >= 2 && *field.begin == '"' && field.end[-1] == '"';
}

class LineParser {
  public:
    Buffer<float> vectors;
    Buffer<uint8_t> tokens;
    Buffer<int64_t> offsets;
    Buffer<int64_t> lines;     // the line of each row
    Buffer<int64_t> problems;  // triples: line, problem, number of values or position of the invalid one
    int64_t line_count = 0, empty = 0, crlf = 0, spaced = 0, unquoted = 0;

    // A delimiter of '\0' means runs of spaces and tabs.
    LineParser(size_t dim, const char *limit, char delimiter, bool has_tokens, bool quoted)
        : dim_(dim), limit_(limit), delimiter_(delimiter), has_tokens_(has_tokens), quoted_(quoted) {
        offsets.push(0);
    }

    // Parses the line at p, which ends with '\n', and returns the start of the next one.
    const char *parse(const char *p) {
        const char *next = parse_simple(p);
        if (next == nullptr) {
            auto *newline = static_cast<const char *>(std::memchr(p, '\n', static_cast<size_t>(limit_ - p)));
            parse_fields(p, newline);
            next = newline + 1;
        }
        if (next - p > 1 && next[-2] == '\r') ++crlf;
        newlines_ = next - p == 1 ? newlines_ + 1 : 0;
        ++line_count;
        return next;
    }

  private:
    bool separates(char c) const { return delimiter_ == '\0' ? is_blank(c) : c == delimiter_; }

    // Parses a token without separators and dim numbers. Returns nullptr and keeps nothing for any other
    // line.
    const char *parse_simple(const char *p) {
        if (quoted_) return nullptr;
        const char *token = p;
        if (has_tokens_) {
            while (!separates(*p) && *p != '\n') ++p;
            if (p == token) return nullptr;
        }
        const char *token_end = p;
        if (static_cast<size_t>(limit_ - p) / 2 < dim_) return nullptr;
        vectors.reserve(dim_);
        float *values = vectors.data() + vectors.size();
        for (size_t j = 0; j < dim_; ++j) {
            if (has_tokens_ || j > 0) {
                if (!separates(*p)) return nullptr;
                ++p;
                while (delimiter_ == '\0' && is_blank(*p)) ++p;
            }
            double value;
            p = parse_number(p, limit_, value);
            if (p == nullptr) return nullptr;
            values[j] = static_cast<float>(value);
        }
        while (is_blank(*p)) ++p;
        if (*p == '\r') ++p;
        if (*p != '\n') return nullptr;
        keep({token, token_end});
        return p + 1;
    }

    // Parses any line: the last dim fields are the vector, the text before them the token.
    void parse_fields(const char *begin, const char *end) {
        if (end > begin && end[-1] == '\r') --end;
        split(begin, end);
        if (fields_.size() == 0) {
            ++empty;
            return;
        }
        const size_t count = fields_.size(), named = has_tokens_ ? 1 : 0;
        if (count < dim_ + named) {
            const char *value = fields_[0].begin;
            if (has_tokens_ && delimiter_ == '\0' && count == dim_ && value > begin &&
                parse_values(0) == dim_) {
                empty -= newlines_;  // a token that is empty, a space, or newlines
                return keep({begin, value - 1}, newlines_);
            }
            return report(kTooFew, count - named);
        }
        const size_t first = count - dim_;
        if (!has_tokens_ && first > 0) return report(kTooMany, count);
        const bool escaped = quoted_ && has_tokens_ && *fields_[0].begin == '"';
        for (size_t i = 1; i < first && !escaped; ++i)
            if (is_fraction(fields_[i])) return report(kTooMany, count - 1);
        const size_t parsed = parse_values(first);
        if (parsed < dim_) return report(kNotANumber, parsed);
        if (!has_tokens_) return keep({begin, begin});
        keep(delimiter_ == '\0' ? Field{fields_[0].begin, fields_[first - 1].end}
                                : Field{begin, fields_[first - 1].end});
    }

    // Finds the fields of a line; none if it is blank.
    void split(const char *begin, const char *end) {
        fields_.resize(0);
        const char *p = begin;
        if (delimiter_ == '\0') {
            while (p < end) {
                if (is_blank(*p)) {
                    ++p;
                    continue;
                }
                const char *field = p;
                while (p < end && !is_blank(*p)) ++p;
                fields_.push({field, p});
            }
            return;
        }
        bool blank = true;
        for (;; ++p) {
            const char *field = p;
            p = std::find(p, end, delimiter_);
            fields_.push({field, p});
            blank = blank && trim(fields_[fields_.size() - 1]).size() == 0;
            if (p == end) break;
        }
        if (blank)
            fields_.resize(0);
        else if (trim(fields_[fields_.size() - 1]).size() == 0)
            fields_.resize(fields_.size() - 1);
    }

    // Parses dim values from the field `first` on; returns how many of them are numbers.
    size_t parse_values(size_t first) {
        vectors.reserve(dim_);
        float *values = vectors.data() + vectors.size();
        for (size_t j = 0; j < dim_; ++j) {
            double value;
            if (!is_number(fields_[first + j], value)) return j;
            values[j] = static_cast<float>(value);
        }
        return dim_;
    }

    bool is_number(Field field, double &value) const {
        field = trim(field);
        if (quoted_ && is_quoted(field)) field = {field.begin + 1, field.end - 1};
        return parse_number(field.begin, limit_, value) == field.end;
    }

    // A number with a decimal point is a value of a vector, not a part of a token.
    bool is_fraction(Field field) const {
        double value;
        return std::find(field.begin, field.end, '.') != field.end && is_number(field, value);
    }

    // Keeps the values at the end of `vectors`, and the token after `newlines` newlines.
    void keep(Field token, int64_t newlines = 0) {
        vectors.resize(vectors.size() + dim_);
        if (std::find_if(token.begin, token.end, is_blank) != token.end) ++spaced;
        for (; newlines > 0; --newlines) tokens.push('\n');
        if (quoted_ && is_quoted(token)) {
            ++unquoted;
            unquote({token.begin + 1, token.end - 1});
        } else {
            append(token);
        }
        offsets.push(static_cast<int64_t>(tokens.size()));
        lines.push(line_count);
    }

    // CSV doubles a quote inside quotes; R's write.table puts a backslash before it.
    void unquote(Field inner) {
        for (const char *p = inner.begin; p < inner.end; ++p) {
            const bool escape = *p == '"' || (*p == '\\' && delimiter_ == '\0');
            if (escape && p + 1 < inner.end && p[1] == '"') ++p;
            append({p, p + 1});
        }
    }

    void append(Field text) {
        tokens.append(reinterpret_cast<const uint8_t *>(text.begin), static_cast<size_t>(text.size()));
    }

    void report(Problem problem, size_t detail) {
        problems.push(line_count);
        problems.push(problem);
        problems.push(static_cast<int64_t>(detail));
    }

    size_t dim_;
    const char *limit_;
    char delimiter_;
    bool has_tokens_, quoted_;
    int64_t newlines_ = 0;  // empty lines directly before the current one
    Buffer<Field> fields_;
};
