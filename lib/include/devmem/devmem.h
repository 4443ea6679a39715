/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file
 * devmem: TCP receive into device memory, on DPDK.
 *
 * A stream arrives at a DPDK port that splits headers from payload (hardware, or the software port
 * `net_hds`). Headers land in host mbufs; payload lands in a *region*, memory the CPU need not be
 * able to read. The application is handed *tokens*: where bytes are, how many, and a name to return
 * them by.
 *
 *     region --> stack (one shard per lcore and queue) --> connection --> tokens --> return
 *
 * Threads. A shard, its listeners and its connections belong to one thread at a time: the one that
 * calls devmem_shard_poll(). devmem_token_return(), devmem_region_read() and the statistics getters
 * may be called from any thread. Everything else belongs to the control thread before polling
 * starts or after it has stopped.
 *
 * Errors are negative errno values, named at each function. No function throws.
 */
#ifndef DEVMEM_DEVMEM_H
#define DEVMEM_DEVMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DEVMEM_API __attribute__((visibility("default")))

struct rte_mempool;
struct devmem_region;
struct devmem_stack;
struct devmem_shard;

/* ------------------------------------------------------------------ regions */

/** What a region can do (devmem_region_info.flags), and what a spec may insist on by the name in
 * quotes: `flags=unreadable+grow`. A provider that cannot honour one refuses to make the region. */
#define DEVMEM_REGION_READABLE 0x1u   /**< "readable": the CPU may dereference `address` */
#define DEVMEM_REGION_UNREADABLE 0x2u /**< "unreadable": the CPU faults if it does */
#define DEVMEM_REGION_DMABUF 0x4u     /**< "dmabuf": it can be exported as a dma-buf */
#define DEVMEM_REGION_GROW                                                                         \
    0x8u /**< "grow": pages can be given back and had again; with                                  \
              `max=SIZE`, up to so much */
#define DEVMEM_REGION_PORT                                                                         \
    0x10u /**< "port": a software port can map it; where it cannot, the                            \
               provider copies */

/** What a region is. Valid as long as the region is referenced. */
struct devmem_region_info {
    const char* spec;     /**< the spec in full, defaults filled in */
    const char* provider; /**< "host", "opaque", ... */
    uint64_t bytes;       /**< addressable size, a multiple of page_bytes */
    uint64_t populated;   /**< how much of it is backed by memory now, in whole pages */
    uint32_t page_bytes;  /**< a power of two */
    int numa_node;        /**< -1 if unknown */
    bool readable;        /**< the CPU may dereference `address` */
    uint64_t address;     /**< device address of byte 0; not a host pointer unless `readable` */
    int dmabuf_fd;        /**< -1 if the region has none */
    uint32_t flags;       /**< DEVMEM_REGION_* */
};

/**
 * Create a region from a spec: `PROVIDER:key=value,...`, for instance `host:size=1G` or
 * `opaque:size=256M,page=64K`. Sizes take K, M, G. Every provider takes `flags=NAME+NAME`, see
 * DEVMEM_REGION_READABLE.
 *
 * @param spec      the spec
 * @param region    receives the region, with one reference held by the caller
 * @param error     receives one line that names the key at fault and the valid ones; may be NULL
 * @param error_len size of `error` in bytes
 * @return 0; -EINVAL wrong spec (unknown provider, key or flag, size not a multiple of the page,
 *   page not a power of two); -ENOMEM memory is not to be had; -EOPNOTSUPP the provider cannot
 *   honour a key or a flag, which the text names.
 */
DEVMEM_API int devmem_region_create(const char* spec, struct devmem_region** region, char* error,
                                    size_t error_len);

/**
 * Drop the caller's reference. Memory goes when the last reference does: pools and outstanding
 * tokens hold references of their own, so a region outlives its tokens. NULL is ignored.
 */
DEVMEM_API void devmem_region_release(struct devmem_region* region);

/** Describe a region. Any thread. */
DEVMEM_API void devmem_region_info_get(const struct devmem_region* region,
                                       struct devmem_region_info* info);

/**
 * Copy bytes of the region to host memory through the provider: the slow way to look at payload,
 * for tools and tests. Any thread.
 *
 * @return 0; -ERANGE outside the region, or where no page is populated; -EIO the provider failed.
 */
DEVMEM_API int devmem_region_read(const struct devmem_region* region, uint64_t offset, void* dst,
                                  size_t len);

/* -------------------------------------------------------------------- pools */

/** How payload is cut: a region page holds `fragments_per_page` fragments of `fragment_bytes`. */
struct devmem_fit {
    uint32_t page_bytes;         /**< page of the pool, a power of two, at most the region's */
    uint32_t fragment_bytes;     /**< what one payload mbuf holds */
    uint32_t fragments_per_page; /**< at most 64 */
    uint16_t mss;                /**< MSS to announce (RFC 9293 3.7.1): payload without options */
};

/**
 * Choose a fragment size so that a full segment fills a fragment exactly and consecutive segments
 * are adjacent in memory. A segment larger than a fragment can be (the page, 65535 bytes) is cut
 * into equal fragments, and the MSS lowered by the few bytes that would not divide.
 *
 * @param mtu               IP MTU of the port, 576 (IPv4) or 1280 (IPv6) at least
 * @param ipv6              segments carry an IPv6 header
 * @param timestamps        segments carry the timestamp option (12 bytes, RFC 7323)
 * @param region_page_bytes page of the region
 * @param alignment         the fragment size becomes a multiple of it; 0 or 1 for none
 * @param fit               the answer
 * @return 0; -EINVAL MTU too small, page or alignment not a power of two, or alignment larger than
 *   the page.
 */
