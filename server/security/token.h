// Bearer tokens: secrets that say who calls.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace ess::security {

// SHA-256 of a token: what a server keeps in its place. A plain, fast hash is right here, and would
// be wrong for passwords: a token has 256 random bits, so nobody can try them all.
using TokenDigest = std::array<unsigned char, 32>;

TokenDigest DigestOf(std::string_view token);

// "ess_" and 43 characters of the URL-safe base64 alphabet: 256 bits of the system's random
// numbers.
std::string NewToken();

// In time that does not depend on where they differ.
bool Equal(const TokenDigest& a, const TokenDigest& b);

}  // namespace ess::security
