#include "sfq_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <system_error>

#include "number.hpp"
#include "packed_table.hpp"

namespace {

constexpr uint64_t kMaxDim = 1 << 16, kMaxHeads = 1 << 16;
constexpr uint64_t kMaxRows = (uint64_t{1} << 32) - 2, kMaxPagedRows = uint64_t{1} << 40;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kAnySize = UINT64_MAX;

struct Descriptor {
    explicit Descriptor(int number) : number(number) {}
    Descriptor(const Descriptor &) = delete;
    ~Descriptor() {
        if (number >= 0) close(number);
    }
    int number;
};

[[noreturn]] void fail_system() { throw FileError(std::generic_category().message(errno)); }

// Reads up to `size` bytes from the start of the file; fewer if it ends.
std::string read_start(int descriptor, size_t size) {
    std::string bytes(size, '\0');
    size_t at = 0;
    while (at < size) {
        const ssize_t count = pread(descriptor, &bytes[at], size - at, static_cast<off_t>(at));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_system();
        if (count == 0) break;
        at += static_cast<size_t>(count);
    }
    bytes.resize(at);
    return bytes;
}

[[noreturn]] void fail_damaged(const std::string &reason) {
    throw SfqError(reason + " The file is damaged.");
}

std::string joined(const std::vector<uint64_t> &sizes) {
    std::string text = "[";
    for (uint64_t size : sizes) {
        if (text.size() > 60) return text + ", …]";
        text += (text.size() > 1 ? ", " : "") + (size == kAnySize ? "any" : std::to_string(size));
    }
    return text + "]";
}

// The metadata `name`: a finite number of at least 0, in the form of format.md.
void check_number(const SfqHeader &header, const char *name) {
    const std::string &text = sfq_string(header, name);
    const char *at = text.data(), *end = at + text.size();
    const auto take_digits = [&](ptrdiff_t most) {
        const char *start = at;
        while (at != end && *at >= '0' && *at <= '9') ++at;
        return at != start && at - start <= most;
    };
    bool valid = take_digits(40);
    if (valid && at != end && *at == '.') valid = (++at, take_digits(40));
    if (valid && at != end && *at == 'e') {
        ++at;
        if (at != end && (*at == '+' || *at == '-')) ++at;
        valid = take_digits(3);
    }
    if (!valid || at != end || std::isinf(parse_rounded(text.data(), end)))
        throw SfqError(std::string("'") + name + "' is " + quoted(text) +
                       ", expected a finite number of at least 0.");
}

bool is_trellis(const SfqHeader &header) { return sfq_string(header, "codebook_kind") == "trellis"; }

int checked_nbit(const SfqHeader &header) {
    const uint64_t nbit = sfq_integer(header, "nbit", 0, UINT64_MAX);
    static constexpr uint64_t kWidths[] = {1, 2, 3, 4, 8, 16, 32};
    if (std::find(std::begin(kWidths), std::end(kWidths), nbit) == std::end(kWidths))
        fail_damaged("nbit is " + std::to_string(nbit) + ", expected one of 1, 2, 3, 4, 8, 16, 32.");
    const std::string &kind = sfq_string(header, "codebook_kind");
    const bool known = kind == "trellis"                      ? nbit <= 4
                       : kind == "uniform" || kind == "exact" ? nbit != 3 && nbit != 32
                                                              : kind == "float" && nbit == 32;
    if (!known)
        throw SfqError("the codebook kind is " + quoted(kind) + " at " + std::to_string(nbit) +
                       " bits, expected uniform or exact (1, 2, 4, 8 and 16 bits), trellis (1 to 4) or float "
                       "(32). The file is damaged or from a newer release; please upgrade smallfry.");
    return static_cast<int>(nbit);
}

bool is_paged(const SfqHeader &header) {
    const auto layout = header.metadata.find("layout");
    if (layout == header.metadata.end()) return false;
    if (layout->second != "paged")
        throw SfqError(
            "'layout' is " + quoted(layout->second) +
            ", expected 'paged' or none. The file is from a newer release; please upgrade smallfry.");
    if (sfq_string(header, "codebook_kind") == "float")
        throw SfqError("a table of 32 bits is paged, expected 16 bits or fewer.");
    return true;
}

void check_digest(const SfqHeader &header, const std::string &name) {
    const auto found = header.metadata.find("sha256." + name);
    const bool valid = found != header.metadata.end() && found->second.size() == 64 &&
                       found->second.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!valid)
        throw SfqError("the metadata has no SHA-256 'sha256." + name + "'. Please compress it again.");
}