DEVMEM_API int devmem_fit(uint16_t mtu, bool ipv6, bool timestamps, uint32_t region_page_bytes,
                          uint32_t alignment, struct devmem_fit* fit);

/** devmem_pool_config.flags. A pool that cannot honour one is not made: -EOPNOTSUPP, and the text
 * names the flag. */
#define DEVMEM_POOL_DMA_MAP                                                                        \
    0x1u /**< know each page's DMA address, page-shifted into 32 bits; the                         \
              mbufs carry it. Refused (-ERANGE) if it would lose bits */
#define DEVMEM_POOL_POISON                                                                         \
    0x2u /**< fill what is free with DEVMEM_POISON, and look whether it is                         \
              still so when it is taken. Needs a readable region; ends when                        \
              another process uses the pool, which does not have its memory */
#define DEVMEM_POOL_RED_ZONE                                                                       \
    0x4u                   /**< the last DEVMEM_RED_ZONE_BYTES of each fragment are no room        \
                                for data, and looked at when it is put back. Needs a readable      \
                                region */
#define DEVMEM_POISON 0x6b /**< what a free byte holds */
#define DEVMEM_RED_ZONE_BYTES 64u

/** What a pool is made of. Zero-initialise; a zero field takes its default. */
struct devmem_pool_config {
    size_t size;                  /**< sizeof(struct devmem_pool_config) */
    const char* name;             /**< mempool name, unique, shorter than RTE_MEMPOOL_NAMESIZE */
    struct devmem_region* region; /**< where the buffers are */
    uint64_t offset;              /**< first byte of it to use, a multiple of page_bytes */
    uint64_t bytes;               /**< how much of it, a multiple of page_bytes; 0: to its end */
    uint32_t page_bytes;          /**< a power of two, at most the region's page; 0: the largest
                                       that keeps at most 64 fragments in a page */
    uint32_t fragment_bytes;      /**< bytes per mbuf, 64 to 65535 */
    int socket_id;                /**< NUMA node of the mbuf headers, or SOCKET_ID_ANY */
    uint32_t flags;               /**< DEVMEM_POOL_* */
};

/**
 * Create a pool of mbufs whose data buffers are the fragments of a region, pinned as external
 * buffers, on the mempool driver `page_pool`: mbuf i is fragment i % fragments_per_page of page
 * i / fragments_per_page. The pool holds a reference on the region. Where the region is not
 * populated, the pages are the provider's until devmem_pool_resize().
 *
 * Other processes find the pool with rte_mempool_lookup(). They take and put, count and list; the
 * rest, and the last put of a cloned mbuf, is for the process that made the pool (-EINVAL).
 *
 * @param error     receives one line that says what is wrong; may be NULL
 * @return the pool, or NULL with rte_errno set: EINVAL, EEXIST, ENOMEM, ENAMETOOLONG, EOPNOTSUPP,
 *   ERANGE.
 */
DEVMEM_API struct rte_mempool* devmem_pool_create(const struct devmem_pool_config* config,
                                                  char* error, size_t error_len);

/** devmem_pool_create() without flags and without a text. */
DEVMEM_API struct rte_mempool* devmem_pktmbuf_pool_create(const char* name,
                                                          struct devmem_region* region,
                                                          uint64_t offset, uint64_t bytes,
                                                          uint32_t page_bytes,
                                                          uint32_t fragment_bytes, int socket_id);

/**
 * Free a pool made by devmem_pool_create() and its reference on the region, if nothing is out.
 * @return 0; -EBUSY fragments are still out (the pool is left as it is); -EINVAL no such pool.
 */
DEVMEM_API int devmem_pktmbuf_pool_free(struct rte_mempool* pool);

/**
 * Free a pool made by devmem_pool_create() as soon as its last fragment is back. From now on
 * nothing can be taken from it. What is out stays valid and is put back as ever; a second after the
 * last of it the pool goes, and its reference on the region (EAL's interrupt thread looks once a
 * second). After a minute, and then ever more seldom, a warning says who still holds what.
 *
 * @return 0 it is gone: nothing was out, and nobody may have been in the middle of a put; 1 it will
 *   go; -EINVAL no such pool.
 */
DEVMEM_API int devmem_pool_destroy(struct rte_mempool* pool);

/** Pools that devmem_pool_destroy() has yet to free. Any thread. */
DEVMEM_API unsigned devmem_pool_zombies(void);

/** Who holds fragments. */
enum devmem_holder_kind {
    DEVMEM_HOLDER_MBUF,  /**< an mbuf: of a port's ring, of the stack's queues, of an application */
    DEVMEM_HOLDER_CLONE, /**< several: clones of an mbuf, devmem_pool_hold(), split tokens */
    DEVMEM_HOLDER_TOKEN, /**< a token given to the application */
    DEVMEM_HOLDER_PROCESS, /**< another process took it */
};

