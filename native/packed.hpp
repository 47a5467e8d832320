// Tokens as packed UTF-8: token i is bytes[offsets[i] .. offsets[i + 1]).
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <string>

#include "buffer.hpp"
#include "errors.hpp"

using ByteArray =
    nanobind::ndarray<const uint8_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using OffsetArray =
    nanobind::ndarray<const int64_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

// A private copy of the offsets, so that no other thread changes them after the check. Raises InputError.
inline Buffer<uint64_t> checked_offsets(const OffsetArray &offsets, uint64_t size) {
    size_t count = offsets.shape(0);
    if (count == 0) raise_error("InputError", "offsets is empty: n tokens need n + 1 offsets");
    Buffer<uint64_t> checked(count);
    int64_t previous = 0;
    for (size_t i = 0; i < count; ++i) {
        int64_t offset = offsets.data()[i];
        if (offset < previous || static_cast<uint64_t>(offset) > size)
            raise_error("InputError", "offsets[" + std::to_string(i) + "] is " + std::to_string(offset) +
                                          ", expected " + std::to_string(previous) + " to " +
                                          std::to_string(size) +
                                          ": offsets must not decrease nor pass the end of the bytes");
        checked[i] = static_cast<uint64_t>(offset);
        previous = offset;
    }
    return checked;
}
