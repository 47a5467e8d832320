#include "sfq_header.hpp"

#include <algorithm>
#include <set>

#include "hash.hpp"
#include "valid.hpp"

namespace {

constexpr uint64_t kMaxHeader = 1 << 16;
constexpr uint64_t kVersion = 2;   // major
constexpr size_t kMaxDigits = 20;  // of a 64-bit number

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_integer(std::string_view text) {
    return !text.empty() && text.size() <= kMaxDigits && std::all_of(text.begin(), text.end(), is_digit);
}

// The value of decimal digits, or 2^64 - 1 if it is larger.
uint64_t saturated(std::string_view digits) {
    uint64_t value = 0;
    for (char digit : digits)
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, static_cast<unsigned>(digit - '0'), &value))
            return UINT64_MAX;
    return value;
}

// Parses JSON (RFC 8259) of the one structure that a header has; anything else is an error.
class Parser {
  public:
    explicit Parser(std::string_view text) : begin_(text.data()), at_(begin_), end_(begin_ + text.size()) {
        const auto *bytes = reinterpret_cast<const uint8_t *>(begin_);
        if (!is_utf8(bytes, bytes + text.size()))
            throw SfqError("the header is not UTF-8. The file is damaged.");
    }

    void parse(SfqHeader &header) {
        std::set<std::string> names;
        each_member([&](std::string &&name) {
            if (!names.insert(name).second) fail("a name that occurs once");
            if (name == "__metadata__")
                parse_metadata(header.metadata);
            else
                header.tensors.emplace(std::move(name), parse_entry());
        });
        if (at_ != end_) fail("the end of the header");
    }

  private:
    [[noreturn]] void fail(const char *expected) const {
        throw SfqError("the header is not valid at byte " + std::to_string(at_ - begin_) + ", expected " +
                       expected + ". The file is damaged.");
    }

