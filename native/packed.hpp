// Tokens as packed UTF-8: token i is bytes[offsets[i] .. offsets[i + 1]).
#pragma once
#include <cstdint>
#include <string>

#include "buffer.hpp"
#include "errors.hpp"
#include "view.hpp"

[[noreturn]] inline void raise_no_offsets() {
    raise_error("InputError", "offsets is empty, expected n + 1 offsets for n tokens");
}

[[noreturn]] inline void raise_bad_offset(uint64_t position, int64_t offset, uint64_t previous,
                                          uint64_t size) {
    raise_error("InputError", "offsets[" + std::to_string(position) + "] is " + std::to_string(offset) +
                                  ", expected " + std::to_string(previous) + " to " + std::to_string(size) +
                                  ": offsets must not decrease or exceed the bytes");
}

// A copy of offsets, so that no other thread changes them after the check. Raises InputError if they decrease
// or exceed `size`.
template <typename Offset>
Buffer<uint64_t> checked_offsets_of(const View &offsets, uint64_t size) {
    if (offsets.size() == 0) raise_no_offsets();
    Buffer<uint64_t> checked(offsets.size());
    int64_t previous = 0;
    for (size_t i = 0; i < checked.size(); ++i) {
        const auto offset = static_cast<int64_t>(offsets.data<const Offset>()[i]);
        if (offset < previous || static_cast<uint64_t>(offset) > size)
            raise_bad_offset(i, offset, static_cast<uint64_t>(previous), size);
        checked[i] = static_cast<uint64_t>(offset);
        previous = offset;
    }
    return checked;
}

inline Buffer<uint64_t> checked_offsets(const View &offsets, uint64_t size) {
    if (offsets.itemsize() == sizeof(uint32_t)) return checked_offsets_of<uint32_t>(offsets, size);
    return checked_offsets_of<int64_t>(offsets, size);
}

class PackedTokens {
  public:
    // Raises InputError if the offsets decrease or exceed the bytes.
    PackedTokens(nanobind::handle bytes, nanobind::handle offsets)
        : bytes_(bytes, "buf", "B"),
          offsets_(checked_offsets(View(offsets, "offsets", "ILQlq"), bytes_.size())) {}

    size_t count() const { return offsets_.size() - 1; }
    size_t nbytes() const { return bytes_.size(); }
    const uint8_t *bytes() const { return bytes_.data<const uint8_t>(); }
    const uint64_t *offsets() const { return offsets_.data(); }
    const uint8_t *begin(size_t i) const { return bytes() + offsets_[i]; }
    size_t length(size_t i) const { return offsets_[i + 1] - offsets_[i]; }

  private:
    View bytes_;
    Buffer<uint64_t> offsets_;
};
