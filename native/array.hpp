// A C-contiguous array in host memory of any library: through the buffer protocol, or through DLPack.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <string>
#include <vector>

class Array {
  public:
    enum class Access { read, write };

    // Raises InputError, which calls the array `name`, unless it is C-contiguous, aligned, in host memory
    // and, to be written, writable. NumPy arrays of bfloat16 (of ml_dtypes) are viewed as uint16.
    Array(nanobind::handle object, const char *name, Access access);
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    ~Array() {
        if (buffer_.obj) PyBuffer_Release(&buffer_);
    }

    void *data() const { return data_; }
    nanobind::dlpack::dtype dtype() const { return dtype_; }
    std::string describe() const;  // dtype and shape
    const std::vector<int64_t> &shape() const { return shape_; }
    size_t size() const {
        size_t size = 1;
        for (const int64_t extent : shape_) size *= static_cast<size_t>(extent);
        return size;
    }
    bool overlaps(const Array &other) const {
        return address() < other.address() + other.nbytes() && other.address() < address() + nbytes();
    }

  private:
    uintptr_t address() const { return reinterpret_cast<uintptr_t>(data_); }
    size_t nbytes() const { return size() * (dtype_.bits / 8u); }

    void view_buffer(nanobind::handle object, const char *name, Access access);
    void view_tensor(const nanobind::dlpack::dltensor &tensor, const char *name);

    Py_buffer buffer_{};
    nanobind::object bits_;       // the view of an array of bfloat16
    nanobind::ndarray<> tensor_;  // what keeps memory from `__dlpack__`
    void *data_ = nullptr;
    nanobind::dlpack::dtype dtype_{};
    std::string format_;  // of a buffer of neither integers nor floats
    std::vector<int64_t> shape_;
};

std::string describe_shape(const std::vector<int64_t> &shape);