    void skip_space() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
    }

    // Takes `c` and the white space around it, if it is next.
    bool take(char c) {
        skip_space();
        if (at_ == end_ || *at_ != c) return false;
        ++at_;
        skip_space();
        return true;
    }

    void expect(char c, const char *what) {
        if (!take(c)) fail(what);
    }

    // Calls parse_value(name) for each member of an object.
    template <class ParseValue>
    void each_member(const ParseValue &parse_value) {
        expect('{', "an object");
        if (take('}')) return;
        do {
            std::string name = parse_string();
            expect(':', "':'");
            parse_value(std::move(name));
        } while (take(','));
        expect('}', "',' or '}'");
    }

    void parse_metadata(std::map<std::string, std::string> &metadata) {
        each_member([&](std::string &&name) {
            if (!metadata.emplace(std::move(name), parse_string()).second) fail("a name that occurs once");
        });
    }

    TensorEntry parse_entry() {
        TensorEntry entry;
        bool has_dtype = false, has_shape = false, has_offsets = false;
        each_member([&](std::string &&name) {
            bool &has = name == "dtype" ? has_dtype : name == "shape" ? has_shape : has_offsets;
            if (has || (&has == &has_offsets && name != "data_offsets"))
                fail("dtype, shape and data_offsets, once each");
            has = true;
            if (&has == &has_dtype) {
                entry.dtype = parse_string();
            } else if (&has == &has_shape) {
                entry.shape = parse_sizes();
            } else {
                const std::vector<uint64_t> offsets = parse_sizes();
                if (offsets.size() != 2) fail("two offsets");
                entry.begin = offsets[0];
                entry.end = offsets[1];
            }
        });
        if (!has_dtype || !has_shape || !has_offsets) fail("dtype, shape and data_offsets");
        return entry;
    }

    std::vector<uint64_t> parse_sizes() {
        std::vector<uint64_t> sizes;
        expect('[', "a list of sizes");
        if (take(']')) return sizes;
        do sizes.push_back(parse_size());
        while (take(','));
        expect(']', "',' or ']'");
        return sizes;
    }

    uint64_t parse_size() {
        if (end_ - at_ >= 2 && at_[0] == '-' && at_[1] == '0') ++at_;  // -0 is 0
        const char *start = at_;
        while (at_ != end_ && is_digit(*at_)) ++at_;
        const std::string_view digits(start, static_cast<size_t>(at_ - start));
        if (digits.empty() || digits.size() > kMaxDigits || (digits.size() > 1 && digits[0] == '0'))
            fail("a size of at most 20 digits");
        return saturated(digits);
    }

    std::string parse_string() {
        if (at_ == end_ || *at_ != '"') fail("a string");
        ++at_;
        std::string text;
        for (;;) {
            if (at_ == end_ || static_cast<unsigned char>(*at_) < 0x20) fail("the end of the string");
            const char c = *at_++;
            if (c == '"') return text;
            if (c == '\\')
                parse_escape(text);
            else
                text += c;
        }
    }

    void parse_escape(std::string &text) {
        static constexpr std::string_view kEscapes = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
        if (at_ == end_) fail("an escape");
        if (*at_ == 'u') {
            ++at_;
            append_utf8(parse_code_point(), text);
            return;
        }
        const size_t known = kEscapes.find(*at_);
        if (known == std::string_view::npos) fail("an escape");
        text += kValues[known];
        ++at_;
    }

    // A code point from \u escapes, of which the "\u" of the first is taken.
    uint32_t parse_code_point() {
        const uint32_t unit = parse_hex();
        if (unit < 0xD800 || unit > 0xDFFF) return unit;
        if (unit > 0xDBFF || end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') fail("a pair of surrogates");
        at_ += 2;
        const uint32_t low = parse_hex();
        if (low < 0xDC00 || low > 0xDFFF) fail("a pair of surrogates");
        return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    }

    uint32_t parse_hex() {
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = at_ == end_ ? '\0' : *at_, letter = static_cast<char>(c | 0x20);
            if (is_digit(c))
                value = value << 4 | static_cast<uint32_t>(c - '0');
            else if (letter >= 'a' && letter <= 'f')
                value = value << 4 | static_cast<uint32_t>(letter - 'a' + 10);
            else
                fail("four hexadecimal digits");
        }
        return value;
    }

    static void append_utf8(uint32_t c, std::string &text) {
        if (c < 0x80) {
            text += static_cast<char>(c);
            return;
        }
        const int trailing = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        static constexpr uint32_t kLeads[] = {0, 0xC0, 0xE0, 0xF0};
        text += static_cast<char>(kLeads[trailing] | c >> 6 * trailing);
        for (int i = trailing - 1; i >= 0; --i) text += static_cast<char>(0x80 | (c >> 6 * i & 0x3F));
    }

    const char *begin_, *at_, *end_;
};

// Checks the major version; readers ignore what minor ones ("2.1") add.
void check_version(const SfqHeader &header) {
    const std::string_view text = sfq_string(header, "version");
    const size_t dot = std::min(text.find('.'), text.size());
    const std::string_view digits = text.substr(0, dot);
    const uint64_t major = is_integer(digits) ? saturated(digits) : 0;
    if (major == 0 || (dot < text.size() && !is_integer(text.substr(dot + 1))))
        throw SfqError("'version' is " + quoted(text) + ", expected MAJOR or MAJOR.MINOR, such as '2.1'.");
    if (major != kVersion)
        throw SfqError("the file has format version " + std::string(text) +
                       ", and this release of smallfry reads version " + std::to_string(kVersion) +
                       ". Please " +
                       (major > kVersion ? "upgrade smallfry." : "compress the vectors again."));
}

