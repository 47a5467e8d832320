// Releases the GIL during a kernel.
#pragma once
#include <Python.h>

#include <cstddef>

// Keeps the GIL released during its lifetime if the work is large enough.
class GilRelease {
  public:
    explicit GilRelease(size_t nbytes) : state_(nbytes >= kBytes ? PyEval_SaveThread() : nullptr) {}
    GilRelease(const GilRelease &) = delete;
    GilRelease &operator=(const GilRelease &) = delete;
    ~GilRelease() {
        if (state_) PyEval_RestoreThread(state_);
    }

  private:
    static constexpr size_t kBytes = 1 << 16;  // smaller work is cheaper than a release

    PyThreadState *state_;
};
