// SPDX-License-Identifier: BSD-3-Clause
// What net_af_xdp takes for granted of a mempool (DPDK 22.11). It registers
//     [start of the page in which the first chunk begins, + offset in that page + objects * stride)
// as the UMEM, names an mbuf to the kernel by its object's offset in there, and turns the offset of
// a filled frame into an mbuf again by adding the header's size.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

namespace devmem::test {
namespace {

constexpr unsigned kObjects = 1000;

/// A mempool of mbufs as rte_pktmbuf_pool_create() makes it, but in memory of ours.
class Pool {
public:
    Pool(const char* ops, int data_room, int flags)
        : memory_(
              mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
          mp_(rte_mempool_create_empty(
              "af_xdp", kObjects, sizeof(rte_mbuf) + static_cast<unsigned>(data_room), 0,
              sizeof(rte_pktmbuf_pool_private), SOCKET_ID_ANY, static_cast<unsigned>(flags)))
    {
        EXPECT_EQ(0, rte_mempool_set_ops_byname(mp_, ops, nullptr));
        rte_pktmbuf_pool_private shape{};
        shape.mbuf_data_room_size = static_cast<std::uint16_t>(data_room);
        rte_pktmbuf_pool_init(mp_, &shape);
        // Where a heap would put it: at a cache line, anywhere in a page.
        char* chunk = static_cast<char*>(memory_) + 704;
        EXPECT_EQ(static_cast<int>(kObjects),
                  rte_mempool_populate_iova(mp_, chunk, reinterpret_cast<rte_iova_t>(chunk),
                                            kBytes - 704, nullptr, nullptr));
        rte_mempool_obj_iter(mp_, rte_pktmbuf_init, nullptr);
    }
    ~Pool()
    {
        rte_mempool_free(mp_);
        munmap(memory_, kBytes);
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    rte_mempool* operator->() const { return mp_; }
    rte_mempool* get() const { return mp_; }

private:
    static constexpr std::size_t kBytes = 8 << 20;
    void* memory_;
    rte_mempool* mp_;
};

/// All mbufs, in the order the driver hands them out.
std::vector<rte_mbuf*> take_all(rte_mempool* mp)
{
    std::vector<rte_mbuf*> mbufs(mp->size);
    EXPECT_EQ(0, rte_pktmbuf_alloc_bulk(mp, mbufs.data(), mp->size));
    return mbufs;
}

/// Where objects begin, from the first chunk on, ascending.
std::vector<std::uintptr_t> offsets(rte_mempool* mp)
{
    const auto base = reinterpret_cast<std::uintptr_t>(STAILQ_FIRST(&mp->mem_list)->addr);
    std::vector<std::uintptr_t> all;
    const std::vector<rte_mbuf*> mbufs = take_all(mp);
    for (const rte_mbuf* m : mbufs)
        all.push_back(reinterpret_cast<std::uintptr_t>(m) - mp->header_size - base);
    rte_mempool_put_bulk(mp, reinterpret_cast<void* const*>(mbufs.data()), mp->size);
    std::ranges::sort(all);
    return all;
}

TEST(AfXdpLayout, FramesOfTheUmemAreMbufs)
{
    const Pool mp{"page_pool", RTE_MBUF_DEFAULT_BUF_SIZE, RTE_MEMPOOL_F_NO_IOVA_CONTIG};
    const std::uint32_t stride = rte_mempool_calc_obj_size(mp->elt_size, mp->flags, nullptr);
    const auto page_size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    ASSERT_EQ(1U, mp->nb_mem_chunks);
    ASSERT_LE(stride, page_size); // the kernel refuses longer frames

    const auto chunk = reinterpret_cast<std::uintptr_t>(STAILQ_FIRST(&mp->mem_list)->addr);
    const std::uintptr_t umem = chunk & ~(page_size - 1);
    const std::uintptr_t umem_size = chunk - umem + std::uintptr_t{mp->populated_size} * stride;
    const std::vector<rte_mbuf*> mbufs = take_all(mp.get());
    std::vector<std::uintptr_t> frames;
    for (rte_mbuf* m : mbufs) {
        const std::uintptr_t frame = reinterpret_cast<std::uintptr_t>(m) - umem - mp->header_size;
        ASSERT_LE(frame + stride, umem_size);
        // The kernel leaves the headroom it was told of, and the packet must be where mbufs have
        // data.
        const std::uintptr_t data = umem + frame + mp->header_size + sizeof(rte_mbuf) +
                                    rte_pktmbuf_priv_size(mp.get()) + RTE_PKTMBUF_HEADROOM;
        ASSERT_EQ(rte_pktmbuf_mtod(m, std::uintptr_t), data);
        ASSERT_EQ(mp.get(), rte_mempool_from_obj(m));
        frames.push_back(frame);
    }
    std::ranges::sort(frames);
    for (std::size_t i = 0; i < frames.size(); ++i)
        ASSERT_EQ(chunk - umem + i * stride, frames[i]);
    rte_mempool_put_bulk(mp.get(), reinterpret_cast<void* const*>(mbufs.data()), mp->size);
}

// Where no object may cross a page they are not equally spaced. Then, too, nothing of ours is
// between.
TEST(AfXdpLayout, IsThatOfARing)
{
    for (const int flags : {0, RTE_MEMPOOL_F_NO_SPREAD, RTE_MEMPOOL_F_NO_IOVA_CONTIG}) {
        for (const int data_room : {0, 1024, 1856, RTE_MBUF_DEFAULT_BUF_SIZE}) {
            const auto ring = offsets(Pool{"ring_mp_mc", data_room, flags}.get());
            const auto ours = offsets(Pool{"page_pool", data_room, flags}.get());
            EXPECT_EQ(ring, ours) << data_room << " bytes, flags " << flags;
        }
    }
}

} // namespace
} // namespace devmem::test
