#include "pages.hpp"

#include <algorithm>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#include <unistd.h>
#endif

size_t page_size() {
#ifdef MADV_WILLNEED
    static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return size;
#else
    return 4096;
#endif
}

std::vector<PageRange> PageSet::ranges() {
    std::sort(pages_.begin(), pages_.end());
    pages_.erase(std::unique(pages_.begin(), pages_.end()), pages_.end());
    std::vector<PageRange> ranges;
    for (const uint64_t page : pages_) {
        const uint64_t begin = page * size_;
        if (!ranges.empty() && ranges.back().begin + ranges.back().bytes == begin)
            ranges.back().bytes += size_;
        else
            ranges.push_back({begin, size_});
    }
    return ranges;
}

void read_ahead(const std::vector<PageRange> &ranges) {
#ifdef MADV_WILLNEED
    for (const PageRange &range : ranges)
        madvise(reinterpret_cast<void *>(range.begin), range.bytes, MADV_WILLNEED);
#else
    static_cast<void>(ranges);
#endif
}