// The tensors of a header, checked when they are looked up.
class Tensors {
  public:
    Tensors(const SfqHeader &header, const uint8_t *file) : header_(header), file_(file) {}

    bool has(const char *name) const { return header_.tensors.count(name) != 0; }

    // Returns the bytes of a tensor and stores its number of values, or returns nullptr if it is absent.
    const uint8_t *find(const char *name, const char *dtype, uint64_t itemsize,
                        const std::vector<uint64_t> &shape, uint64_t *size = nullptr) const {
        const auto found = header_.tensors.find(name);
        if (found == header_.tensors.end()) return nullptr;
        const std::string tensor = std::string("tensor '") + name + "'";
        const TensorEntry &entry = found->second;
        if (entry.dtype != dtype)
            fail_damaged(tensor + " has dtype " + quoted(entry.dtype) + ", expected " + dtype + ".");
        const auto fits = [](uint64_t expected, uint64_t size) {
            return expected == kAnySize || expected == size;
        };
        if (!std::equal(shape.begin(), shape.end(), entry.shape.begin(), entry.shape.end(), fits))
            fail_damaged(tensor + " has shape " + joined(entry.shape) + ", expected " + joined(shape) + ".");
        uint64_t values = 1, bytes = 0;
        bool overflows = false;
        for (uint64_t length : entry.shape) overflows |= __builtin_mul_overflow(values, length, &values);
        overflows |= __builtin_mul_overflow(values, itemsize, &bytes);
        if (overflows || entry.end - entry.begin != bytes)
            fail_damaged(tensor + " spans " + std::to_string(entry.end - entry.begin) +
                         " bytes, which are not those of its shape " + joined(entry.shape) + ".");
        const uint64_t start = header_.data_start + entry.begin;
        if (start % itemsize)
            throw SfqError(tensor + " starts at byte " + std::to_string(start) +
                           ", which is not a multiple of " + std::to_string(itemsize) +
                           ". Please compress it again.");
        check_digest(header_, name);
        if (size) *size = values;
        return file_ + start;
    }

    // A tensor of finite float32 values.
    const float *find_finite(const char *name, uint64_t shape, uint64_t *size = nullptr) const {
        uint64_t count = 0;
        const auto *values =
            reinterpret_cast<const float *>(find(name, "F32", sizeof(float), {shape}, &count));
        if (values && !std::all_of(values, values + count, [](float value) { return std::isfinite(value); }))
            fail_damaged(std::string(name) + " has NaN or infinity, expected finite numbers.");
        if (size) *size = count;
        return values;
    }

    void expect_absent(const char *name, const char *reason) const {
        if (has(name)) fail_damaged(std::string(reason) + " has " + name + ", expected none.");
    }

  private:
    const SfqHeader &header_;
    const uint8_t *file_;
};

void check_trellis(uint64_t values, uint64_t dim, uint64_t nbit) {
    uint64_t bits = 8;
    while (bits < 16 && uint64_t{1} << bits != values) ++bits;
    if (uint64_t{1} << bits != values)
        fail_damaged("the trellis codebook has " + std::to_string(values) +
                     " values, expected a power of two from 256 to 65536.");
    if (dim * nbit < bits)
        fail_damaged("rows of " + std::to_string(dim) + " values have " + std::to_string(dim * nbit) +
                     " bits; a trellis code of " + std::to_string(values) + " values needs " +
                     std::to_string(bits) + ".");
}

std::vector<uint64_t> copy_head_offsets(const Tensors &tensors, uint64_t rows) {
    uint64_t count = 0;
    const uint8_t *bytes = tensors.find("head_offsets", "U64", sizeof(uint64_t), {kAnySize}, &count);
    if (!bytes) return {};
    if (count < 2 || count > kMaxHeads + 1)
        fail_damaged("head_offsets has " + std::to_string(count) + " values, expected 2 to " +
                     std::to_string(kMaxHeads + 1) + ".");
    std::vector<uint64_t> offsets(count);
    std::memcpy(offsets.data(), bytes, count * sizeof(uint64_t));
    if (offsets.front() != 0 || offsets.back() != rows || !std::is_sorted(offsets.begin(), offsets.end()))
        fail_damaged("head_offsets does not increase from 0 to the number of rows, " + std::to_string(rows) +
                     ".");
    return offsets;
}

