// SPDX-License-Identifier: BSD-3-Clause
// What libFuzzer calls, and replay.cpp where there is no libFuzzer.
#pragma once

#include <cstddef>
#include <cstdint>

/// Try one input. Nothing of it is left behind for the next one. @return 0.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