/** Fragments held by one kind of holder. */
struct devmem_pool_holder {
    enum devmem_holder_kind kind;
    int pid;            /**< DEVMEM_HOLDER_PROCESS: which; otherwise 0 */
    bool alive;         /**< whether it runs; true for other kinds */
    uint32_t fragments; /**< how many */
    uint32_t oldest_ms; /**< since the oldest page among theirs was last wholly free */
};

/**
 * Say who holds fragments of a `page_pool` mempool, by kind; kinds without any are left out. A look
 * while others work, so exact only when nothing runs. Any thread; slow (every page is looked at).
 * @return number of entries there are, of which the first `n` are in `list`; -EINVAL.
 */
DEVMEM_API int devmem_pool_holders_get(const struct rte_mempool* pool,
                                       struct devmem_pool_holder* list, unsigned n);

/**
 * Put back what another process took and did not put before it died. Its mbufs are made as new.
 * From the process that made the pool, which goes on using it.
 *
 * What counts is who took a fragment, not who has it. What the dead process took and handed to
 * others must be put before: it would be freed under them. What others took and handed to it is for
 * them to put. What it had begun to get or to put when it died may be lost: a fragment or two,
 * rarely pages. They count as free or as held by mbufs of nobody's, all others can be had as
 * before, and devmem_pool_destroy() waits for them in vain.
 *
 * @return fragments put back; -EBUSY the process lives; -ENOENT it took nothing; -EINVAL.
 */
DEVMEM_API int devmem_pool_reclaim(struct rte_mempool* pool, int pid);

/* A piece of a pool's memory without an mbuf: as the kernel's page_pool_alloc(). */

/** Adjacent fragments of one page. */
struct devmem_fragment {
    uint64_t offset;  /**< in the region */
    uint64_t address; /**< device address */
    uint64_t dma;     /**< DMA address; 0 without DEVMEM_POOL_DMA_MAP */
    uint32_t size;    /**< bytes: as many as asked for, or more */
    uint32_t first;   /**< the fragments' number in the pool, */
    uint32_t count;   /**< and how many they are */
};

/**
 * Take `size` adjacent bytes. Where no other such piece fits behind it in the page, the rest of the
 * page is given along, so that what is accounted for is what is used. Any thread.
 * @return 0; -EINVAL no pool of devmem_pool_create(), or size is 0 or more than a page has room for
 *   (with DEVMEM_POOL_RED_ZONE: a fragment); -ENOBUFS no page has so many adjacent bytes free.
 */
DEVMEM_API int devmem_pool_alloc(struct rte_mempool* pool, uint32_t size,
                                 struct devmem_fragment* fragment);

/**
 * One more holder for fragments that the caller holds: each holder puts them once. Any thread.
 * @return 0; -EINVAL not fragments of the pool; -ENOENT some are free; -EOVERFLOW 65,536 holders.
 */
DEVMEM_API int devmem_pool_hold(struct rte_mempool* pool, const struct devmem_fragment* fragment);

/**
 * Put fragments back. They are free when their last holder has. Any thread.
 * @return 0; -EALREADY some were free: refused, counted and logged; -EINVAL not of the pool.
 */
DEVMEM_API int devmem_pool_put(struct rte_mempool* pool, const struct devmem_fragment* fragment);

/**
 * Have so many bytes of the pool be backed by memory: grow at once, or shrink by pages as they
 * become wholly free. Others may use the pool meanwhile; resizing is for one thread at a time.
 *
 * @param bytes a multiple of the region's page
 * @return pages that are still in use and will be given back by devmem_pool_scrub(); -EINVAL;
 *   -ERANGE more than the pool can have; -EOPNOTSUPP the region cannot grow, or the pool, whose
 *   pages are smaller than the region's, cannot shrink; -ENOMEM, or what the provider returned:
 *   devmem_pool_scrub() tries again.
 */
DEVMEM_API int devmem_pool_resize(struct rte_mempool* pool, uint64_t bytes);

/**
 * Give the pages back to the provider that have become idle since devmem_pool_resize(), and replace
 * pages that devmem_pool_update_nid() had passed over by pages of the right node. Call it now and
 * then, from the thread that resizes.
 * @return pages that are still to come; -EINVAL; -ENOMEM, or what the provider returned.
 */
DEVMEM_API int devmem_pool_scrub(struct rte_mempool* pool);

/**
 * The NUMA node on which the pool is used from now on; -1: any. Pages found on another are passed
 * over (alloc_waive), a few at a time, until devmem_pool_scrub() has replaced them.
 * @return 0; -EINVAL; -EOPNOTSUPP the region cannot replace pages, or the pool's are smaller.
 */
DEVMEM_API int devmem_pool_update_nid(struct rte_mempool* pool, int node);

