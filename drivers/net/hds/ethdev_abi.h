// SPDX-License-Identifier: BSD-3-Clause
// The part of DPDK's driver interface this driver uses. DPDK installs it only when it was built
// with enable_driver_sdk; Debian's is not. Then the structures are declared here as DPDK 22.11 lays
// them out (ABI 23.0, x86-64), every field the driver touches pinned below. Driver structures are
// not part of DPDK's stable ABI, so no other version is accepted: see also abi_check() in
// ethdev.cpp.
#pragma once

#include <rte_config.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_ethdev.h>
#include <rte_version.h>

#if __has_include(<ethdev_driver.h>)

#include <bus_vdev_driver.h>
#include <dev_driver.h>
#include <ethdev_driver.h>

#else

#if RTE_VER_YEAR != 22 || RTE_VER_MONTH != 11 || !defined(__x86_64__)
#error "net_hds: this DPDK needs its driver headers: build DPDK with -Denable_driver_sdk=true"
#endif

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <pthread.h>

extern "C" {

struct rte_bus;
struct rte_intr_handle;
struct rte_eth_rxtx_callback;

struct rte_driver {
    RTE_TAILQ_ENTRY(rte_driver) next;
    const char* name;
    const char* alias;
};

struct rte_device {
    RTE_TAILQ_ENTRY(rte_device) next;
    const char* name;
    const char* bus_info;
    const rte_driver* driver;
    const rte_bus* bus;
    int numa_node;
    rte_devargs* devargs;
};

struct rte_vdev_device {
    RTE_TAILQ_ENTRY(rte_vdev_device) next;
    rte_device device;
};

struct rte_vdev_driver {
    RTE_TAILQ_ENTRY(rte_vdev_driver) next;
    rte_driver driver;
    int (*probe)(rte_vdev_device*);
    int (*remove)(rte_vdev_device*);
    int (*dma_map)(rte_vdev_device*, void* address, std::uint64_t iova, std::size_t len);
    int (*dma_unmap)(rte_vdev_device*, void* address, std::uint64_t iova, std::size_t len);
    std::uint32_t drv_flags;
};

struct eth_dev_ops;

struct rte_eth_dev_data {
    char name[RTE_ETH_NAME_MAX_LEN];
    void** rx_queues;
    void** tx_queues;
    std::uint16_t nb_rx_queues;
    std::uint16_t nb_tx_queues;
    rte_eth_dev_sriov sriov;
    void* dev_private;
    rte_eth_link dev_link;
    rte_eth_conf dev_conf;
    std::uint16_t mtu;
    std::uint32_t min_rx_buf_size;
    std::uint64_t rx_mbuf_alloc_failed;
    rte_ether_addr* mac_addrs;
    std::uint64_t mac_pool_sel[RTE_ETH_NUM_RECEIVE_MAC_ADDR];
    rte_ether_addr* hash_mac_addrs;
    std::uint16_t port_id;
    std::uint8_t promiscuous : 1, scattered_rx : 1, all_multicast : 1, dev_started : 1, lro : 1,
        dev_configured : 1, flow_configured : 1;
    std::uint8_t rx_queue_state[RTE_MAX_QUEUES_PER_PORT];
    std::uint8_t tx_queue_state[RTE_MAX_QUEUES_PER_PORT];
    std::uint32_t dev_flags;
    int numa_node;
    rte_vlan_filter_conf vlan_filter_conf;
    rte_eth_dev_owner owner;
    std::uint16_t representor_id;
    std::uint16_t backer_port_id;
    pthread_mutex_t flow_ops_mutex;
} __rte_cache_aligned;

struct rte_eth_dev {
    eth_rx_burst_t rx_pkt_burst;
    eth_tx_burst_t tx_pkt_burst;
    eth_tx_prep_t tx_pkt_prepare;
    eth_rx_queue_count_t rx_queue_count;
    eth_rx_descriptor_status_t rx_descriptor_status;
    eth_tx_descriptor_status_t tx_descriptor_status;
    rte_eth_dev_data* data;
    void* process_private;
    const eth_dev_ops* dev_ops;
    rte_device* device;
    rte_intr_handle* intr_handle;
    rte_eth_dev_cb_list link_intr_cbs;
    rte_eth_rxtx_callback* post_rx_burst_cbs[RTE_MAX_QUEUES_PER_PORT];
    rte_eth_rxtx_callback* pre_tx_burst_cbs[RTE_MAX_QUEUES_PER_PORT];
    rte_eth_dev_state state;
    void* security_ctx;
} __rte_cache_aligned;

// Operations the driver does not offer are gaps.
struct eth_dev_ops {
    int (*dev_configure)(rte_eth_dev*);
    int (*dev_start)(rte_eth_dev*);
    int (*dev_stop)(rte_eth_dev*);
    int (*dev_set_link_up)(rte_eth_dev*);
    int (*dev_set_link_down)(rte_eth_dev*);
    int (*dev_close)(rte_eth_dev*);
    void* gap48;
    int (*link_update)(rte_eth_dev*, int wait);
    void* gap64;
    int (*promiscuous_enable)(rte_eth_dev*);
    int (*promiscuous_disable)(rte_eth_dev*);
    int (*allmulticast_enable)(rte_eth_dev*);
    int (*allmulticast_disable)(rte_eth_dev*);
    void* gap104[2];
    int (*mac_addr_set)(rte_eth_dev*, rte_ether_addr*);
    void* gap128;
    int (*mtu_set)(rte_eth_dev*, std::uint16_t);
    int (*stats_get)(rte_eth_dev*, rte_eth_stats*);
    int (*stats_reset)(rte_eth_dev*);
    int (*xstats_get)(rte_eth_dev*, rte_eth_xstat*, unsigned);
    int (*xstats_reset)(rte_eth_dev*);
    int (*xstats_get_names)(rte_eth_dev*, rte_eth_xstat_name*, unsigned);
    void* gap184;
    int (*dev_infos_get)(rte_eth_dev*, rte_eth_dev_info*);
    void (*rxq_info_get)(rte_eth_dev*, std::uint16_t, rte_eth_rxq_info*);
    void (*txq_info_get)(rte_eth_dev*, std::uint16_t, rte_eth_txq_info*);
    int (*rx_burst_mode_get)(rte_eth_dev*, std::uint16_t, rte_eth_burst_mode*);
    int (*tx_burst_mode_get)(rte_eth_dev*, std::uint16_t, rte_eth_burst_mode*);
    void* gap232;
    const std::uint32_t* (*dev_supported_ptypes_get)(rte_eth_dev*);
    void* gap248[6];
    int (*rx_queue_start)(rte_eth_dev*, std::uint16_t);
    int (*rx_queue_stop)(rte_eth_dev*, std::uint16_t);
    int (*tx_queue_start)(rte_eth_dev*, std::uint16_t);
    int (*tx_queue_stop)(rte_eth_dev*, std::uint16_t);
    int (*rx_queue_setup)(rte_eth_dev*, std::uint16_t, std::uint16_t, unsigned,
                          const rte_eth_rxconf*, rte_mempool*);
    void (*rx_queue_release)(rte_eth_dev*, std::uint16_t);
    void* gap344[2];
    int (*tx_queue_setup)(rte_eth_dev*, std::uint16_t, std::uint16_t, unsigned,
                          const rte_eth_txconf*);
    void (*tx_queue_release)(rte_eth_dev*, std::uint16_t);
    void* gap376[56];
    const std::uint32_t* (*buffer_split_supported_hdr_ptypes_get)(rte_eth_dev*);
    int (*eth_dev_priv_dump)(rte_eth_dev*, FILE*);
    void* gap840[8];
};

extern rte_eth_dev rte_eth_devices[RTE_MAX_ETHPORTS];
rte_eth_dev* rte_eth_dev_allocate(const char* name);
rte_eth_dev* rte_eth_dev_allocated(const char* name);
void rte_eth_dev_probing_finish(rte_eth_dev*);
int rte_eth_dev_release_port(rte_eth_dev*);
void rte_vdev_register(rte_vdev_driver*);
void rte_vdev_unregister(rte_vdev_driver*);

} // extern "C"

