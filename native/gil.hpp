// Letting other Python threads run during a kernel.
#pragma once
#include <Python.h>

#include <cstddef>

// Holds the lock released while it lives, where there is enough to do.
class GilRelease {
  public:
    explicit GilRelease(size_t nbytes) : state_(nbytes >= kBytes ? PyEval_SaveThread() : nullptr) {}
    GilRelease(const GilRelease &) = delete;
    GilRelease &operator=(const GilRelease &) = delete;
    ~GilRelease() {
        if (state_) PyEval_RestoreThread(state_);
    }

  private:
    static constexpr size_t kBytes = 1 << 16;  // less is done sooner than the lock is let go

    PyThreadState *state_;
};
