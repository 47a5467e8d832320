// Threads for one large call, spawned and joined inside it, so that none crosses a fork.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

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

// Calls work(begin, end) on parts of [0, count) of at most `grain`, taken by the threads from a queue.
// `work` must not throw.
template <class Work>
void parallel_grains(size_t count, size_t grain, size_t threads, const Work &work) {
    std::atomic<size_t> next{0};
    threads = std::max<size_t>(1, std::min(threads, count / grain));
    parallel_for(threads, threads, [&](size_t, size_t) {
        for (size_t begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < count;)
            work(begin, std::min(begin + grain, count));
    });
}
