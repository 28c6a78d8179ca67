// Which device models live on.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace ess {

// Turns "auto", "cpu", "cuda", "cuda:1", ... (any c10::Device string) into a device that is there:
// "cpu" or TYPE:INDEX. "auto" is the first accelerator, else the CPU. Loads libtorch_cuda.so from
// LibTorch's folder when a GPU is wanted and its driver is present; the program links the CPU part
// only.
// Errors: kInvalidArgument     not a device string.
//         kFailedPrecondition  no such device on this machine.
absl::StatusOr<std::string> ResolveDevice(const std::string& device);

// Version of the LibTorch in this process.
std::string TorchVersion();

// Threads of one LibTorch operation on the CPU.
void SetTorchThreads(int threads);

}  // namespace ess