/** Counters of a `page_pool` mempool, with the names of the kernel's page_pool. */
struct devmem_pool_stats {
    uint64_t alloc_fast;              /**< pages from the lcore's own stack */
    uint64_t alloc_slow;              /**< pages the provider gave, used for the first time */
    uint64_t alloc_slow_high_order;   /**< of the same kind, for a run of over half a page */
    uint64_t alloc_empty;             /**< allocations that found no whole page: they salvage */
    uint64_t alloc_refill;            /**< times pages were fetched from the shared list */
    uint64_t alloc_waive;             /**< pages passed over: they are on another NUMA node */
    uint64_t alloc_failed;            /**< allocations refused: not enough free fragments */
    uint64_t recycle_cached;          /**< pages returned to the lcore's own stack */
    uint64_t recycle_cache_full;      /**< pages sent on because that stack was full */
    uint64_t recycle_ring;            /**< pages returned to the shared list */
    uint64_t recycle_ring_full;       /**< pages returned to the provider: the pool shrinks */
    uint64_t recycle_released_refcnt; /**< frees of a fragment that has other holders */
    uint64_t salvaged;                /**< fragments taken from partly free pages */
    uint64_t stolen;                  /**< pages taken from another lcore's stack */
    uint64_t double_free;             /**< frees refused: the fragment was free already */
    uint64_t foreign_free;            /**< frees refused: not an object of this pool */
    uint64_t poison_damaged;          /**< fragments that were written to while they were free */
    uint64_t red_zone_damaged;        /**< fragments that were written to beyond their end */
    uint64_t hold;                    /**< pages taken out of the free lists, ever */
    uint64_t release;                 /**< pages that became wholly free again, ever */
    uint32_t pages;                   /**< pages of the pool, at most */
    uint32_t pages_present;           /**< of these, those that are not the provider's now */
    uint32_t fragments_per_page;      /**< fragments in each (the last page may have fewer) */
    uint32_t fragments;               /**< fragments of the pool, at most */
    uint32_t fragments_free;          /**< free now */
};

/**
 * Read the counters of a pool. Any thread; the figures are exact when nothing runs.
 * @return 0; -EINVAL the mempool is not on the `page_pool` driver.
 */
DEVMEM_API int devmem_pool_stats_get(const struct rte_mempool* pool,
                                     struct devmem_pool_stats* stats);

/* -------------------------------------------------------------------- ports */

/** Where the header split happens. */
enum devmem_split {
    DEVMEM_SPLIT_HARDWARE, /**< in the port named by the user */
    DEVMEM_SPLIT_SOFTWARE, /**< in `net_hds` */
};

/** An opened port. */
struct devmem_port {
    uint16_t port_id;        /**< the port that splits; give it to devmem_stack_create() */
    enum devmem_split split; /**< where */
    bool wrapped;            /**< the named port cannot split and was wrapped by `net_hds` */
    bool created;            /**< the named port was made by devmem_port_open() */
    uint16_t lower_id;       /**< the port the user named; port_id unless wrapped */
    char name[64];           /**< the name of the port the user named */
    char driver[32];         /**< the driver of the port the user named */
};

/** Which port to open. Zero-initialise. */
struct devmem_port_config {
    size_t size;         /**< sizeof(struct devmem_port_config) */
    const char* spec;    /**< `tap:NAME[,mtu=N]` (a TAP interface made by `net_hds`), the name or
                              PCI address of a probed DPDK port, or a vdev string (`net_ring0`,
                              `net_af_packet0,iface=eth1`) */
    uint16_t queues;     /**< receive queues wanted; a TAP is made with so many */
    uint16_t hds_thresh; /**< split frames of more bytes than this, from Ethernet header to last
                              byte: ethtool's hds-thresh. Payload of the others comes in host
                              memory (DEVMEM_TOKEN_HOST). 0: all are split. Only of a `net_hds`
                              that is made for the spec: over a TAP, or over a port that cannot
                              split */
};

/**
 * Find or make the port a spec names. One that does not offer RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT is
 * wrapped by `net_hds,lower=`.
 *
 * @return 0; -ENODEV no such port; -EINVAL malformed spec, or `size` is wrong; -ENOTSUP the port
 *   lacks what is needed, or is not one to give hds_thresh to (the error text says which); -ENOMEM;
 *   or what the driver's probe returned.
 */
DEVMEM_API int devmem_port_open_config(const struct devmem_port_config* config,
                                       struct devmem_port* port, char* error, size_t error_len);

/** devmem_port_open_config() with hds_thresh 0. */
DEVMEM_API int devmem_port_open(const char* spec, uint16_t queues, struct devmem_port* port,
                                char* error, size_t error_len);

/** Close what devmem_port_open() made (ports it merely found are left alone). */
DEVMEM_API void devmem_port_close(struct devmem_port* port);

/* -------------------------------------------------------------------- stack */

/** An IPv4 or IPv6 address. */
struct devmem_addr {
    uint8_t family;     /**< 4 or 6 */
    uint8_t prefix_len; /**< of the subnet, for a local address; 32 or 128 otherwise */
    uint8_t bytes[16];  /**< network order; IPv4 in the first four */
};

/**
 * Parse `ADDR` or `ADDR/LEN`.
 * @return 0; -EINVAL.
 */
DEVMEM_API int devmem_addr_parse(const char* text, struct devmem_addr* addr);

/** Print an address without its prefix length. `text` takes at most 46 bytes. */
DEVMEM_API void devmem_addr_format(const struct devmem_addr* addr, char* text, size_t len);

/** devmem_stack_config.flags */
#define DEVMEM_STACK_NO_TIMESTAMPS 0x1u /**< neither offer nor accept RFC 7323 timestamps */
#define DEVMEM_STACK_NO_SACK 0x2u       /**< neither offer nor accept RFC 2018 SACK */
#define DEVMEM_STACK_NO_WSCALE 0x4u     /**< neither offer nor accept RFC 7323 window scaling */
#define DEVMEM_STACK_NO_ECN 0x8u        /**< do not accept RFC 3168 ECN, which is never offered */

