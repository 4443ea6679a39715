// SPDX-License-Identifier: BSD-3-Clause
// How full a bulk stream makes the pages it holds, and how long its tokens are. No clock in here:
// the page pool's order of fragments, devmem_fit() and the engine's rule for merging decide.
#include "test/bench/modes.h"

#include "lib/page_pool/page_pool.h"
#include "lib/tcp/run_store.h"

#include <devmem/devmem.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <memory>
#include <new>
#include <stdexcept>

namespace bench {
namespace {

constexpr std::uint32_t kKiB = 1024, kMiB = kKiB * kKiB;
constexpr std::uint32_t kPageBytes = 64 * kKiB;
constexpr std::uint32_t kRegionBytes = 64 * kMiB;
/// What the application holds before it returns the oldest.
constexpr std::uint32_t kHeldBytes = 16 * kMiB;
constexpr unsigned kParts = 16; ///< of the stream; each is a sample
constexpr std::uint32_t kPartBytes = 16 * kMiB;
/// As a port: descriptors posted, and how many are posted at once.
constexpr unsigned kDescriptors = 1024, kBurst = 32;
constexpr std::uint32_t kHeaders = 20 + 20 + 12; // IPv4, TCP, timestamps
constexpr std::uint32_t kMtus[]{576, 1500, 4096 + kHeaders, 9000};
constexpr std::uint32_t kAskedMtu = 1500;
/// The application collects all that waits as soon as it is so much.
constexpr struct {
    const char* name;
    std::uint32_t bytes;
    std::uint32_t want; ///< mean token
} kCollections[]{{"64k", 64 * kKiB, 32 * kKiB}, {"1m", kMiB, 56 * kKiB}};

using Fit = struct devmem_fit; // not the function

struct FreeBlock {
    void operator()(devmem::PagePool* pool) const { std::free(pool); }
};

/// One flow of full segments in order, from the fragments a port posts to the tokens an application
/// holds.
class Stream {
public:
    Stream(const Fit& fit, std::uint32_t segment) : fit_(fit), segment_(segment)
    {
        const std::uint32_t pages = kRegionBytes / fit.page_bytes;
        const devmem::PagePoolConfig config{.name = "fit",
                                            .fragments = pages * fit.fragments_per_page,
                                            .fragments_per_page = fit.fragments_per_page,
                                            .lcores = 1};
        constexpr std::size_t kAlign = 64;
        void* block = std::aligned_alloc(kAlign, (devmem::PagePool::bytes(config) + kAlign - 1) /
                                                     kAlign * kAlign);
        if (block == nullptr || store_.create({.device_fragments = config.fragments,
                                               .device_fragment_bytes = fit.fragment_bytes,
                                               .device_fragments_per_page = fit.fragments_per_page,
                                               .host_fragments = 0,
                                               .host_fragment_bytes = 0,
                                               .host_fragments_per_page = 0}) < 0) {
            std::free(block);
            throw std::bad_alloc();
        }
        pool_.reset(devmem::PagePool::create(block, config));
        for (std::uint32_t page = 0; page < pages; ++page)
            pool_->free_run(0, {page * fit.fragments_per_page, fit.fragments_per_page});
        in_use_.resize(pages);
    }

    /// Receive a segment.
    void receive()
    {
        for (std::uint32_t left = segment_; left != 0;) {
            const std::uint32_t fragment = next_fragment();
            const std::uint32_t bytes = std::min(left, fit_.fragment_bytes);
            const devmem::tcp::Run run{fragment, 1, 0, bytes};
            if (waiting_.empty() || !store_.merge(waiting_.back(), run)) {
                store_.put(run);
                waiting_.push_back(fragment);
            }
            if (in_use_[pool_->page_of(fragment)]++ == 0)
                ++pages_;
            left -= bytes;
            waiting_bytes_ += bytes;
            bytes_ += bytes;
        }
    }

    /// The application takes all that waits. @return number of tokens
    std::size_t collect()
    {
        const std::size_t tokens = waiting_.size();
        for (std::uint32_t fragment : waiting_)
            held_.push_back(store_.get(fragment));
        waiting_.clear();
        waiting_bytes_ = 0;
        while (bytes_ > kHeldBytes)
            return_oldest();
        return tokens;
    }

    std::uint32_t waiting_bytes() const { return waiting_bytes_; }
    /// Payload, by the pages that have some.
    double fill() const
    {
        return static_cast<double>(bytes_) / (static_cast<double>(pages_) * fit_.page_bytes);
    }

private:
    std::uint32_t next_fragment()
    {
        while (posted_.size() + kBurst <= kDescriptors) {
            std::uint32_t burst[kBurst];
            if (pool_->alloc(0, kBurst, burst) != 0)
                throw std::runtime_error("fit: the pool ran out of fragments");
            posted_.insert(posted_.end(), burst, burst + kBurst);
        }
        const std::uint32_t fragment = posted_.front();
        posted_.pop_front();
        return fragment;
    }