void check_zero_rows(const uint32_t *rows, size_t count, uint64_t limit) {
    for (size_t i = 1; i < count; ++i)
        if (rows[i] <= rows[i - 1]) fail_damaged("zero_rows is not strictly increasing.");
    if (count && rows[count - 1] >= limit)
        throw SfqError("zero_rows names row " + std::to_string(rows[count - 1]) + ", and the table has " +
                       std::to_string(limit) + " rows.");
}

}  // namespace

FileMap::FileMap(const char *path) {
    // Without O_NONBLOCK, opening a named pipe waits for a writer.
    const Descriptor file(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    struct stat status;
    if (file.number < 0 || fstat(file.number, &status) != 0) fail_system();
    if (!S_ISREG(status.st_mode)) throw FileError("not a regular file, expected a .sfq file");
    size_ = static_cast<uint64_t>(status.st_size);
    std::string start = read_start(file.number, kSfqPrefix + 1);
    const uint64_t declared = start.size() <= kSfqPrefix ? start.size() : size_;
    const uint64_t end = sfq_header_end(reinterpret_cast<const uint8_t *>(start.data()), declared);
    header_ = read_start(file.number, end);
    if (header_.size() != end)
        throw SfqError("the header ends after " + std::to_string(header_.size()) + " of " +
                       std::to_string(end) + " bytes. Please copy it again.");
    void *map = size_ > SIZE_MAX ? MAP_FAILED : mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.number, 0);
    if (map == MAP_FAILED) fail_system();
    data_ = static_cast<uint8_t *>(map);
}

FileMap::~FileMap() {
    if (data_) munmap(data_, size_);
}

SfqFile::SfqFile(const char *path) : map_(path) {
    const SfqHeader header = parse_sfq_header(map_.header(), map_.size());
    const Tensors tensors(header, map_.data());
    nbit = checked_nbit(header);
    paged = is_paged(header);
    rows = sfq_integer(header, "rows", 1, paged ? kMaxPagedRows : kMaxRows);
    dim = sfq_integer(header, "dim", 1, kMaxDim);
    check_number(header, "clip");
    check_number(header, "frobenius_error");

    // No product overflows: dim * nbit is at most 2^21, rows at most 2^40.
    const uint64_t stride = (dim * static_cast<uint64_t>(nbit) + 7) / 8;
    const RecordLayout records(stride, paged);
    if (nbit == 32) {
        codes = tensors.find("codes", "F32", sizeof(float), {rows, dim});
        tensors.expect_absent("codebook", "a 32-bit table");
    } else {
        codes = tensors.find("codes", "U8", 1, {records.blocks(rows), records.block()});
    }
    if (paged && codes && records.block() == kPage && (codes - map_.data()) % kPage)
        throw SfqError("the blocks of a paged table start at byte " + std::to_string(codes - map_.data()) +
                       ", which is not a multiple of " + std::to_string(kPage) +
                       ". Please compress it again.");
    const bool trellis = is_trellis(header);
    uint64_t values = 0;
    if (nbit != 32)
        codebook = tensors.find_finite("codebook", trellis ? kAnySize : uint64_t{1} << nbit, &values);
    if (!codes || (nbit != 32 && !codebook))
        fail_damaged(std::string("tensor '") + (codes ? "codebook" : "codes") + "' is missing.");
    codebook_size = values;
    mean = tensors.find_finite("mean", dim);
    if (trellis) {
        check_trellis(values, dim, static_cast<uint64_t>(nbit));
        column_scale = tensors.find_finite("column_scale", dim);
        tensors.find("rotation", "F32", sizeof(float), {dim, dim});
    } else {
        tensors.expect_absent("column_scale", "a table without trellis codes");
        tensors.expect_absent("rotation", "a table without trellis codes");
    }
    if (paged) {
        tensors.expect_absent("row_scale", "a paged table");
        tensors.expect_absent("zero_rows", "a paged table");
        madvise(const_cast<uint8_t *>(map_.data()), map_.size(), MADV_RANDOM);
    } else {
        row_scale = reinterpret_cast<const uint16_t *>(tensors.find("row_scale", "F16", 2, {rows}));
        uint64_t count = 0;
        zero_rows =
            reinterpret_cast<const uint32_t *>(tensors.find("zero_rows", "U32", 4, {kAnySize}, &count));
        zero_row_count = count;
        check_zero_rows(zero_rows, zero_row_count, rows);
    }
    head_offsets = copy_head_offsets(tensors, rows);
}
