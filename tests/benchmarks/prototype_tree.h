// The throw-away prototype of the inertia tree, built from a folder outside this repository when it
// is there: something to race, nothing to copy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace ess::benchmarks {

class PrototypeTree {
 public:
  virtual ~PrototypeTree() = default;

  // Counts the singular values of every past-to-future block above tau. One operator, one thread;
  // its copy into the prototype's own layout is made beforehand and is not part of this call.
  virtual const std::vector<double>& CountAbove(double tau) = 0;
};

// Why there is no prototype here; empty when there is one.
std::string WhyNoPrototype();

// REQUIRES: WhyNoPrototype().empty(). `matrix` is row-major [length, length].
std::unique_ptr<PrototypeTree> MakePrototypeTree(std::span<const double> matrix, int64_t length);

}  // namespace ess::benchmarks