// Proof that every [begin, end) is inside the data: each begins where the one before ended, none ends before
// it begins, and the last ends with the file.
void check_layout(const SfqHeader &header, uint64_t file_size) {
    if (header.data_start % kDataAlignment)
        throw SfqError("the data starts at byte " + std::to_string(header.data_start) +
                       ", which is not a multiple of " + std::to_string(kDataAlignment) +
                       ". The file was rewritten by another tool; please compress it again.");
    std::vector<std::pair<const std::string *, const TensorEntry *>> order;
    for (const auto &[name, entry] : header.tensors) order.emplace_back(&name, &entry);
    std::sort(order.begin(), order.end(), [](const auto &a, const auto &b) {
        return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
    });
    const uint64_t available = file_size - header.data_start;
    uint64_t position = 0;
    for (const auto &[name, entry] : order) {
        if (entry->begin != position || entry->end < entry->begin)
            throw SfqError("tensor " + quoted(*name) + " spans data bytes " + std::to_string(entry->begin) +
                           " to " + std::to_string(entry->end) + ", expected it to begin at " +
                           std::to_string(position) + ". The file is damaged.");
        if (entry->end > available)
            throw SfqError("tensor " + quoted(*name) + " ends at data byte " + std::to_string(entry->end) +
                           ", and the file has " + std::to_string(available) + ". Please copy it again.");
        position = entry->end;
    }
    if (position != available)
        throw SfqError("the tensors end at data byte " + std::to_string(position) + ", and the file has " +
                       std::to_string(available) + ".");
}

}  // namespace

uint64_t sfq_header_end(const uint8_t *start, uint64_t file_size) {
    if (file_size <= kSfqPrefix)
        throw SfqError("the file has " + std::to_string(file_size) +
                       " bytes, and a header takes more than 8. Please copy or compress it again.");
    if (start[kSfqPrefix] != '{')
        throw SfqError(
            "this is not a .sfq file: no JSON header starts at byte 8. Make one with `smallfry compress`.");
    const uint64_t length = load_word(start);
    if (length > kMaxHeader)
        throw SfqError("the header declares " + std::to_string(length) + " bytes, and at most " +
                       std::to_string(kMaxHeader) + " are read. The file is damaged, or not a .sfq file.");
    if (kSfqPrefix + length > file_size)
        throw SfqError("the header declares " + std::to_string(length) + " bytes, and the whole file has " +
                       std::to_string(file_size) + ". Please copy it again.");
    return kSfqPrefix + length;
}

SfqHeader parse_sfq_header(std::string_view raw, uint64_t file_size) {
    SfqHeader header;
    header.data_start = raw.size();
    Parser(raw.substr(kSfqPrefix)).parse(header);
    if (header.metadata["format"] != "sfq")
        throw SfqError(
            "this is a safetensors file without format=sfq in its metadata. Make a .sfq file of one of its "
            "tensors with `smallfry compress --tensor NAME`.");
    check_version(header);
    check_layout(header, file_size);
    return header;
}

const std::string &sfq_string(const SfqHeader &header, const char *name) {
    const auto found = header.metadata.find(name);
    if (found == header.metadata.end())
        throw SfqError(std::string("the metadata has no '") + name +
                       "'. The file is damaged; please compress it again.");
    return found->second;
}

uint64_t sfq_integer(const SfqHeader &header, const char *name, uint64_t low, uint64_t high) {
    const std::string &text = sfq_string(header, name);
    const uint64_t value = is_integer(text) ? saturated(text) : 0;
    if (!is_integer(text) || value < low || value > high)
        throw SfqError(std::string("'") + name + "' is " + quoted(text) + ", expected an integer from " +
                       std::to_string(low) + " to " + std::to_string(high) + ".");
    return value;
}

std::string quoted(std::string_view text) {
    constexpr size_t kLongest = 60;
    std::string result = "'";
    for (unsigned char c : text.substr(0, kLongest))
        result += c >= 0x20 && c < 0x7F ? static_cast<char>(c) : '?';
    return result + (text.size() > kLongest ? "…'" : "'");
}