/** What a stack is made of. Zero-initialise; a zero field takes its default. */
struct devmem_stack_config {
    size_t size;                     /**< sizeof(struct devmem_stack_config) */
    uint16_t port_id;                /**< a port that splits: see devmem_port_open() */
    uint16_t shards;                 /**< shards, one receive and one transmit queue each; 1 */
    uint32_t flags;                  /**< DEVMEM_STACK_* */
    struct devmem_region* region;    /**< payload memory, shared out among the shards; of one that
                                          can grow, each has its part populated at first */
    const struct devmem_addr* addrs; /**< local addresses */
    unsigned naddrs;
    const struct devmem_addr* gateways; /**< next hops for what is off-link, one per family */
    unsigned ngateways;
    uint32_t max_connections; /**< per shard; 4096 */
    uint32_t fragment_bytes;  /**< 0: devmem_fit() for the port's MTU */
    uint32_t rcv_window;      /**< largest receive window of a connection, bytes; 4 MiB */
    uint32_t host_bytes;      /**< per shard: host memory for payload that was not split
                                   off; 16 MiB. One that hoards has half of it too */
    uint32_t held_limit;      /**< most payload memory a connection may take up, tokens and window
                                   included, bytes in whole fragments; 0: as much as it leaves free
                                   in its shard: one that hoards has half, n of them n parts in
                                   n + 1 */
    uint8_t dscp;             /**< what connections begin with, see devmem_conn_set_ip() */
    uint8_t ttl;              /**< likewise; 64 */
};

/**
 * Configure and start the port, share out the region, make the shards.
 *
 * @param error receives one line that says what is missing and how to get it
 * @return 0; -EINVAL wrong configuration; -ENOTSUP the port cannot split or cannot check TCP
 *   checksums; -EBUSY another stack has payload in the region, or tokens of it are out; -ENOMEM; or
 *   what the driver returned.
 */
DEVMEM_API int devmem_stack_create(const struct devmem_stack_config* config,
                                   struct devmem_stack** stack, char* error, size_t error_len);

/**
 * Stop the port and take the stack down. Connections are reset. Tokens that are still out stay
 * valid and returnable: their pools go with the last of them. No shard may be polling.
 */
DEVMEM_API void devmem_stack_destroy(struct devmem_stack* stack);

/** Shard `index` (0 to shards - 1) of a stack. */
DEVMEM_API struct devmem_shard* devmem_stack_shard(struct devmem_stack* stack, unsigned index);

/**
 * Have a shard's queue write payload to another region from now on, or to none, while it runs.
 * From the shard's thread, and not together with other control calls on the same port.
 *
 * No connection notices, and no byte is lost: what has arrived stays where it is and is received as
 * tokens of the region it is in. The region left is released with the last of these bytes and
 * tokens. Packets that reach the port while its queue changes are lost, and sent again.
 *
 * @param region the shard takes its part of it, as of the region of devmem_stack_create(); NULL:
 *   host memory of the stack's own, as large as the part it leaves. Tokens in such memory say
 *   DEVMEM_TOKEN_HOST.
 * @param error receives one line that says what is missing and how to get it
 * @return 0; -EALREADY it is bound so; -ENOTSUP the port cannot set up a queue while it runs;
 * -EBUSY the region has payload of a stack, or tokens of it are out; -EINVAL its pages are smaller
 * than those of devmem_stack_fit(); -ENOSPC it is too small for what senders may send; -ENOMEM; or
 *   what the driver returned. After an error everything is as before.
 */
DEVMEM_API int devmem_shard_rebind(struct devmem_shard* shard, struct devmem_region* region,
                                   char* error, size_t error_len);

/** The fit in force: fragment and page size of the payload pools, and the MSS announced. */
DEVMEM_API void devmem_stack_fit(const struct devmem_stack* stack, struct devmem_fit* fit);

/** Why an event was raised. */
enum devmem_event_type {
    DEVMEM_EVENT_ACCEPT,    /**< a connection waits in the listener's accept queue */
    DEVMEM_EVENT_CONNECTED, /**< devmem_connect() succeeded */
    DEVMEM_EVENT_URGENT,    /**< the peer marked data as urgent, or more of it, that is yet to be
                                 received: see devmem_conn_urgent() */
    DEVMEM_EVENT_READABLE,  /**< bytes or the end of the stream can be received */
    DEVMEM_EVENT_WRITABLE,  /**< devmem_send() would accept bytes after having refused some */
    DEVMEM_EVENT_RETRYING,  /**< a segment, or a probe of a closed window, is sent for the fourth
                                 time: the peer has answered none (RFC 9293 3.8.3, R1). Nothing is
                                 given up yet. `error` is what an ICMP error says the reason is,
                                 -EHOSTUNREACH or -ECONNREFUSED, or 0 */
    DEVMEM_EVENT_CLOSED,    /**< the connection is over; `error` is 0 or -ECONNRESET,
                                 -ETIMEDOUT, -ECONNREFUSED, -EHOSTUNREACH. What arrived before can
                                 still be received; devmem_close() gives the handle back */
};

