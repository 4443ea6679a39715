// SPDX-License-Identifier: BSD-3-Clause
// Where runs are remembered: flat arrays indexed by fragment, made once.
#pragma once

#include "lib/tcp/run.h"
#include "lib/tcp/seq.h"

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <type_traits>

namespace devmem::tcp {

/// Fragments [0, device_fragments) are the device pool's, those that follow the host pool's.
struct RunStoreConfig {
    std::uint32_t device_fragments;
    std::uint32_t device_fragment_bytes;
    std::uint32_t device_fragments_per_page;
    std::uint32_t host_fragments;
    std::uint32_t host_fragment_bytes;
    std::uint32_t host_fragments_per_page;
};

/// One node a fragment; a run that the engine holds lives in the node of its first fragment. A
/// fragment has one holder, so a node is in one structure at a time: linked in a RunQueue, alone or
/// as the runs of an island of an OooStore. Shared by all connections of a shard.
class RunStore {
public:
    static constexpr std::uint32_t kNone = UINT32_MAX;

    struct Node {
        std::uint32_t next; ///< of the queue or island
        std::uint32_t len;
        std::uint16_t off;
        std::uint16_t count;
        // Of the first run of an island only.
        std::uint32_t tail;        ///< its last run
        std::uint32_t left, right; ///< children in the OooStore's tree
        Seq seq, end;              ///< the bytes it covers: seq <= x < end
    };
    static_assert(sizeof(Node) == 32, "two to a cache line");

    /// Make the arrays. Nothing is allocated after it.
    /// @return 0; -EINVAL fragment sizes or fragments per page out of range; -ENOMEM.
    int create(const RunStoreConfig& config);
    /// Make room for fragments [0, fragments). Those beyond the host pool's are cut as they are and
    /// begin a page where they would. @return 0; -EINVAL; -ENOMEM, and nothing has changed.
    int extend(std::uint64_t fragments);

    Node& operator[](std::uint32_t fragment) { return nodes_[fragment]; }
    const Node& operator[](std::uint32_t fragment) const { return nodes_[fragment]; }

    /// Size of a fragment.
    std::uint32_t fragment_bytes(std::uint32_t fragment) const
    {
        return fragment < config_.device_fragments ? config_.device_fragment_bytes
                                                   : config_.host_fragment_bytes;
    }

    /// Write a run to its node, linked to nothing.
    void put(const Run& run)
    {
        Node& node = nodes_[run.first];
        node.next = kNone;
        node.len = run.len;
        node.off = static_cast<std::uint16_t>(run.off);
        node.count = static_cast<std::uint16_t>(run.count);
    }

    /// The run in a node.
    Run get(std::uint32_t fragment) const
    {
        const Node& node = nodes_[fragment];
        return {fragment, node.count, node.off, node.len};
    }

    /// Whether run `b` goes on where `a` ends: adjacent bytes, in one page.
    bool adjoin(const Run& a, const Run& b) const
    {
        return a.first + a.count == b.first && b.off == 0 &&
               a.off + a.len == a.count * fragment_bytes(a.first) && !starts_page(b.first);
    }

    /// Grow the run in node `fragment` by `run` if the two adjoin.
    bool merge(std::uint32_t fragment, const Run& run)
    {
        if (!adjoin(get(fragment), run))
            return false;
        Node& node = nodes_[fragment];
        node.count = static_cast<std::uint16_t>(node.count + run.count);
        node.len += run.len;
        return true;
    }

private:
    /// The first fragment of a page adjoins none, nor does the first of a pool.
    bool starts_page(std::uint32_t fragment) const
    {
        return fragment < config_.device_fragments
                   ? fragment % config_.device_fragments_per_page == 0
                   : (fragment - config_.device_fragments) % config_.host_fragments_per_page == 0;
    }

    struct Free {
        void operator()(Node* nodes) const { std::free(nodes); }
    };
    static_assert(std::is_trivially_copyable_v<Node>, "realloc() moves nodes");

    RunStoreConfig config_{};
    std::uint64_t fragments_ = 0;
    std::unique_ptr<Node[], Free> nodes_;
};

} // namespace devmem::tcp
