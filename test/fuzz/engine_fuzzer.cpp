// SPDX-License-Identifier: BSD-3-Clause
// A connection of the engine under events read from the input: segments, time, and what the
// application does. What must hold is the model's.
#include "test/fuzz/target.h"
#include "test/unit/tcp/model.h"

#include <cstdio>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    namespace model = devmem::tcp::model;
    const model::Scenario scenario = model::decode({data, size});
    if (!model::run(scenario).empty()) {
        std::fputs(model::report(model::shrink(scenario)).c_str(), stderr);
        std::abort();
    }
    return 0;
}
