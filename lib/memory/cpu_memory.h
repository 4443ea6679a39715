// SPDX-License-Identifier: BSD-3-Clause
// Memory of this machine, for the providers that are made of it: their keys, hugepages, placement.
#pragma once

#include "lib/memory/region.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace devmem {

/// The keys of Provider::keys that CpuMemoryRequest::parse() understands.
extern const char* const kCpuMemoryKeys[][2];

class Mapping;

/// What a spec asks for.
struct CpuMemoryRequest {
    enum class Huge : std::uint8_t { kAuto, kYes, kNo };

    std::uint64_t bytes = 0;              ///< backed at first
    std::uint64_t max = 0;                ///< addressable: as much may be backed
    std::uint32_t page_bytes = 64 * 1024; ///< the page of GPUs
    int node = -1;                        ///< -1: where the kernel likes
    Huge huge = Huge::kAuto;              ///< make_with_pages() settles kAuto
    bool grow = false;                    ///< pages will come and go

    /// @param flags what the spec asks for
    /// @return 0; -EINVAL with the key at fault in `error`.
    int parse(const SpecKeys& keys, std::uint32_t flags, std::string& error);
    /// Fill what of a region follows from the request and the memory made for it.
    /// @param flags of the provider
    void describe(const char* provider, std::uint32_t flags, const Mapping& memory,
                  Region& region) const;
};

/// A mapping aligned to the region's page, unmapped with the object.
class Mapping {
public:
    Mapping() = default;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() { unmap(); }

    /// Map request.max bytes as mmap() does, in place of what was mapped before.
    /// @return 0; negative errno of mmap().
    int map(const CpuMemoryRequest& request, int prot, int flags, int fd);
    /// Bind to the node asked for and populate the beginning, request.bytes.
    /// @return 0; -ENOMEM; -EOPNOTSUPP the kernel refuses the placement.
    int place(const CpuMemoryRequest& request, bool huge);
    /// Fault pages in, so that the data path takes no fault. @return 0; -ENOMEM, and none is.
    int populate(std::uint64_t offset, std::uint64_t bytes) const;
    /// Give the memory of pages back to the system. @return 0; negative errno of madvise().
    int depopulate(std::uint64_t offset, std::uint64_t bytes) const;

    std::byte* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

    /// Provider::dma_write and Provider::read_back. @return 0; -ERANGE (nothing is copied).
    int scatter(std::span<const Transfer> transfers) const;
    int gather(std::span<const Transfer> transfers) const;

private:
    bool contains(std::span<const Transfer> transfers) const;
    void unmap();

    std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
    bool shared_ = false; ///< pages are a file's, not the mapping's own
    bool huge_ = false;
};

/// Whether hugepages may serve a request; with huge=yes, why not.
/// @return 1 try them; 0 use plain pages; -EINVAL.
int want_hugepages(const CpuMemoryRequest& request, std::string& error);
/// Say that memory could not be had. @return `rc`.
int explain_failure(const CpuMemoryRequest& request, bool huge, int rc, std::string& error);

/// Make memory with hugepages or, where huge=auto allows it, plain pages.
/// @param make called with whether to use hugepages, at most once for each; returns 0 or -errno
template <typename Make>
int make_with_pages(CpuMemoryRequest& request, std::string& error, Make make)
{
    using Huge = CpuMemoryRequest::Huge;
    const int huge = want_hugepages(request, error);
    if (huge < 0)
        return huge;
    if (huge != 0) {
        const int rc = make(true);
        if (rc == 0)
            request.huge = Huge::kYes;
        if (rc == 0 || request.huge == Huge::kYes)
            return rc == 0 ? 0 : explain_failure(request, true, rc, error);
    }
    request.huge = Huge::kNo;
    const int rc = make(false);
    return rc == 0 ? 0 : explain_failure(request, false, rc, error);
}

} // namespace devmem
