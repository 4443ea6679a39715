// SPDX-License-Identifier: BSD-3-Clause
#pragma once

/// The driver's name. Its purpose is to be referred to: the reference keeps the library that holds
/// the driver on the link line of a plugin or program under --as-needed.
extern "C" __attribute__((visibility("default"))) const char devmem_net_hds[];
