// Read-ahead of the pages of a memory map. Does not use Python.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

// Whole pages of the system.
struct PageRange {
    uint64_t begin;  // address, a multiple of the page size
    uint64_t bytes;
};

// Bytes of a page of the system.
size_t page_size();

// A set of pages: `add` the memory to be read, then `ranges`.
class PageSet {
  public:
    // Adds the pages of [memory, memory + bytes).
    void add(const void *memory, size_t bytes) {
        const uint64_t begin = reinterpret_cast<uintptr_t>(memory);
        for (uint64_t page = begin / size_; page * size_ < begin + bytes; ++page)
            if (pages_.empty() || pages_.back() != page) pages_.push_back(page);
    }

    // Returns the distinct pages in ascending order, adjacent ones as one range.
    std::vector<PageRange> ranges();

  private:
    uint64_t size_ = page_size();
    std::vector<uint64_t> pages_;  // page numbers
};

// Starts to read the pages that are not in memory, without waiting for them. It is a hint: systems without
// read-ahead ignore it.
void read_ahead(const std::vector<PageRange> &ranges);
