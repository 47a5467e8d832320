// A growing array of plain values: grows by realloc, leaves new values uninitialized, moves to NumPy
// uncopied.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

template <typename T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t size) { resize(size); }
    Buffer(Buffer &&other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          capacity_(std::exchange(other.capacity_, 0)) {}
    Buffer &operator=(Buffer &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    T *data() { return data_; }
    const T *data() const { return data_; }
    size_t size() const { return size_; }
    T &operator[](size_t i) { return data_[i]; }
    const T &operator[](size_t i) const { return data_[i]; }

    // Reserves room for `extra` more values. Throws std::bad_alloc.
    void reserve(size_t extra) {
        if (capacity_ - size_ >= extra) return;
        if (extra > SIZE_MAX / sizeof(T) / 2 - size_) throw std::bad_alloc();
        size_t larger = size_ + extra;
        if (larger < capacity_ + capacity_ / 2) larger = capacity_ + capacity_ / 2;
        void *grown = std::realloc(data_, larger * sizeof(T));
        if (grown == nullptr) throw std::bad_alloc();
        data_ = static_cast<T *>(grown);
        capacity_ = larger;
    }

    // New values are uninitialized.
    void resize(size_t size) {
        if (size > size_) reserve(size - size_);
        size_ = size;
    }

    void push(T value) {
        reserve(1);
        data_[size_++] = value;
    }

    void append(const T *values, size_t count) {
        reserve(count);
        if (count != 0) std::memcpy(data_ + size_, values, count * sizeof(T));
        size_ += count;
    }

  private:
    T *data_ = nullptr;
    size_t size_ = 0;
    size_t capacity_ = 0;
};

// Moves the values to a NumPy array of a shape, by default one-dimensional.
template <typename T>
nanobind::ndarray<nanobind::numpy, T> to_numpy(Buffer<T> &&buffer, std::initializer_list<size_t> shape) {
    auto *owned = new Buffer<T>(std::move(buffer));
    nanobind::capsule owner(owned, [](void *p) noexcept { delete static_cast<Buffer<T> *>(p); });
    return nanobind::ndarray<nanobind::numpy, T>(owned->data(), shape, owner);
}

template <typename T>
nanobind::ndarray<nanobind::numpy, T> to_numpy(Buffer<T> &&buffer) {
    size_t size = buffer.size();
    return to_numpy(std::move(buffer), {size});
}
