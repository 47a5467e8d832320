// The C library on any file: it opens with an error or without, and rows of a table that opens are gathered.
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "input.hpp"
#include "smallfry.h"

namespace {

constexpr int64_t kMostValues = 1 << 16;

// An unnamed file in memory.
class File {
  public:
    File() : number_(memfd_create("fuzzed", 0)), path_("/proc/self/fd/" + std::to_string(number_)) {
        expect(number_ >= 0, "a file in memory is created");
    }

    void write(const std::string &content) {
        expect(ftruncate(number_, 0) == 0, "the file is emptied");
        expect(pwrite(number_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()),
               "the file is written");
    }

    const char *path() const { return path_.c_str(); }

  private:
    int number_;
    std::string path_;
};

// The header is the text up to the first newline, padded to 4096 bytes. Data follow, zeros after the input.
std::string padded(const std::string &text, size_t size) {
    const size_t end = std::min(text.find('\n'), text.size());
    const uint64_t length = (8 + end + 4095) / 4096 * 4096 - 8;
    std::string content(reinterpret_cast<const char *>(&length), sizeof length);
    content += text.substr(0, end);
    content.resize(8 + length, ' ');
    const size_t data = content.size();
    if (end < text.size()) content += text.substr(end + 1);
    content.resize(data + size);
    return content;
}

void use(const smallfry_table *table) {
    const int64_t rows = smallfry_rows(table), dim = smallfry_dim(table), heads = smallfry_heads(table);
    expect(rows >= 1 && dim >= 1 && heads >= 0, "a table has rows of values");
    const int64_t step = std::max<int64_t>(1, heads);
    if (step * dim > kMostValues) return;
    std::vector<int64_t> ids;
    for (int64_t id : {int64_t{0}, rows / 2, rows - 1, rows, int64_t{-1}}) {
        ids.assign(static_cast<size_t>(step), id);
        for (int dtype = SMALLFRY_F32; dtype <= SMALLFRY_BF16; ++dtype) {
            const size_t size = static_cast<size_t>(step * dim) * (dtype == SMALLFRY_F32 ? 4 : 2);
            const auto out = std::unique_ptr<uint8_t[]>(new uint8_t[size]);
            const smallfry_status status = smallfry_gather(table, ids.data(), ids.size(), out.get(), dtype);
            const bool is_row = id >= 0 && id < rows;
            expect(is_row || status == SMALLFRY_OUT_OF_RANGE, "other ids are rejected");
            expect(!is_row || heads || status == SMALLFRY_OK, "rows are gathered");
        }
        size_t pages = 0;
        if (smallfry_prefetch(table, ids.data(), ids.size(), &pages) == SMALLFRY_OK)
            expect(pages >= 1, "rows have pages");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static File file;
    Input input(data, size);
    const size_t data_size = input.take<uint16_t>();
    const std::string text(reinterpret_cast<const char *>(data) + size - input.left(), input.left());
    file.write(data_size == UINT16_MAX ? text : padded(text, data_size));
    smallfry_table *table = nullptr;
    if (smallfry_open(file.path(), &table) == SMALLFRY_OK)
        use(table);
    else
        expect(table == nullptr && smallfry_last_error()[0] != '\0', "an error has a message");
    smallfry_close(table);
    return 0;
}
