// SPDX-License-Identifier: BSD-3-Clause
// A target without libFuzzer: every file named, or found in a folder named, is one input.
#include "test/fuzz/target.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_of(const fs::path& path)
{
    if (!fs::is_directory(path))
        return {path};
    std::vector<fs::path> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(path))
        files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
}

void run(const fs::path& file)
{
    std::ifstream stream(file, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), {}};
    // Of its exact size, so that a sanitizer sees the end.
    const auto input = std::make_unique<std::uint8_t[]>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), input.get());
    LLVMFuzzerTestOneInput(input.get(), bytes.size());
}

} // namespace

int main(int argc, char** argv)
{
    unsigned inputs = 0;
    for (int i = 1; i < argc; i++) {
        for (const fs::path& file : files_of(argv[i])) {
            std::fprintf(stderr, "%s\n", file.c_str()); // the last one is what crashed
            run(file);
            inputs++;
        }
    }
    std::printf("%u inputs\n", inputs);
    return inputs == 0; // a corpus that is not found is no test
}
