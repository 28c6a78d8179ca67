// How long LibTorch's OpenMP threads spin between two parallel loops before they sleep.
#pragma once

namespace ess {

// Starts this program again, once, with a short spin in its environment: libgomp reads it before
// main() and nowhere else. Does nothing when GOMP_SPINCOUNT or OMP_WAIT_POLICY is set, which
// whoever runs the server may do. Call it early in main(), before there are threads. When the
// program cannot be started again it goes on with libgomp's own spin, which is only slower.
// docs/decisions/0006-short-openmp-spin.md has the measurements.
void RestartWithShortOpenMpSpin(char** argv);

}  // namespace ess