/** A handle of a connection. It carries a generation: a stale one gives -EBADF, never another's. */
typedef uint64_t devmem_conn_t;
/** A handle of a listener. */
typedef uint32_t devmem_listener_t;

/** Something happened. READABLE and WRITABLE are raised once until the call they announce, RETRYING
 * once until the peer makes progress. */
struct devmem_event {
    enum devmem_event_type type;
    int error;                  /**< CLOSED and RETRYING only */
    devmem_conn_t conn;         /**< all but ACCEPT */
    devmem_listener_t listener; /**< ACCEPT only */
};

/**
 * Do the shard's work: receive a burst, run timers, transmit what is due. Never blocks, never
 * allocates. Call it in a loop from the shard's thread.
 *
 * @param events receives up to `n` events; what does not fit is kept for the next call
 * @param busy   if not NULL: whether any packet was received or sent or any timer ran
 * @return the number of events
 */
DEVMEM_API unsigned devmem_shard_poll(struct devmem_shard* shard, struct devmem_event* events,
                                      unsigned n, bool* busy);

/**
 * Take the events that devmem_shard_poll() had no room for, without its work: `n` of 0 there leaves
 * all of them. From the shard's thread.
 *
 * @return the number of events
 */
DEVMEM_API unsigned devmem_shard_events(struct devmem_shard* shard, struct devmem_event* events,
                                        unsigned n);

/** An address and a port. */
struct devmem_endpoint {
    struct devmem_addr addr;
    uint16_t port; /**< host order */
};

/**
 * Listen on a shard. To be reachable whichever queue a SYN arrives at, listen on every shard.
 *
 * @param port    TCP port, host order, on all local addresses
 * @param backlog bound on connections half open or waiting to be accepted. While as many wait to be
 *                accepted, SYNs are dropped and counted (`listen_overflow`); while the others are
 *                half open, or half of the shard's connections are, or all are taken, SYNs are
 *                answered with a cookie (RFC 4987): such a connection takes up nothing until the
 *                peer has answered, and has window scaling and SACK if it has timestamps
 * @return 0; -EADDRINUSE; -EINVAL port or backlog is 0; -ENOMEM too many listeners (16).
 */
DEVMEM_API int devmem_listen(struct devmem_shard* shard, uint16_t port, unsigned backlog,
                             devmem_listener_t* listener);

/** Stop listening. Connections not yet accepted are reset. @return 0; -EBADF. */
DEVMEM_API int devmem_listen_close(struct devmem_shard* shard, devmem_listener_t listener);

/** Take an established connection. @return 0; -EAGAIN none waits; -EBADF. */
DEVMEM_API int devmem_accept(struct devmem_shard* shard, devmem_listener_t listener,
                             devmem_conn_t* conn);

/**
 * Open a connection (RFC 9293 3.10.1, active). Completion is CONNECTED or CLOSED.
 *
 * @param remote where to
 * @return 0; -EINVAL no port, or an address that is no host's; -EADDRNOTAVAIL no local address of
 *   that family, or no free port; -ENETUNREACH off-link and no gateway; -ENOMEM no free connection.
 */
DEVMEM_API int devmem_connect(struct devmem_shard* shard, const struct devmem_endpoint* remote,
                              devmem_conn_t* conn);

/**
 * devmem_connect() from a given address, or port, or both (RFC 9293 3.9.1.1).
 *
 * @param local one of the stack's addresses, or one of family 0: the stack chooses; any port, one
 *   that is listened on too, or 0: the stack chooses. NULL: it chooses both
 * @return as devmem_connect(); -EAFNOSUPPORT the addresses are of two families; -EADDRNOTAVAIL
 *   besides: the address is not the stack's; -EADDRINUSE a connection of the shard has these
 *   addresses and ports, be it in TIME-WAIT.
 */
DEVMEM_API int devmem_connect_from(struct devmem_shard* shard, const struct devmem_endpoint* local,
                                   const struct devmem_endpoint* remote, devmem_conn_t* conn);

/** Who is at either end. @return 0; -EBADF. */
DEVMEM_API int devmem_conn_endpoints(const struct devmem_shard* shard, devmem_conn_t conn,
                                     struct devmem_endpoint* local, struct devmem_endpoint* remote);

/**
 * How much urgent data remains to be received (RFC 9293 3.8.5). The peer marks a place in its
 * stream: what comes before it is urgent, and is received like all else, in line (RFC 6093, which
 * advises new applications against the mechanism). An URGENT event says that a mark is ahead where
 * none was, or has moved on; several since the last devmem_shard_poll() are one. Asked before
 * devmem_recv(), this tells where in the tokens to come the mark is; devmem_recv_burst() may take
 * urgent bytes whose event was not taken yet. The shard's thread.
 *
 * @return bytes from the next one to receive up to the mark, some of which may be yet to arrive; 0
 *   all were received, or the stream ended before the mark; -EBADF stale handle.
 */
DEVMEM_API int64_t devmem_conn_urgent(const struct devmem_shard* shard, devmem_conn_t conn);

