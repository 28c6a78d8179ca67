// A device of LibTorch for tests, so that what an accelerator does can be tested where there is
// none: residency, eviction, out of memory, and tensors on the wrong device. It is registered under
// LibTorch's key for devices outside its tree, PrivateUse1, and answers through at::accelerator and
// c10::DeviceAllocator as a GPU does.
//
// Its memory is of its own: the host cannot read it (a dereferenced device pointer is a
// segmentation fault), it has a budget, and it comes filled with NaN. Its kernels are those of the
// CPU on copies; operands on different devices are an error, as on a GPU, except for CPU scalars.
//
// As a shared object it also serves a whole process that knows nothing of it. With LD_PRELOAD and
// TEST_ACCELERATOR_STATE=FILE in the environment the device is there from the start, and FILE, as
// long as an AcceleratorState, is its state: what another process writes there takes effect.
#pragma once

#include <atomic>
#include <cstdint>

namespace ess::testing {

inline constexpr char kTestAccelerator[] = "testaccelerator:0";

inline constexpr int64_t kTestAcceleratorBytes = int64_t{16} << 30;

// Everything that tests set and read, as it lies in a file.
struct AcceleratorState {
  std::atomic<int64_t> byte_budget = kTestAcceleratorBytes;
  // This many allocations from now, one fails; 0: none does.
  std::atomic<int64_t> allocations_to_failure = 0;
  std::atomic<int64_t> allocations = 0;  // Those that were granted.
  std::atomic<int64_t> failures = 0;     // Those that were not.
  std::atomic<int64_t> live_bytes = 0;
  std::atomic<int64_t> peak_bytes = 0;
  // This many allocations from now, one breaks the device; 0: none does. A broken device grants no
  // allocation, for the rest of the process.
  std::atomic<int64_t> allocations_to_break = 0;
};

// Makes the device known to LibTorch, for the rest of the process. May be called again.
void RegisterTestAccelerator();

// The device's state. Thread-safe.
AcceleratorState& TestAcceleratorState();

// The n-th allocation from now throws c10::OutOfMemoryError: 1 is the next one.
void FailAllocation(int64_t n);

// The whole budget again, no planned failure, counts of zero and the peak at what is live.
void ResetTestAccelerator();

}  // namespace ess::testing