#endif

// The layout of DPDK 22.11. True of its own headers too, which is how these figures are checked.
#if RTE_VER_YEAR == 22 && RTE_VER_MONTH == 11 && defined(__x86_64__)

static_assert(RTE_MAX_ETHPORTS == 32 && RTE_MAX_QUEUES_PER_PORT == 1024);
static_assert(sizeof(rte_driver) == 32 && offsetof(rte_driver, name) == 16);
static_assert(sizeof(rte_device) == 64 && offsetof(rte_device, driver) == 32 &&
              offsetof(rte_device, numa_node) == 48 && offsetof(rte_device, devargs) == 56);
static_assert(sizeof(rte_vdev_device) == 80 && offsetof(rte_vdev_device, device) == 16);
static_assert(sizeof(rte_vdev_driver) == 88 && offsetof(rte_vdev_driver, driver) == 16 &&
              offsetof(rte_vdev_driver, probe) == 48 && offsetof(rte_vdev_driver, remove) == 56 &&
              offsetof(rte_vdev_driver, drv_flags) == 80);
static_assert(sizeof(rte_eth_conf) == 2272 && sizeof(rte_eth_dev_owner) == 72);

static_assert(sizeof(rte_eth_dev) == 16512 && alignof(rte_eth_dev) == 64);
static_assert(offsetof(rte_eth_dev, tx_pkt_burst) == 8 && offsetof(rte_eth_dev, data) == 48 &&
              offsetof(rte_eth_dev, dev_ops) == 64 && offsetof(rte_eth_dev, device) == 72 &&
              offsetof(rte_eth_dev, link_intr_cbs) == 88 &&
              offsetof(rte_eth_dev, post_rx_burst_cbs) == 104 &&
              offsetof(rte_eth_dev, state) == 16488);