/** How long a connection waits for its peer. Zero-initialise; a zero field takes its default. */
struct devmem_conn_config {
    size_t size;           /**< sizeof(struct devmem_conn_config) */
    uint32_t keepalive_ms; /**< after so long a silence the peer is asked whether it is there
                                (RFC 9293 3.8.4, which has two hours in mind); 0: never */
    uint32_t keepalive_interval_ms; /**< between probes that are not answered; 75,000 */
    uint32_t keepalive_probes;      /**< not answered, after which the connection is over; 9 */
    uint32_t user_timeout_ms;       /**< how long sent bytes, a SYN or a FIN may be unacknowledged
                                         (RFC 5482, this side's part); 0: 15 retransmissions,
                                         7 of a SYN. A peer that keeps its window closed and
                                         says so is waited for */
};

/**
 * Set how long a connection waits, from its beginning on or any time later. When it has waited
 * enough it is over, with -ETIMEDOUT.
 * @return 0; -EBADF; -EINVAL wrong size.
 */
DEVMEM_API int devmem_conn_set(struct devmem_shard* shard, devmem_conn_t conn,
                               const struct devmem_conn_config* config);

/**
 * Set what IP says of all that a connection sends from now on, its SYN included if it is not out
 * yet. A SYN-ACK, and what is sent for no connection, say what devmem_stack_config does.
 * @param dscp differentiated services codepoint (RFC 2474), 0 to 63; sent as it is
 * @param ttl TTL or hop limit, 1 to 255
 * @return 0; -EBADF; -EINVAL.
 */
DEVMEM_API int devmem_conn_set_ip(struct devmem_shard* shard, devmem_conn_t conn, uint8_t dscp,
                                  uint8_t ttl);

/** devmem_token.flags */
#define DEVMEM_TOKEN_HOST 0x1u /**< the bytes arrived in host memory; `region` is readable */

/**
 * A run of payload bytes the application owns until it returns it. In-order: tokens of a
 * connection, concatenated, are the stream.
 */
struct devmem_token {
    uint64_t id;                  /**< name and generation; opaque */
    struct devmem_region* region; /**< where; no reference is passed, the token holds one */
    uint64_t offset;              /**< of the first byte in the region */
    uint64_t address;             /**< device address of the first byte */
    uint32_t length;              /**< bytes */
    uint32_t flags;               /**< DEVMEM_TOKEN_* */
};

/**
 * Receive in-order bytes as tokens. The application owns them until devmem_token_return().
 *
 * @return the number of tokens (> 0); 0 the peer closed and all was received; -EAGAIN nothing now;
 *   -EBADF stale handle; -ECONNRESET, -ETIMEDOUT, -ECONNREFUSED, -EHOSTUNREACH the connection
 * failed (bytes that arrived in order before are received first).
 */
DEVMEM_API int devmem_recv(struct devmem_shard* shard, devmem_conn_t conn,
                           struct devmem_token* tokens, unsigned n);

/**
 * Receive from whichever connections have something: devmem_recv() for each whose READABLE event
 * has not been taken yet, which it takes as far as bytes go. The end of a stream remains an event,
 * as does what did not fit. With many connections that have little each this costs about half of
 * an event and a devmem_recv() for each:
 *
 *     devmem_shard_poll(shard, NULL, 0, NULL);
 *     n = devmem_recv_burst(shard, conns, tokens, 64);
 *     m = devmem_shard_events(shard, events, 64);
 *
 * @param conns  `n` of them: whose tokens[i] is
 * @param tokens `n` of them. Those of one connection follow each other, in the order of its stream
 * @return the number of tokens; 0 none has any
 */
DEVMEM_API unsigned devmem_recv_burst(struct devmem_shard* shard, devmem_conn_t* conns,
                                      struct devmem_token* tokens, unsigned n);

/**
 * Return tokens, from any thread, also after their connection or their stack is gone. Memory is
 * recycled and the receive window opens.
 *
 * @return the number returned, if all were good; -ESTALE if one or more had been returned already
 * or never existed: those are counted and logged, the others are returned.
 */
DEVMEM_API int devmem_token_return(const struct devmem_token* tokens, unsigned n);

/**
 * Make two tokens of one, for consumers that return their parts at different times: `token` keeps
 * its first `at` bytes, `rest` has the others. Each is returned by itself. A fragment that both
 * have part of has one more holder, and is recycled when the last of them is returned. Any thread.
 *
 * @return 0; -EINVAL `at` is 0 or not less than the token's length; -ESTALE it was returned, or
 *   never existed (counted); -ENOSPC over 1,024 tokens begin in a fragment that another token
 *   begins in; -EOVERFLOW a fragment has 65,536 holders. After an error the token is as it was.
 */
DEVMEM_API int devmem_token_split(struct devmem_token* token, uint32_t at,
                                  struct devmem_token* rest);

/**
 * Queue bytes of host memory for sending; they are copied. For requests and replies: at most 256
 * KiB wait at a time.
 *
 * @return bytes accepted (> 0); -EAGAIN the send buffer is full (a WRITABLE event follows); -EPIPE
 *   the sending side is closed; -EBADF; -ENOTCONN not yet connected; -ENOMEM.
 */
DEVMEM_API int64_t devmem_send(struct devmem_shard* shard, devmem_conn_t conn, const void* data,
                               size_t len);

/** Close the sending side (FIN after what is queued). Receiving goes on. @return 0; -EBADF. */
DEVMEM_API int devmem_shutdown(struct devmem_shard* shard, devmem_conn_t conn);

