// at::set_num_threads would change the default of every thread that starts later, so the two
// libraries below LibTorch are asked directly; both keep the number per thread. They are looked up
// at run time because a LibTorch without MKL or OpenMP has no such symbols.
#include "server/base/serial_torch.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>

namespace ess {
namespace {

int OpenMpThreads() { return at::get_num_threads(); }

void SetOpenMpThreads(int threads) {
  using SetThreads = void (*)(int);
  static const auto set = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  if (set != nullptr) set(threads);
}

// Returns the previous number; 0 means "no number of this thread's own".
int SetMklThreads(int threads) {
  using SetThreads = int (*)(int);
  static const auto set =
      reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "MKL_Set_Num_Threads_Local"));
  return set != nullptr ? set(threads) : 0;
}

}  // namespace

SerialTorch::SerialTorch()
    : previous_openmp_threads_(OpenMpThreads()), previous_mkl_threads_(SetMklThreads(1)) {
  SetOpenMpThreads(1);
}

SerialTorch::~SerialTorch() {
  SetOpenMpThreads(previous_openmp_threads_);
  SetMklThreads(previous_mkl_threads_);
}

}  // namespace ess
