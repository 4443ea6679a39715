// SPDX-License-Identifier: BSD-3-Clause
// Where exceptions end: functions of the C API that allocate and explain themselves.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <new>
#include <string>

namespace devmem {

/// @param call           takes a string for its error text, returns 0 or a negative errno
/// @param without_memory the text if memory runs out: there may be none for any other
template <typename Call>
int attempt(Call call, const char* without_memory, char* error, std::size_t error_len)
{
    std::string text;
    const char* why = without_memory;
    int rc = -ENOMEM;
    try {
        rc = call(text);
        why = text.c_str();
    } catch (const std::bad_alloc&) {
    }
    if (rc != 0 && error != nullptr && error_len != 0)
        std::snprintf(error, error_len, "%s", why);
    return rc;
}

} // namespace devmem
