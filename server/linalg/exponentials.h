// Many exponentials at once: the gates of a selective scan.
#pragma once

#include <span>

namespace ess::linalg {

// Replaces each x by exp(x), to a relative error of (2 + |x|) 2^-52 where the result is a normal
// number; results of less than 2^-1022 are right to 2^-1074. The
// same x gives the same bits wherever it stands.
// Cost: about 1 ns each with AVX-512, 2 ns with AVX2.
void ExponentiateInPlace(std::span<double> values);

}  // namespace ess::linalg