    void return_oldest()
    {
        const devmem::tcp::Run run = held_.front();
        held_.pop_front();
        if (pool_->free_run(0, {run.first, run.count}) != 0)
            throw std::runtime_error("fit: the pool refused a token's fragments");
        const std::uint32_t page = pool_->page_of(run.first);
        in_use_[page] -= run.count;
        pages_ -= in_use_[page] == 0 ? 1 : 0;
        bytes_ -= run.len;
    }

    const Fit fit_;
    const std::uint32_t segment_;
    std::unique_ptr<devmem::PagePool, FreeBlock> pool_;
    devmem::tcp::RunStore store_;
    std::deque<std::uint32_t> posted_;
    std::vector<std::uint32_t> waiting_; ///< first fragments of runs
    std::deque<devmem::tcp::Run> held_;
    std::vector<std::uint32_t> in_use_; ///< fragments with payload, by page
    std::uint32_t pages_ = 0;           ///< that have some
    std::uint32_t bytes_ = 0, waiting_bytes_ = 0;
};

struct Seen {
    std::vector<double> fill, token; ///< one for each part of the stream
};

Seen watch(const Fit& fit, std::uint32_t segment, std::uint32_t collection)
{
    Stream stream(fit, segment);
    Seen seen;
    // The first part fills what the application holds, and does not count.
    for (unsigned part = 0; part <= kParts; ++part) {
        std::uint64_t bytes = 0;
        std::size_t tokens = 0;
        while (bytes < kPartBytes) {
            while (stream.waiting_bytes() < collection)
                stream.receive();
            bytes += stream.waiting_bytes();
            tokens += stream.collect();
        }
        if (part == 0)
            continue;
        seen.fill.push_back(stream.fill());
        seen.token.push_back(static_cast<double>(bytes) / static_cast<double>(tokens));
    }
    return seen;
}

/// A kernel layout: a segment's payload in buffers of its own, a token for each.
struct KernelLayout {
    const char* name;
    std::uint32_t buffer_bytes;

    std::uint32_t buffers(std::uint32_t segment) const
    {
        return (segment + buffer_bytes - 1) / buffer_bytes;
    }
    double fill(std::uint32_t segment) const
    {
        return static_cast<double>(segment) / (buffers(segment) * buffer_bytes);
    }
    double token(std::uint32_t segment) const
    {
        return static_cast<double>(segment) / buffers(segment);
    }
};
constexpr KernelLayout kKernel[]{{"kernel, 4 KiB pages", 4 * kKiB},
                                 {"kernel, 2 KiB fragments", 2 * kKiB}};

void add(Report& report, const std::string& name, std::uint32_t mtu, const char* layout, Stat stat,
         const char* unit)
{
    report.results.push_back({name, {{"mtu", mtu}, {"layout", layout}}, stat, unit});
}

Fit fit_of(std::uint32_t mtu)
{
    Fit fit{};
    if (devmem_fit(static_cast<std::uint16_t>(mtu), false, true, kPageBytes, 1, &fit) < 0)
        throw std::runtime_error("fit: devmem_fit() refuses MTU " + std::to_string(mtu));
    return fit;
}

std::uint32_t segment_of(const Fit& fit)
{
    return fit.mss - 12u; // the MSS does not count the timestamps
}

} // namespace

void fit(const Options&, Report& report)
{
    std::optional<double> fill;
    for (const std::uint32_t mtu : kMtus) {
        const Fit fit = fit_of(mtu);
        const std::uint32_t segment = segment_of(fit);
        const Stat seen = summarize(watch(fit, segment, kMiB).fill);
        add(report, "fill", mtu, "devmem", seen, "payload/pages");
        if (mtu == kAskedMtu)
            fill = seen.median;
        for (const KernelLayout& kernel : kKernel) {
            const double value = kernel.fill(segment);
            add(report, "fill", mtu, kernel.name, {value, value, value}, "payload/pages");
        }
    }
    report.ask_at_least("fit.fill", 0.98, fill);
    for (const auto& [suffix, bytes, want] : kCollections) {
        const std::string name = std::string("token.") + suffix;
        std::optional<double> token;
        for (const std::uint32_t mtu : kMtus) {
            const Fit fit = fit_of(mtu);
            const std::uint32_t segment = segment_of(fit);
            const Stat seen = summarize(watch(fit, segment, bytes).token);
            add(report, name, mtu, "devmem", seen, "bytes");
            if (mtu == kAskedMtu)
                token = seen.median;
            for (const KernelLayout& kernel : kKernel) {
                const double value = kernel.token(segment);
                add(report, name, mtu, kernel.name, {value, value, value}, "bytes");
            }
        }
        report.ask_at_least("fit." + name, want, token);
    }
}

} // namespace bench
