// Many exponentials at once.
#pragma once

#include <span>

namespace ess::linalg {

// values[k] = exp(values[k]) for each k, in vectors of the best instruction set of the machine;
// relative error below 1e-15, 0 below -1000. A value's result does not depend on its place.
void Exponentiate(std::span<double> values);

}  // namespace ess::linalg
