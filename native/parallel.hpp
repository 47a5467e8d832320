// Threads for one large call, spawned and joined inside it, so that none crosses a fork.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

// Smaller work than this does not pay for a thread.
constexpr size_t kBytesPerThread = 1 << 20;

// Returns how many of `threads` pay for work on `nbytes`; 1 at least.
inline size_t useful_threads(size_t threads, size_t nbytes) {
    return std::max<size_t>(1, std::min(threads, nbytes / kBytesPerThread));
}

// Calls work(begin, end) on equal parts of [0, count), the first on this thread. `work` must not throw.
template <class Work>
void parallel_for(size_t count, size_t threads, const Work &work) {
    threads = std::max<size_t>(1, std::min(threads, count));
    auto bound = [&](size_t part) { return count / threads * part + std::min(part, count % threads); };
    std::vector<std::thread> others;
    size_t started = 1;
    try {
        others.reserve(threads - 1);
        for (; started < threads; ++started) others.emplace_back(work, bound(started), bound(started + 1));
    } catch (const std::exception &) {
        // No threads or memory left: this thread does the rest.
    }
    work(bound(0), bound(1));
    if (started < threads) work(bound(started), count);
    for (std::thread &other : others) other.join();
}

// Calls work(thread, begin, end) on parts of [0, count) of at most `grain`, taken by the threads from a
// queue. `thread` is less than `threads`. `work` must not throw.
template <class Work>
void parallel_grains(size_t count, size_t grain, size_t threads, const Work &work) {
    std::atomic<size_t> next{0};
    threads = std::max<size_t>(1, std::min(threads, count / grain));
    parallel_for(threads, threads, [&](size_t thread, size_t) {
        for (size_t begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < count;)
            work(thread, begin, std::min(begin + grain, count));
    });
}
