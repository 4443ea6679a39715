// SPDX-License-Identifier: BSD-3-Clause
// From what a user names to a port that splits.

#include "lib/stack/attempt.h"

#include <devmem/devmem.h>

#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

namespace {

bool can_split(std::uint16_t port_id)
{
    rte_eth_dev_info info;
    return rte_eth_dev_info_get(port_id, &info) == 0 &&
           (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT) != 0;
}

int make_vdev(const std::string& name, const std::string& args, std::uint16_t* port_id,
              std::string& text)
{
    if (const int rc = rte_eal_hotplug_add("vdev", name.c_str(), args.c_str()); rc != 0) {
        text = "cannot make the port " + name + (args.empty() ? "" : "," + args) + ": " +
               rte_strerror(-rc) + " (the driver's message is above)";
        return rc;
    }
    if (rte_eth_dev_get_port_by_name(name.c_str(), port_id) != 0) {
        rte_eal_hotplug_remove("vdev", name.c_str());
        text = name + " is no Ethernet device";
        return -ENODEV;
    }
    return 0;
}

/// The part of net_hds's arguments that does not say what it is over.
std::string hds_args(const devmem_port_config& config)
{
    return ",queues=" + std::to_string(config.queues) +
           ",hds_thresh=" + std::to_string(config.hds_thresh);
}

/// `tap:NAME[,mtu=N]`
int open_tap(std::string_view spec, const devmem_port_config& config, devmem_port* port,
             std::string& text)
{
    std::string_view iface = spec;
    std::uint16_t mtu = 0;
    if (const auto comma = spec.find(','); comma != std::string_view::npos) {
        iface = spec.substr(0, comma);
        const std::string_view option = spec.substr(comma + 1);
        const std::string_view value = option.substr(std::min<std::size_t>(4, option.size()));
        const auto [end, rc] = std::from_chars(value.data(), value.data() + value.size(), mtu);
        if (!option.starts_with("mtu=") || rc != std::errc{} ||
            end != value.data() + value.size()) {
            text = "tap:" + std::string(spec) + ": '" + std::string(option) +
                   "' is not mtu=N, the only option of a TAP";
            return -EINVAL;
        }
    }
    constexpr std::size_t kInterfaceName = 15; // IFNAMSIZ less the NUL
    if (iface.empty() || iface.size() > kInterfaceName) {
        text = "tap:" + std::string(spec) + ": an interface name has 1 to 15 characters";
        return -EINVAL;
    }
    const std::string name = "net_hds_" + std::string(iface);
    const std::string args = "iface=" + std::string(iface) + hds_args(config);
    if (const int rc = make_vdev(name, args, &port->lower_id, text); rc != 0)
        return rc;
    port->created = true;
    const std::uint16_t queues = config.queues;
    if (mtu != 0) {
        // ethdev takes an MTU only for a configured port; the stack configures it again.
        const rte_eth_conf conf{};
        int rc = rte_eth_dev_configure(port->lower_id, queues, queues, &conf);
        if (rc == 0)
            rc = rte_eth_dev_set_mtu(port->lower_id, mtu);
        if (rc != 0) {
            text = "tap:" + std::string(spec) + ": the MTU is refused: " + rte_strerror(-rc);
            return rc;
        }
    }
    return 0;
}

void remove_port(std::uint16_t port_id)
{
    char name[RTE_ETH_NAME_MAX_LEN];
    if (rte_eth_dev_get_name_by_port(port_id, name) != 0)
        return;
    rte_eth_dev_stop(port_id);
    rte_eth_dev_close(port_id);
    rte_eal_hotplug_remove("vdev", name);
}

/// @param port what was made is in `lower_id` and `created`, `port_id` and `wrapped`, also after an
///   error
int open(const devmem_port_config& config, devmem_port* port, std::string& why)
{
    if (config.size != sizeof(config)) {
        why = "devmem_port_config.size is not sizeof(struct devmem_port_config): the program was "
              "built for another version of this library";
        return -EINVAL;
    }
    const std::string_view text = config.spec;
    if (text.starts_with("tap:")) {
        if (const int rc = open_tap(text.substr(4), config, port, why); rc != 0)
            return rc;
    } else if (rte_eth_dev_get_port_by_name(config.spec, &port->lower_id) != 0) {
        const auto comma = text.find(',');
        const std::string name(text.substr(0, comma));
        const std::string args(comma == std::string_view::npos ? "" : text.substr(comma + 1));
        if (!name.starts_with("net_")) {
            why = "no port '" + name + "': give tap:NAME, the name or PCI address of a probed " +
                  "port (PCI devices need -a ADDRESS for EAL and a driver that DPDK can " +
                  "use), or a vdev string such as net_af_packet0,iface=eth1";
            return -ENODEV;
        }
        if (const int rc = make_vdev(name, args, &port->lower_id, why); rc != 0)
            return rc;
        port->created = true;
    }

    rte_eth_dev_info info;
    if (const int rc = rte_eth_dev_info_get(port->lower_id, &info); rc != 0) {
        why = std::string(text) + ": the port does not describe itself";
        return rc;
    }
    rte_eth_dev_get_name_by_port(port->lower_id, port->name);
    std::snprintf(port->driver, sizeof(port->driver), "%s", info.driver_name);
    port->port_id = port->lower_id;
    const bool hds = std::strcmp(info.driver_name, "net_hds") == 0;
    if (hds || can_split(port->lower_id)) {
        if (config.hds_thresh != 0 && !text.starts_with("tap:")) {
            why =
                std::string(text) + ": a threshold for the split is " +
                (hds ? "the vdev's own argument: hds_thresh="
                     : "nothing a port that splits by itself can be given in DPDK: leave it at 0");
            return -ENOTSUP;
        }
        port->split = hds ? DEVMEM_SPLIT_SOFTWARE : DEVMEM_SPLIT_HARDWARE;
        return 0;
    }

    const std::string wrapper = "net_hds_over" + std::to_string(port->lower_id);
    const std::string args = std::string("lower=") + port->name + hds_args(config);
    if (const int rc = make_vdev(wrapper, args, &port->port_id, why); rc != 0)
        return rc;
    port->wrapped = true;
    port->split = DEVMEM_SPLIT_SOFTWARE;
    return 0;
}

} // namespace

int devmem_port_open_config(const devmem_port_config* config, devmem_port* port, char* error,
                            std::size_t error_len)
{
    *port = {};
    const int rc = devmem::attempt([&](std::string& why) { return open(*config, port, why); },
                                   "out of memory", error, error_len);
    if (rc != 0)
        devmem_port_close(port);
    return rc;
}

int devmem_port_open(const char* spec, std::uint16_t queues, devmem_port* port, char* error,
                     std::size_t error_len)
{
    const devmem_port_config config{
        .size = sizeof(config), .spec = spec, .queues = queues, .hds_thresh = 0};
    return devmem_port_open_config(&config, port, error, error_len);
}

void devmem_port_close(devmem_port* port)
{
    if (port->wrapped)
        remove_port(port->port_id);
    if (port->created)
        remove_port(port->lower_id);
    *port = {};
}
