// What is known of a matrix beforehand.
#pragma once

namespace ess::linalg {

enum class Symmetry {
  kNone,
  kToeplitz,  // T[i, j] depends on i - j alone, so sigma(H_i) = sigma(H_{L - i}).
};

}  // namespace ess::linalg
