// SPDX-License-Identifier: BSD-3-Clause
#include "lib/memory/cpu_memory.h"

#include <devmem/devmem.h>

#include <numa.h>
#include <numaif.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <fstream>
#include <utility>

namespace devmem {

const char* const kCpuMemoryKeys[][2] = {
    {"size", "bytes, a multiple of the page"},
    {"max", "bytes the region can grow to, default size"},
    {"page", "bytes, a power of two from 4K to 1G, default 64K"},
    {"node", "NUMA node"},
    {"huge", "auto, yes or no, default auto"},
    {nullptr, nullptr},
};

namespace {

constexpr std::uint64_t kMinPage = 4 * 1024;
constexpr std::uint64_t kMaxPage = 1024 * 1024 * 1024;

/// A line of /proc/meminfo in bytes; 0 if it is not there.
std::uint64_t meminfo(std::string_view name)
{
    std::ifstream file("/proc/meminfo");
    std::uint64_t kib = 0;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with(name) && line.size() > name.size() && line[name.size()] == ':') {
            const char* text = line.c_str() + name.size() + 1;
            text += std::strspn(text, " ");
            std::from_chars(text, line.c_str() + line.size(), kib);
            return kib * 1024;
        }
    }
    return 0;
}

/// What MAP_HUGETLB gives without further flags. 0: the kernel has no hugepages.
std::uint64_t hugepage_bytes()
{
    static const std::uint64_t bytes = meminfo("Hugepagesize");
    return bytes;
}

int parse_node(const std::string& text, int* node, std::string& error)
{
    const char* end = text.data() + text.size();
    int value = 0;
    if (const auto [at, ec] = std::from_chars(text.data(), end, value);
        ec != std::errc{} || at != end || value < 0) {
        error = "node=" + text + " is not a number";
        return -EINVAL;
    }
    // A machine (or a container) without NUMA calls is one node, 0.
    const bool numa = numa_available() >= 0;
    const int highest = numa ? numa_max_node() : 0;
    if (value > highest ||
        (numa && !numa_bitmask_isbitset(numa_all_nodes_ptr, static_cast<unsigned>(value)))) {
        error = "node=" + text +
                " is no node of this machine with memory (highest: " + std::to_string(highest) +
                ")";
        return -EINVAL;
    }
    *node = value;
    return 0;
}

/// The node the first page is on, -1 if the kernel does not say.
int node_of(const void* address)
{
    int node = -1;
    if (numa_available() < 0 ||
        get_mempolicy(&node, nullptr, 0, const_cast<void*>(address), MPOL_F_NODE | MPOL_F_ADDR) < 0)
        return -1;
    return node;
}

} // namespace

int CpuMemoryRequest::parse(const SpecKeys& keys, std::uint32_t flags, std::string& error)
{
    const auto value = [&](std::string_view key) -> const std::string* {
        const auto it = keys.find(key);
        return it == keys.end() ? nullptr : &it->second;
    };
    if (const std::string* text = value("page")) {
        std::uint64_t page = 0;
        if (parse_size(*text, &page) < 0 || !std::has_single_bit(page) || page < kMinPage ||
            page > kMaxPage) {
            error = "page=" + *text + " is not a power of two from 4K to 1G";
            return -EINVAL;
        }
        page_bytes = static_cast<std::uint32_t>(page);
    }
    const std::string* size = value("size");
    if (!size) {
        error = "size is missing";
        return -EINVAL;
    }
    if (parse_size(*size, &bytes) < 0 || bytes == 0) {
        error = "size=" + *size + " is not a size such as 256M";
        return -EINVAL;
    }
    if (bytes % page_bytes != 0) {
        error = "size=" + *size + " is not a multiple of page=" + format_size(page_bytes);
        return -EINVAL;
    }
    max = bytes;
    if (const std::string* text = value("max")) {
        if (parse_size(*text, &max) < 0 || max < bytes || max % page_bytes != 0) {
            error = "max=" + *text + " is not a multiple of page=" + format_size(page_bytes) +
                    " and at least size=" + *size;
            return -EINVAL;
        }
    }
    grow = value("max") != nullptr || (flags & DEVMEM_REGION_GROW) != 0;
    if (const std::string* text = value("node")) {
        if (const int rc = parse_node(*text, &node, error); rc < 0)
            return rc;
    }
    if (const std::string* text = value("huge")) {
        if (*text == "auto") {
            huge = Huge::kAuto;
        } else if (*text == "yes") {
            huge = Huge::kYes;
        } else if (*text == "no") {
            huge = Huge::kNo;
        } else {
            error = "huge=" + *text + " is none of auto, yes, no";
            return -EINVAL;
        }
    }
    return 0;
}

void CpuMemoryRequest::describe(const char* provider, std::uint32_t flags, const Mapping& memory,
                                Region& region) const
{
    region.bytes = max;
    region.populated = bytes;
    region.flags = grow ? flags : flags & ~DEVMEM_REGION_GROW;
    region.page_bytes = page_bytes;
    region.numa_node = node_of(memory.data());
    region.spec = std::string(provider) + ":size=" + format_size(bytes) +
                  (max == bytes ? "" : ",max=" + format_size(max)) +
                  ",page=" + format_size(page_bytes) +
                  (node < 0 ? "" : ",node=" + std::to_string(node)) +
                  ",huge=" + (huge == Huge::kYes ? "yes" : "no");
}

