#include "array.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "errors.hpp"

namespace nb = nanobind;

namespace {

using Code = nb::dlpack::dtype_code;

constexpr Code kOpaque = static_cast<Code>(3);  // kDLOpaqueHandle
constexpr char kContiguous[] = "a C-contiguous array. Pass a contiguous copy.";
constexpr char kAligned[] = "an address that is a multiple of the size of a value. Pass a copy.";

// The functions of DLPack 1.2 that the type of an array has in `__dlpack_c_exchange_api__`. They take a tenth
// of a microsecond, where `__dlpack__` of torch takes six.
struct Exchange {
    uint32_t major, minor;
    void *previous, *allocate, *to_managed, *from_managed;
    int (*view)(void *object, nb::dlpack::dltensor *out);
};

const Exchange *exchange_of(nb::handle object) {
    const nb::object capsule = nb::getattr(object.type(), "__dlpack_c_exchange_api__", nb::none());
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    const auto *functions =
        static_cast<const Exchange *>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    return functions->major == 1 && functions->view ? functions : nullptr;
}

bool is_host(int device) {
    return device == nb::device::cpu::value || device == nb::device::cuda_host::value ||
           device == nb::device::rocm_host::value;
}

bool is_aligned(const void *data, nb::dlpack::dtype dtype) {
    const size_t itemsize = std::max(1, dtype.bits / 8);
    return reinterpret_cast<uintptr_t>(data) % itemsize == 0;
}

nb::dlpack::dtype dtype_of(const Py_buffer &buffer) {
    const char *format = buffer.format ? buffer.format : "B";
    if (*format == '=') ++format;  // NumPy's mark of an array that is not aligned
    const char kind = std::strlen(format) == 1 ? *format : ' ';
    Code code = kOpaque;
    if (kind == '?') code = Code::Bool;
    if (std::strchr("bhilq", kind)) code = Code::Int;
    if (std::strchr("BHILQ", kind)) code = Code::UInt;
    if (std::strchr("efd", kind)) code = Code::Float;
    return {static_cast<uint8_t>(code), static_cast<uint8_t>(buffer.itemsize * 8), 1};
}

const char *name_of(uint8_t code) {
    static constexpr const char *kNames[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    return code < std::size(kNames) ? kNames[code] : "float";  // the others have fewer than 16 bits
}

[[noreturn]] void reject_type(nb::handle object, const char *name, Array::Access access) {
    raise_error("InputError", std::string(name) + " is " + nb::type_name(object.type()).c_str() +
                                  ", expected " + (access == Array::Access::write ? "a writable" : "an") +
                                  " array of NumPy, torch or another library with DLPack");
}

}  // namespace

Array::Array(nb::handle object, const char *name, Access access) {
    if (PyObject_CheckBuffer(object.ptr())) {
        view_buffer(object, name, access);
        return;
    }
    nb::dlpack::dltensor tensor;
    if (const Exchange *exchange = exchange_of(object)) {
        if (exchange->view(object.ptr(), &tensor) != 0) {
            PyErr_Clear();  // a tensor without memory, such as one on meta or a sparse one
            reject_type(object, name, access);
        }
        view_tensor(tensor, name);
        return;
    }
    nb::ndarray<nb::ro> input;
    if (access == Access::read && nb::try_cast(object, input)) tensor_ = nb::ndarray<>(input);
    if (access == Access::write) nb::try_cast(object, tensor_);
    if (!tensor_.is_valid()) reject_type(object, name, access);
    tensor.data = tensor_.data_handle();
    tensor.device.device_type = tensor_.device_type();
    tensor.ndim = static_cast<int32_t>(tensor_.ndim());
    tensor.dtype = tensor_.dtype();
    tensor.shape = const_cast<int64_t *>(tensor_.shape_ptr());
    tensor.strides = const_cast<int64_t *>(tensor_.stride_ptr());
    tensor.byte_offset = tensor_.byte_offset();
    view_tensor(tensor, name);
}

void Array::view_buffer(nb::handle object, const char *name, Access access) {
    if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
        nb::python_error error;
        // NumPy has no format for dtypes of other packages.
        const nb::object dtype = nb::getattr(object, "dtype", nb::none());
        if (!nb::str("bfloat16").equal(nb::getattr(dtype, "name", nb::none()))) throw error;
        bits_ = object.attr("view")("uint16");
        if (PyObject_GetBuffer(bits_.ptr(), &buffer_, PyBUF_STRIDES | PyBUF_FORMAT) != 0)
            throw nb::python_error();
    }
    const auto reject = [&](const char *fault, const char *expected) {
        PyBuffer_Release(&buffer_);
        raise_error("InputError", std::string(name) + " is " + fault + ", expected " + expected);
    };
    if (access == Access::write && buffer_.readonly) reject("read-only", "a writable array");
    if (!PyBuffer_IsContiguous(&buffer_, 'C')) reject("not C-contiguous", kContiguous);
    data_ = buffer_.buf;
    dtype_ = dtype_of(buffer_);
    if (dtype_.code == static_cast<uint8_t>(kOpaque)) format_ = buffer_.format;
    shape_.assign(buffer_.shape, buffer_.shape + buffer_.ndim);
    if (format_.empty() && !is_aligned(data_, dtype_)) reject("not aligned", kAligned);
}

void Array::view_tensor(const nb::dlpack::dltensor &tensor, const char *name) {
    if (!is_host(tensor.device.device_type))
        raise_error("InputError",
                    std::string(name) + " is in the memory of a device, expected an array in host memory");
    int64_t step = 1;
    bool is_contiguous = true, is_empty = false;
    for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
        const int64_t extent = tensor.shape[axis];
        if (extent != 1 && tensor.strides && tensor.strides[axis] != step) is_contiguous = false;
        is_empty = is_empty || extent == 0;
        step *= extent;
    }
    if (!is_contiguous && !is_empty)
        raise_error("InputError", std::string(name) + " is not C-contiguous, expected " + kContiguous);
    if (!tensor.data && !is_empty)  // a fake tensor, while torch traces a program
        raise_error("InputError", std::string(name) +
                                      " has no memory, expected an array in host memory. Use StoreEmbedding "
                                      "in programs that torch compiles or exports.");
    data_ = static_cast<uint8_t *>(tensor.data) + tensor.byte_offset;
    dtype_ = tensor.dtype;
    if (!is_aligned(data_, dtype_))
        raise_error("InputError", std::string(name) + " is not aligned, expected " + kAligned);
    shape_.assign(tensor.shape, tensor.shape + tensor.ndim);
}

std::string Array::describe() const {
    const bool is_bool = dtype_.code == static_cast<uint8_t>(Code::Bool);
    const std::string dtype = name_of(dtype_.code) + (is_bool ? "" : std::to_string(dtype_.bits));
    return (format_.empty() ? dtype : "of format '" + format_ + "'") + " " + describe_shape(shape_);
}

std::string describe_shape(const std::vector<int64_t> &shape) {
    std::string text = "[";
    for (size_t axis = 0; axis < shape.size(); ++axis)
        text += (axis ? ", " : "") + std::to_string(shape[axis]);
    return text + "]";
}
