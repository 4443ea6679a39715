// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_log.h>

extern "C" int devmem_logtype;

/// Log under the dynamic type `lib.devmem` (--log-level=lib.devmem:debug).
#define DEVMEM_LOG(level, format, ...)                                                             \
    rte_log(RTE_LOG_##level, static_cast<uint32_t>(devmem_logtype), "devmem: " format "\n",        \
            ##__VA_ARGS__)
