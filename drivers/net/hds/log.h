// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_log.h>

namespace devmem::hds {
extern int logtype;
}

#define HDS_LOG(level, format, ...)                                                                \
    rte_log(RTE_LOG_##level, static_cast<unsigned>(::devmem::hds::logtype),                        \
            "net_hds: " format "\n", ##__VA_ARGS__)