/**
 * Close. The handle is void at once; tokens stay valid. With bytes not yet received the peer gets a
 * RST (RFC 2525 2.17), otherwise FIN, and the stack finishes the connection by itself.
 * @return 0; -EBADF.
 */
DEVMEM_API int devmem_close(struct devmem_shard* shard, devmem_conn_t conn);

/** Reset (RST). The handle is void at once; tokens stay valid. @return 0; -EBADF. */
DEVMEM_API int devmem_abort(struct devmem_shard* shard, devmem_conn_t conn);

/* --------------------------------------------------------------- statistics */

/** Every counter of a shard, with what it says. */
#define DEVMEM_SHARD_STATS(X)                                                                      \
    X(rx_packets, "packets taken from the port")                                                   \
    X(rx_ignored, "packets for no local address: multicast of other protocols, other hosts")       \
    X(rx_tcp_segments, "TCP segments that passed every check")                                     \
    X(rx_payload_bytes, "payload bytes delivered in order to a receive queue")                     \
    X(rx_device_bytes, "payload bytes given to the application in the region")                     \
    X(rx_host_bytes, "payload bytes given to it in host memory: not split off by the port")        \
    X(rx_ooo_segments, "segments kept out of order")                                               \
    X(rx_reneged, "times a silent connection gave up text behind a gap, memory being scarce")      \
    X(rx_duplicate_bytes, "bytes that had been received already")                                  \
    X(rx_ce_segments, "segments marked CE by a congested router, which the sender is told of")     \
    X(rx_fragments, "fragments the delivered bytes occupy")                                        \
    X(tx_packets, "packets given to the port")                                                     \
    X(tx_retransmits, "segments sent again (RFC 6298)")                                            \
    X(tx_acks, "segments sent that carry nothing but an acknowledgement")                          \
    X(tokens_delivered, "tokens given to the application")                                         \
    X(split_early, "packets with header bytes in the region, read back through the provider")      \
    X(split_late, "packets with payload bytes in the header mbuf")                                 \
    X(conn_opened, "connections that reached ESTABLISHED")                                         \
    X(conn_failed, "connections that ended with an error")                                         \
    X(syn_cookies_sent, "SYNs answered with a cookie: no room for the half-open connection")       \
    X(syn_cookies_accepted, "connections that were opened by a cookie coming back")                \
    X(time_wait_reused, "connections in TIME-WAIT that made room for the next (RFC 6191)")         \
    X(window_limited, "window updates held back: the pool cannot back more")                       \
    X(drop_truncated, "frame shorter than its headers say")                                        \
    X(drop_ethertype, "not IPv4, IPv6 or ARP")                                                     \
    X(drop_ip_header, "malformed IPv4 or IPv6 header, or a source route in it")                    \
    X(drop_ip_checksum, "wrong IPv4 header checksum")                                              \
    X(drop_ip_fragment, "IP fragment: not reassembled")                                            \
    X(drop_ip_protocol, "neither TCP, ICMP nor ICMPv6")                                            \
    X(drop_tcp_header, "malformed TCP header")                                                     \
    X(drop_tcp_options, "malformed TCP options")                                                   \
    X(drop_tcp_checksum, "wrong TCP checksum, or none the port would vouch for")                   \
    X(drop_icmp, "malformed ICMP, ICMPv6 or ARP")                                                  \
    X(drop_no_connection, "segment for no connection or listener (answered with RST)")             \
    X(drop_listen_overflow, "SYN, or a cookie, while as many connections wait")                    \
    X(drop_no_connection_slot, "cookie that came back while every connection slot was taken")      \
    X(drop_out_of_window, "segment outside the receive window")                                    \
    X(drop_paws, "segment older than the last by its timestamp (RFC 7323 5)")                      \
    X(drop_after_close, "data after the application closed")                                       \
    X(drop_no_memory, "segment whose fragments would exceed its connection's share of the pool")   \
    X(drop_no_host_fragment, "no host memory, or no more of it, for payload not split off")        \
    X(drop_ooo_overlap, "out-of-order bytes dropped because an earlier segment holds them")        \
    X(drop_no_neighbour, "packet dropped: the next hop did not answer ARP or ND")                  \
    X(drop_tx_full, "packet dropped: the transmit queue was full")                                 \
    X(stale_returns, "token returns refused: returned already, or never existed")

/** Counters of a shard, all u64. */
struct devmem_shard_stats {
#define DEVMEM_STAT_FIELD(name, text) uint64_t name; /**< text */
    DEVMEM_SHARD_STATS(DEVMEM_STAT_FIELD)
#undef DEVMEM_STAT_FIELD
};

/** Read a shard's counters. Any thread. */
DEVMEM_API void devmem_shard_stats_get(const struct devmem_shard* shard,
                                       struct devmem_shard_stats* stats);

/** The payload pool of a shard, for devmem_pool_stats_get(), devmem_pool_resize() and the like.
 * devmem_shard_rebind() makes another. Shrunk below what senders were told they may send, it loses
 * packets, which they send again. */
DEVMEM_API struct rte_mempool* devmem_shard_pool(const struct devmem_shard* shard);

#ifdef __cplusplus
}
#endif

#endif /* DEVMEM_DEVMEM_H */
