// What the test accelerator computes.
#pragma once

namespace ess::testing {

// Registers the kernels with LibTorch's dispatcher, for the rest of the process. Once.
void RegisterAcceleratorKernels();

}  // namespace ess::testing