int Mapping::map(const CpuMemoryRequest& request, int prot, int flags, int fd)
{
    unmap();
    const std::size_t bytes = request.max;
    // What is not backed sets no hugepages aside, nor do those given back stay so.
    const int reserve = request.grow ? MAP_NORESERVE : 0;
    shared_ = (flags & MAP_SHARED) != 0;
    // Find an aligned hole in a reservation, leave it, and claim the hole: MAP_FIXED_NOREPLACE
    // loses to another thread that mapped there in between (EEXIST) where MAP_FIXED would overwrite
    // it.
    const std::size_t align = std::max<std::size_t>(request.page_bytes, hugepage_bytes());
    for (int attempt = 0; attempt < 16; ++attempt) {
        void* hole = mmap(nullptr, bytes + align, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (hole == MAP_FAILED)
            return -errno;
        munmap(hole, bytes + align);
        const std::uintptr_t at = (reinterpret_cast<std::uintptr_t>(hole) + align - 1) & -align;
        void* data = mmap(reinterpret_cast<void*>(at), bytes, prot,
                          flags | MAP_FIXED_NOREPLACE | reserve, fd, 0);
        if (data != MAP_FAILED) {
            data_ = static_cast<std::byte*>(data);
            bytes_ = bytes;
            return 0;
        }
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

int Mapping::place(const CpuMemoryRequest& request, bool huge)
{
    huge_ = huge;
    if (request.node >= 0 && numa_available() >= 0) {
        bitmask* nodes = numa_bitmask_clearall(numa_allocate_nodemask());
        numa_bitmask_setbit(nodes, static_cast<unsigned>(request.node));
        const long rc = mbind(data_, bytes_, MPOL_BIND, nodes->maskp, nodes->size + 1, 0);
        numa_bitmask_free(nodes);
        if (rc < 0)
            return -EOPNOTSUPP;
    }
    // Transparent hugepages, where they are to be had: fewer TLB misses in a copying port. Not
    // where smaller pages come and go: a part of one is not given back, and khugepaged fills holes.
    const bool whole = hugepage_bytes() != 0 && request.page_bytes % hugepage_bytes() == 0;
    madvise(data_, bytes_, request.grow && !whole ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    return populate(0, request.bytes);
}

int Mapping::populate(std::uint64_t offset, std::uint64_t bytes) const
{
    // More than there is would have the kernel kill processes for memory.
    if (const std::uint64_t available = meminfo("MemAvailable");
        !huge_ && available != 0 && bytes > available)
        return -ENOMEM;
    // A missing hugepage is an error here; at the first touch it would be a SIGBUS.
    if (madvise(data_ + offset, bytes, MADV_POPULATE_WRITE) == 0)
        return 0;
    depopulate(offset, bytes);
    return -ENOMEM;
}

int Mapping::depopulate(std::uint64_t offset, std::uint64_t bytes) const
{
    // A file's pages stay until they are taken out of the file, which unmaps them everywhere.
    return madvise(data_ + offset, bytes, shared_ ? MADV_REMOVE : MADV_DONTNEED) < 0 ? -errno : 0;
}

bool Mapping::contains(std::span<const Transfer> transfers) const
{
    return std::all_of(transfers.begin(), transfers.end(), [this](const Transfer& transfer) {
        return transfer.offset <= bytes_ && transfer.len <= bytes_ - transfer.offset;
    });
}

int Mapping::scatter(std::span<const Transfer> transfers) const
{
    if (!contains(transfers))
        return -ERANGE;
    for (const Transfer& transfer : transfers)
        std::memcpy(data_ + transfer.offset, transfer.host, transfer.len);
    return 0;
}

int Mapping::gather(std::span<const Transfer> transfers) const
{
    if (!contains(transfers))
        return -ERANGE;
    for (const Transfer& transfer : transfers)
        std::memcpy(transfer.host, data_ + transfer.offset, transfer.len);
    return 0;
}

void Mapping::unmap()
{
    if (data_)
        munmap(data_, bytes_);
    data_ = nullptr;
}

int want_hugepages(const CpuMemoryRequest& request, std::string& error)
{
    using Huge = CpuMemoryRequest::Huge;
    if (request.huge == Huge::kNo)
        return 0;
    const std::uint64_t huge = hugepage_bytes();
    error = "huge=yes: this kernel has no hugepages";
    bool suits = huge != 0;
    // A region that grows does so by pages, and what is on hugepages comes and goes by hugepages.
    for (const auto& [key, bytes] :
         {std::pair{"size", request.bytes}, std::pair{"max", request.max},
          std::pair{"page", request.grow ? std::uint64_t{request.page_bytes} : 0}}) {
        if (suits && bytes % huge != 0) {
            error = std::string("huge=yes: ") + key + "=" + format_size(bytes) +
                    " is not a multiple of the hugepage, " + format_size(huge);
            suits = false;
        }
    }
    return suits ? 1 : request.huge == Huge::kAuto ? 0 : -EINVAL;
}

int explain_failure(const CpuMemoryRequest& request, bool huge, int rc, std::string& error)
{
    const std::string size = "size=" + format_size(request.bytes);
    if (rc == -EOPNOTSUPP)
        error = "node=" + std::to_string(request.node) + ": the kernel refuses to bind memory";
    else if (huge)
        error = "huge=yes: " + size + " needs " + std::to_string(request.bytes / hugepage_bytes()) +
                " free hugepages of " + format_size(hugepage_bytes()) +
                " (see vm.nr_hugepages): " + std::strerror(-rc);
    else
        error = size + ": " + std::strerror(-rc) + " (" + format_size(meminfo("MemAvailable")) +
                " available)";
    return rc;
}

} // namespace devmem
