// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace ncat {

/// SHA-256 of a stream.
class Sha256 {
public:
    Sha256();
    void update(std::span<const std::byte> bytes);
    /// The digest in hexadecimal. Ends the stream.
    std::string finish();

private:
    struct Free {
        void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
    };
    std::unique_ptr<EVP_MD_CTX, Free> context_;
};

} // namespace ncat