static_assert(sizeof(rte_eth_dev_data) == 6144 && alignof(rte_eth_dev_data) == 64);
static_assert(
    offsetof(rte_eth_dev_data, rx_queues) == 64 && offsetof(rte_eth_dev_data, tx_queues) == 72 &&
    offsetof(rte_eth_dev_data, nb_rx_queues) == 80 &&
    offsetof(rte_eth_dev_data, nb_tx_queues) == 82 &&
    offsetof(rte_eth_dev_data, dev_private) == 96 && offsetof(rte_eth_dev_data, dev_link) == 104 &&
    offsetof(rte_eth_dev_data, dev_conf) == 112 && offsetof(rte_eth_dev_data, mtu) == 2384 &&
    offsetof(rte_eth_dev_data, mac_addrs) == 2400 && offsetof(rte_eth_dev_data, port_id) == 3440 &&
    offsetof(rte_eth_dev_data, rx_queue_state) == 3443 &&
    offsetof(rte_eth_dev_data, tx_queue_state) == 4467 &&
    offsetof(rte_eth_dev_data, dev_flags) == 5492 &&
    offsetof(rte_eth_dev_data, numa_node) == 5496 && offsetof(rte_eth_dev_data, owner) == 6016 &&
    offsetof(rte_eth_dev_data, backer_port_id) == 6090 &&
    offsetof(rte_eth_dev_data, flow_ops_mutex) == 6096);

static_assert(sizeof(eth_dev_ops) == 904);
static_assert(offsetof(eth_dev_ops, dev_close) == 40 && offsetof(eth_dev_ops, link_update) == 56 &&
              offsetof(eth_dev_ops, promiscuous_enable) == 72 &&
              offsetof(eth_dev_ops, allmulticast_disable) == 96 &&
              offsetof(eth_dev_ops, mac_addr_set) == 120 && offsetof(eth_dev_ops, mtu_set) == 136 &&
              offsetof(eth_dev_ops, stats_get) == 144 && offsetof(eth_dev_ops, xstats_get) == 160 &&
              offsetof(eth_dev_ops, xstats_get_names) == 176 &&
              offsetof(eth_dev_ops, dev_infos_get) == 192 &&
              offsetof(eth_dev_ops, tx_burst_mode_get) == 224 &&
              offsetof(eth_dev_ops, dev_supported_ptypes_get) == 240 &&
              offsetof(eth_dev_ops, rx_queue_start) == 296 &&
              offsetof(eth_dev_ops, rx_queue_setup) == 328 &&
              offsetof(eth_dev_ops, rx_queue_release) == 336 &&
              offsetof(eth_dev_ops, tx_queue_setup) == 360 &&
              offsetof(eth_dev_ops, tx_queue_release) == 368 &&
              offsetof(eth_dev_ops, buffer_split_supported_hdr_ptypes_get) == 824 &&
              offsetof(eth_dev_ops, eth_dev_priv_dump) == 832);

#endif
