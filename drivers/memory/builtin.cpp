// SPDX-License-Identifier: BSD-3-Clause
#include "lib/memory/region.h"

namespace devmem {

extern const Provider kHostProvider;
extern const Provider kOpaqueProvider;

std::span<const Provider* const> builtin_providers()
{
    static constexpr const Provider* kBuiltin[] = {&kHostProvider, &kOpaqueProvider};
    return kBuiltin;
}

} // namespace devmem
