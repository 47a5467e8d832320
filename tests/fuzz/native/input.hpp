// Takes values from the input of a fuzzer, and checks conditions.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

// Aborts, so that the fuzzer keeps the input.
inline void expect(bool holds, const char *what) {
    if (holds) return;
    std::fprintf(stderr, "violated: %s\n", what);
    std::abort();
}

class Input {
  public:
    Input(const uint8_t *data, size_t size) : at_(data), end_(data + size) {}

    // The next value; zeros after the end of the input.
    template <class T>
    T take() {
        T value{};
        const size_t n = std::min(sizeof value, left());
        if (n != 0) std::memcpy(&value, at_, n);
        at_ += n;
        return value;
    }

    // A number in [low, high].
    size_t take_size(size_t low, size_t high) { return low + take<uint16_t>() % (high - low + 1); }

    // The next `count` values in memory of exactly that size, so that reads outside are detected.
    template <class T>
    std::unique_ptr<T[]> take_array(size_t count) {
        std::unique_ptr<T[]> values(new T[count]());
        const size_t n = std::min(count * sizeof(T), left());
        if (n != 0) std::memcpy(values.get(), at_, n);
        at_ += n;
        return values;
    }

    size_t left() const { return static_cast<size_t>(end_ - at_); }

  private:
    const uint8_t *at_, *end_;
};
